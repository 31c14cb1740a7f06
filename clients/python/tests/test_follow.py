"""The live iterator and the listener: order without gaps, lost connections, kills, a log that is another one."""
from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import psycopg
import pytest
from conftest import running

import eventstore
from eventstore import NewEvent


def append(store: Any, *numbers: int, stream: str = "order-1", **named: Any) -> None:
    store.append_batch(stream, "any", [NewEvent("placed", {"n": n}, **named) for n in numbers])


def take(events: Any, count: int) -> list[int]:
    return [next(events).data["n"] for _ in range(count)]


def test_it_yields_what_is_there_and_what_comes(client: Any, store: Any, database: Any) -> None:
    append(store, 1, 2, 3)
    events = client.follow(store, 1, listen=database.direct, interval=30)
    assert take(events, 2) == [2, 3]
    writer = threading.Timer(0.5, append, (store, 4, 5))
    writer.start()
    started = time.monotonic()
    assert take(events, 2) == [4, 5]
    assert time.monotonic() - started < 10  # it was woken, and did not look after its interval
    writer.join()
    events.close()


def test_it_filters(client: Any, store: Any, database: Any) -> None:
    append(store, 1, tags=["a"])
    append(store, 2, stream="cart-1")
    append(store, 3, tags=["b"])
    stop = client.stop()
    for named, wanted in (({"category": "order"}, [1, 3]), ({"query": [{"tags": ["b"]}]}, [3]),
                          ({"query": [{"types": ["placed"]}]}, [1, 2, 3]), ({"category": "cart"}, [2])):
        events = client.follow(store, listen=database.direct, stop=stop, **named)
        assert take(events, len(wanted)) == wanted
        events.close()
    with pytest.raises(ValueError, match="not both"):
        next(client.follow(store, category="order", query=[{}]))


def test_more_than_a_page(client: Any, store: Any) -> None:
    append(store, *range(1201))
    events = client.follow(store)
    assert take(events, 1201) == list(range(1201))
    events.close()


def test_an_open_append_is_waited_for(client: Any, store: Any, database: Any) -> None:
    events = client.follow(store, listen=database.direct, interval=0.1)
    with psycopg.connect(database.direct) as slow:
        slow.execute("SELECT es_append('order-2', 'any', 'placed', '{\"n\": 1}')")
        append(store, 2)
        threading.Timer(0.5, slow.commit).start()
        assert take(events, 2) == [1, 2]
    events.close()


def test_it_ends_when_it_is_asked_to(client: Any, store: Any, database: Any) -> None:
    for listen in (database.direct, None):
        stop = client.stop()
        events = client.follow(store, listen=listen, interval=60, stop=stop)
        threading.Timer(0.3, stop.set).start()
        started = time.monotonic()
        assert list(events) == []
        assert time.monotonic() - started < 5


def test_another_log_is_noticed(client: Any, store: Any, database: Any) -> None:
    append(store, 1, 2)
    incarnation = store.incarnation()
    assert store.position_valid(incarnation, 2) and not store.position_valid(uuid.uuid4(), 2)
    events = client.follow(store, 1, incarnation=incarnation)
    assert take(events, 1) == [2]
    events.close()
    with pytest.raises(eventstore.PositionLost, match="position 1"):
        next(client.follow(store, 1, incarnation=uuid.uuid4()))
    with pytest.raises(eventstore.PositionLost, match="position 1000"):
        next(client.follow(store, 1000, incarnation=incarnation))


def test_the_listener_connects_again(database: Any) -> None:
    listener = eventstore.Listener(database.direct, "order")
    store = eventstore.EventStore(database.direct)
    assert listener.wait(5)  # it has connected
    assert not listener.wait(0.3)
    append(store, 1, stream="cart-1")
    assert not listener.wait(0.3)  # of another category
    append(store, 1)
    assert listener.wait(5)
    store.close()
    assert database.end_sessions() == 1
    assert listener.wait(5)  # it has connected again
    assert not listener.wait(0.3)
    append(store, 2)
    assert listener.wait(5)
    store.close()
    listener.close()


@pytest.mark.kills
def test_nothing_is_missed_when_servers_are_killed(client: Any, conninfo: str, database: Any) -> None:
    store = client.store(conninfo)
    count = 400
    seen: list[Any] = []
    stop = client.stop()
    retry = eventstore.Retry(retries=100, most=0.2)

    def follow() -> None:
        for event in client.follow(store, listen=database.direct, interval=0.5, stop=stop):
            seen.append(event)
            if len(seen) == count:
                return

    def write(n: int) -> None:
        for m in range(count // 4):
            store.decide(f"order-{n}", lambda state: [NewEvent("placed", {"n": m})],
                         evolve=lambda state, event: state, initial=None, retry=retry)

    def disturb() -> None:
        for least in (count // 4, count // 2):
            database.until(f"SELECT count(*) >= {least} FROM es_events")
            database.crash()
        database.until(f"SELECT count(*) >= {count * 3 // 4} FROM es_events")
        database.end_sessions()

    with running(follow, disturb, *[lambda n=n: write(n) for n in range(4)]):
        pass
    assert [event.position for event in seen] == database.query("SELECT position FROM es_events ORDER BY 1")
    store.close()
