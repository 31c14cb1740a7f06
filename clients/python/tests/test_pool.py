"""Stores whose connections a pool of psycopg_pool lends, where it is installed."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from conftest import Blocking, running

import eventstore
from eventstore import NewEvent

psycopg_pool = pytest.importorskip("psycopg_pool")

SIZE = 4
MAILS = "SELECT es_create_subscription('mails', start_position => 0, partitions => 3, lease => '2s')"

# Of connections that pgbouncer in transaction mode lends: none of them may prepare a statement by name.
POOLED: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}


@contextmanager
def pooled_store(client: Any, conninfo: str, **options: Any) -> Iterator[Any]:
    """Yields a store, and its pool."""
    arguments = {"min_size": 1, "max_size": SIZE, "timeout": 10, "kwargs": options, "open": False}
    if client.loop is None:
        with psycopg_pool.ConnectionPool(conninfo, **arguments) as pool:
            yield eventstore.EventStore(pool.connection), pool
        return

    async def make() -> Any:
        pool = psycopg_pool.AsyncConnectionPool(conninfo, **arguments)
        await pool.open()
        return pool

    pool = client.loop.run(make())
    try:
        yield Blocking(eventstore.AsyncEventStore(pool.connection), client.loop), pool
    finally:
        client.loop.run(pool.close())


def count(store: Any, retries: int = 10) -> Any:
    """Decides on the number of events of a stream."""
    return store.decide("counter-1", lambda n: [NewEvent("counted", {"before": n})], evolve=lambda n, event: n + 1,
                        initial=0, retry=eventstore.Retry(retries=retries, most=0.2))


def test_a_pool_lends_connections(client: Any, conninfo: str, database: Any) -> None:
    database.query(MAILS)
    with pooled_store(client, conninfo, **({} if conninfo == database.direct else POOLED)) as (store, pool):
        assert not store.is_bound
        store.append_batch("account-1", "none", [NewEvent("moved", {"amount": n}) for n in range(10)])
        for _ in range(10):  # as often as psycopg needs to prepare a statement
            assert [event.version for event in store.load("account-1")] == list(range(1, 11))
        with pytest.raises(eventstore.WrongExpectedVersion):
            store.append("account-1", "none", NewEvent("moved"))
        with pytest.raises(ZeroDivisionError), store.transaction() as transaction:
            transaction.append("account-2", "none", NewEvent("moved"))
            transaction.append("account-2", 1, NewEvent("moved"))
            assert transaction.stream_version("account-2") == 2
            1 / 0
        assert store.stream_version("account-2") == 0
        with running(*[lambda: count(store, 50) for _ in range(8)]) as decided:
            pass
        assert sorted(each.version for each in decided) == list(range(1, 9))
        handled: list[Any] = []
        consumer = client.consumer(store, "mails", handled.append, name="mailer-1")
        assert consumer.run_until_empty() == 18
        assert len({(event.stream, event.version) for event in handled}) == 18
        statistics = pool.get_stats()
        assert statistics["pool_size"] <= SIZE and statistics["pool_available"] == statistics["pool_size"]
        assert statistics["requests_num"] > 20
    assert database.query("SELECT sum(lag_events) FROM es_subscription_status") == [0]


def test_lost_connections_of_the_pool_are_replaced(client: Any, database: Any) -> None:
    with pooled_store(client, database.direct) as (store, _):
        with running(*[lambda: store.fetch("SELECT pg_sleep(0.2)") for _ in range(SIZE)]):
            pass
        assert database.end_sessions() >= SIZE
        with pytest.raises(psycopg.OperationalError):
            store.fetch("SELECT 1")
        assert [count(store).version for _ in range(SIZE)] == [1, 2, 3, 4]


@pytest.mark.kills
def test_programs_with_a_pool_survive_kills(client: Any, conninfo: str, database: Any) -> None:
    database.query(MAILS)
    handled: list[tuple[str, int]] = []
    with pooled_store(client, conninfo, **POOLED) as (store, _):
        consumer = client.consumer(store, "mails", lambda event: handled.append((event.stream, event.version)),
                                   name="mailer-1", wait=0, interval=0.1, renew_every=0.5)

        def decide() -> None:
            for _ in range(60):
                count(store, 100)

        def disturb() -> None:
            for least in (10, 30):
                database.until(f"SELECT count(*) > {least} FROM es_events")
                database.crash()
            database.until("SELECT count(*) = 60 FROM es_events")
            database.until("SELECT sum(lag_events) = 0 AND sum(in_flight) = 0 FROM es_subscription_status")
            consumer.stop()

        with running(decide, disturb, consumer.run):
            pass
    assert set(handled) == {("counter-1", version) for version in range(1, 61)}
    assert database.query("SELECT count(*) FROM es_events WHERE (data->>'before')::int <> version - 1") == [0]
