"""The loop of a consumer: order, failures, leases, stops, the pooler, and kills."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import psycopg
import pytest
from conftest import PATIENCE, running

import eventstore
from eventstore import NewEvent


def subscribe(database: Any, **named: Any) -> None:
    arguments = "".join(f", {name} => '{value}'" for name, value in named.items())
    database.query(f"SELECT es_create_subscription('mails', start_position => 0{arguments})")


def store_events(database: Any, count: int, streams: int = 5) -> None:
    database.query("INSERT INTO es_import (stream, type, data) SELECT 'order-' || mod(n, %s), 'placed',"
                   " jsonb_build_object('n', n) FROM generate_series(1, %s) AS n", streams, count)


def settled(database: Any) -> bool:
    answer = database.query("SELECT sum(lag_events) = 0 AND sum(in_flight) = 0 FROM es_subscription_status")
    return bool(answer == [True])


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_event_is_handled_in_order(client: Any, store: Any, database: Any) -> None:
    subscribe(database, partitions=2)
    store_events(database, 50)
    handled: list[Any] = []
    consumer = client.consumer(store, "mails", handled.append, name="mailer", max_count=7)
    assert consumer.run_until_empty() == 50
    assert sorted(event.data["n"] for event in handled) == list(range(1, 51))
    for stream in range(5):
        assert [e.version for e in handled if e.stream == f"order-{stream}"] == list(range(1, 11))
    assert all(e.attempt == 1 for e in handled)
    assert settled(database)


def test_failures_are_retried_parked_and_skipped(client: Any, store: Any, database: Any) -> None:
    subscribe(database, max_attempts=3)
    for stream in "abcd":
        store.append_batch(f"{stream}-1", "none", [NewEvent("placed", {"n": n}) for n in (1, 2)])
    handled: list[str] = []
    tries: Counter[str] = Counter()

    def handle(event: Any) -> None:
        tries[f"{event.stream} {event.version}"] += 1
        if event.stream == "a-1" and event.version == 1 and event.attempt == 1:
            raise RuntimeError("not now")
        if event.stream == "b-1" and event.version == 1:
            raise eventstore.Park("a bad address")
        if event.stream == "c-1" and event.version == 1:
            raise eventstore.Skip("no such order")
        handled.append(f"{event.stream} {event.version}")

    consumer = client.consumer(store, "mails", handle, name="mailer")
    consumer.run_until_empty()
    # What failed waits, with what is behind it in its stream. On a slow machine its pause may be over by now.
    assert handled[:3] == ["c-1 2", "d-1 1", "d-1 2"]
    assert database.query("SELECT DISTINCT message FROM es_failures WHERE stream = 'b-1' AND message IS NOT NULL"
                          " ORDER BY 1")[0] == "a bad address"
    with running(consumer.run):
        wait_until(lambda: "a-1 2" in handled)
        consumer.stop()
    assert handled == ["c-1 2", "d-1 1", "d-1 2", "a-1 1", "a-1 2"]
    assert (tries["a-1 1"], tries["b-1 1"], tries["b-1 2"], tries["c-1 1"]) == (2, 1, 0, 1)


def test_the_last_attempt_parks(client: Any, store: Any, database: Any) -> None:
    subscribe(database, max_attempts=2)
    store_events(database, 1)
    attempts: list[int] = []

    def handle(event: Any) -> None:
        attempts.append(event.attempt)
        raise ValueError

    consumer = client.consumer(store, "mails", handle, name="mailer", wait=0.5)
    with running(consumer.run):
        wait_until(lambda: len(attempts) == 2)
        database.until("SELECT sum(parked) = 1 FROM es_subscription_status")
        consumer.stop()
    assert attempts == [1, 2]
    assert database.query("SELECT message FROM es_failures") == ["ValueError"]


def test_a_lease_is_renewed_while_the_handler_runs(client: Any, store: Any, database: Any) -> None:
    subscribe(database, lease="1s")
    store_events(database, 2)
    handled: list[int] = []

    def handle(event: Any) -> None:
        handled.append(event.position)
        time.sleep(1.5)

    consumer = client.consumer(store, "mails", handle, name="slow", renew_every=0.3)
    with running(consumer.run_until_empty):
        wait_until(lambda: handled)
        with psycopg.connect(database.direct, autocommit=True) as other:
            deadline = time.monotonic() + 2.5
            while time.monotonic() < deadline:
                assert other.execute("SELECT * FROM es_poll('mails', 'other')").fetchall() == []
                time.sleep(0.1)
    assert handled == [1, 2] and settled(database)


def test_a_lease_that_expires_is_noticed(client: Any, store: Any, database: Any) -> None:
    subscribe(database, lease="0.5s")
    store_events(database, 3)
    handled: list[int] = []
    taken: list[Any] = []

    def handle(event: Any) -> None:
        handled.append(event.position)
        if not taken:  # another consumer gets the events, as the lease is not renewed
            time.sleep(0.7)
            taken.extend(database.query("SELECT token FROM es_poll('mails', 'other')"))

    consumer = client.consumer(store, "mails", handle, name="slow", renew_every=None)
    consumer.run_until_empty()
    assert handled == [1, 2, 3] and len(taken) == 3
    assert not settled(database)  # the other one has them
    database.query("SELECT es_ack('mails', %s)", taken[0])
    assert settled(database)
    # With renewal the rest of the delivery is left alone.
    database.query("SELECT es_seek('mails', 0)")
    handled.clear()
    taken.clear()

    def seek(event: Any) -> None:
        handled.append(event.position)
        if not taken:
            taken.append(database.query("SELECT es_seek('mails', 2)"))
            time.sleep(0.5)

    client.consumer(store, "mails", seek, name="slow", renew_every=0.1).run_until_empty()
    assert handled == [1, 3]


def test_a_stop_leaves_nothing_half_done(client: Any, store: Any, database: Any) -> None:
    subscribe(database)
    store_events(database, 20)
    handled: list[int] = []

    def handle(event: Any) -> None:
        handled.append(event.position)
        if len(handled) == 5:
            first.stop()

    first = client.consumer(store, "mails", handle, name="mailer")
    with running(first.run):
        pass
    assert handled == [1, 2, 3, 4, 5]
    assert database.query("SELECT position FROM es_subscription_status") == [5]
    client.consumer(store, "mails", handle, name="mailer").run_until_empty()
    assert handled == list(range(1, 21))  # each once


def test_a_waiting_consumer_stops_and_wakes(client: Any, store: Any, database: Any) -> None:
    subscribe(database)
    handled: list[float] = []
    options = [{"wait": 1.5}, {"wait": 0, "interval": 30.0, "listen": database.direct}, {"wait": 0, "interval": 0.2}]
    for option in options:
        handled.clear()
        consumer = client.consumer(store, "mails", lambda event: handled.append(time.monotonic()), name="mailer",
                                   **option)
        with running(consumer.run):
            time.sleep(0.6)
            appended = time.monotonic()
            store.append("order-1", "any", NewEvent("placed"))
            wait_until(lambda: handled)
            assert handled[0] - appended < 2.5
            consumer.stop()
    with pytest.raises(ValueError, match="wait=0"):
        client.consumer(store, "mails", handled.append, listen=database.direct)


def test_errors_of_the_program_end_it(client: Any, store: Any) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject):
        client.consumer(store, "no-such", print).run()


@pytest.mark.kills
def test_consumers_survive_kills(client: Any, conninfo: str, database: Any) -> None:
    """Three consumers and a writer; the server crashes twice, and sessions are ended."""
    subscribe(database, partitions=3, lease="2s")
    count = 600
    store = client.store(conninfo)
    handled: list[tuple[str, int]] = []
    fails: set[int] = set()

    def handle(event: Any) -> None:
        if event.data["n"] % 50 == 0 and event.data["n"] not in fails:
            fails.add(event.data["n"])
            raise RuntimeError("once")
        handled.append((event.stream, event.version))
        time.sleep(0.001)

    consumers = [client.consumer(store, "mails", handle, name=f"mailer-{n}", wait=0, interval=0.1, max_count=20,
                                 listen=database.direct, renew_every=0.5) for n in range(3)]

    def disturb() -> None:
        for least in (150, 300):
            wait_until(lambda: len(handled) >= least)
            database.crash()
        wait_until(lambda: len(handled) >= 450)
        database.end_sessions()
        database.until(f"SELECT count(*) = {count} FROM es_events")
        database.until("SELECT sum(lag_events) = 0 AND sum(in_flight) = 0 AND NOT EXISTS (SELECT FROM es_failures)"
                       " FROM es_subscription_status")
        for consumer in consumers:
            consumer.stop()

    def write() -> None:
        retry = eventstore.Retry(retries=100, most=0.2)
        for n in range(1, count + 1, 20):
            stream = f"order-{n % 7}"
            store.decide(stream, lambda state: [NewEvent("placed", {"n": n + m}) for m in range(20)],
                         evolve=lambda state, event: state, initial=None, retry=retry)

    with running(write, disturb, *[consumer.run for consumer in consumers]):
        pass
    stored = database.query("SELECT stream, version FROM es_events")
    assert len(stored) == count and set(handled) == set(stored)
    first: dict[tuple[str, int], int] = {}
    for number, key in enumerate(handled):
        first.setdefault(key, number)
    for (stream, version), number in first.items():
        assert version == 1 or first[(stream, version - 1)] < number
    assert len(fails) == count // 50
    assert len(handled) - count <= 3 * 3 * 20  # what was in flight, three times
    store.close()


PROGRAM = """
import signal, sys, time
import eventstore

def handle(event):
    print(event.position, flush=True)
    time.sleep(0.3)

consumer = eventstore.Consumer(eventstore.EventStore(sys.argv[1]), "mails", handle, name="mailer")
signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
consumer.run()
print("ended", flush=True)
"""


def test_sigterm_ends_a_program(conninfo: str, database: Any) -> None:
    subscribe(database)
    store_events(database, 20)
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, conninfo], stdout=subprocess.PIPE, text=True,
                               env=os.environ)
    assert program.stdout is not None
    watchdog = threading.Timer(PATIENCE, program.kill)
    watchdog.start()
    assert [program.stdout.readline().strip() for _ in range(2)] == ["1", "2"]
    program.send_signal(signal.SIGTERM)
    rest = program.stdout.read().split()
    watchdog.cancel()
    assert rest == ["ended"] and program.wait() == 0
    assert database.query("SELECT position FROM es_subscription_status") == [2]
