"""Kills of the server and of the gateway under load. What was answered 201 is stored once, a retry of what was not has
one result, and followers that resume miss nothing and see nothing twice. oracle.py judges."""
import threading
import time
import uuid

import pytest
import requests

import harness
from harness import few_or_many, until
from oracle import Append, judge_appends, judge_stream

ANSWERED = 201


class Appender(threading.Thread):
    """Appends events to a stream of its own, one after the other, each until it is stored."""

    def __init__(self, world, number, expect_version):
        super().__init__(daemon=True)
        self.world = world
        self.stream = f"load-{number}"
        self.expect_version = expect_version
        self.appends = []
        self.token = world.keys.static["writer"]
        self.failure = None

    def run(self):
        try:
            session = requests.Session()
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {self.token}"
            version = 0
            while not self.world.done.is_set():
                append = Append(str(uuid.uuid4()), self.stream, len(self.appends) + 1)
                self.appends.append(append)
                version = self.store(session, append, version)
        except Exception as failure:           # pylint: disable=broad-except
            self.failure = failure

    def store(self, session, append, version):
        """Sends it until it is stored; returns its version. The clients of one stream are one, so that a version that is
        not as expected can only be that of the event's first try, which the id shows."""
        headers = {}
        if self.expect_version:
            headers = {"If-Match": f'"{version}"'} if version else {"If-None-Match": "*"}
        end = time.monotonic() + harness.PATIENCE
        while True:
            assert time.monotonic() < end, f"{append.id} is not stored: {append.answers[-3:]}"
            try:
                answer = session.post(f"{self.world.url()}/v1/streams/{self.stream}", headers=headers, timeout=30,
                                      json={"type": "counted", "id": append.id, "data": {"number": append.number}})
            except requests.RequestException as error:
                append.answers.append((0, type(error).__name__, None))
                time.sleep(0.02)
                continue
            if answer.status_code == ANSWERED:
                body = answer.json()
                append.answers.append((201, body["version"], body["position"]))
                self.world.again(self, session, append, headers)
                return body["version"]
            append.answers.append((answer.status_code, answer.text[:200], None))
            assert answer.status_code in (500, 502, 503, 504), answer.text
            assert answer.status_code != 500 or answer.json().get("sqlstate", "").startswith("57"), answer.text
            time.sleep(0.02)


class Follower(threading.Thread):
    """Follows the log, and resumes from the last id whenever its connection ends, and sometimes when it does not."""

    def __init__(self, world, chance, headers=()):
        super().__init__(daemon=True)
        self.world = world
        self.chance = chance
        self.positions = []
        self.resumed = 0
        self.token = world.keys.static["reader"]
        self.failure = None
        self.last = 0

    def run(self):
        try:
            while not self.world.over.is_set():
                self.follow()
                self.resumed += 1
        except Exception as failure:           # pylint: disable=broad-except
            self.failure = failure

    def follow(self):
        leave_after = self.chance.choice([20, 200, 2000, 10**9])
        stream = None
        try:
            stream = harness.EventStream(self.world.gateway, token=self.token, timeout=2,
                                         last_event_id=self.last if self.positions else None)
            if stream.status != 200:
                assert stream.status in (502, 503), stream.status
                time.sleep(0.05)
                return
            for count, (_, _, event_id) in enumerate(stream, 1):
                self.positions.append(int(event_id))
                self.last = int(event_id)
                if count >= leave_after or self.world.over.is_set():
                    return
        except (OSError, EOFError):
            time.sleep(0.02)
        finally:
            if stream:
                stream.close()


class World:
    """A server and a gateway of their own, with appenders and followers."""

    def __init__(self, cluster, gateway, keys, chance, appenders=6, followers=3):
        self.cluster = cluster
        self.gateway = gateway
        self.keys = keys
        self.chance = chance
        self.done = threading.Event()
        self.over = threading.Event()
        self.appenders = [Appender(self, n, n % 2 == 0) for n in range(appenders)]
        self.followers = [Follower(self, __import__("random").Random(chance.random())) for _ in range(followers)]

    def url(self):
        return f"http://127.0.0.1:{self.gateway.port}"

    def again(self, appender, session, append, headers):
        """Sometimes sends what is stored once more: the answer must be the first one."""
        if int(append.id[:2], 16) % 10:
            return
        try:
            answer = session.post(f"{self.url()}/v1/streams/{append.stream}", headers=headers, timeout=30,
                                  json={"type": "counted", "id": append.id, "data": {"number": append.number}})
        except requests.RequestException:
            return
        if answer.status_code in (200, 201):
            append.answers.append((201, answer.json()["version"], answer.json()["position"]))
        else:
            assert answer.status_code in (502, 503), answer.text

    def start(self):
        for thread in (*self.appenders, *self.followers):
            thread.start()

    def progress(self, count=40):
        """Waits until every appender has stored some more, and followers got something."""
        before = [len(appender.appends) for appender in self.appenders]

        def moved():
            for thread in (*self.appenders, *self.followers):
                if thread.failure:
                    raise thread.failure
            return all(len(appender.appends) >= least + count / len(before)
                       for appender, least in zip(self.appenders, before))
        until(moved, "progress of appenders")

    def finish(self):
        """Ends the appenders, lets the followers come to the end, and returns what is wrong."""
        self.done.set()
        for thread in self.appenders:
            thread.join(harness.PATIENCE)
            assert not thread.is_alive(), f"an appender hangs: {thread.appends[-1].answers[-3:]}"
        for thread in self.appenders:
            if thread.failure:
                raise thread.failure
        rows = self.gateway.database.query(
            "SELECT id::text, stream, version, position, (data->>'number')::int FROM es_events ORDER BY position")
        last = rows[-1][3]
        until(lambda: all(follower.last >= last or follower.failure for follower in self.followers),
              "the last event at each follower")
        self.over.set()
        for follower in self.followers:
            follower.join(harness.PATIENCE)
            if follower.failure:
                raise follower.failure
        positions = [row[3] for row in rows]
        wrong = judge_appends([append for appender in self.appenders for append in appender.appends], rows)
        for follower in self.followers:
            wrong += judge_stream(follower.positions, positions)
        return wrong


