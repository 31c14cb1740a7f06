"""Sessions of the pool: what a function of a user leaves in one is not there for the next request, what it says is not
in the log, and a server that does not answer does not hold a request for ever."""
import json
import os
import signal
import socket
import time

import pytest

import harness
from harness import until

# Of gateways to this database; other ones have theirs.
OWN_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE usename = 'gateway' AND datname = current_database()"

FUNCTIONS = """
CREATE SCHEMA careless;
CREATE FUNCTION careless.fold(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN state;
CREATE FUNCTION careless.run(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE command->>'sql';
    RETURN '[]';
END $$;
GRANT USAGE ON SCHEMA careless TO writer;
"""


@pytest.fixture(scope="module")
def careless():
    database = harness.Database("careless").make()
    database.query(FUNCTIONS)
    database.query(f'GRANT TEMPORARY ON DATABASE "{database.name}" TO writer')
    return database


@pytest.fixture
def single(make_gateway, careless):
    """A gateway with one session for requests."""
    return make_gateway(careless, pool_size=1)


def run(gateway, sql):
    """Has a decider run a statement."""
    return gateway.client("writer").post("/v1/streams/careless-1/commands/careless.run?reducer=careless.fold", {"sql": sql})


def leftovers(database):
    """What sessions of the gateway hold, as others can see it."""
    return database.query("""SELECT l.locktype FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                              WHERE a.usename = 'gateway' AND l.locktype = 'advisory'
                              UNION ALL SELECT c.relname FROM pg_class c WHERE c.relpersistence = 't'""")


@pytest.mark.parametrize("sql", [
    "PREPARE mine AS SELECT 1",
    "DEALLOCATE ALL",
    "DEALLOCATE become_reader; PREPARE become_reader (text) AS SELECT 1",
    "CREATE TEMPORARY TABLE mine ()",
    "SELECT pg_advisory_lock(42)",
    "SELECT pg_advisory_lock_shared(42), pg_advisory_lock(1, 2)",
    "LISTEN mine",
    "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "SELECT set_config('role', 'operator', false)",
    "SET search_path = careless",
    "SET gateway.inbox_handlers = '{\"t\": \"careless.run\"}'",
    "SELECT set_config('client_encoding', 'LATIN1', false)",
])
def test_nothing_is_left(single, careless, sql):
    assert run(single, sql).status_code == 200
    for role in ("reader", "nobody", "reader"):
        assert single.client(role).get("/v1/whoami").json()["role"] == role
    seen = run(single, """DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_prepared_statements WHERE from_sql) THEN RAISE 'prepared'; END IF;
        IF EXISTS (SELECT FROM pg_cursors WHERE is_holdable) THEN RAISE 'cursor'; END IF;
        IF EXISTS (SELECT FROM pg_listening_channels()) THEN RAISE 'channel'; END IF;
        IF nullif(current_setting('gateway.inbox_handlers', true), '') IS NOT NULL THEN RAISE 'handlers'; END IF;
        IF current_setting('search_path') ~ 'careless' THEN RAISE 'path'; END IF;
        IF current_setting('client_encoding') <> 'UTF8' THEN RAISE 'encoding'; END IF;
        END $$""")
    assert seen.status_code == 200, seen.text
    until(lambda: not leftovers(careless), "the end of what was left")


def test_nothing_is_left_by_an_error(single, careless):
    """A transaction that fails takes back less than one thinks."""
    for sql in ("DEALLOCATE ALL; SELECT 1/0", "SELECT pg_advisory_lock(42); SELECT 1/0", "PREPARE mine AS SELECT 1; SELECT 1/0"):
        assert run(single, sql).status_code == 422
        assert single.client("reader").get("/v1/whoami").json()["role"] == "reader"
        until(lambda: not leftovers(careless), "the end of what was left")


def test_sessions_are_kept(single, careless):
    """Requests that leave nothing do not cost a session. Those of other gateways, to other databases, come and go; those of
    earlier ones to this database may still be ending."""
    def sessions():
        return set(careless.query(OWN_SESSIONS))
    before = sessions()
    for number in range(10):
        single.client("reader").get("/v1/streams")
        single.client("writer").post(f"/v1/streams/kept-{number}", {"type": "noted", "data": {}}, expect=201)
        assert run(single, "SELECT 1/0").status_code == 422
        assert run(single, "SELECT 1").status_code == 200
    assert sessions() - before == set()


def test_notices_are_no_lines_of_the_log(single):
    text = json.dumps({"level": "error", "event": "forged"})
    assert run(single, f"DO $$ BEGIN RAISE NOTICE E'\\n%', '{text}'; RAISE WARNING 'told'; END $$").status_code == 200
    assert run(single, "SELECT set_config('client_min_messages', 'debug5', true)").status_code == 200
    single.stop()
    assert not [entry for entry in single.entries() if entry.get("event") == "forged"]


def test_server_that_does_not_answer(make_gateway, careless):
    """The server's own time-out does not work there."""
    gateway = make_gateway(careless, pool_size=1, statement_timeout=500, queue_timeout=1000)
    pids = [row[0] for row in careless.query(OWN_SESSIONS)]
    for one in pids:
        os.kill(one, signal.SIGSTOP)
    try:
        before = time.monotonic()
        answer = gateway.client("writer").post("/v1/streams/stopped-1", {"type": "noted", "data": {}}, timeout=30)
        assert answer.status_code in (502, 503)
        assert time.monotonic() - before < 20
        until(lambda: gateway.client("reader").get("/v1/whoami", expect=None).status_code == 200, "another session")
    finally:
        for one in pids:
            os.kill(one, signal.SIGCONT)


def test_clients_leave_files_for_the_database(make_gateway, careless, monkeypatch):
    """As many clients as come do not keep the gateway from the database."""
    program = os.path.join(harness.SCRATCH, "few-files")
    with open(program, "w") as file:
        file.write(f'#!/bin/sh\nulimit -n 100\nexec "{harness.PROGRAM}" "$@"\n')
    os.chmod(program, 0o755)
    monkeypatch.setattr(harness, "PROGRAM", program)
    gateway = make_gateway(careless, request_timeout=60)

    def sessions():
        return {row[0] for row in careless.query(OWN_SESSIONS)}
    clients = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(150)]
    time.sleep(1)
    before = sessions()
    careless.query(f"SELECT pg_terminate_backend(pid) FROM ({OWN_SESSIONS}) AS own")
    until(lambda: len(sessions() - before) >= len(before), "sessions in place of those that were ended")
    for client in clients:
        client.close()
    assert gateway.client("reader").get("/v1/whoami").json()["role"] == "reader"
