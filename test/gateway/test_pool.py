"""The pool: jobs that wait, that are cancelled and that take too long; sessions that functions have changed."""
import threading
import time

import pytest

import harness
from harness import Wire, request, until


@pytest.fixture(scope="module")
def store():
    """A database with reducers that sleep, or that change the session they run in."""
    made = harness.Database("pool").make()
    with made.connect() as session:
        session.execute("CREATE SCHEMA odd; GRANT USAGE ON SCHEMA odd TO PUBLIC")
        session.execute("""CREATE FUNCTION odd.sleep(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_sleep((event.data->>'seconds')::float8); RETURN state; END $$""")
        session.execute("""CREATE FUNCTION odd.settings(payload text, metadata jsonb) RETURNS es_ack_event
            LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM set_config('statement_timeout', '100', false), set_config('search_path', 'odd', false),
                        set_config('TimeZone', 'Asia/Tokyo', false), set_config('synchronous_commit', 'off', false);
                RETURN NULL;
            END $$""")
        session.execute("""CREATE FUNCTION odd.role(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql
            AS $$ BEGIN PERFORM set_config('role', 'operator', false); RETURN NULL; END $$""")
        session.execute(f"""ALTER ROLE gateway IN DATABASE "{made.name}"
            SET gateway.inbox_handlers = '{{"settings": "odd.settings", "role": "odd.role"}}'""")
        session.execute("""SELECT es_append('slow-' || s, 'none', 'slept', jsonb_build_object('seconds', s))
            FROM unnest('{0,1,60}'::int[]) AS s""")
    return made


@pytest.fixture
def gate(store, make_gateway):
    """A gateway with one connection for requests."""
    return make_gateway(store, pool_size=1, queue_limit=2, queue_timeout=20000)


SLOW = "/v1/streams/slow-60/state?reducer=odd.sleep"


def running(store):
    """How many sessions of gateways read a state."""
    return store.value("""SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway' AND state = 'active'
        AND datname = current_database() AND query LIKE '%%es_state(%%'""")


def begin(gate, target, method="GET", role="reader", body=None):
    """A request whose answer nobody waits for."""
    wire = Wire(gate)
    extra = [("Content-Type", "application/json")] if body is not None else []
    wire.send(request(method, target, gate.keys.static[role], extra, body))
    return wire


@pytest.mark.parametrize("how", ["close", "reset"])
def test_read_is_cancelled(store, gate, how):
    """A client that leaves frees the connection at once after a reset, and within seconds after a close."""
    wire = begin(gate, SLOW)
    until(lambda: running(store) == 1, "the read")
    getattr(wire, how)()
    until(lambda: running(store) == 0, "the end of the read", 10)
    pids = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE usename = 'gateway' AND datname = current_database()"
    before = store.value(pids)
    gate.client("reader").get("/v1/streams/slow-0")
    assert store.value(pids) == before, "the connection was not kept"


def test_reads_are_cancelled_at_any_moment(store, gate):
    """Also where the server takes no cancel, between two messages."""
    for pause in range(60):
        wire = begin(gate, SLOW)
        time.sleep(pause / 10000)
        wire.reset()
    until(lambda: running(store) == 0, "the end of the reads", 20)


def test_cancel_hits_no_other(store, gate):
    """Reads of clients that stay are not cancelled for those that leave."""
    client = gate.client("reader")
    for _ in range(20):
        wire = begin(gate, SLOW)
        until(lambda: running(store) == 1, "the read")
        wire.reset()
        client.get("/v1/streams/slow-0/state?reducer=odd.sleep")


def test_queued_read_leaves_the_queue(store, gate):
    first = begin(gate, SLOW)
    until(lambda: running(store) == 1, "the read")
    others = [begin(gate, SLOW) for _ in range(2)]
    until(lambda: gate.client("reader")("GET", "/v1/streams/slow-0").status_code == 503, "a full queue")
    for wire in others:
        wire.reset()
    first.reset()
    assert gate.client("reader").get("/v1/streams/slow-0").status_code == 200


def test_full_queue(store, gate):
    wires = [begin(gate, SLOW)]
    until(lambda: running(store) == 1, "the read")
    wires += [begin(gate, SLOW) for _ in range(2)]
    answer = until(lambda: [a for a in [gate.client("reader")("GET", "/v1/streams/slow-0")] if a.status_code == 503])[0]
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["error"] is True
    for wire in wires:
        wire.reset()


def test_wait_that_is_too_long(store, make_gateway):
    gate = make_gateway(store, pool_size=1, queue_timeout=300)
    wire = begin(gate, SLOW)
    until(lambda: running(store) == 1, "the read")
    started = time.monotonic()
    answer = gate.client("reader").get("/v1/streams/slow-0", 503)
    assert 0.25 <= time.monotonic() - started < 5
    assert "Retry-After" in answer.headers
    wire.reset()


def test_statement_that_is_too_long(store, make_gateway):
    gate = make_gateway(store, pool_size=1, statement_timeout=200)
    answer = gate.client("reader").get(SLOW, 504)
    assert answer.json()["sqlstate"] == "57014"
    gate.client("reader").get("/v1/streams/slow-0")


def test_write_goes_on(store, gate, stream):
    """A client that leaves while its append waits for a lock has appended."""
    with store.connect() as session:
        with session.transaction():
            session.execute("SELECT es_append(%s, 'any', 'held')", (stream,))
            wire = begin(gate, f"/v1/streams/{stream}", "POST", "writer", b'{"type": "kept"}')
            until(lambda: store.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0, "the append")
            wire.reset()
            time.sleep(1.5)
        until(lambda: store.value("SELECT count(*) FROM es_load(%s) WHERE type = 'kept'", (stream,)) == 1, "the event")


def receive(gate, topic):
    """Hands a message to a handler that changes the session, and commits."""
    answer = gate.client("writer")("POST", f"/v1/inbox/{topic}/pool", data=f"message {next(harness.numbers)}")
    assert answer.status_code < 300 and answer.json()["result"] == "skipped", answer.text


def test_settings_are_reset(store, gate):
    """What a function sets in the session is not there for the next request."""
    client = gate.client("reader")
    before = client.get("/v1/streams/slow-0/events/1").json()
    for _ in range(3):
        receive(gate, "settings")
        assert client.get("/v1/streams/slow-0/events/1").json() == before
        receive(gate, "settings")
        client.get("/v1/streams/slow-1/state?reducer=odd.sleep")     # longer than the time-out that was set


def test_role_is_not_kept(store, gate):
    """A function that sets the role for the session gives the next request nothing."""
    reader, nobody = gate.client("reader"), gate.client("nobody")
    nobody.get("/v1/streams/slow-0", 403)
    for _ in range(3):
        receive(gate, "role")
        nobody.get("/v1/streams/slow-0", 403)
        reader.post("/v1/streams/slow-0", {"type": "no"}, expect=403)


def test_many_at_once(store, make_gateway, stream):
    """More requests than connections: all are answered, in the end."""
    gate = make_gateway(store, pool_size=3, queue_limit=1000)
    found = []

    def work(number):
        client = gate.client("writer")
        for _ in range(10):
            found.append(client.post(f"/v1/streams/{stream}-{number % 5}", {"type": "one"}).status_code)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [201] * 300
    assert store.value("SELECT count(*) FROM es_events WHERE starts_with(stream, %s)", (f"{stream}-",)) == 300
