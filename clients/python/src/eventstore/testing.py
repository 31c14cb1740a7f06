"""Helpers for tests: deciders without a database, and stores whose changes are rolled back."""
from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timezone
from typing import Any, Generic, TypeVar

import psycopg

from eventstore._async.store import AsyncEventStore
from eventstore._sync.store import EventStore
from eventstore.model import NewEvent, RecordedEvent

S = TypeVar("S")


def recorded(*events: NewEvent, stream: str = "test-1", recorded_at: datetime | None = None) -> list[RecordedEvent]:
    """Returns events as a log that has them alone would, with positions and versions from 1."""
    at = recorded_at or datetime.now(timezone.utc)
    versions: dict[str, int] = {}
    result = []
    for position, event in enumerate(events, 1):
        name = event.stream or stream
        versions[name] = versions.get(name, 0) + 1
        result.append(RecordedEvent(
            position, versions[name], at, event.occurred_at, event.id or uuid.uuid4(), name, event.type, event.data,
            None if event.metadata is None else dict(event.metadata), tuple(sorted(set(event.tags))), event.body))
    return result


class Given(Generic[S]):
    """Given events, when a decider is called, then other events follow, or it refuses.

        given(evolve, Account(), NewEvent("opened")).when(withdraw(20)).raises(NotEnough)
    """

    def __init__(self, evolve: Callable[[S, RecordedEvent], S], initial: S, *events: NewEvent) -> None:
        self._state = initial
        for event in recorded(*events):
            self._state = evolve(self._state, event)
        self._outcome: list[NewEvent] | Exception | None = None

    def when(self, decide: Callable[[S], Iterable[NewEvent]]) -> Given[S]:
        try:
            self._outcome = list(decide(self._state))
        except Exception as error:
            self._outcome = error
        return self

    def then(self, *events: NewEvent) -> None:
        """Fails unless just these events were decided."""
        if isinstance(self._outcome, Exception):
            raise AssertionError(f"the decider refused: {self._outcome!r}") from self._outcome
        assert self._outcome == list(events), f"decided on {self._outcome}, not on {list(events)}"

    def raises(self, kind: type[Exception]) -> Exception:
        """Fails unless the decider refused with such an exception; returns it."""
        if isinstance(self._outcome, kind):
            return self._outcome
        if isinstance(self._outcome, Exception):
            raise AssertionError(f"refused with {self._outcome!r}, not {kind.__name__}") from self._outcome
        raise AssertionError(f"decided on {self._outcome}, and did not refuse")


given = Given


@contextmanager
def rolled_back(source: str | psycopg.Connection[Any]) -> Iterator[EventStore]:
    """Yields a store in a transaction that is rolled back at the end of the block.

    In it es_run_projections, es_wait and es_poll see what the test has appended. Its connection() takes other
    statements.
    """
    if isinstance(source, str):
        with psycopg.connect(source, autocommit=True) as connection, rolled_back(connection) as store:
            yield store
        return
    with source.transaction(force_rollback=True):
        yield EventStore(source)


@asynccontextmanager
async def async_rolled_back(source: str | psycopg.AsyncConnection[Any]) -> AsyncIterator[AsyncEventStore]:
    """Does what rolled_back does, for asyncio."""
    if isinstance(source, str):
        async with await psycopg.AsyncConnection.connect(source, autocommit=True) as connection:
            async with async_rolled_back(connection) as store:
                yield store
        return
    async with source.transaction(force_rollback=True):
        yield AsyncEventStore(source)
