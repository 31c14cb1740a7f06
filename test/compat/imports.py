"""Moves other stores to eventstore by the scripts of examples/import/, and compares.

    imports.py SCRIPTS NODE_FOLDER [STORE...]

Each store is made in a database of its own: those of message-db and emmett by themselves, the others with the tables
that they document. Then it is copied while the copy is killed and somebody writes, caught up with, and left, while a
writer goes on. What is compared is read from the old tables by statements of this file, and not by the views of the
scripts. The last line is "N passed, N failed". Exit code 1: something failed.

    LONG=1   more events
"""
import base64
import datetime
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

scripts, node_folder, *chosen = sys.argv[1:]
MANY = bool(os.environ.get("LONG"))
WAIT = 60  # seconds until something that is to happen has failed
MODULUS = 1000003
passed = failed = 0


def check(name, good, *lines):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print(f"not ok - {name}")
        for line in lines:
            print(f"# {str(line)[:600]}")
        sys.stdout.flush()


def wait_until(name, condition):
    end = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"it did not happen: {name}")
        time.sleep(0.002)


class Session:
    """A session of a database, with what it is told."""

    def __init__(self, database, **options):
        self.connection = psycopg.connect(dbname=database, autocommit=True, **options)
        self.told = []
        self.connection.add_notice_handler(lambda notice: self.told.append(notice.message_primary))
        self.pid = self.connection.info.backend_pid

    def rows(self, statement, values=None):
        cursor = self.connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    def value(self, statement, values=None):
        return self.rows(statement, values)[0][0]


class Background(threading.Thread):
    """A call in a session of its own."""

    def __init__(self, database, statement):
        super().__init__(daemon=True)
        self.session = Session(database)
        self.statement = statement
        self.error = None
        self.start()

    def run(self):
        try:
            self.session.rows(self.statement)
        except psycopg.Error as error:
            self.error = error

    def wait(self):
        self.join(WAIT)
        if self.is_alive():
            raise RuntimeError(f"it did not end: {self.statement}")
        if self.error:
            raise self.error


class Store:
    """A store to move. A subclass makes it, and says how to read and to write."""

    name = None
    tables = ""  # the documented tables
    raw = None  # position, version, recorded_at, stream, type, data, metadata, id of the old store
    variables = ()
    late = None  # a transaction that takes a position and stays open; None: the store does not let it
    consumer_name = None
    consumer_category = None
    damages = {}  # what compare() must show -> statements that damage the old store
    renumbered = 0
    said = "nothing"

    def __init__(self):
        self.database = "old_" + self.name.replace("-", "_")
        subprocess.run(["createdb", self.database], check=True)
        self.session = Session(self.database)
        self.count = self.events() or 0
        self.make()

    def events(self):
        return 20000 if MANY else 2000

    def make(self):
        self.session.rows(self.tables)
        self.fill()

    def fill(self):
        raise NotImplementedError

    def write(self, session, number):
        """Writes an event with this number to the old store, and commits."""
        raise NotImplementedError

    def processed(self):
        """Positions of the old consumer's events, which must not all come again; makes the consumer."""
        return None

    def after(self):
        """What users may do when they have moved."""

    def psql(self, *options):
        return subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.database, *options],
                              capture_output=True, text=True)

    def install(self):
        self.session.rows("CREATE SCHEMA IF NOT EXISTS es; CREATE EXTENSION IF NOT EXISTS eventstore SCHEMA es")
        options = [part for variable in self.variables for part in ("-v", variable)]
        for time_ in ("first", "second"):  # a second time changes nothing
            result = self.psql(*options, "-f", f"{scripts}/{self.name}.sql")
            check(f"{self.name}: the script runs the {time_} time", result.returncode == 0, result.stderr)

    def old_rows(self):
        return self.session.rows(f"SELECT position, version, recorded_at, stream, type, data, metadata, id "
                                 f"FROM ({self.raw}) AS raw ORDER BY position")

    def new_rows(self, upto=None):
        return self.session.rows("SELECT position, version, recorded_at, stream, type, data, metadata, id FROM es.es_events "
                                 "WHERE position <= coalesce(%s, position) ORDER BY position", [upto])

    def progress(self):
        return self.session.rows("SELECT position, events, switched_at IS NOT NULL FROM old_store.progress")[0]


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


