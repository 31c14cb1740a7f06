"""Client of eventstore, the PostgreSQL extension that makes a database an event store, on psycopg 3."""
from eventstore._async.consumer import AsyncConsumer
from eventstore._async.io import AsyncStop
from eventstore._async.live import AsyncListener
from eventstore._async.live import follow as async_follow
from eventstore._async.store import AsyncEventStore
from eventstore._sync.consumer import Consumer
from eventstore._sync.io import Stop
from eventstore._sync.live import Listener, follow
from eventstore._sync.store import EventStore
from eventstore.errors import (ConditionFailed, DuplicateEvent, EventStoreError, InvalidEvent, NotClaimed,
                               PositionLost, ProjectionFailed, StreamClosed, SubjectErased,
                               WrongExpectedVersion, WrongShard, is_connection_lost, is_transient)
from eventstore.model import (Appended, AppendedIf, Decided, Delivery, Executed, Expected, NewEvent, Park, Query,
                              RecordedEvent, Retry, Settle, Skip, State)

__all__ = [
    "Appended", "AppendedIf", "AsyncConsumer", "AsyncEventStore", "AsyncListener", "AsyncStop", "ConditionFailed",
    "Consumer", "Decided", "Delivery", "DuplicateEvent", "EventStore", "EventStoreError", "Executed", "Expected",
    "InvalidEvent", "Listener", "NewEvent", "NotClaimed", "Park", "PositionLost", "ProjectionFailed", "Query",
    "RecordedEvent", "Retry", "Settle", "Skip", "State", "Stop", "StreamClosed", "SubjectErased",
    "WrongExpectedVersion", "WrongShard", "async_follow", "follow", "is_connection_lost", "is_transient",
]
