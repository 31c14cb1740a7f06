"""The loop of a consumer of a subscription."""
# Written by tools/unasync.py from the module of the same name in _async.
from __future__ import annotations

import logging
from typing import Literal, cast

import psycopg

from eventstore._sync.io import Handler, Repeated, Stop
from eventstore._sync.live import Listener
from eventstore._sync.store import EventStore
from eventstore.errors import NotClaimed, is_transient
from eventstore.model import Delivery, Retry, Settle

log = logging.getLogger("eventstore")

PAUSES = Retry(retries=10, first=0.1, most=10.0)


class Consumer:
    """Gives the events of a subscription to a handler, one after the other.

    An event whose handler returns is acknowledged, with the rest of its delivery. One whose handler raises an
    exception is redelivered after a pause, and parked at the last attempt; `Park` and `Skip` say otherwise. Later
    events of its stream wait behind it. Delivery is at least once.

    - `name`: one running program at a time has it. After a restart it gets what it had in flight at once.
    - `max_count`: how many events a delivery has at most.
    - `wait`: how long es_poll waits in the server, and so how long a stop may take. While it waits it keeps a
      connection of the server, of a pool, too. With 0 the consumer waits by itself, and looks every `interval` seconds.
    - `listen`: with `wait=0`, a connection string past the pooler, by which appends wake the consumer at once.
    - `renew_every`: the lease is renewed so often, in seconds, while the handler runs. It must be shorter than the
      lease of the subscription, which is 30 seconds by default. None: it is not renewed.
    """

    def __init__(self, store: EventStore, subscription: str, handler: Handler, *, name: str | None = None,
                 max_count: int = 100, wait: float = 2.0, interval: float = 1.0, listen: str | None = None,
                 renew_every: float | None = 10.0) -> None:
        if listen is not None and wait > 0:
            raise ValueError("listen is for a consumer with wait=0")
        self._store = store
        self._subscription = subscription
        self._handler = handler
        self._name = name
        self._max_count = max_count
        self._wait = wait
        self._interval = interval
        self._listener = None if listen is None else Listener(listen)
        # On a connection of the caller the handler's transaction may be open.
        self._renew_every = None if store.is_bound else renew_every
        self._stop = Stop()
        self._lost = False

    def stop(self) -> None:
        """Asks run() to end after the event that is being handled. A signal handler may call it."""
        self._stop.set()

    def run(self) -> None:
        """Handles events until stop() is called. Lost connections are replaced; other errors end it."""
        pauses = PAUSES.pauses()
        try:
            while not self._stop.is_set():
                try:
                    if not self._handle_next(self._wait) and self._wait <= 0:
                        self._idle()
                    pauses = PAUSES.pauses()
                except psycopg.DatabaseError as error:
                    if self._store.is_bound or not is_transient(error):
                        raise
                    pause = next(pauses, PAUSES.most)
                    log.warning("%s: next try in %.1f s: %s", self._subscription, pause, error)
                    self._stop.wait(pause)
        finally:
            if self._listener is not None:
                self._listener.close()

    def run_until_empty(self) -> int:
        """Handles what there is, for tests; returns how many events were delivered."""
        count = 0
        while not self._stop.is_set() and (delivered := self._handle_next(0)):
            count += delivered
        return count

    def _idle(self) -> None:
        if self._listener is None:
            self._stop.wait(self._interval)
        else:
            self._listener.wait(self._interval, self._stop)

    def _handle_next(self, wait: float) -> int:
        """Handles a delivery; returns how many events it had."""
        deliveries = self._store.poll(self._subscription, self._name, max_count=self._max_count, wait=wait)
        if deliveries:
            try:
                self._handle(deliveries)
            except NotClaimed as error:
                log.warning("%s: another consumer has these events now: %s", self._subscription, error.detail)
        return len(deliveries)

    def _handle(self, deliveries: list[Delivery]) -> None:
        token = deliveries[0].token
        done: int | None = None
        failed: set[str] = set()
        self._lost = False

        def renew() -> bool:
            try:
                self._store.renew(self._subscription, token)
            except NotClaimed:
                self._lost = True
            except psycopg.DatabaseError as error:
                log.warning("%s: the lease was not renewed: %s", self._subscription, error)
            return not self._lost

        with Repeated(renew, self._renew_every):
            for delivery in deliveries:
                if self._lost or self._stop.is_set():
                    break
                if delivery.stream not in failed and not self._settle(delivery):
                    failed.add(delivery.stream)
                done = delivery.position
        if self._lost:
            log.warning("%s: another consumer has these events now", self._subscription)
        elif done == deliveries[-1].position:
            self._store.ack(self._subscription, token)
        elif done is not None:
            self._store.ack(self._subscription, token, done)

    def _settle(self, delivery: Delivery) -> bool:
        """Handles an event. Returns False if it comes again, or is parked."""
        try:
            self._handler(delivery)
            return True
        except Exception as error:
            action = cast(Literal["retry", "park", "skip"], error.action if isinstance(error, Settle) else "retry")
            reason = str(error) or type(error).__name__
            log.info("%s: %s at position %d: %s", self._subscription, action, delivery.position, reason)
        taken = self._store.nack(self._subscription, delivery.token, delivery.position, reason, action)
        return taken == "skip"
