"""Following the log: LISTEN, and an iterator that never ends."""
# Written by tools/unasync.py from the module of the same name in _async.
from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from eventstore._sync.io import Stop, readable
from eventstore._sync.store import EventStore
from eventstore.errors import PositionLost, is_transient
from eventstore.model import EVENT_COLUMNS, Query, RecordedEvent, Retry, event_of

PAUSES = Retry(retries=8, first=0.1, most=5.0)


class Listener:
    """Waits for notifications of appends, and connects again when the connection is lost.

    `conninfo` must not lead to a pooler in transaction mode, where LISTEN is of no use.
    """

    def __init__(self, conninfo: str, category: str | None = None) -> None:
        self._conninfo = conninfo
        self._category = category
        self._connection: psycopg.Connection[Any] | None = None
        self._pauses = PAUSES.pauses()
        self._next_try = 0.0

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def wait(self, seconds: float, stop: Stop | None = None) -> bool:
        """Waits for a notification, at most so long. Returns False if none came.

        It returns True after it has connected, too, since what was notified before went unheard.
        """
        until = time.monotonic() + seconds
        stop = stop or Stop()
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            if self._connection is None:
                if time.monotonic() < self._next_try:
                    stop.wait(min(left, self._next_try - time.monotonic()))
                elif self._connect():
                    return True
            elif readable(self._connection.fileno(), min(left, 0.25)) and self._has_notification():
                return True
        return False

    def _connect(self) -> bool:
        try:
            connection = psycopg.Connection.connect(self._conninfo, autocommit=True)
            try:
                channel = "es_events"
                if self._category is not None:
                    cursor = connection.execute("SELECT es_channel(%s)", (self._category,))
                    channel = (cursor.fetchone() or (channel,))[0]
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            except BaseException:
                connection.close()
                raise
        except psycopg.OperationalError:
            pause = next(self._pauses, PAUSES.most)
            self._next_try = time.monotonic() + pause
            return False
        self._connection = connection
        self._pauses = PAUSES.pauses()
        return True

    def _has_notification(self) -> bool:
        """Reads what has come. After an error the next wait connects again."""
        assert self._connection is not None
        pgconn = self._connection.pgconn
        try:
            pgconn.consume_input()
            found = pgconn.notifies() is not None
            while pgconn.notifies() is not None:
                pass
            return found
        except psycopg.OperationalError:
            self.close()
            return False


def follow(store: EventStore, after_position: int = 0, *, query: Query | None = None,
                 category: str | None = None, listen: str | None = None, interval: float = 1.0,
                 incarnation: uuid.UUID | None = None, stop: Stop | None = None) -> Iterator[RecordedEvent]:
    """Yields the events of the log after a position, and those to come, in order and without a gap.

    It waits by LISTEN on a connection of its own to `listen`, or to the store's connection string, and looks every
    `interval` seconds besides. A store without a connection string, and without `listen`, looks at intervals only.
    When a connection is lost it goes on from the last event. If the log is another one then, restored or promoted
    from a standby that was behind, it raises PositionLost. Pass the `incarnation` that is kept beside
    `after_position` to have that checked from the start. It ends when `stop` is set.
    """
    stop = stop or Stop()
    conninfo = listen or store.conninfo
    listener = None if conninfo is None else Listener(conninfo, category)
    pauses = PAUSES.pauses()
    position = after_position
    try:
        while not stop.is_set():
            try:
                rows = _page(store, position, query, category, incarnation)
            except psycopg.DatabaseError as error:
                if store.is_bound or not is_transient(error):
                    raise
                stop.wait(next(pauses, PAUSES.most))
                continue
            pauses = PAUSES.pauses()
            if rows[0][1] is False:
                raise PositionLost(position)
            incarnation = rows[0][0]
            events = [event_of(row[2:]) for row in rows if row[2] is not None]
            for event in events:
                if stop.is_set():
                    return
                yield event
                position = event.position
            if not events:
                if listener is None:
                    stop.wait(interval)
                else:
                    listener.wait(interval, stop)
    finally:
        if listener is not None:
            listener.close()


PAGE = 500
READ = f"SELECT {EVENT_COLUMNS} FROM es_read(%s, %s, %s)"
READ_CATEGORY = f"SELECT {EVENT_COLUMNS} FROM es_read(%s) WHERE es_category(stream) = %s ORDER BY position LIMIT %s"
# In one statement, so that the incarnation is that of the events; null: it was unknown.
CHECKED = ("SELECT es_incarnation(), (SELECT es_position_valid(p.incarnation, %s) FROM (SELECT %s::uuid) AS"
           " p (incarnation) WHERE p.incarnation IS NOT NULL), e.* FROM (SELECT) AS one LEFT JOIN LATERAL"
           " ({} OFFSET 0) AS e ON true")


def _page(store: EventStore, position: int, query: Query | None, category: str | None,
                incarnation: uuid.UUID | None) -> list[tuple[Any, ...]]:
    """Returns at least one row: the incarnation, whether the position is valid in it, and an event or nulls."""
    if category is not None and query is not None:
        raise ValueError("follow takes a category or a query, not both")
    statement = READ if category is None else READ_CATEGORY
    parameters: tuple[Any, ...] = (position, PAGE, None if query is None else Jsonb(query))
    if category is not None:
        parameters = (position, category, PAGE)
    return store.fetch(CHECKED.format(statement), (position, incarnation, *parameters))
