"""A WSGI callable, served as by `serve`: `python -m tests.bench.host MODULE:NAME PORT WORKERS [THREADS]`."""

import sys

from portal import server


def main() -> None:
    target, port, workers, *threads = sys.argv[1:]
    if threads:
        server.THREADS = int(threads[0])
    server.make(target, address="127.0.0.1", port=int(port), workers=int(workers)).serve()


if __name__ == "__main__":
    main()
