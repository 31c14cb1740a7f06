"""The store: appends, reads, folds, decisions, and what a consumer calls."""
# Written by tools/unasync.py from the module of the same name in _async.
from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, Union

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from eventstore.errors import (ConditionFailed, DuplicateEvent, EventStoreError, WrongExpectedVersion,
                               is_connection_lost, is_transient, translated)
from eventstore.model import (DELIVERY_COLUMNS, EVENT_COLUMNS, Appended, AppendedIf, Decided, Delivery, Executed,
                              Expected, NewEvent, Query, RecordedEvent, Retry, State, delivery_of, event_of)

T = TypeVar("T")
S = TypeVar("S")
Row = tuple[Any, ...]
Source = Union[str, "psycopg.Connection[Any]",
                    Callable[[], AbstractContextManager["psycopg.Connection[Any]"]]]


class EventStore:
    """A store, over connections of psycopg.

    `source` is one of three:
    - a connection string. Connections in autocommit mode are opened as calls need them, kept, and replaced when
      they are lost. They prepare no statement, unless `prepare_threshold` says so, and so work behind pgbouncer.
    - a function that lends a connection, such as `pool.connection` of psycopg_pool.
    - a connection. All calls are made on it, in its transaction if it has one.

    `page` is how many events a read gets at a time.
    """

    def __init__(self, source: Source, *, page: int = 500, prepare_threshold: int | None = None) -> None:
        if page < 1:
            raise ValueError("page must be at least 1")
        self._source = source
        self._page = page
        self._prepare_threshold = prepare_threshold
        self._idle: list[psycopg.Connection[Any]] = []

    def __enter__(self) -> EventStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that the store has opened and that no call is using."""
        while self._idle:
            self._idle.pop().close()

    @property
    def is_bound(self) -> bool:
        """Whether all calls are made on one connection of the caller."""
        return isinstance(self._source, psycopg.Connection)

    @property
    def conninfo(self) -> str | None:
        """The connection string, if that is what the store was made from."""
        return self._source if isinstance(self._source, str) else None

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lends a connection, for statements of your own."""
        if isinstance(self._source, psycopg.Connection):
            yield self._source
        elif callable(self._source):
            with self._source() as lent:
                yield lent
        else:
            try:
                own = self._idle.pop()
            except IndexError:
                own = psycopg.Connection.connect(
                    self._source, autocommit=True, prepare_threshold=self._prepare_threshold)
            try:
                yield own
            finally:
                if not own.closed and own.info.transaction_status == TransactionStatus.IDLE:
                    self._idle.append(own)
                else:
                    own.close()

    @contextmanager
    def transaction(self) -> Iterator[EventStore]:
        """Yields a store whose calls take effect together at the end of the block, or not at all.

        Its connection(), too, is in the transaction. Inside a transaction the block is a savepoint.
        """
        with self.connection() as connection, connection.transaction():
            yield EventStore(connection, page=self._page)

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Runs a statement; returns its rows. Errors of eventstore are typed."""
        try:
            with translated():
                with self.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
                    cursor.execute(statement, parameters)
                    return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as error:
            if is_connection_lost(error):
                self.close()  # the others are likely to be lost, too
            raise

    def repeat(self, attempt: Callable[[], T], retry: Retry = Retry(),
                     also: tuple[type[EventStoreError], ...] = ()) -> T:
        """Repeats what fails because the connection was lost, or the server asks to try again.

        It is safe if the attempt appends with ids that were made before the first one. `also` are errors to
        repeat besides. On a connection of the caller only these are repeated.
        """
        pauses = retry.pauses()
        while True:
            try:
                return attempt()
            except psycopg.DatabaseError as error:
                if not isinstance(error, also) and (self.is_bound or not is_transient(error)):
                    raise
                pause = next(pauses, None)
                if pause is None:
                    raise
            time.sleep(pause)

    # Appending

    def append(self, stream: str, expected: Expected, event: NewEvent) -> Appended:
        """Appends an event to a stream that is at the expected version."""
        rows = self.fetch(
            "SELECT version, position FROM es_append(%s, %s, %s, %s, %s, %s, %s::timestamptz, %s::text[], %s)",
            (stream, expected, event.type, Jsonb(event.data),
             None if event.metadata is None else Jsonb(dict(event.metadata)), event.id, event.occurred_at,
             list(event.tags) or None, event.body))
        return Appended(*rows[0])

    def append_batch(self, stream: str, expected: Expected, events: Iterable[NewEvent]) -> Appended:
        """Appends events to a stream, all or none."""
        rows = self.fetch("SELECT version, position FROM es_append_batch(%s, %s, %s)",
                                (stream, expected, Jsonb([event.as_json() for event in events])))
        return Appended(*rows[0])

    def append_if(self, events: Iterable[NewEvent], query: Query, after_position: int = 0) -> AppendedIf:
        """Appends events to their streams, all or none, if no event after the position matches the query."""
        rows = self.fetch("SELECT first_position, position FROM es_append_if(%s, %s, %s)",
                                (Jsonb([event.as_json() for event in events]), Jsonb(query), after_position))
        return AppendedIf(*rows[0])

    # Reading

    def load(self, stream: str, after_version: int = 0, *,
                   max_count: int | None = None) -> Iterator[RecordedEvent]:
        """Yields the events of a stream in version order. It reads them in pages, each in a statement of its own."""
        left = max_count
        while left is None or left > 0:
            size = self._page if left is None else min(self._page, left)
            rows = self.fetch(f"SELECT {EVENT_COLUMNS} FROM es_load(%s, %s, %s)", (stream, after_version, size))
            for row in rows:
                yield event_of(row)
            if len(rows) < size:
                return
            after_version = rows[-1][1]
            left = None if left is None else left - size

    def read(self, after_position: int = 0, *, query: Query | None = None,
                   max_count: int | None = None) -> Iterator[RecordedEvent]:
        """Yields the events of the log, or those that match a query, in position order up to the horizon."""
        left = max_count
        while left is None or left > 0:
            size = self._page if left is None else min(self._page, left)
            rows = self.fetch(f"SELECT {EVENT_COLUMNS} FROM es_read(%s, %s, %s)",
                                    (after_position, size, None if query is None else Jsonb(query)))
            for row in rows:
                yield event_of(row)
            if len(rows) < size:
                return
            after_position = rows[-1][0]
            left = None if left is None else left - size

    def query(self, query: Query, after_position: int = 0) -> list[RecordedEvent]:
        """Returns the events that match, for a decision whose events append_if stores."""
        rows = self.fetch(f"SELECT {EVENT_COLUMNS} FROM es_query(%s, %s)", (Jsonb(query), after_position))
        return [event_of(row) for row in rows]

    def stream_version(self, stream: str) -> int:
        """Returns the version of the last event of a stream; 0 if there is none."""
        return int((self.fetch("SELECT es_stream_version(%s)", (stream,)))[0][0])

    def last_event(self, stream: str, type: str | None = None) -> RecordedEvent | None:
        """Returns the last event of a stream, or its last event of a type."""
        rows = self.fetch(f"SELECT {EVENT_COLUMNS} FROM es_last_event(%s, %s)", (stream, type))
        return event_of(rows[0]) if rows else None

    def event(self, id: uuid.UUID) -> RecordedEvent | None:
        """Returns the event with this id."""
        rows = self.fetch(f"SELECT {EVENT_COLUMNS} FROM es_event(%s)", (id,))
        return event_of(rows[0]) if rows else None

    def state(self, stream: str, reducer: str, *, initial: Any = None, at_version: int | None = None,
                    at_time: datetime | None = None, by_time: Literal["recorded", "occurred"] = "recorded") -> State:
        """Returns the fold of a stream by a reducer of the database. `initial` is {} if it is None."""
        rows = self.fetch("SELECT state, version FROM es_state(%s, %s, %s, %s, %s::timestamptz, %s)",
                                (stream, reducer, Jsonb({} if initial is None else initial), at_version, at_time,
                                 by_time))
        return State(*rows[0])

    def wait(self, projection: str, position: int | Appended | AppendedIf | Decided | Executed | None,
                   timeout: float = 5.0) -> bool:
        """Waits until a projection has handled a position, so that a program reads its own writes.

        Takes what an append or a decision returned as well. Returns False when the time is over.
        """
        upto = position if position is None or isinstance(position, int) else position.position
        if upto is None:
            return True  # nothing was appended
        rows = self.fetch("SELECT es_wait(%s, %s, %s::interval)", (projection, upto, timedelta(seconds=timeout)))
        return bool(rows[0][0])

    # Deciding

    def execute(self, stream: str, decider: str, command: Any, reducer: str, *,
                      command_id: uuid.UUID | None = None, metadata: dict[str, Any] | None = None,
                      expected: Expected = "any", initial: Any = None) -> Executed:
        """Lets the database decide a command on the state of the locked stream, by es_execute.

        With a `command_id` the command is executed once, however often the call is repeated.
        """
        if command_id is not None:
            metadata = {**(metadata or {}), "command_id": str(command_id)}
        rows = self.fetch("SELECT version, position, state, events FROM es_execute(%s, %s, %s, %s, %s, %s, %s)",
                                (stream, decider, Jsonb(command), reducer,
                                 None if metadata is None else Jsonb(metadata), expected,
                                 Jsonb({} if initial is None else initial)))
        return Executed(*rows[0])

    def decide(self, stream: str, decide: Callable[[S], Iterable[NewEvent]], *,
                     evolve: Callable[[S, RecordedEvent], S], initial: S, command_id: uuid.UUID | None = None,
                     retry: Retry = Retry()) -> Decided:
        """Loads a stream, decides on the fold of its events, and appends; begins again on a conflict.

        `evolve(state, event)` must not change `initial`. `decide(state)` may be called more than once; an
        exception of it refuses the command. Pass the `command_id` that is stored with the command, so that the
        command takes effect once even if another process repeats it.
        """
        command = command_id or uuid.uuid4()
        first = uuid.uuid5(command, f"{stream}:1")

        def attempt() -> Decided:
            state, version = initial, 0
            for event in self.load(stream):
                if event.id == first:
                    return self._repeated(command, stream)
                state, version = evolve(state, event), event.version
            return self._append_decided(stream, version, command, decide(state))

        return self.repeat(attempt, retry, (WrongExpectedVersion, DuplicateEvent))

    def decide_state(self, stream: str, decide: Callable[[Any], Iterable[NewEvent]], *, reducer: str,
                           initial: Any = None, command_id: uuid.UUID | None = None,
                           retry: Retry = Retry()) -> Decided:
        """Decides as decide() does, on a state that a reducer of the database makes, from its snapshot on."""
        command = command_id or uuid.uuid4()

        def attempt() -> Decided:
            loaded = self.state(stream, reducer, initial=initial)
            # After the state: what is not found now is not in it, either.
            if self.event(uuid.uuid5(command, f"{stream}:1")) is not None:
                return self._repeated(command, stream)
            return self._append_decided(stream, loaded.version, command, decide(loaded.state))

        return self.repeat(attempt, retry, (WrongExpectedVersion, DuplicateEvent))

    def decide_if(self, query: Query, decide: Callable[[S], Iterable[NewEvent]], *,
                        evolve: Callable[[S, RecordedEvent], S], initial: S, command_id: uuid.UUID | None = None,
                        retry: Retry = Retry()) -> Decided:
        """Decides on the fold of the events that match a query, and appends if no other has come."""
        command = command_id or uuid.uuid4()

        def attempt() -> Decided:
            state, position = initial, 0
            for event in self.query(query):
                state, position = evolve(state, event), event.position
            if self.event(uuid.uuid5(command, ":1")) is not None:
                return self._repeated(command, "")
            events = with_ids(decide(state), command, "")
            if not events:
                return Decided(None, None, 0)
            with self._savepoint() as store:
                appended = store.append_if(events, query, position)
            return Decided(None, appended.position, len(events))

        return self.repeat(attempt, retry, (ConditionFailed, WrongExpectedVersion, DuplicateEvent))

    def _append_decided(self, stream: str, version: int, command: uuid.UUID,
                              decided: Iterable[NewEvent]) -> Decided:
        events = with_ids(decided, command, stream)
        if not events:
            return Decided(version, None, 0)
        with self._savepoint() as store:
            appended = store.append_batch(stream, version, events)
        return Decided(appended.version, appended.position, len(events))

    def _repeated(self, command: uuid.UUID, prefix: str) -> Decided:
        """Finds what an earlier attempt has stored, by the ids."""
        count, version, position, step = 0, 0, 0, 100
        while True:
            ids = [uuid.uuid5(command, f"{prefix}:{count + n}") for n in range(1, step + 1)]
            found = (self.fetch("SELECT count(*), max(version), max(position) FROM es_events"
                                      " WHERE id = ANY (%s)", (ids,)))[0]
            count += found[0]
            version, position = max(version, found[1] or 0), max(position, found[2] or 0)
            if found[0] < step:
                return Decided(version if prefix else None, position, count, repeated=True)

    @contextmanager
    def _savepoint(self) -> Iterator[EventStore]:
        """In a transaction of the caller, lets the next attempt go on after an error of this one."""
        if isinstance(self._source, psycopg.Connection):
            with self._source.transaction():
                yield self
        else:
            yield self

    # Consuming

    def poll(self, subscription: str, consumer: str | None = None, *, max_count: int = 100, wait: float = 0.0,
                   after_token: int | None = None) -> list[Delivery]:
        """Gets the next events of a partition; waits for some, so many seconds, if there are none."""
        rows = self.fetch(f"SELECT {DELIVERY_COLUMNS} FROM es_poll(%s, %s, %s, %s::interval, %s)",
                                (subscription, consumer, max_count, timedelta(seconds=wait), after_token))
        return [delivery_of(row) for row in rows]

    def ack(self, subscription: str, token: int, upto_position: int | None = None) -> int:
        """Acknowledges a delivery, or its events up to a position; returns the checkpoint."""
        return int((self.fetch("SELECT es_ack(%s, %s, %s)", (subscription, token, upto_position)))[0][0])

    def renew(self, subscription: str, token: int) -> None:
        """Lets the lease of a delivery begin anew, and acknowledges nothing."""
        self.ack(subscription, token, 0)

    def nack(self, subscription: str, token: int, position: int, reason: str,
                   action: Literal["retry", "park", "skip"] = "retry") -> str:
        """Settles an event that could not be handled; returns the action that was taken."""
        rows = self.fetch("SELECT es_nack(%s, %s, %s, %s, %s)", (subscription, token, position, reason, action))
        return str(rows[0][0])

    # Positions that a program keeps

    def incarnation(self) -> uuid.UUID:
        """Returns the id to be kept beside a position."""
        return uuid.UUID(str((self.fetch("SELECT es_incarnation()"))[0][0]))

    def position_valid(self, incarnation: uuid.UUID | None, position: int) -> bool:
        """Returns whether the log has everything up to the position as it was read in the incarnation."""
        return bool((self.fetch("SELECT es_position_valid(%s, %s)", (incarnation, position)))[0][0])


def with_ids(events: Iterable[NewEvent], command: uuid.UUID, prefix: str) -> list[NewEvent]:
    """Gives the events of a command the ids that es_execute and es_decide give them, too."""
    result = []
    for number, event in enumerate(events, 1):
        if event.id is not None:
            raise ValueError("the events of a decision have no ids of their own")
        result.append(replace(event, id=uuid.uuid5(command, f"{prefix}:{number}")))
    return result
