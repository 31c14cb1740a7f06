"""What waits: with asyncio here, with threads in the module of the same name in _sync."""
from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from eventstore.model import Delivery

AsyncHandler = Callable[[Delivery], Awaitable[Any]]


class AsyncStop:
    """Asks a loop to end. set() may be called from a signal handler."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    async def wait(self, seconds: float) -> bool:
        """Waits for set(), at most so long; returns whether it was called."""
        until = time.monotonic() + seconds
        while not self._set and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.05))
        return self._set


class AsyncRepeated:
    """Calls something every so many seconds, in a task of its own, until the block ends."""

    def __init__(self, call: Callable[[], Awaitable[bool]], every: float | None) -> None:
        self._call = call
        self._every = every
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncRepeated:
        if self._every is not None:
            self._task = asyncio.create_task(self._run(self._every))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            if not await self._call():
                return


async def readable(fileno: int, seconds: float) -> bool:
    """Waits until there is something to read, at most so long."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fileno, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    finally:
        loop.remove_reader(fileno)
    return True
