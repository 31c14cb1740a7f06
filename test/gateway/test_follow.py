"""Event streams, long polls and statements in the background: no event is left out and none comes twice, whoever
disconnects, whoever holds the horizon, and whether notifications come or not."""
import json
import re
import socket
import threading
import time

import pytest

import harness
from harness import EventStream, Wire, few_or_many, request, until

NDJSON = {"Accept": "application/x-ndjson"}
APPEND = "SELECT position FROM es_append(%s, 'any', %s, %s::jsonb)"


@pytest.fixture(scope="module")
def shared(keys):
    """A database, and a gateway for the tests that need no settings of their own."""
    store = harness.Database("followed").make()
    gateway = harness.Gateway(store, keys, max_connections_per_address=1000, max_requests_per_address=1000,
                              follow_queue=65536, heartbeat=1, jwt_leeway=0)
    gateway.start()
    yield store, gateway
    gateway.stop()


@pytest.fixture
def store(shared):
    return shared[0]


@pytest.fixture
def gate(shared):
    yield shared[1]
    shared[1].check()
    assert shared[1].alive()


@pytest.fixture
def follow(store, keys):
    """Opens event streams, from the end of the log unless it is told where, and closes them at the end."""
    opened = []

    def open_stream(gateway, path="/v1/events", role="reader", **options):
        token = options.pop("token", keys.static[role])
        if "after_position" not in path:
            options.setdefault("last_event_id", store.value("SELECT es_horizon()"))
        stream = EventStream(gateway, path, token, **options)
        opened.append(stream)
        return stream
    yield open_stream
    for stream in opened:
        stream.close()


def append(session, stream, kind="noted", data="{}"):
    return session.execute(APPEND, (stream, kind, data)).fetchone()[0]


def take(stream, count):
    """The positions of the next events. Heartbeats do not make it wait for ever."""
    found = []
    patience = threading.Timer(harness.PATIENCE, stream.wire.socket.shutdown, (socket.SHUT_RDWR,))
    patience.start()
    try:
        for _, data, event_id in stream:
            position = json.loads(data)["position"]
            assert str(position) == event_id
            found.append(position)
            if len(found) == count:
                break
    finally:
        patience.cancel()
    return found


def metric(gateway, name):
    text = gateway.client().get("/metrics").text
    return float(re.search(rf"^eventstore_gateway_{name} (\S+)$", text, re.MULTILINE)[1])


#
# What comes, and in which form
#

def test_catches_up_then_lives(store, gate, follow):
    with store.connect() as session:
        before = [append(session, f"a-{n}") for n in range(700)]
        stream = follow(gate, f"/v1/events?after_position={before[0] - 1}")
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert take(stream, 700) == before
        assert stream.retry >= 1000
        for n in range(20):
            position = append(session, f"b-{n}")
            assert take(stream, 1) == [position]


def test_latency(store, make_gateway, follow):
    """An event comes long before the next poll."""
    gateway = make_gateway(store, poll_interval=60000)
    times = []
    with store.connect() as session:
        stream = follow(gateway)
        for n in range(30):
            begin = time.monotonic()
            position = append(session, f"a-{n}")
            assert take(stream, 1) == [position]
            times.append(time.monotonic() - begin)
            time.sleep(0.02)
    assert sorted(times)[15] < 0.2, times


@pytest.mark.parametrize("form", ["sse", "ndjson"])
def test_json_of_any_kind(store, gate, follow, keys, form):
    """Line breaks and other characters in an event break no frame."""
    data = {"text": "line\r\nbreak\u2028 \u0085 \\ \" \x07 data: x\n\nid: 3\n", "list": [1, 2.50, None, {"a": "ä𝄞"}]}
    with store.connect() as session:
        position = append(session, "ä\n-1", "a\nb", json.dumps(data))
    if form == "sse":
        event = json.loads(next(iter(follow(gate, f"/v1/events?after_position={position - 1}")))[1])
    else:
        answer = gate.client("reader").get(f"/v1/events?after_position={position - 1}", headers=NDJSON)
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        (line,) = answer.content.decode().rstrip("\n").split("\n")
        event = json.loads(line)
    assert (event["position"], event["stream"], event["type"], event["data"]) == (position, "ä\n-1", "a\nb", data)


def test_filters(store, gate, follow):
    with store.connect() as session:
        streams = {
            "": lambda n: True,
            "?category=odd": lambda n: n % 2 == 1,
            "?types=t0&types=t2": lambda n: n % 3 != 1,
            "?category=even&types=t1": lambda n: n % 2 == 0 and n % 3 == 1,
            "?category=none": lambda n: False,
        }
        opened = {query: follow(gate, f"/v1/events{query}") for query in streams}
        positions = {n: append(session, f"{('even', 'odd')[n % 2]}-{n}", f"t{n % 3}") for n in range(60)}
        for query, chosen in streams.items():
            wanted = [position for n, position in positions.items() if chosen(n)]
            if wanted:
                assert take(opened[query], len(wanted)) == wanted, query


