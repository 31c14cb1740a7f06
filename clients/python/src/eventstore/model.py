"""Events, results and limits. Versions, positions and tokens are int, which is exact at any size."""
from __future__ import annotations

import base64
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Union

Expected = Union[int, Literal["any", "none", "exists"]]
"""The version that a stream must be at: a number, or a word."""

Query = Sequence[Mapping[str, Sequence[str]]]
"""Items with `types` and `tags`, such as [{"types": ["placed"], "tags": ["customer:ann"]}]."""


@dataclass(frozen=True)
class NewEvent:
    """An event to append. `data` is what json.dumps takes; None is JSON's null.

    `stream` and `expected_version` are for append_if and decide_if alone.
    """

    type: str
    data: Any = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None
    id: uuid.UUID | None = None
    occurred_at: datetime | None = None
    tags: Sequence[str] = ()
    body: bytes | None = None
    stream: str | None = None
    expected_version: Expected | None = None

    def __post_init__(self) -> None:
        if isinstance(self.tags, str):
            raise TypeError("tags is a sequence of strings, not a string")
        if self.occurred_at is not None and self.occurred_at.utcoffset() is None:
            raise ValueError("occurred_at needs a time zone")

    def as_json(self) -> dict[str, Any]:
        """Returns the object that es_append_batch and es_append_if take."""
        result: dict[str, Any] = {"type": self.type, "data": self.data}
        if self.metadata is not None:
            result["metadata"] = dict(self.metadata)
        if self.id is not None:
            result["id"] = str(self.id)
        if self.occurred_at is not None:
            result["occurred_at"] = self.occurred_at.isoformat()
        if self.tags:
            result["tags"] = list(self.tags)
        if self.body is not None:
            result["body"] = base64.b64encode(self.body).decode("ascii")
        if self.stream is not None:
            result["stream"] = self.stream
        if self.expected_version is not None:
            result["expected_version"] = self.expected_version
        return result


@dataclass(frozen=True)
class RecordedEvent:
    """An event of the log."""

    position: int
    version: int
    recorded_at: datetime
    occurred_at: datetime | None
    id: uuid.UUID
    stream: str
    type: str
    data: Any
    metadata: dict[str, Any] | None
    tags: tuple[str, ...]
    body: bytes | None


@dataclass(frozen=True)
class Delivery(RecordedEvent):
    """An event that a subscription delivers. `attempt` is 1 the first time."""

    token: int
    partition: int
    attempt: int


@dataclass(frozen=True)
class Appended:
    """Version and position of the last event; the position is None if there was none to append."""

    version: int
    position: int | None


@dataclass(frozen=True)
class AppendedIf:
    """Positions of the first and the last event."""

    first_position: int
    position: int


@dataclass(frozen=True)
class State:
    """The fold of a stream, and the version of the last event in it."""

    state: Any
    version: int


@dataclass(frozen=True)
class Executed:
    """What es_execute returns."""

    version: int
    position: int | None
    state: Any
    events: int


@dataclass(frozen=True)
class Decided:
    """What a decision has stored. `events` is 0, and `position` None, if there was nothing to do.

    `version` is that of the stream; None after decide_if. `repeated` is True if an earlier attempt with
    the same command id has stored the events.
    """

    version: int | None
    position: int | None
    events: int
    repeated: bool = False


@dataclass(frozen=True)
class Retry:
    """How often to try again, and how long to pause: between half of first * 2 ** n and all of it, drawn at random.

    `timeout` bounds the time of all attempts in seconds; None: it does not.
    """

    retries: int = 10
    first: float = 0.01
    most: float = 1.0
    timeout: float | None = None

    def pauses(self) -> Iterator[float]:
        """Yields the pause before each retry; ends when no more is allowed."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        pause = self.first
        for _ in range(self.retries):
            drawn = pause * random.uniform(0.5, 1)
            if deadline is not None and time.monotonic() + drawn > deadline:
                return
            yield drawn
            pause = min(pause * 2, self.most)


EVENT_COLUMNS = "position, version, recorded_at, occurred_at, id, stream, type, data, metadata, tags, body"
DELIVERY_COLUMNS = EVENT_COLUMNS + ", token, partition, attempt"


def _with_tags(row: Sequence[Any]) -> list[Any]:
    return [*row[:9], tuple(row[9] or ()), *row[10:]]


def event_of(row: Sequence[Any]) -> RecordedEvent:
    """Makes an event of a row with EVENT_COLUMNS."""
    return RecordedEvent(*_with_tags(row))


def delivery_of(row: Sequence[Any]) -> Delivery:
    """Makes a delivery of a row with DELIVERY_COLUMNS."""
    return Delivery(*_with_tags(row))


class Settle(Exception):
    """A handler of a consumer raises one of the subclasses to say what becomes of its event."""

    action = "retry"


class Park(Settle):
    """Park the event: it is not delivered before es_retry."""

    action = "park"


class Skip(Settle):
    """Never deliver the event again."""

    action = "skip"
