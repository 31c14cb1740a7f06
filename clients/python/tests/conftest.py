"""A database for each test, the store in four ways (sync and async, direct and pooled), and kills of the server.

tests/run makes the server and the pooler, and says where they are:
PGHOST and PGPORT; POOLER_HOST and POOLER_PORT, a pgbouncer in transaction mode, where there is one.
"""
from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import eventstore

numbers = itertools.count(1)
PATIENCE = 30.0

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")

# Kinds of store, and how they connect: two of the four pairs, unless LONG is set.
WAYS = [("sync", "pooled"), ("async", "direct"), ("sync", "direct"), ("async", "pooled")]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kills: kills the server, so that no other test can run beside it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = [name for name in ("client", "conninfo") if name in metafunc.fixturenames]
    if len(names) == 2:
        metafunc.parametrize(names, WAYS if os.environ.get("LONG") else WAYS[:2], indirect=True)
    elif names:
        kinds = ["sync", "async"] if names == ["client"] else ["pooled", "direct"]
        metafunc.parametrize(names[0], kinds, indirect=True)


@dataclass(frozen=True)
class Database:
    name: str
    direct: str
    pooled: str | None

    def query(self, statement: str, *parameters: Any) -> list[Any]:
        """Runs a statement as the superuser; returns rows, or values where a row has one."""
        with psycopg.connect(self.direct, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            rows = cursor.fetchall() if cursor.description else []
        return [row[0] if len(row) == 1 else row for row in rows]

    def until(self, statement: str) -> None:
        """Waits until the answer is true; also while the server is away."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if self.query(statement) == [True]:
                    return
            except psycopg.OperationalError:
                pass
            assert time.monotonic() < deadline, statement
            time.sleep(0.02)

    def crash(self) -> None:
        """Kills a server process with SIGKILL: all connections end, and the server recovers."""
        with psycopg.connect(self.direct, autocommit=True) as connection:
            victim = psycopg.connect(self.direct, autocommit=True)
            os.kill(victim.info.backend_pid, signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                while True:
                    connection.execute("SELECT pg_sleep(0.01)")
        victim.close()
        self.until("SELECT true")

    def end_sessions(self) -> int:
        """Ends the sessions of others in the database."""
        return len(self.query("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""))


def address(host: str, port: str, name: str) -> str:
    return f"host={host} port={port} dbname={name} user=postgres"


@pytest.fixture(scope="session")
def template() -> str:
    name = f"client_{WORKER}_{os.getpid()}"
    with psycopg.connect("dbname=postgres user=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(f"dbname={name} user=postgres", autocommit=True) as connection:
        connection.execute("CREATE EXTENSION eventstore")
    return name


@pytest.fixture
def database(template: str) -> Database:
    name = f"{template}_{next(numbers)}"
    with psycopg.connect("dbname=postgres user=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    pooled = None
    if os.environ.get("POOLER_HOST"):
        pooled = address(os.environ["POOLER_HOST"], os.environ["POOLER_PORT"], name)
    return Database(name, address(os.environ["PGHOST"], os.environ["PGPORT"], name), pooled)


class Loop:
    """An event loop in a thread, so that one text of a test does for both kinds of store."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=90)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Blocking:
    """Calls an asynchronous object as a synchronous one is called."""

    def __init__(self, target: Any, loop: Loop) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return self._wrap(value) if callable(value) else value

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            if inspect.iscoroutine(result):
                return self._loop.run(result)
            if hasattr(result, "__aenter__"):
                return self._block(result)
            if hasattr(result, "__anext__"):
                return self.iterate(result)
            return result

        return call

    def iterate(self, result: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.run(result.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run(result.aclose())

    @contextmanager
    def _block(self, manager: Any) -> Iterator[Any]:
        value = self._loop.run(manager.__aenter__())
        try:
            yield Blocking(value, self._loop)
        except BaseException as error:
            if not self._loop.run(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self._loop.run(manager.__aexit__(None, None, None))


@dataclass
class Client:
    """Makes stores, consumers and live iterators of one kind."""

    kind: str
    loop: Loop | None

    def store(self, conninfo: str, **options: Any) -> Any:
        if self.loop is None:
            return eventstore.EventStore(conninfo, **options)
        return Blocking(eventstore.AsyncEventStore(conninfo, **options), self.loop)

    def consumer(self, store: Any, subscription: str, handler: Callable[[Any], Any], **options: Any) -> Any:
        if self.loop is None:
            return eventstore.Consumer(store, subscription, handler, **options)

        async def in_thread(delivery: Any) -> None:
            await asyncio.to_thread(handler, delivery)

        consumer = eventstore.AsyncConsumer(store._target, subscription, in_thread, **options)
        return Blocking(consumer, self.loop)

    def follow(self, store: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        if self.loop is None:
            return eventstore.follow(store, *arguments, **options)
        return Blocking(store, self.loop).iterate(eventstore.async_follow(store._target, *arguments, **options))

    def stop(self) -> Any:
        return eventstore.Stop() if self.loop is None else eventstore.AsyncStop()


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    if request.param == "sync":
        yield Client("sync", None)
        return
    loop = Loop()
    yield Client("async", loop)
    loop.close()


@pytest.fixture
def conninfo(request: pytest.FixtureRequest, database: Database) -> str:
    if request.param == "direct":
        return database.direct
    if database.pooled is None:
        pytest.skip("there is no pgbouncer")
    return database.pooled


@pytest.fixture
def store(client: Client, conninfo: str) -> Iterator[Any]:
    store = client.store(conninfo)
    yield store
    store.close()


@contextmanager
def running(*functions: Callable[[], Any]) -> Iterator[list[Any]]:
    """Runs functions in threads beside the block, and raises what one of them raised."""
    results: list[Any] = []

    def run(function: Callable[[], Any]) -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    yield results
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it does not end"
    for result in results:
        if isinstance(result, BaseException):
            raise result


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the counts for tests/run."""
    if os.environ.get("CLIENT_COUNTS") and not WORKER:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        counts = [len(reporter.stats.get(word, [])) for word in ("passed", "failed", "error", "skipped")]
        with open(os.environ["CLIENT_COUNTS"], "a") as file:
            print(counts[0], counts[1] + counts[2], counts[3], file=file)