def test_begins_where_it_is_told(store, gate, follow):
    with store.connect() as session:
        positions = [append(session, f"a-{n}") for n in range(10)]
        assert take(follow(gate, f"/v1/events?after_position={positions[3]}"), 6) == positions[4:]
        assert take(follow(gate, last_event_id=positions[7]), 2) == positions[8:]
        # an EventSource that comes again repeats its query
        both = follow(gate, f"/v1/events?after_position={positions[0]}", last_event_id=positions[8])
        assert take(both, 1) == positions[9:]
        # beyond the end: nothing until the log is there
        far = follow(gate, last_event_id=positions[9] + 2)
        near = follow(gate, last_event_id=positions[9])
        more = [append(session, f"b-{n}") for n in range(5)]
        assert take(near, 5) == more
        assert take(far, 3) == more[2:]
    for bad in ("x", "1.5", "", "9e9", "1 2"):
        stream = follow(gate, last_event_id=bad) if bad else follow(gate, "/v1/events?after_position=")
        assert stream.status == 400, bad


def test_ndjson_ends(store, gate):
    with store.connect() as session:
        positions = [append(session, f"a-{n}", data=json.dumps({"x": "y" * 3000})) for n in range(1200)]
    lines = gate.client("reader").get(f"/v1/events?after_position={positions[0] - 1}", headers=NDJSON).content
    assert [json.loads(line)["position"] for line in lines.splitlines()] == positions


def test_empty_log(make_database, make_gateway, follow):
    empty = make_database()
    gateway = make_gateway(empty)
    answer = gateway.client("reader").get("/v1/events", headers=NDJSON)
    assert answer.content == b""
    stream = follow(gateway, "/v1/events?after_position=0")
    with empty.connect() as session:
        position = append(session, "a-1")
        assert take(stream, 1) == [position]


def test_head(store, gate, keys):
    """HEAD answers without a follower. The gateway may still have to notice that those of earlier tests have gone."""
    until(lambda: metric(gate, "followers") == 0, "the end of earlier followers")
    with Wire(gate) as wire:
        wire.send(request("HEAD", "/v1/events", keys.static["reader"], [("Accept", "text/event-stream")]))
        assert wire.answer("HEAD").status == 200
        assert metric(gate, "followers") == 0


def test_heartbeat(store, gate, follow):
    """A comment shows that the connection lives. A client whose filter matches seldom learns of the position, and goes
    on from there when it comes again."""
    with store.connect() as session:
        position = append(session, "a-1")
        stream = follow(gate, "/v1/events?category=none", last_event_id=position - 1)
        assert re.fullmatch(rb"retry: \d+\n\n", next(stream.source))
        begin = time.monotonic()
        assert next(stream.source) == f"id: {position}\n\n".encode()
        assert [next(stream.source) for _ in range(2)] == [b":\n\n"] * 2
        assert 1.5 < time.monotonic() - begin < 10
        last = [append(session, f"a-{n}") for n in range(5)][-1]
        seen = b""
        while f"id: {last}\n\n".encode() not in seen:
            seen += next(stream.source)
        assert b"data:" not in seen


#
# The horizon, and how a follower is woken
#

def test_horizon(store, gate, follow):
    """Events above an open transaction wait for it, and come when it has ended, at once."""
    stream, category = follow(gate), follow(gate, "/v1/events?category=fast")
    with store.connect() as slow, store.connect() as fast:
        first = append(fast, "fast-1")
        assert take(stream, 1) == take(category, 1) == [first]
        for end in ("COMMIT", "ROLLBACK"):
            slow.execute("BEGIN")
            held = append(slow, "slow-1")
            behind = [append(fast, f"fast-{n}") for n in range(10)]
            with pytest.raises(TimeoutError):
                stream.wire.socket.settimeout(0.5)
                take(stream, 1)
            stream.wire.socket.settimeout(harness.PATIENCE)
            stream.source = stream.wire.chunks()
            begin = time.monotonic()
            slow.execute(end)
            assert take(stream, 10 + (end == "COMMIT")) == [held] * (end == "COMMIT") + behind
            assert take(category, 10) == behind
            assert time.monotonic() - begin < 5