class MessageDb(Store):
    name = "message-db"
    raw = """SELECT global_position AS position, position + 1 AS version, time AT TIME ZONE 'UTC' AS recorded_at,
                    stream_name AS stream, type, coalesce(data, 'null') AS data,
                    CASE WHEN jsonb_typeof(metadata) = 'string' THEN jsonb_build_object('metadata', metadata) ELSE metadata END
                        AS metadata, id FROM message_store.messages"""
    late = "SELECT message_store.write_message(gen_random_uuid()::varchar, 'late-1', 'Late', '{\"n\": 1}')"
    consumer_name = "account:position-reports"
    consumer_category = "account"
    damages = {
        "events": "DELETE FROM message_store.messages WHERE global_position = 100",
        "ids": "UPDATE message_store.messages SET id = gen_random_uuid() WHERE global_position = 100",
        "streams": "UPDATE message_store.messages SET stream_name = 'x-1' WHERE global_position = 100",
        "types": "UPDATE message_store.messages SET type = 'X' WHERE global_position = 100",
        "data": "UPDATE message_store.messages SET data = '{}' WHERE global_position = 100",
        "metadata": "UPDATE message_store.messages SET metadata = '{\"x\": 1}' WHERE global_position = 100",
        "times": "UPDATE message_store.messages SET time = time + '1 us' WHERE global_position = 100",
        "versions": "UPDATE message_store.messages SET global_position = -global_position WHERE global_position = 1000",
        "folds": "UPDATE message_store.messages SET data = '{}' WHERE global_position = 100",
    }

    def events(self):
        return 50000 if MANY else 5000

    def make(self):
        result = subprocess.run(
            ["bash", f"{node_folder}/node_modules/@eventide/message-db/database/install.sh"],
            env={**os.environ, "DATABASE_NAME": "message_db_original"}, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(result.stdout + result.stderr)
        self.session.connection.close()
        for statement in f"DROP DATABASE {self.database}", f"ALTER DATABASE message_db_original RENAME TO {self.database}":
            subprocess.run(["psql", "-X", "-q", "-c", statement], check=True)
        self.session = Session(self.database)
        self.session.rows(f"ALTER DATABASE {self.database} SET search_path = message_store, public")
        self.session = Session(self.database)
        self.session.rows("""SELECT message_store.write_message(
            gen_random_uuid()::varchar, CASE i % 3 WHEN 0 THEN 'account-' WHEN 1 THEN 'account:command-' ELSE 'é' || 'o-' END
                || (i / 3) % 40, 'Type' || i % 4, jsonb_build_object('n', i, 'text', 'a "b" \\ é'),
            CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '"a text"'
                ELSE jsonb_build_object('correlationStreamName', 'order-' || i, 'causationMessageGlobalPosition', i) END)
            FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))
        # what a rollback leaves, and messages without data
        self.session.rows("BEGIN; SELECT message_store.write_message(gen_random_uuid()::varchar, 'a-1', 'A', '{}'); ROLLBACK")
        self.session.rows("SELECT message_store.write_message(gen_random_uuid()::varchar, 'empty-1', 'A', NULL)")
        self.count += 1

    def write(self, session, number):
        session.rows("SELECT message_store.write_message(gen_random_uuid()::varchar, %s, 'Written', %s)",
                     [f"account-{number % 7}", Jsonb({"n": number})])

    def processed(self):
        """As a consumer of Eventide records its position, once in a number of messages."""
        position = self.session.value("SELECT global_position FROM message_store.messages "
                                      "WHERE message_store.category(stream_name) = 'account' ORDER BY 1 OFFSET 500 LIMIT 1")
        for p in 1, position:
            self.session.rows("SELECT message_store.write_message(gen_random_uuid()::varchar, 'account:position-reports', "
                              "'Recorded', %s)", [Jsonb({"position": p})])
        return [row[0] for row in self.session.rows(
            "SELECT global_position FROM message_store.messages WHERE message_store.category(stream_name) = 'account' "
            "AND global_position <= %s", [position])]


    def after(self):
        """Clients of message-db go on with the extension that has its interface."""
        old = self.session.rows("SELECT id, stream_name, position, global_position FROM message_store.messages ORDER BY 4")
        self.session.rows("ALTER SCHEMA message_store RENAME TO old_messages; CREATE EXTENSION eventstore_message_db")
        new = self.session.rows("SELECT id, stream_name, position, global_position FROM message_store.messages ORDER BY 4")
        check("message-db: its clients see the same messages", new[:len(old)] == old and old, len(old), len(new))
        last = max(row[2] for row in old if row[1] == "account-1")
        position = self.session.value("SELECT message_store.write_message(gen_random_uuid()::varchar, 'account-1', 'Written', "
                                      "'{}', NULL, %s)", [last])
        check("message-db: and go on at the same version", position == last + 1, last, position)


class Emmett(Store):
    name = "emmett"
    variables = ("partition=emt:default",)
    raw = """SELECT global_position AS position, stream_position AS version, created AS recorded_at, stream_id AS stream,
                    message_type AS type, message_data AS data, message_metadata AS metadata, message_id::uuid AS id
               FROM emt_messages"""
    late = """SELECT * FROM emt_append_to_stream(ARRAY[gen_random_uuid()::text], ARRAY['{"n": 1}'::jsonb], ARRAY['{"user": "x"}'::jsonb],
              ARRAY['1'], ARRAY['Late'], ARRAY['E'], 'late-' || gen_random_uuid(), 'late', NULL, 'emt:default')"""
    consumer_name = "carts"
    damages = {"data": "UPDATE emt_messages SET message_data = '{}' WHERE global_position = 100"}

    def node(self, *arguments):
        info = self.session.connection.info
        url = f"postgresql://{info.user}@localhost/{self.database}?host={info.host}&port={info.port}"
        return ["node", f"{node_folder}/emmett_store.mjs", url, *arguments]

    def events(self):
        return 20000 if MANY else 4000

    def make(self):
        subprocess.run(self.node("make"), check=True, capture_output=True)
        subprocess.run(self.node("fill", "20", str(self.count // 20), "20"), check=True, capture_output=True)
        check("emmett: its client has written", self.session.value("SELECT count(*) FROM emt_messages") == self.count)
        self.writers = {}

    def write(self, session, number):
        if session not in self.writers:
            self.writers[session] = subprocess.Popen(self.node("write"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process = self.writers[session]
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        answer = process.stdout.readline().strip()
        if answer != f"ok {number}":
            raise RuntimeError(answer)

    def processed(self):
        result = subprocess.run(self.node("consume", "carts", "137"), check=True, capture_output=True, text=True)
        positions = [int(position) for position in result.stdout.split()]
        check("emmett: its consumer has a checkpoint", len(positions) == 137 and int(self.session.value(
            "SELECT last_processed_checkpoint FROM emt_processors WHERE processor_id = 'carts'")) == positions[-1], positions[-3:])
        # what comes before the last one in emmett's order, also what its client has left out
        return [row[0] for row in self.session.rows(
            "SELECT m.global_position FROM emt_messages AS m, emt_messages AS last WHERE last.global_position = %s "
            "AND (m.transaction_id, m.global_position) <= (last.transaction_id, last.global_position)", [positions[-1]])]


class Marten(Store):
    name = "marten"
    variables = ("schema=marten",)
    tables = """
        CREATE SCHEMA marten;
        CREATE TABLE marten.mt_streams (id uuid NOT NULL PRIMARY KEY, type varchar, version bigint,
            timestamp timestamptz NOT NULL DEFAULT now(), snapshot jsonb, snapshot_version integer,
            created timestamptz NOT NULL DEFAULT now(), tenant_id varchar DEFAULT '*DEFAULT*', is_archived boolean DEFAULT false);
        CREATE SEQUENCE marten.mt_events_sequence;
        CREATE TABLE marten.mt_events (seq_id bigint NOT NULL PRIMARY KEY, id uuid NOT NULL,
            stream_id uuid REFERENCES marten.mt_streams ON DELETE CASCADE, version bigint NOT NULL, data jsonb NOT NULL,
            type varchar(500) NOT NULL, timestamp timestamptz NOT NULL DEFAULT now(), tenant_id varchar DEFAULT '*DEFAULT*',
            mt_dotnet_type varchar, correlation_id varchar, causation_id varchar, headers jsonb, is_archived boolean DEFAULT false);
        CREATE UNIQUE INDEX ON marten.mt_events (stream_id, version);
        CREATE TABLE marten.mt_event_progression (name varchar NOT NULL PRIMARY KEY, last_seq_id bigint,
            last_updated timestamptz DEFAULT transaction_timestamp());
        -- appends one event
        CREATE FUNCTION marten.append(stream uuid, kind text, event text, content jsonb, seq bigint) RETURNS void LANGUAGE sql AS $$
            INSERT INTO marten.mt_streams (id, type, version) VALUES (stream, kind, 1)
                ON CONFLICT (id) DO UPDATE SET version = mt_streams.version + 1;
            INSERT INTO marten.mt_events (seq_id, id, stream_id, version, data, type, mt_dotnet_type, correlation_id, causation_id,
                headers) SELECT seq, gen_random_uuid(), stream, s.version, content, event, 'Bank.Event, Bank', 'c' || seq,
                CASE WHEN seq % 2 = 0 THEN 'b' || seq END, CASE WHEN seq % 3 = 0 THEN jsonb_build_object('user', 'u' || seq) END
                FROM marten.mt_streams AS s WHERE s.id = stream $$"""
    raw = """SELECT seq_id AS position, e.version, e.timestamp AS recorded_at, coalesce(s.type, 'stream') || '-' ||
                    CASE e.tenant_id WHEN 'acme' THEN 'acme/' ELSE '' END || s.id AS stream,
                    e.type::text, data, (SELECT jsonb_object_agg(key, value) FROM (
                        SELECT * FROM jsonb_each(headers) UNION ALL SELECT 'correlation_id', to_jsonb(correlation_id)
                        UNION ALL SELECT 'causation_id', to_jsonb(causation_id) WHERE causation_id IS NOT NULL
                        UNION ALL SELECT 'tenant_id', to_jsonb(e.tenant_id) WHERE e.tenant_id = 'acme') AS m) AS metadata, e.id
               FROM marten.mt_events AS e JOIN marten.mt_streams AS s ON s.id = e.stream_id WHERE e.type <> 'tombstone'"""
    late = "SELECT marten.append(gen_random_uuid(), 'late', 'late', '{\"n\": 1}', nextval('marten.mt_events_sequence'))"
    consumer_name = "Trips:All"
    damages = {"metadata": "UPDATE marten.mt_events SET headers = '{\"x\": 1}' WHERE seq_id = 100"}

    def fill(self):
        self.session.rows("""SELECT marten.append(md5('s' || i % 60)::uuid, CASE WHEN i % 60 > 3 THEN 'trip' END, 'moved',
            jsonb_build_object('n', i), nextval('marten.mt_events_sequence')) FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))
        # another tenant, archived streams, a gap and a tombstone
        self.session.rows("""UPDATE marten.mt_events SET tenant_id = 'acme' WHERE stream_id = md5('s11')::uuid;
            UPDATE marten.mt_streams SET tenant_id = 'acme' WHERE id = md5('s11')::uuid;
            UPDATE marten.mt_streams SET is_archived = true WHERE id = md5('s9')::uuid;
            UPDATE marten.mt_events SET is_archived = true WHERE stream_id = md5('s9')::uuid;
            SELECT nextval('marten.mt_events_sequence');
            SELECT marten.append(gen_random_uuid(), 'mt', 'tombstone', '{}', nextval('marten.mt_events_sequence'));
            ALTER DATABASE old_marten SET old_store.stale_threshold = '300ms'""")

    def write(self, session, number):
        session.rows("SELECT marten.append(md5(%s)::uuid, 'trip', 'moved', %s, nextval('marten.mt_events_sequence'))",
                     [f"w{number % 7}", Jsonb({"n": number})])

    def processed(self):
        self.session.rows("INSERT INTO marten.mt_event_progression (name, last_seq_id) "
                          "VALUES ('HighWaterMark', 1900), ('Trips:All', 1500)")
        return [row[0] for row in self.session.rows("SELECT seq_id FROM marten.mt_events WHERE seq_id <= 1500")]


