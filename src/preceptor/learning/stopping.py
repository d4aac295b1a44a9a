"""How a training is asked to stop, so that it can save first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def asked_to_stop(ask: Callable[[int], None], *numbers: signal.Signals) -> Iterator[None]:
    """`ask` is called with the number of each of these signals; outside the main thread there are none to hear."""

    def heard(number: int, *_: object) -> None:
        ask(number)

    before = {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, heard)
    except ValueError:  # not in the main thread
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
