"""Long polls and statements in the background."""
import threading
import time

import pytest

import harness
from harness import Wire, request, until


@pytest.fixture(scope="module")
def store():
    made = harness.Database("waits").make()
    with made.connect() as session:
        session.execute("SET ROLE reader")
        session.execute("SELECT es_create_subscription('jobs', category => 'job', partitions => 8)")
        for name in ("other", "quiet"):
            session.execute("SELECT es_create_subscription(%s, category => %s)", (f"{name}s", name))
        session.execute("RESET ROLE")
        session.execute("CREATE SCHEMA slow AUTHORIZATION operator")
        session.execute("GRANT CREATE ON SCHEMA slow TO operator")
        session.execute("SET ROLE operator")
        session.execute("SET search_path = slow, public")
        session.execute("CREATE TABLE slow.seen (position bigint)")
        session.execute("""CREATE FUNCTION slow.handle(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.2); INSERT INTO seen VALUES (event.position); END $$""")
        session.execute("""SELECT es_create_projection('slow', handler => 'slow.handle', category => 'slow',
            tables => '{slow.seen}')""")
    return made


@pytest.fixture(scope="module")
def gate(store, keys):
    made = harness.Gateway(store, keys, max_connections_per_address=1000, max_requests_per_address=1000, max_wait=20)
    made.start()
    yield made
    made.stop()


def append(store, stream, count=1):
    with store.connect() as session:
        for _ in range(count):
            position = session.execute("SELECT position FROM es_append(%s, 'any', 'noted', '{}')", (stream,)).fetchone()[0]
    return position


class Poll(threading.Thread):
    """A long poll in a thread of its own."""

    def __init__(self, gate, path, role="reader", method="POST"):
        super().__init__(daemon=True)
        self.ask = lambda: gate.client(role)(method, path)
        self.answer = None
        self.took = None
        self.start()

    def run(self):
        begin = time.monotonic()
        self.answer = self.ask()
        self.took = time.monotonic() - begin

    def end(self):
        self.join(harness.PATIENCE)
        assert self.answer is not None
        return self.answer


def waiting(gate):
    text = gate.client().get("/metrics").text
    return int(text.partition("\neventstore_gateway_waiting ")[2].split("\n")[0])


def test_time_is_over(gate):
    for wait, least in (("0", 0), ("1", 0.95)):
        poll = Poll(gate, f"/v1/subscriptions/others/poll?consumer=c&wait={wait}")
        assert poll.end().status_code == 204
        assert least <= poll.took < least + 5
    assert Poll(gate, "/v1/subscriptions/others/poll?consumer=c").end().status_code == 204
    for wait in ("x", "1e400", "-"):
        assert Poll(gate, f"/v1/subscriptions/others/poll?consumer=c&wait={wait}").end().status_code == 400
    assert Poll(gate, "/v1/subscriptions/absent/poll?consumer=c&wait=9").end().status_code == 404


def test_many_wait(gate, store):
    """All of them are answered, each with events of its own, and none holds a connection meanwhile."""
    polls = [Poll(gate, f"/v1/subscriptions/jobs/poll?consumer=c{n}&wait=20") for n in range(8)]
    idle = [Poll(gate, f"/v1/subscriptions/others/poll?consumer=c{n}&wait=8") for n in range(40)]
    until(lambda: waiting(gate) == 48, "all polls")
    begin = time.monotonic()
    gate.client("reader").get("/v1/events")
    assert time.monotonic() - begin < 2
    with store.connect() as session:
        session.execute("""SELECT count(*) FROM generate_series(1, 200) i,
            LATERAL es_append('job-' || i, 'any', 'noted', '{}') a""")
    begin = time.monotonic()
    answers = [poll.end() for poll in polls]
    assert time.monotonic() - begin < 10
    assert all(answer.status_code == 200 and answer.json()["events"] for answer in answers)
    append(store, "other-1")
    assert sorted(poll.end().status_code for poll in idle) == [200] + [204] * 39


def test_waits_for_a_projection(gate, store):
    """It is the effect of an event that is waited for, and it is found soon."""
    position = append(store, "slow-1", 3)
    poll = Poll(gate, f"/v1/projections/slow/reached?position={position}&wait=15", "operator", "GET")
    assert poll.end().json() == {"position": position, "reached": True}
    assert store.value("SELECT count(*) FROM slow.seen") >= 3


def test_client_leaves(gate, keys):
    with Wire(gate) as wire:
        wire.send(request("POST", "/v1/subscriptions/quiets/poll?consumer=c&wait=20", keys.static["reader"]))
        until(lambda: waiting(gate) == 1, "the poll")
    until(lambda: waiting(gate) == 0, "the end of the poll")


def test_drain(store, keys):
    gate = harness.Gateway(store, keys).start()
    polls = [Poll(gate, f"/v1/subscriptions/quiets/poll?consumer=c{n}&wait=20") for n in range(5)]
    until(lambda: waiting(gate) == 5, "all polls")
    begin = time.monotonic()
    gate.stop()
    assert [poll.end().status_code for poll in polls] == [204] * 5
    assert time.monotonic() - begin < 5


def test_connections_are_lost(gate, store):
    """A long poll that reads outlives connections to the database."""
    position = append(store, "slow-1", 10)
    path = f"/v1/projections/slow/reached?position={position}&wait=20"
    polls = [Poll(gate, path, "operator", "GET") for n in range(5)]
    until(lambda: waiting(gate) == 5, "all polls")
    for _ in range(4):
        store.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = 'gateway' AND datname = current_database()")
        time.sleep(0.2)
    assert [poll.end().status_code for poll in polls] == [200] * 5


def test_background(gate, store, keys):
    """What takes longer is accepted and goes on, also without its client."""
    append(store, "slow-1", 6)
    operator = gate.client("operator")
    count = store.value("SELECT count(*) FROM es_events WHERE es_category(stream) = 'slow'")
    until(lambda: store.value("SELECT count(*) FROM slow.seen") == count, "the projection")
    begin = time.monotonic()
    answer = operator.post("/v1/projections/slow/rebuild", expect=202)
    assert 0.9 < time.monotonic() - begin < 5
    assert answer.headers["location"].endswith("/v1/projections/slow")
    status = operator.get("/v1/projections/slow").json()
    assert status["name"] == "slow"

    def rebuilding():
        return store.value("""SELECT count(*) FROM pg_stat_activity
            WHERE query LIKE '%es_rebuild_projection%' AND usename = 'gateway' AND state <> 'idle'""")
    assert rebuilding() == 1
    until(lambda: not rebuilding(), "the end of the rebuild")
    assert store.value("SELECT count(*) FROM slow.seen") == count
    with Wire(gate) as wire:
        wire.send(request("POST", "/v1/projections/slow/rebuild", keys.static["operator"]))
        until(rebuilding, "the rebuild")
    time.sleep(0.5)
    assert rebuilding() == 1
    until(lambda: not rebuilding(), "the end of the rebuild")

    def ended():
        return [entry["done"] for entry in gate.entries() if entry["event"] == "background_ended"]
    until(lambda: len(ended()) == 2, "the lines of the log")
    assert ended() == [1, 1]


def test_background_refused(gate):
    assert gate.client("operator").post("/v1/projections/absent/rebuild").status_code == 404
    assert gate.client("reader").post("/v1/projections/slow/rebuild").status_code in (403, 404)