class Commanded(Store):
    name = "commanded"
    variables = ("schema=elixir",)
    tables = """
        CREATE SCHEMA elixir;
        CREATE TABLE elixir.streams (stream_id bigserial PRIMARY KEY, stream_uuid text NOT NULL UNIQUE,
            stream_version bigint DEFAULT 0 NOT NULL, created_at timestamptz DEFAULT now() NOT NULL, deleted_at timestamptz);
        INSERT INTO elixir.streams VALUES (0, '$all', 0);
        CREATE TABLE elixir.events (event_id uuid PRIMARY KEY, event_type text NOT NULL, causation_id uuid, correlation_id uuid,
            data bytea NOT NULL, metadata bytea, created_at timestamptz DEFAULT now() NOT NULL);
        CREATE TABLE elixir.stream_events (event_id uuid NOT NULL REFERENCES elixir.events,
            stream_id bigint NOT NULL REFERENCES elixir.streams, stream_version bigint NOT NULL,
            original_stream_id bigint REFERENCES elixir.streams, original_stream_version bigint, PRIMARY KEY (event_id, stream_id));
        CREATE UNIQUE INDEX ON elixir.stream_events (stream_id, stream_version);
        CREATE TABLE elixir.subscriptions (subscription_id bigserial PRIMARY KEY, stream_uuid text NOT NULL,
            subscription_name text NOT NULL, last_seen bigint, created_at timestamptz DEFAULT now() NOT NULL);
        -- appends one event; the row of $all is updated last
        CREATE FUNCTION elixir.append(stream text, event text, content bytea) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            own elixir.streams;
            whole bigint;
            id uuid := gen_random_uuid();
        BEGIN
            INSERT INTO elixir.streams (stream_uuid, stream_version) VALUES (stream, 1)
                ON CONFLICT (stream_uuid) DO UPDATE SET stream_version = streams.stream_version + 1 RETURNING * INTO own;
            INSERT INTO elixir.events VALUES (id, event, CASE WHEN own.stream_version % 2 = 0 THEN id END, id, content,
                convert_to('{"user": "' || own.stream_version || '"}', 'UTF8'), clock_timestamp());
            INSERT INTO elixir.stream_events VALUES (id, own.stream_id, own.stream_version, own.stream_id, own.stream_version);
            UPDATE elixir.streams SET stream_version = stream_version + 1 WHERE stream_id = 0 RETURNING stream_version INTO whole;
            INSERT INTO elixir.stream_events VALUES (id, 0, whole, own.stream_id, own.stream_version);
        END $$"""
    raw = """SELECT a.stream_version AS position, a.original_stream_version AS version, e.created_at AS recorded_at,
                    stream_uuid AS stream, event_type AS type,
                    CASE WHEN event_type = 'Term' THEN '{}' ELSE convert_from(data, 'UTF8')::jsonb END AS data,
                    jsonb_strip_nulls(jsonb_build_object('user', original_stream_version::text, 'correlation_id', correlation_id,
                        'causation_id', causation_id)) AS metadata, event_id AS id
               FROM elixir.stream_events AS a JOIN elixir.events AS e USING (event_id)
               JOIN elixir.streams AS s ON s.stream_id = a.original_stream_id WHERE a.stream_id = 0"""
    consumer_name = "mails"
    damages = {"bodies": "UPDATE elixir.events SET data = '\\x8301' WHERE event_type = 'Term'"}

    def fill(self):
        self.session.rows("""SELECT elixir.append('account-' || i % 50, 'Elixir.Bank.Moved',
            convert_to(jsonb_build_object('n', i, 'text', 'é')::text, 'UTF8')) FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))
        # a link, a stream that was deleted softly, and data that are no JSON
        self.session.rows("""INSERT INTO elixir.streams (stream_uuid, stream_version) VALUES ('linked', 1);
            INSERT INTO elixir.stream_events SELECT event_id, currval('elixir.streams_stream_id_seq'), 1, original_stream_id,
                original_stream_version FROM elixir.stream_events WHERE stream_id = 0 AND stream_version = 7;
            UPDATE elixir.streams SET deleted_at = now() WHERE stream_uuid = 'account-3';
            SELECT elixir.append('account-1', 'Term', '\\x8368')""")
        self.count += 1

    def write(self, session, number):
        session.rows("SELECT elixir.append(%s, 'Elixir.Bank.Moved', convert_to(%s, 'UTF8'))",
                     [f"account-{number % 7}", json.dumps({"n": number})])

    def processed(self):
        check("commanded: bytes that are no JSON are the body", self.session.value(
            "SELECT body FROM es.es_events WHERE type = 'Term'") == b"\x83\x68")
        self.session.rows("INSERT INTO elixir.subscriptions (stream_uuid, subscription_name, last_seen) "
                          "VALUES ('$all', 'mails', 1500), ('account-1', 'single', 3)")
        return list(range(1, 1501))


class RailsEventStore(Store):
    name = "rails-event-store"
    tables = """
        CREATE TABLE event_store_events (id bigserial PRIMARY KEY, event_id uuid NOT NULL UNIQUE, event_type varchar NOT NULL,
            metadata jsonb, data jsonb NOT NULL, created_at timestamp(6) NOT NULL, valid_at timestamp(6));
        CREATE TABLE event_store_events_in_streams (id bigserial PRIMARY KEY, stream varchar NOT NULL, position integer,
            event_id uuid NOT NULL, created_at timestamp(6) NOT NULL);
        CREATE UNIQUE INDEX ON event_store_events_in_streams (stream, position);
        CREATE UNIQUE INDEX ON event_store_events_in_streams (stream, event_id);
        CREATE FUNCTION append(stream text, "position" int, event text, content jsonb) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            event_id uuid := gen_random_uuid();
        BEGIN
            INSERT INTO event_store_events (event_id, event_type, metadata, data, created_at, valid_at)
                VALUES (event_id, event, jsonb_build_object('correlation_id', event_id), content,
                    clock_timestamp() AT TIME ZONE 'UTC', CASE WHEN content->>'n' LIKE '%7' THEN timestamp '2020-01-01' END);
            IF stream IS NOT NULL THEN
                INSERT INTO event_store_events_in_streams (stream, position, event_id, created_at)
                    VALUES (stream, position, event_id, now());
            END IF;
            INSERT INTO event_store_events_in_streams (stream, position, event_id, created_at)
                SELECT '$by_type_' || event, NULL, event_id, now() WHERE stream IS NOT NULL;
        END $$"""
    # versions are numbers of their own here, as positions may be missing
    raw = """SELECT id AS position, row_number() OVER (PARTITION BY stream ORDER BY id) AS version, recorded_at, stream, type, data,
                    metadata, event_id AS id FROM (
                SELECT e.id, created_at AT TIME ZONE 'UTC' AS recorded_at, coalesce(
                        (SELECT replace(stream, 'Order$', 'Order-') FROM event_store_events_in_streams AS s
                          WHERE s.event_id = e.event_id AND stream NOT LIKE '$%'), 'nowhere') AS stream,
                       event_type::text AS type, data, metadata, event_id FROM event_store_events AS e) AS events"""
    variables = ("unlinked=nowhere",)
    late = "SELECT append('late-' || gen_random_uuid(), 0, 'Late', '{\"n\": 1}')"
    damages = {"times": "UPDATE event_store_events SET valid_at = '2021-01-01' WHERE id = 100"}

    def fill(self):
        self.session.rows("""SELECT append(CASE WHEN i % 50 = 0 THEN NULL WHEN i % 3 = 0 THEN 'cart' ELSE 'Order$' || i % 50 END,
            CASE WHEN i % 3 = 0 THEN NULL ELSE i / 50 END, 'OrderPlaced', jsonb_build_object('n', i, 'text', 'é "x"'))
            FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))
        # every event of :any, without a stream, or after a gap that i % 3 leaves, has another version
        self.renumbered = None

    def write(self, session, number):
        session.rows("SELECT append(%s, NULL, 'Written', %s)", [f"w-{number % 7}", Jsonb({"n": number})])


