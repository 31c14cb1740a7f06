"""The helpers for tests."""
from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import eventstore
from eventstore import NewEvent
from eventstore.testing import async_rolled_back, given, recorded, rolled_back


class Overdrawn(Exception):
    pass


def evolve(balance: int, event: eventstore.RecordedEvent) -> int:
    return balance + int(event.data["amount"])


def withdraw(amount: int) -> Any:
    def decide(balance: int) -> list[NewEvent]:
        if amount > balance:
            raise Overdrawn
        return [NewEvent("moved", {"amount": -amount})]

    return decide


def test_given_when_then() -> None:
    start = given(evolve, 0, NewEvent("moved", {"amount": 30}), NewEvent("moved", {"amount": 20}))
    start.when(withdraw(50)).then(NewEvent("moved", {"amount": -50}))
    assert isinstance(start.when(withdraw(51)).raises(Overdrawn), Overdrawn)
    start.when(lambda balance: []).then()
    with pytest.raises(AssertionError, match="decided on"):
        start.when(withdraw(50)).then(NewEvent("moved", {"amount": -49}))
    with pytest.raises(AssertionError, match="refused"):
        start.when(withdraw(51)).then()
    with pytest.raises(AssertionError, match="did not refuse"):
        start.when(withdraw(50)).raises(Overdrawn)
    with pytest.raises(AssertionError, match="not KeyError"):
        start.when(withdraw(51)).raises(KeyError)


def test_recorded_events_are_as_the_log_has_them(database: Any) -> None:
    events = [NewEvent("a", {"n": 1}, tags=["y", "x", "y"]), NewEvent("b", None, {"user": "u"}, body=b"b")]
    store = eventstore.EventStore(database.direct)
    store.append_batch("test-1", "none", events)

    def told(event: eventstore.RecordedEvent) -> Any:
        return (event.position, event.version, event.stream, event.type, event.data, event.metadata, event.tags,
                event.body, event.occurred_at)

    assert [told(event) for event in recorded(*events)] == [told(event) for event in store.load("test-1")]
    store.close()


def test_a_test_can_be_rolled_back(conninfo: str, database: Any) -> None:
    database.query("""CREATE TABLE seen (stream text);
        SELECT es_create_projection('seen', tables => '{seen}',
                                    query => 'INSERT INTO seen SELECT stream FROM new_events');
        SELECT es_create_subscription('mails')""")
    with rolled_back(conninfo) as store:
        position = store.append("order-1", "none", NewEvent("placed")).position
        store.fetch("SELECT es_run_projections()")
        assert store.wait("seen", position)
        assert store.fetch("SELECT stream FROM seen") == [("order-1",)]
        handled: list[str] = []
        assert eventstore.Consumer(store, "mails", lambda event: handled.append(event.stream)).run_until_empty() == 1
        assert handled == ["order-1"]
        with pytest.raises(eventstore.WrongExpectedVersion), store.transaction() as savepoint:
            savepoint.append("order-1", "none", NewEvent("placed"))
        assert store.stream_version("order-1") == 1
    assert database.query("SELECT count(*) FROM es_events") == [0]
    with psycopg.connect(conninfo, autocommit=True) as connection, rolled_back(connection) as store:
        assert store.append("order-1", "none", NewEvent("placed")).version == 1
    assert database.query("SELECT count(*) FROM es_events") == [0]


def test_an_asynchronous_test_can_be_rolled_back(conninfo: str, database: Any) -> None:
    async def run() -> None:
        async with async_rolled_back(conninfo) as store:
            await store.append("order-1", "none", NewEvent("placed"))
            assert [event.type async for event in store.load("order-1")] == ["placed"]

    asyncio.run(run())
    assert database.query("SELECT count(*) FROM es_events") == [0]


def test_the_package_is_the_installed_one() -> None:
    assert "site-packages" in eventstore.__file__
    assert all(hasattr(eventstore, name) for name in eventstore.__all__)