def test_notify_setting(store, make_gateway, follow):
    """Whoever notifies, and if nobody does."""
    gateway = make_gateway(store, poll_interval=100)
    streams = [follow(gateway), follow(gateway, "/v1/events?category=a"), follow(gateway, "/v1/events?types=noted")]
    try:
        for notify in ("off", "commit", "auto"):
            store.query(f"ALTER DATABASE {store.name} SET eventstore.notify = '{notify}'")
            store.query("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE backend_type LIKE 'eventstore%' AND datname = current_database()""")
            with store.connect() as session:
                for n in range(5):
                    position = append(session, f"a-{n}")
                    assert [take(stream, 1) for stream in streams] == [[position]] * 3, notify
    finally:
        store.query(f"ALTER DATABASE {store.name} RESET eventstore.notify")


def test_listen_lost(store, gate, follow):
    """Events that come while the LISTEN connection is away are found when it is back, and before."""
    stream, category = follow(gate), follow(gate, "/v1/events?category=a")
    listens = """FROM pg_stat_activity
        WHERE usename = 'gateway' AND query LIKE 'LISTEN%' AND datname = current_database()"""
    with store.connect() as session:
        for n in range(few_or_many(5, 50)):
            until(lambda: session.execute(f"SELECT count(*) = 1 {listens}").fetchone()[0], "the LISTEN connection")
            session.execute(f"SELECT pg_terminate_backend(pid) {listens}")
            positions = [append(session, f"a-{n}") for _ in range(3)]
            assert take(stream, 3) == take(category, 3) == positions


def test_prepared_transaction(store, gate, follow):
    stream = follow(gate)
    with store.connect() as session:
        session.execute("BEGIN")
        position = append(session, "a-1")
        session.execute("PREPARE TRANSACTION 'of the gateway'")
        time.sleep(0.3)
        session.execute("COMMIT PREPARED 'of the gateway'")
        assert take(stream, 1) == [position]


#
# Clients that are slow, many, or gone
#

def test_share_one_feed(store, gate, follow):
    """Many followers of one filter have one statement and one text; each gets everything."""
    until(lambda: metric(gate, "feeds") == 0, "the end of other feeds")
    with store.connect() as session:
        streams = [follow(gate, f"/v1/events?category={'ab'[n % 2]}") for n in range(60)]
        until(lambda: metric(gate, "feeds") == 2, "two feeds")
        positions = {category: [append(session, f"{category}-1") for _ in range(25)] for category in "ab"}
        for n, stream in enumerate(streams):
            assert take(stream, 25) == positions["ab"[n % 2]]
    for stream in streams:
        stream.close()
    until(lambda: metric(gate, "followers") == 0 and metric(gate, "feeds") == 0, "the end of all")


def test_slow_follower(store, gate, follow):
    """Who does not read leaves the feed and costs no memory; the others are not held up; and nothing is left out."""
    text = json.dumps({"text": "x" * 4000})
    with store.connect() as session:
        slow, quick = follow(gate), follow(gate)
        positions = [append(session, "a-1")]
        assert take(quick, 1) == positions
        before = gate.memory()
        for _ in range(few_or_many(40, 400)):
            more = [row[0] for row in session.execute("""SELECT a.position FROM generate_series(1, 100) i,
                LATERAL es_append('a-' || i, 'any', 'noted', %s::jsonb) a""", (text,))]
            positions += more
            assert take(quick, 100) == more
        assert gate.memory() - before < 16 * 1024 * 1024
        assert take(slow, len(positions)) == positions
        position = append(session, "a-2")
        assert take(slow, 1) == take(quick, 1) == [position]


def test_large_events(store, make_gateway, follow):
    """Events larger than the queue come as well."""
    gateway = make_gateway(store, follow_queue=1024)
    with store.connect() as session:
        streams = [follow(gateway) for _ in range(3)]
        for n in range(10):
            position = append(session, "a-1", data=json.dumps({"text": "x" * (300_000 if n % 2 else 10)}))
            assert [take(stream, 1) for stream in streams] == [[position]] * 3


