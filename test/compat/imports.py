"""Moves other stores to eventstore by the scripts of examples/import/, and compares.

    imports.py SCRIPTS NODE_FOLDER [STORE...]

Each store is made in a database of its own (old_stores.py): those of message-db and emmett by themselves, the others
with the tables that they document. Then it is copied while the copy is killed and somebody writes, caught up with, and
left, while a writer goes on. What is compared is read from the old tables by statements of this test, and not by the
views of the scripts. The last line is "N passed, N failed". Exit code 1: something failed.

    LONG=1   more events
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import psycopg
from psycopg.types.json import Jsonb

from import_store import MANY, WAIT, Background, Session, check, chosen, counts, scripts, wait_until
from old_stores import Commanded, Emmett, Eventsourcing, KurrentDb, Marten, MessageDb, RailsEventStore

MODULUS = 1000003
COLUMNS = "position", "version", "recorded_at", "stream", "type", "data", "metadata", "id"


def differences(old, new):
    """What differs between rows of both stores: counts, order, and each column."""
    found = set()
    if len(old) != len(new):
        found.add("count")
    for a, b in zip(old, new):
        found.update(column for column, x, y in zip(COLUMNS, a, b) if x != y)
    last = {}
    for position, version, _, stream, *_ in new:
        if version != last.get(stream, 0) + 1:
            found.add("order")
        last[stream] = version
    return found


def check_differences_are_found(name, rows):
    """The negative controls of differences()."""
    index = len(rows) // 2
    for column, value in {"position": -1, "version": 10**9, "recorded_at": None, "stream": "x-1", "type": "x",
                          "data": {"x": 1}, "metadata": {"x": 1}, "id": uuid.uuid4()}.items():
        other = list(rows)
        other[index] = tuple(value if c == column else v for c, v in zip(COLUMNS, rows[index]))
        check(f"{name}: another {column} would be found", column in differences(rows, other))
    check(f"{name}: a missing event would be found", "count" in differences(rows, rows[:index] + rows[index + 1:]))
    stream = next(s for s in {row[3] for row in rows} if sum(row[3] == s for row in rows) > 1)
    places = [i for i, row in enumerate(rows) if row[3] == stream][:2]
    other = list(rows)
    other[places[0]], other[places[1]] = rows[places[1]], rows[places[0]]
    check(f"{name}: another order would be found", "order" in differences(rows, other))


def check_same(store, upto=None):
    old, new = store.old_rows(), store.new_rows(upto)
    found = differences(old, new)
    first = next(((a, b) for a, b in zip(old, new) if a != b), None)
    check(f"{store.name}: all events are here as they were", not found and old, found, len(old), len(new), first)
    return old


def check_folds(store, upto=None):
    """Folds each stream by a reducer, and the old tables in SQL. The fold depends on the order."""
    store.session.rows("""
        CREATE SCHEMA IF NOT EXISTS fold;
        CREATE OR REPLACE FUNCTION fold.step(state bigint, n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE
            RETURN (coalesce(state, 7) * 31 + coalesce(n, 0)) % %d;
        CREATE OR REPLACE AGGREGATE fold.all(n bigint) (SFUNC = fold.step, STYPE = bigint);
        CREATE OR REPLACE FUNCTION fold.reduce(state jsonb, e es.es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE
            RETURN to_jsonb(fold.step(CASE WHEN jsonb_typeof(state) = 'number' THEN state::bigint END, (e.data->>'n')::bigint))""".replace("%d", str(MODULUS)))
    old = dict(store.session.rows(f"SELECT stream, fold.all((data->>'n')::bigint ORDER BY position) "
                                  f"FROM ({store.raw}) AS raw GROUP BY stream"))
    new = dict(store.session.rows("SELECT stream, (es.es_state(stream, 'fold.reduce')).state::bigint FROM "
                                  "(SELECT DISTINCT stream FROM es.es_events) AS streams"))
    check(f"{store.name}: each stream folds to the same state", old == new and len(old) > 1,
          [(s, old.get(s), new.get(s)) for s in {*old, *new} if old.get(s) != new.get(s)][:3])
    backward = dict(store.session.rows(f"SELECT stream, fold.all((data->>'n')::bigint ORDER BY position DESC) "
                                       f"FROM ({store.raw}) AS raw GROUP BY stream"))
    check(f"{store.name}: a fold in another order would be found", backward != new)
    return len(new)


def check_compare(store):
    rows = store.session.rows("SELECT what, old, new, differ, good FROM old_store.compare()")
    check(f"{store.name}: compare() finds no difference", len(rows) == 11 and all(row[4] for row in rows), rows)
    renumbered = dict((row[0], row[3]) for row in rows)["renumbered"]
    if store.renumbered is not None:
        check(f"{store.name}: {store.renumbered} events have new versions", renumbered == store.renumbered, renumbered)
    else:
        check(f"{store.name}: some events have new versions", renumbered > 0)
    for what, statement in store.damages.items():
        with store.session.connection.transaction(force_rollback=True):
            store.session.rows(f"SET LOCAL session_replication_role = replica; {statement}")
            bad = {row[0] for row in store.session.rows("SELECT * FROM old_store.compare()") if not row[4]}
        check(f"{store.name}: compare() would find other {what}", what in bad, statement, bad)


def check_problems(store):
    check(f"{store.name}: no problems", store.session.rows("SELECT * FROM old_store.problems()") == [])
    if store.name == "message-db":
        bad = {"a stream's name": "stream_name = 'es_x-1'", "a type": "type = ''", "an id must not be nil": "id = '%s'" % uuid.UUID(int=0),
               "a position must": "global_position = -1", "a consumer's name": "stream_name = 'a:position-' || repeat('x', 60), "
               "data = '{\"position\": 1}'"}
        for problem, change in bad.items():
            with store.session.connection.transaction(force_rollback=True):
                store.session.rows(f"UPDATE message_store.messages SET {change} WHERE global_position = 9")
                found = store.session.rows("SELECT * FROM old_store.problems()")
            check(f"message-db: problems() would find {change}", len(found) == 1 and found[0][0].startswith(problem), found)


def copy_with_kills(store):
    """Kills the copy twice, once with the server, and lets it go on."""
    for how in ("terminate", "kill") if store.name == "message-db" else ("terminate",):
        before = store.progress()[1]
        copy = Background(store.database, "CALL old_store.copy(10)")
        wait_until("the copy is on its way", lambda: store.progress()[1] > before + 50)
        if how == "terminate":
            store.session.rows("SELECT pg_terminate_backend(%s)", [copy.session.pid])
        else:
            os.kill(copy.session.pid, signal.SIGKILL)
        copy.join(WAIT)
        check(f"{store.name}: the copy was killed ({how})", copy.error is not None)
        if how == "kill":
            wait_until("the server is up again", lambda: reconnects(store))
        position, events, _ = store.progress()
        check(f"{store.name}: in the middle", before < events < store.count, before, events, store.count)
        new = store.new_rows()
        check(f"{store.name}: it has said how far it came", len(new) == events and new[-1][0] == position,
              len(new), events, new[-1][0], position)
    copy = Background(store.database, "CALL old_store.copy(1000)")
    copy.wait()
    check(f"{store.name}: it goes on and says how far it is", any("a second" in line for line in copy.session.told),
          copy.session.told)
    check(f"{store.name}: it does nothing twice", store.progress()[1] == store.count, store.progress(), store.count)


def error_of(call):
    try:
        call()
        return "no error"
    except psycopg.Error as error:
        return str(error)


def reconnects(store):
    """The other sessions end after the one that was killed, and then the server lets new ones in."""
    try:
        if store.session.connection.closed:
            store.session = Session(store.database)
            return True
        store.session.rows("SELECT")
    except psycopg.OperationalError:
        store.session.connection.close()
    return False


def check_late(store):
    """A transaction that has drawn its position and is open, while a later one is committed."""
    late = Session(store.database)
    late.rows("BEGIN")
    late.rows(store.late)
    store.write(store.session, 900001)
    copy = Background(store.database, "CALL old_store.copy()")
    time.sleep(0.3)
    check(f"{store.name}: a copy waits for a transaction that writes", copy.is_alive())
    late.rows("COMMIT")
    copy.wait()
    store.count += 2
    check_same(store)
    # the negative control: without the wait the event would be missed, and the switch must notice
    late.rows("BEGIN")
    late.rows(store.late)
    store.write(store.session, 900002)
    with store.session.connection.transaction(force_rollback=True):
        store.session.rows("SELECT old_store.import_batch((SELECT max(position) FROM old_store.events), 1000)")
        late.rows("COMMIT")
        check(f"{store.name}: without it the event would be missed", "count" in differences(store.old_rows(), store.new_rows()))
        error = error_of(lambda: store.session.rows("CALL old_store.refuse_late_events()"))
        check(f"{store.name}: and a switch would notice that", "1 events of the old store were written below" in error, error)
    store.count += 2


class Writer(threading.Thread):
    """Writes to the old store until it refuses, and then here. Notes each event that was acknowledged, and when."""

    def __init__(self, store):
        super().__init__(daemon=True)
        self.store = store
        self.session = Session(store.database)
        self.acknowledged, self.times = [], []
        self.refusal = None
        self.stop = False
        self.moved_at = None  # how many were acknowledged by the old store
        self.start()

    def run(self):
        number = 1000000
        while not self.stop:
            number += 1
            try:
                self.write(number)
            except (psycopg.Error, RuntimeError) as error:
                self.refusal = str(error)
                self.moved_at = len(self.times)
                break
            self.acknowledged.append(number)
            self.times.append(time.monotonic())
        while not self.stop:
            self.session.rows("SELECT es.es_append(%s, 'any', 'Written', %s)", [f"new-{number % 5}", Jsonb({"n": number})])
            self.acknowledged.append(number)
            self.times.append(time.monotonic())
            number += 1

    def write(self, number):
        self.store.write(self.session, number)


def check_failing_switch(store):
    """Somebody keeps a lock on the old table."""
    keeper = Session(store.database)
    table = store.session.value("SELECT min(name::text) FROM old_store.tables")
    keeper.rows(f"BEGIN; LOCK TABLE {table} IN ROW SHARE MODE")
    error = error_of(lambda: store.session.rows("CALL old_store.switch(lock_timeout => '50ms')"))
    keeper.rows("ROLLBACK")
    store.write(store.session, 900003)
    store.count += 1
    check(f"{store.name}: a switch that gets no lock changes nothing",
          "lock timeout" in error and not store.progress()[2] and
          store.session.value("SELECT count(*) FROM es.es_subscriptions") == 0, error)


def switch_under_load(store):
    check_failing_switch(store)
    writer = Writer(store)
    wait_until("the writer writes", lambda: len(writer.times) > 20)
    catch_up = Background(store.database, "CALL old_store.catch_up()")
    catch_up.wait()
    processed = store.processed()
    switch = Background(store.database, "CALL old_store.switch()")
    switch.wait()
    wait_until("the writer writes here", lambda: writer.moved_at and len(writer.times) > writer.moved_at + 20)
    writer.stop = True
    writer.join(WAIT)
    check(f"{store.name}: the old store refuses the writer", "in eventstore now" in writer.refusal, writer.refusal)
    silence = max(b - a for a, b in zip(writer.times, writer.times[1:]))
    store.silence = silence
    numbers = [row[0] for row in store.session.rows(
        "SELECT (data->>'n')::bigint FROM es.es_events WHERE (data->>'n')::bigint > 1000000 ORDER BY position")]
    check(f"{store.name}: nothing that was acknowledged is lost, and nothing is here twice, nor in another order",
          numbers == writer.acknowledged and 20 < writer.moved_at < len(numbers),
          len(numbers), len(writer.acknowledged), writer.moved_at)
    check(f"{store.name}: the switch says how long no write was possible",
          any("no write was possible for" in line for line in switch.session.told), switch.session.told)
    store.said = next(line.split(" for ")[1] for line in switch.session.told if "no write was possible for" in line)
    again = Background(store.database, "CALL old_store.copy()")
    again.join(WAIT)
    check(f"{store.name}: nothing can be copied afterwards", again.error is not None and "was left" in str(again.error), again.error)
    if processed is not None:
        check_consumer(store, processed)


def check_consumer(store, processed):
    """The subscription must deliver exactly what comes after its position, and all that was not processed."""
    start = store.session.value("SELECT start_position FROM es.es_subscriptions WHERE name = %s", [store.consumer_name])
    delivered = []
    while True:
        rows = store.session.rows("SELECT token, position FROM es.es_poll(%s, max_count => 1000)", [store.consumer_name])
        if not rows:
            break
        delivered += [row[1] for row in rows]
        store.session.rows("SELECT es.es_ack(%s, %s)", [store.consumer_name, rows[-1][0]])
    wanted = [row[0] for row in store.session.rows(
        "SELECT position FROM es.es_events WHERE position > %s AND es.es_category(stream) = coalesce(%s, es.es_category(stream)) "
        "ORDER BY position", [start, store.consumer_category])]
    check(f"{store.name}: the consumer gets exactly the rest", delivered == wanted and wanted, len(delivered), len(wanted), start)
    all_of_it = {row[0] for row in store.session.rows(
        "SELECT position FROM es.es_events WHERE es.es_category(stream) = coalesce(%s, es.es_category(stream))",
        [store.consumer_category])}
    check(f"{store.name}: with what it had before, that is everything",
          set(processed) | set(delivered) == all_of_it and 0 < len(delivered) < len(all_of_it) and len(processed) > 0,
          len(processed), len(delivered), len(all_of_it))


def move(store):
    began = time.monotonic()
    store.install()
    check_problems(store)
    copy_with_kills(store)
    old = check_same(store)
    check_differences_are_found(store.name, old)
    check_compare(store)
    streams = check_folds(store)
    if store.late:
        check_late(store)
    copied = time.monotonic()
    (switch_kurrentdb if store.name == "kurrentdb" else switch_under_load)(store)
    check_same(store, store.progress()[0])
    check_compare(store)
    store.after()
    events = store.progress()[1]
    rate = f"{measure_rate(store):.0f} events a second, " if MANY else ""
    print(f"# {store.name}: {events} events, {streams} streams, {rate}silence {store.silence:.3f} s (the switch says {store.said}), test {time.monotonic() - began:.1f} s ({copied - began:.1f} s until the switch)", flush=True)


def measure_rate(store):
    """Copies the store again into an empty eventstore, at one go."""
    store.session.rows("DROP EXTENSION eventstore CASCADE")
    if store.name == "message-db":
        store.session.rows("DROP SCHEMA message_store CASCADE; ALTER SCHEMA old_messages RENAME TO message_store")
    store.session.rows("DROP SCHEMA old_store CASCADE") if store.name != "kurrentdb" else store.session.rows(
        "DROP TABLE old_store.progress")
    store.install()
    began = time.monotonic()
    store.session.rows("CALL old_store.copy()")
    return store.progress()[1] / (time.monotonic() - began)


def kurrentdb_lines(store):
    """kurrentdb.mjs, with what the client's readAll() yields."""
    program = """
        import { writeLines } from 'SCRIPT';
        const event = (n, more) => ({ event: { streamId: 'cart-1', revision: BigInt(n), id: '00000000-0000-4000-8000-00000000000' + n,
            type: 'Added', created: new Date(1767268800000 + n), isJson: true, data: { n }, metadata: undefined,
            position: { commit: 2n ** 60n + BigInt(n), prepare: 2n ** 60n + BigInt(n) }, ...more } });
        async function* readAll() {
            yield event(1);
            yield event(2, { streamId: '$$cart-1', type: '$metadata' });
            yield event(3, { type: '$>' });
            yield { link: {} };
            yield event(4, { isJson: false, data: new Uint8Array([0, 255]), metadata: new Uint8Array([1]) });
            yield event(5, { metadata: { $causationId: 'x' } });
        }
        process.stderr.write(String(await writeLines(readAll(), process.stdout)));
    """.replace("SCRIPT", f"{scripts}/kurrentdb.mjs")
    result = subprocess.run(["node", "--input-type=module", "-e", program], capture_output=True, text=True)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    at = 2 ** 60
    check("kurrentdb: its lines are those of kurrentdb.mjs", [line.pop("id")[-1] for line in lines] == ["1", "4", "5"] and
          result.stderr == "3" and lines == [
              {"streamId": "cart-1", "revision": "1", "type": "Added", "created": "2026-01-01T12:00:00.001Z", "isJson": True,
               "data": {"n": 1}, "position": {"commit": str(at + 1), "prepare": str(at + 1)}},
              {"streamId": "cart-1", "revision": "4", "type": "Added", "created": "2026-01-01T12:00:00.004Z", "isJson": False,
               "data": "AP8=", "metadata": {"bytes": "AQ=="}, "position": {"commit": str(at + 4), "prepare": str(at + 4)}},
              {"streamId": "cart-1", "revision": "5", "type": "Added", "created": "2026-01-01T12:00:00.005Z", "isJson": True,
               "data": {"n": 5}, "metadata": {"$causationId": "x"}, "position": {"commit": str(at + 5), "prepare": str(at + 5)}}],
          result.stdout, result.stderr)


def switch_kurrentdb(store):
    """No lock keeps its writers out: they stop, the last file is loaded, and the switch follows."""
    kurrentdb_lines(store)
    began = time.monotonic()
    last = append_lines(store, 50)
    store.load(store.lines[-60:-50] + last)  # begins with lines that are there
    check("kurrentdb: lines that are there are left out",
          store.session.value("SELECT count(*) FROM old_store.lines") == len(store.lines))
    result = store.psql("-c", "INSERT INTO old_store.lines (line) VALUES ('{\"position\": {\"commit\": \"5\", \"prepare\": \"5\"}}')")
    check("kurrentdb: a line in another order is refused", "not in the order of $all" in result.stderr, result.stderr)
    store.session.rows("INSERT INTO old_store.checkpoints VALUES ('mails', NULL, %s)", [f"C:{1000 * 2 ** 33}/P:{1000 * 2 ** 33}"])
    store.session.rows("CALL old_store.switch()")
    store.silence = time.monotonic() - began
    store.session.rows("SELECT es.es_append('cart-1', 'any', 'Added', '{\"n\": 1}')")
    check_consumer(store, range(1, 1001))


def append_lines(store, count):
    """More lines of one stream."""
    at = len(store.lines)
    version = sum(line["streamId"] == "cart-1" for line in store.lines)
    more = [{**store.lines[0], "streamId": "cart-1", "revision": str(version + i), "id": str(uuid.uuid4()), "isJson": True,
             "data": {"n": i}, "type": "Added", "position": {"commit": str((at + i + 1) * 2 ** 33), "prepare": str((at + i + 1) * 2 ** 33)}}
            for i in range(count)]
    store.lines += more
    return more


stores = [MessageDb, Emmett, Marten, Commanded, RailsEventStore, Eventsourcing, KurrentDb]
for kind in stores:
    if not chosen or kind.name in chosen:
        try:
            move(kind())
        except (psycopg.Error, RuntimeError, subprocess.CalledProcessError) as error:
            check(f"{kind.name}: {type(error).__name__}", False, error, getattr(error, "stderr", ""))
print(f"{counts[True]} passed, {counts[False]} failed")
sys.exit(1 if counts[False] else 0)
