"""Errors of eventstore as classes, with the values that DETAIL has.

An error of class ES is raised as one of these. Each is a psycopg.DatabaseError with the SQLSTATE in
`sqlstate`, and the driver's own error is its cause. Other errors are the driver's, unchanged.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

_WRONG_VERSION = re.compile(r"is (any|none|exists|\d+), its actual version is (\d+)\.$")
_FIRST_MATCH = re.compile(r"at position (\d+)\.$")
_SLOT = re.compile(r"^Its slot is (\d+)\.")
_QUOTED = re.compile(r'stream "(.*)"', re.DOTALL)
_SUBJECT = re.compile(r'^subject "(.*)" was erased$', re.DOTALL)


class EventStoreError(psycopg.DatabaseError):
    """An error of eventstore: message, detail and hint are those of the server."""

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message if detail is None else f"{message}\nDETAIL:  {detail}")
        self.message = message
        self.detail = detail
        self.hint = hint

    @property
    def stream(self) -> str | None:
        """The stream that the message names, if it names one."""
        match = _QUOTED.search(self.message)
        return match[1] if match else None


class WrongExpectedVersion(EventStoreError):
    """ES001: the stream is at another version than was expected."""

    sqlstate = "ES001"

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, detail, hint)
        match = _WRONG_VERSION.search(detail or "")
        self.expected: int | str | None = None
        self.actual: int | None = None
        if match:
            self.expected = int(match[1]) if match[1].isdigit() else match[1]
            self.actual = int(match[2])


class DuplicateEvent(EventStoreError):
    """ES002: an id is stored already, and the append is no retry of it."""

    sqlstate = "ES002"


class StreamClosed(EventStoreError):
    """ES003: the stream was deleted for good."""

    sqlstate = "ES003"


class InvalidEvent(EventStoreError):
    """ES004: an event is not what its type is defined as."""

    sqlstate = "ES004"


class ProjectionFailed(EventStoreError):
    """ES005: the projection that is waited for has stopped, or has parked the event."""

    sqlstate = "ES005"


class NotClaimed(EventStoreError):
    """ES006: nothing is in flight with the token."""

    sqlstate = "ES006"


class ConditionFailed(EventStoreError):
    """ES007: an event matches the query of a conditional append. `position` is that of the first one."""

    sqlstate = "ES007"

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, detail, hint)
        match = _FIRST_MATCH.search(detail or "")
        self.position = int(match[1]) if match else None


class SubjectErased(EventStoreError):
    """ES008: the person was erased, and nothing personal is stored of them any more. `subject` names the person."""

    sqlstate = "ES008"

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, detail, hint)
        match = _SUBJECT.search(message)
        self.subject = match[1] if match else None


class WrongShard(EventStoreError):
    """ES009: the stream is of another store. `slot` is that of the stream, from 0 to 1023."""

    sqlstate = "ES009"

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, detail, hint)
        match = _SLOT.search(detail or "")
        self.slot = int(match[1]) if match else None


class PositionLost(Exception):
    """The log lacks events that were read up to the position: it was restored, or a standby was promoted."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the log is not the one that was read up to position {position}")
        self.position = position


BY_SQLSTATE: dict[str | None, type[EventStoreError]] = {
    error.sqlstate: error
    for error in (WrongExpectedVersion, DuplicateEvent, StreamClosed, InvalidEvent, ProjectionFailed,
                  NotClaimed, ConditionFailed, SubjectErased, WrongShard)
}


@contextmanager
def translated() -> Iterator[None]:
    """Raises the typed error instead of the driver's."""
    try:
        yield
    except psycopg.DatabaseError as error:
        kind = BY_SQLSTATE.get(error.sqlstate)
        if kind is None or isinstance(error, EventStoreError):
            raise
        diag = error.diag
        raise kind(diag.message_primary or "", diag.message_detail, diag.message_hint) from error


def is_connection_lost(error: BaseException) -> bool:
    """Returns True if the connection is gone, so that it is unknown whether a commit took effect."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    state = error.sqlstate
    return state is None or state[:2] in ("08", "53") or state in ("57P01", "57P02", "57P03", "25P03", "25P04")


def is_transient(error: BaseException) -> bool:
    """Returns True if the same call, repeated with the same ids after a pause, may succeed."""
    return is_connection_lost(error) or getattr(error, "sqlstate", None) in ("40001", "40P01", "55P03")
