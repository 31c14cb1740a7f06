"""One shard under load that pg_auto_failover manages, whose primary is killed together with its keeper.

    failover.py FOLDER SERVERS [seconds=90]

Writers append to streams whose versions they know, with ids of their own, and repeat what was not answered. A consumer
polls. In the end every event whose append was acknowledged is stored once at the version that was returned, nothing
else is, the slots are there, and each event was delivered, in the order of its stream but for those that came again.
"""
import collections
import os
import signal
import sys
import threading
import time
import uuid

import psycopg

folder, servers, *options = sys.argv[1:]
seconds = dict(option.split("=") for option in options).get("seconds", "90")
WRITERS = 3
WARM_UP = 10
PATIENCE = 120
# What passes while the primary changes: a lost connection, a server that starts or stops, a standby, an old token.
PASSING = {None, "57P01", "57P02", "57P03", "25006", "ES006"}
primary = f"{servers}?target_session_attrs=read-write&connect_timeout=3"
stop = threading.Event()
acknowledged, delivered, pauses, failures = {}, [], [], []
passed = failed = 0


def check(name, good, *lines):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print(f"not ok - {name}", *(f"# {str(line)[:300]}" for line in lines), sep="\n", flush=True)


class Client(threading.Thread):
    """A thread whose statements are repeated until they are answered."""

    def __init__(self):
        super().__init__(daemon=True)
        self.connection = None

    def try_rows(self, statement, values=()):
        """The rows; None if it may pass, and is to be repeated."""
        try:
            if self.connection is None or self.connection.closed:
                self.connection = psycopg.connect(primary, autocommit=True)
            return self.connection.execute(statement, values).fetchall()
        except psycopg.Error as error:
            if error.sqlstate not in PASSING and not isinstance(error, psycopg.OperationalError):
                raise
            if error.sqlstate is None and self.connection is not None:
                self.connection.close()
            time.sleep(0.05)
            return None

    def run(self):
        try:
            self.work()
        except psycopg.Error as error:
            failures.append(f"{error.sqlstate} {error}")


class Writer(Client):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def work(self):
        versions = collections.Counter()
        for n in range(10 ** 9):
            if stop.is_set():
                return
            stream, id_, began = f"w{self.number}-{n % 20}", str(uuid.uuid4()), time.monotonic()
            rows = None
            while rows is None:
                rows = self.try_rows("SELECT version FROM es_append(%s, %s, 'written', id => %s)",
                                     (stream, versions[stream], id_))
            versions[stream] = rows[0][0]
            acknowledged[id_] = (stream, rows[0][0])
            pauses.append(time.monotonic() - began)


class Consumer(Client):
    def work(self):
        while not (stop.is_set() and len({event[0] for event in delivered}) >= len(acknowledged)):
            rows = self.try_rows("SELECT token, id::text, stream, version FROM es_poll('all', 'c', 200, '0.2s')") or []
            delivered.extend(row[1:] for row in rows)
            if rows:
                self.try_rows("SELECT es_ack('all', %s)", (rows[0][0],))


def wait_until(name, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"it did not happen: {name}")
        time.sleep(0.1)


def is_synchronous():
    try:
        with psycopg.connect(primary) as session:
            return session.execute("SELECT count(*) FROM pg_stat_replication "
                                   "WHERE sync_state IN ('sync', 'quorum')").fetchone()[0] == 1
    except psycopg.OperationalError:
        return False


def kill_primary():
    """Kills the server and the keeper of its node, as the loss of a machine would. Returns the node."""
    with psycopg.connect(primary) as session:
        node = session.execute("SHOW port").fetchone()[0]
    with open(f"{folder}/{node}/postmaster.pid", encoding="ascii") as file:
        server = int(file.readline())
    keepers = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and is_keeper(pid, f"{folder}/{node}")]
    for pid in keepers + [server]:
        os.kill(pid, signal.SIGKILL)
    return node


def is_keeper(pid, data):
    """The process that runs the node, and those that it has started."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            command = file.read().split("\0")
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            parent = file.read().rpartition(")")[2].split()[1]
    except (FileNotFoundError, ProcessLookupError):
        return False
    if "pg_autoctl" not in command[0]:
        return False
    return data in command or (parent.isdigit() and int(parent) > 1 and is_keeper(parent, data))


def out_of_order():
    """Deliveries that skip an event of their stream."""
    last, wrong = collections.Counter(), []
    for _, stream, version in delivered:
        if version > last[stream] + 1:
            wrong.append((stream, version))
        last[stream] = max(last[stream], version)
    return wrong


wait_until("the standby is synchronous", is_synchronous)
with psycopg.connect(primary, autocommit=True) as session:
    session.execute("CREATE EXTENSION eventstore")
    session.execute("SELECT es_create_subscription('all', partitions => 2), es_set_slots('{[0,1024)}')")
threads = [Writer(number) for number in range(WRITERS)] + [Consumer()]
for thread in threads:
    thread.start()
time.sleep(WARM_UP)
known = len(acknowledged)
lost = kill_primary()
time.sleep(float(seconds))
stop.set()
for thread in threads:
    thread.join(PATIENCE)
with psycopg.connect(primary, autocommit=True) as session:
    node = session.execute("SHOW port").fetchone()[0]
    slots = session.execute("SELECT es_slots()::text").fetchone()[0]
    reasons = [row[0] for row in session.execute("SELECT reason FROM es_incarnations ORDER BY number")]
    rows = session.execute("SELECT id::text, stream, version FROM es_events").fetchall()
stored = {id_: (stream, version) for id_, stream, version in rows}
print(f"# {len(acknowledged)} appends, {known} of them before the primary was killed; "
      f"{max(pauses, default=0):.1f} s without writes; {len(delivered)} deliveries")
check("the clients have met nothing but what passes", not failures, *failures[:5])
check("all clients have ended", not any(thread.is_alive() for thread in threads))
check("the other node is the primary", node != lost, node, lost)
check("appends went on", len(acknowledged) > known > 0, known, len(acknowledged))
check("the slots are there", slots == "{[0,1024)}", slots)
check("an incarnation has begun", reasons == ["created", "promoted"], reasons)
gone = [id_ for id_, event in acknowledged.items() if stored.get(id_) != event]
check("every acknowledged event is stored, at its version", not gone, gone[:5])
check("and no other event is", len(stored) == len(acknowledged), len(stored), len(acknowledged))
check("every event was delivered", {event[0] for event in delivered} == set(acknowledged))
check("in the order of its stream", not out_of_order(), out_of_order()[:5])
# the oracle finds what it must
missing = dict(stored)
missing.pop(next(iter(acknowledged)))
check("control: a lost event is found", any(missing.get(id_) != event for id_, event in acknowledged.items()))
del delivered[0]
check("control: a skipped delivery is found", out_of_order())
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
