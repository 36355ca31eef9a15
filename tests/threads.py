"""Several acts at once, each in a thread and with a connection of its own."""

import threading
from collections.abc import Callable, Sequence

from django.db import connections


def at_once(acts: Sequence[Callable[[], object]]) -> list[object]:
    """Begin them together; what each returned or raised, in their order."""
    outcomes: list[object] = [None] * len(acts)
    together = threading.Barrier(len(acts))

    def run(number: int) -> None:
        try:
            together.wait()
            outcomes[number] = acts[number]()
        except BaseException as error:
            outcomes[number] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
