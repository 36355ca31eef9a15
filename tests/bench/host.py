"""A WSGI callable, served as by `serve`: `python -m tests.bench.host MODULE:NAME PORT WORKERS [THREADS]`."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from portal import server


def main() -> None:
    target, port, workers, *threads = sys.argv[1:]
    if threads:
        server.THREADS = int(threads[0])
    listener = server.listen("127.0.0.1", int(port))
    server.make(target, listener=listener, workers=int(workers)).run(_load)


def _load(target: str) -> Callable[..., Any]:  # a WSGI callable
    module, _, name = target.partition(":")
    application: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return application


if __name__ == "__main__":
    main()