class Eventsourcing(Store):
    name = "eventsourcing"
    variables = ("application=bank",)
    tables = """
        CREATE TABLE bank_events (originator_id uuid NOT NULL, originator_version bigint NOT NULL, topic text, state bytea,
            notification_id bigserial, PRIMARY KEY (originator_id, originator_version)) WITH (autovacuum_enabled = false);
        CREATE UNIQUE INDEX bank_events_notification_id_idx ON bank_events (notification_id);
        CREATE TABLE reports_tracking (application_name text, notification_id bigint, PRIMARY KEY (application_name, notification_id));
        CREATE FUNCTION record(originator uuid, event text, n bigint) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            LOCK TABLE bank_events IN EXCLUSIVE MODE;
            INSERT INTO bank_events SELECT originator, coalesce(max(originator_version), 0) + 1, event,
                convert_to('{"timestamp": {"_type_": "datetime_iso", "_data_": "2026-01-01T12:00:00.' || lpad((n % 1000000)::text, 6, '0')
                    || '+00:00"}, "n": ' || n || ', "class_version": 2}', 'UTF8') FROM bank_events WHERE originator_id = originator;
        END $$"""
    raw = """SELECT notification_id AS position, originator_version AS version, coalesce((state->'timestamp'->>'_data_')::timestamptz,
                    '1970-01-01Z') AS recorded_at, 'Account-' || originator_id AS stream, topic AS type, coalesce(state, '{}') AS data, NULL::jsonb AS metadata,
                    es.es_uuid5('6ba7b812-9dad-11d1-80b4-00c04fd430c8', 'bank_events/' || originator_id || '/' || originator_version)
                    AS id FROM (SELECT notification_id, originator_version, originator_id, topic,
                        CASE WHEN topic NOT LIKE '%Sealed' THEN convert_from(state, 'UTF8')::jsonb END AS state FROM bank_events) AS events"""
    consumer_name = "reports"
    damages = {"types": "UPDATE bank_events SET topic = 'x:Account.X' WHERE notification_id = 100"}

    def fill(self):
        self.session.rows("""SELECT record(md5('a' || i % 40)::uuid,
            'bank.model:Account.' || CASE WHEN i <= 40 THEN 'Opened' ELSE 'Deposited' END, i) FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))

        # a state that is compressed
        self.session.rows("SELECT record(md5('a1')::uuid, 'bank.model:Account.Sealed', 0); "
                          "UPDATE bank_events SET state = '\\x789c01ff' WHERE topic LIKE '%Sealed'")
        self.count += 1

    def write(self, session, number):
        session.rows("SELECT record(md5(%s)::uuid, 'bank.model:Account.Deposited', %s)", [f"w{number % 7}", number])

    def processed(self):
        check("eventsourcing: bytes that are no JSON are the body", self.session.value(
            "SELECT body FROM es.es_events WHERE type LIKE '%Sealed'") == b"\x78\x9c\x01\xff")
        self.session.rows("INSERT INTO reports_tracking SELECT 'bank', i FROM generate_series(1, 1200) AS i; "
                          "INSERT INTO reports_tracking VALUES ('other', 2000)")
        return list(range(1, 1201))


class KurrentDb(Store):
    """Lines as kurrentdb.mjs writes them, which is tried with events as the client documents them."""

    name = "kurrentdb"
    consumer_name = "mails"

    def make(self):
        # lines of two streams, one truncated, with events of the system, a link and bytes
        self.lines = []
        revisions = {}
        for n in range(1, self.count + 1):
            stream = f"cart-{n % 30}"
            revision = revisions[stream] = revisions.get(stream, 4 if stream == "cart-7" else -1) + 1
            self.lines.append({
                "streamId": stream, "revision": str(revision), "id": str(uuid.uuid4()), "type": "Bytes" if n % 10 == 9 else "Added",
                "created": f"2026-01-01T12:00:{n % 60:02}.{n % 1000:03}Z", "isJson": n % 10 != 9,
                "data": base64.b64encode(bytes([n % 256])).decode() if n % 10 == 9 else {"n": n, "text": 'é "x" \\ \n'},
                "metadata": {"$correlationId": f"c{n}", "user": "u"} if n % 2 else None,
                "position": {"commit": str(n * 2 ** 33), "prepare": str(n * 2 ** 33)}})
        self.renumbered = sum(line["streamId"] == "cart-7" for line in self.lines)
        self.damages = {"data": "UPDATE old_store.lines SET line = jsonb_set(line, '{data}', '{}') WHERE number = 100",
                        "bodies": "UPDATE old_store.lines SET line = jsonb_set(line, '{data}', '\"\"') WHERE number = 109"}

    def install(self):
        super().install()
        if self.session.value("SELECT count(*) FROM old_store.lines") == 0:
            self.load(self.lines)

    def load(self, lines):
        path = f"{node_folder}/events.json"
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        result = self.psql("-c", f"\\copy old_store.lines (line) FROM '{path}' (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')")
        check("kurrentdb: the lines are loaded", result.returncode == 0, result.stderr)

    def old_rows(self):
        rows, versions = [], {}
        for number, line in enumerate(self.lines, 1):
            versions[line["streamId"]] = versions.get(line["streamId"], 0) + 1
            metadata = line["metadata"]
            if metadata:
                metadata = {"correlation_id": metadata["$correlationId"], "user": metadata["user"]}
            rows.append((number, versions[line["streamId"]], datetime.datetime.fromisoformat(line["created"]), line["streamId"],
                         line["type"], line["data"] if line["isJson"] else {}, metadata, uuid.UUID(line["id"])))
        return rows

    @property
    def raw(self):
        return ("SELECT number AS position, line->>'streamId' AS stream, CASE WHEN line->>'isJson' = 'true' THEN line->'data' "
                "ELSE '{}' END AS data FROM old_store.lines")


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
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