@pytest.fixture(scope="module")
def cluster():
    made = harness.Cluster("killed").make()
    yield made
    made.stop("immediate")


@pytest.fixture
def world(cluster, keys, chance, make_gateway):
    database = harness.Database(f"killed_{next(harness.numbers)}", cluster.socket).make()
    made = World(cluster, make_gateway(database, pool_size=4), keys, chance)
    made.start()
    yield made
    made.done.set()
    made.over.set()


def test_server_killed(world):
    for kill in range(few_or_many(3, 20)):
        world.progress()
        if kill % 2:
            world.cluster.kill()
        else:
            world.cluster.kill_session(world.chance)
    world.progress()
    assert world.finish() == []
    assert sum(len(append.answers) > 1 for appender in world.appenders for append in appender.appends) > 0
    assert all(follower.positions for follower in world.followers)


def test_server_restarted_gently(world):
    world.progress()
    world.cluster.stop("fast")
    world.cluster.start()
    world.progress()
    assert world.finish() == []


def test_sessions_terminated(world):
    """Sessions of the gateway end one by one, as an administrator may do it."""
    for _ in range(few_or_many(20, 200)):
        world.progress(6)
        world.gateway.database.query("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE usename = 'gateway' ORDER BY random() LIMIT 1""")
    world.progress()
    assert world.finish() == []


def test_gateway_killed(world, keys):
    for _ in range(few_or_many(4, 30)):
        world.progress()
        world.gateway.again()
    world.progress()
    assert world.finish() == []


def test_gateway_drained_under_load(world):
    """SIGTERM ends every request with an answer, and every event stream; then it exits with 0."""
    for _ in range(few_or_many(2, 10)):
        world.progress()
        world.gateway.again(gently=True)
    world.progress()
    assert world.finish() == []


#
# Negative controls: the oracle finds what it is for.
#

def history():
    appends = [Append(f"id-{n}", "load-1", n) for n in range(1, 6)]
    for append in appends:
        append.answers = [(0, "lost", None), (201, append.number, append.number * 10)]
    rows = [(append.id, "load-1", append.number, append.number * 10, append.number) for append in appends]
    return appends, rows


def test_oracle_accepts_what_is_right():
    appends, rows = history()
    assert judge_appends(appends, rows) == []
    assert judge_stream([10, 20, 30, 40, 50], [row[3] for row in rows]) == []


@pytest.mark.parametrize("spoil, word", [
    (lambda appends, rows: rows.pop(), "not stored"),
    (lambda appends, rows: rows.append(("id-5", "load-1", 6, 60, 5)), "times"),
    (lambda appends, rows: rows.append(("id-9", "load-1", 6, 60, 9)), "nobody"),
    (lambda appends, rows: appends[2].answers.append((201, 7, 70)), "several results"),
    (lambda appends, rows: appends[2].answers.append((503, "", None)), "no result"),
    (lambda appends, rows: rows.__setitem__(4, ("id-5", "load-1", 6, 50, 5)), "gap"),
    (lambda appends, rows: rows.__setitem__(4, ("id-5", "load-2", 1, 50, 5)), "is stored as"),
    (lambda appends, rows: (rows.__setitem__(3, ("id-4", "load-1", 5, 40, 4)),
                            rows.__setitem__(4, ("id-5", "load-1", 4, 50, 5))), "order"),
])
def test_oracle_finds_appends(spoil, word):
    appends, rows = history()
    spoil(appends, rows)
    assert any(word in sentence for sentence in judge_appends(appends, rows))


@pytest.mark.parametrize("received, word", [
    ([10, 20, 40, 50], "did not come"),
    ([10, 20, 30, 40], "did not come"),
    ([10, 20, 20, 30, 40, 50], "twice"),
    ([10, 30, 20, 40, 50], "came after"),
    ([10, 20, 30, 40, 50, 60], "does not have"),
])
def test_oracle_finds_streams(received, word):
    assert any(word in sentence for sentence in judge_stream(received, [10, 20, 30, 40, 50]))


def lose_commits(name, keys, chance, make_gateway):
    """Kills a server that answers before its log is written; returns what the oracle has found."""
    cluster = harness.Cluster(name, "wal_writer_delay = 10s", "wal_writer_flush_after = 1GB",
                              "synchronous_commit = off").make()
    try:
        database = harness.Database(name, cluster.socket).make()
        world = World(cluster, make_gateway(database), keys, chance, followers=0)
        world.start()
        world.progress()
        cluster.kill()
        try:
            world.progress()
            return world.finish()
        except AssertionError as failure:      # an appender meets a version that is gone
            return [str(failure)]
    finally:
        world.done.set()
        world.over.set()
        cluster.stop("immediate")


def test_oracle_finds_lost_commits(keys, chance, make_gateway):
    """The oracle sees what was answered and lost. A kill loses nothing if something has written the log just before, as
    a full buffer does, and the next one is tried."""
    assert any(lose_commits(f"lossy{attempt}", keys, chance, make_gateway) for attempt in range(5))
