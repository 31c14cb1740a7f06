"""What waits: with threads here, with asyncio in the module of the same name in _async."""
from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable
from typing import Any

from eventstore.model import Delivery

Handler = Callable[[Delivery], Any]


class Stop:
    """Asks a loop to end. set() may be called from another thread, or from a signal handler."""

    def __init__(self) -> None:
        self._set = False  # a lock, as threading.Event has, could be held by what the signal interrupts

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, seconds: float) -> bool:
        """Waits for set(), at most so long; returns whether it was called."""
        until = time.monotonic() + seconds
        while not self._set and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
        return self._set


class Repeated:
    """Calls something every so many seconds, in a thread of its own, until the block ends."""

    def __init__(self, call: Callable[[], bool], every: float | None) -> None:
        self._call = call
        self._every = every
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Repeated:
        if self._every is not None:
            self._thread = threading.Thread(target=self._run, args=(self._every,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, every: float) -> None:
        while not self._ended.wait(every):
            if not self._call():
                return


def readable(fileno: int, seconds: float) -> bool:
    """Waits until there is something to read, at most so long."""
    with selectors.DefaultSelector() as selector:
        selector.register(fileno, selectors.EVENT_READ)
        return bool(selector.select(seconds))