def test_random_disconnects(store, make_gateway, keys, chance):
    """Appenders of many kinds run, some hold the horizon; followers with filters disconnect at random moments, slow or
    not, and resume. None misses an event, and none gets one twice."""
    gateway = make_gateway(store, follow_queue=4096, follow_batch=50, max_connections_per_address=1000)
    over = threading.Event()
    start = store.value("SELECT es_horizon()")
    failures = []

    def guarded(function, *arguments):
        def run():
            try:
                function(*arguments)
            except Exception as failure:       # pylint: disable=broad-except
                failures.append(failure)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def appender(number, seed):
        own = __import__("random").Random(seed)
        with store.connect() as session:
            while not over.is_set():
                session.execute("BEGIN")
                for _ in range(own.choice([1, 1, 2, 30])):
                    append(session, f"{own.choice('abc')}-{number}", own.choice(["t0", "t1"]),
                           json.dumps({"x": "y" * own.choice([0, 10, 3000])}))
                if own.random() < 0.1:
                    time.sleep(own.random() * 0.3)
                session.execute("ROLLBACK" if own.random() < 0.2 else "COMMIT")
                time.sleep(own.random() * 0.02)

    def follower(query, seed, found, last):
        own = __import__("random").Random(seed)
        token = keys.static["reader"]
        while not last or (found[-1] if found else 0) < last[0]:
            stream = EventStream(gateway, f"/v1/events{query}", token, last_event_id=found[-1] if found else start,
                                 timeout=0.5 if own.random() < 0.5 else 5)
            leave_after = own.choice([1, 10, 100, 1000])
            try:
                for _, data, event_id in stream:
                    event = json.loads(data)
                    assert str(event["position"]) == event_id
                    found.append(event["position"])
                    leave_after -= 1
                    if leave_after == 0 or last and found[-1] >= last[0]:
                        break
                    if own.random() < 0.003:
                        time.sleep(own.random())
            except TimeoutError:
                pass
            stream.wire.reset() if own.random() < 0.5 else stream.close()

    queries = ["", "", "?category=a", "?category=b&types=t0", "?types=t1"]
    found = [[] for _ in queries * 2]
    ends = [[] for _ in found]
    followers = [guarded(follower, query, chance.random(), found[n], ends[n]) for n, query in enumerate(queries * 2)]
    appenders = [guarded(appender, n, chance.random()) for n in range(4)]
    time.sleep(few_or_many(4, 60))
    over.set()
    for thread in appenders:
        thread.join(harness.PATIENCE)
    with store.connect() as session:
        for category, kind in (("a", "t0"), ("b", "t0"), ("a", "t1")):
            append(session, f"{category}-9", kind)
    wanted = [[row[0] for row in store.query("""SELECT position FROM es_events
        WHERE position > %(start)s AND (%(category)s::text IS NULL OR es_category(stream) = %(category)s)
            AND (%(type)s::text IS NULL OR type = %(type)s) ORDER BY position""",
        {"start": start, "category": None, "type": None, **dict(re.findall(r"(category|type)s?=(\w+)", query))})]
        for query in queries * 2]
    for number, rows in enumerate(wanted):
        ends[number].append(rows[-1])
    for thread in followers:
        thread.join(harness.PATIENCE)
    assert not failures
    for number, rows in enumerate(wanted):
        assert found[number] == rows, queries[number % len(queries)]
    assert all(len(rows) > 20 for rows in wanted)


#
# Who may follow, and for how long
#

def test_role_is_refused(gate, follow):
    stream = follow(gate, role="nobody")
    assert stream.status == 403


def test_role_loses_its_right(store, gate, follow):
    """Followers whose role may not read any more get the error and end; those of other roles go on."""
    with store.connect() as session:
        first = append(session, "a-1")
        begin = f"/v1/events?after_position={first - 1}"
        losers = [follow(gate, begin) for _ in range(5)]
        other = follow(gate, begin, role="writer")
        assert [take(stream, 1) for stream in (*losers, other)] == [[first]] * 6
        session.execute("SELECT es_revoke('reader', 'reader')")
        position = append(session, "a-2")
        for stream in losers:
            (kind, data, _), *rest = list(stream)
            assert kind == "error" and not rest
            assert json.loads(data)["sqlstate"] == "42501"
        assert take(other, 1) == [position]
        assert follow(gate).status == 403
        session.execute("SELECT es_grant('reader', 'reader')")
        assert take(follow(gate, begin), 2) == [first, position]


def test_token_expires(store, gate, follow, keys):
    with store.connect() as session:
        position = append(session, "a-1")
    begin = time.time()
    stream = follow(gate, f"/v1/events?after_position={position - 1}", token=keys.jwt("reader", exp=int(begin) + 2))
    events = list(stream)
    assert 1 <= time.time() - begin < 8
    assert [event_id for _, _, event_id in events][:1] == [str(position)]
    assert events[-1][0] == "error" and json.loads(events[-1][1])["status"] == 401


def test_max_followers(store, make_gateway, follow):
    gateway = make_gateway(store, max_followers=3)
    opened = [follow(gateway) for _ in range(3)]
    assert [stream.status for stream in opened] == [200] * 3
    refused = follow(gateway)
    assert refused.status == 503 and refused.headers["retry-after"]
    opened[0].close()
    until(lambda: follow(gateway).status == 200, "room for another one")


def test_drain(store, make_gateway, follow):
    gateway = make_gateway(store)
    with store.connect() as session:
        position = append(session, "a-1")
    streams = [follow(gateway, f"/v1/events?after_position={position - 1}") for _ in range(5)]
    assert [take(stream, 1) for stream in streams] == [[position]] * 5
    begin = time.monotonic()
    gateway.stop()
    assert time.monotonic() - begin < 5
    assert [list(stream) for stream in streams] == [[]] * 5
