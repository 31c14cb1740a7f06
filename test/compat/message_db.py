"""Compares the extension eventstore_message_db with message-db.

    message_db.py STATEMENTS DOCUMENT PROGRAMS

Runs the same statements and the same sessions side by side in the databases "original" and "ours", and compares rows,
column types, errors with their fields, and notices. PROGRAMS is the folder of message-db's own programs, which write
and print messages: they run against copies of both. STATEMENTS has a statement in each line, and these lines:

    -- differs: KEY ~ REGEX    the answers to the next statement must differ, and ours must match; the table of the
                        DOCUMENT says why under the KEY
    -- each: A | B      the next statement is run for each, in the place of $each
    -- reset            a new session, whose settings are the database's

In a statement :id is a new UUID, :id1 to :id9 are UUIDs that stay, and :g(STREAM, POSITION) is a message's global position.
Global positions, times and UUIDs that a server makes are compared by the message that they belong to. The last line
is "N passed, N failed". Exit code 1: something failed.
"""
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import psycopg

DATABASES = ("original", "ours")
WAIT = 10  # seconds until something that is to happen has failed
verbose = bool(os.environ.get("VERBOSE"))
passed = failed = 0
used_keys = set()


def connect(database):
    connection = psycopg.connect(dbname=database, autocommit=True)
    connection.notices = []
    connection.add_notice_handler(lambda notice: connection.notices.append(notice.message_primary))
    return connection


def check(name, good, *lines):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print(f"not ok - {name}")
    if verbose or not good:
        print(name)
        for line in lines:
            print(f"# {line}")


def compare(name, answers, differs=None):
    """Both answers must be the same. With a difference, its key and a regular expression, ours must be another one."""
    lines = f"original: {answers[0]}", f"ours:     {answers[1]}"
    if differs:
        key, expression = differs
        used_keys.add(key)
        check(f"{name} (differs: {key})", answers[0] != answers[1] and re.search(expression, str(answers[1])), *lines)
    else:
        check(name, answers[0] == answers[1], *lines)


class Store:
    """A database, and what is needed to compare its answers with those of the other one."""

    def __init__(self, database):
        self.database = database
        self.control = connect(database)
        self.session = connect(database)
        self.clock = self.control.execute("SELECT now() AT TIME ZONE 'utc' - interval '1 minute'").fetchone()[0]

    def reset(self):
        self.session.close()
        self.session = connect(self.database)

    def global_position(self, stream, position):
        row = self.control.execute(
            "SELECT global_position FROM message_store.messages WHERE stream_name = %s AND position = %s",
            (stream, position)).fetchone()
        return str(row[0]) if row else "0"

    def fill_in(self, statement):
        statement = statement.replace("$db", self.database)
        return re.sub(r":g\(([^,()]*), *(\d+)\)", lambda m: self.global_position(m[1], int(m[2])), statement)

    def shown(self, name, value, row):
        """A value that is made anew in each database as what it stands for."""
        if name == "global_position" and value is not None and "stream_name" in row:
            place = self.global_position(row["stream_name"], row["position"])
            return f"that of {row['stream_name']} {row['position']}" if place == str(value) else f"wrong: {value}"
        if name == "time" and value is not None:
            return "now" if value >= self.clock else str(value)
        return value

    def rows(self, cursor):
        names = [column.name for column in cursor.description]
        types = [column.type_code for column in cursor.description]
        rows = [dict(zip(names, row)) for row in cursor.fetchall()]
        # oids of composite types differ from database to database
        return names, [t if t < 16384 else "own" for t in types], \
            [tuple(self.shown(n, row[n], row) for n in names) for row in rows]

    def answer(self, statement, session=None):
        session = session or self.session
        session.notices.clear()
        try:
            cursor = session.execute(self.fill_in(statement), prepare=False)
            result = self.rows(cursor) if cursor.description else cursor.statusmessage
        except psycopg.Error as error:
            d = error.diag
            result = ("error", d.sqlstate, d.message_primary, d.schema_name, d.table_name, d.column_name, d.constraint_name)
        return result, [n for n in session.notices if not n.startswith("Generated Command")]


stores = [Store(database) for database in DATABASES]


#
# Statements
#

def fixed_id(number):
    return f"00000000-0000-4000-8000-{number:012d}"


def next_id(counter=[1000]):
    counter[0] += 1
    return fixed_id(counter[0])


def with_ids(statement):
    statement = re.sub(r":id(\d)", lambda m: fixed_id(int(m[1])), statement)
    return re.sub(r":id\b", lambda m: next_id(), statement)


def run_statement(statement, differs):
    statement = with_ids(statement)
    compare(statement, [store.answer(statement) for store in stores], differs)


def run_statements(path):
    differs, each = None, None
    for line in open(path, encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("-- differs: "):
            differs = line[len("-- differs: "):].split(" ~ ", 1)
        elif line.startswith("-- each: "):
            each = line[len("-- each: "):].split(" | ")
        elif line == "-- reset":
            for store in stores:
                store.reset()
        elif line and not line.startswith("--"):
            for value in each or [""]:
                run_statement(line.replace("$each", value), differs)
            differs, each = None, None


#
# Sessions side by side
#

class Session:
    """A session whose statements may have to wait. What was asked last is in self.result when it is done."""

    def __init__(self, store):
        self.store = store
        self.connection = connect(store.database)
        self.thread = None
        self.result = None

    def run(self, statement):
        return self.store.answer(with_ids(statement), self.connection)[0]

    def start(self, statement):
        """Starts a statement, and says whether it waits for a lock."""
        def work():
            self.result = self.run(statement)
        self.result = None
        self.thread = threading.Thread(target=work)
        self.thread.start()
        deadline = time.monotonic() + WAIT
        while self.thread.is_alive() and time.monotonic() < deadline:
            waiting = self.store.control.execute(
                "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s",
                (self.connection.info.backend_pid,)).fetchone()[0]
            if waiting:
                return "waits"
            time.sleep(0.005)
        return "goes on"

    def finish(self):
        self.thread.join(WAIT)
        return "still waits" if self.thread.is_alive() else self.result


def write(stream, expected="NULL", id=":id"):
    return f"SELECT write_message('{id}', '{stream}', 'Tried', '{{}}', NULL, {expected})"


def two_writers(store, one, other, end, level="READ COMMITTED"):
    """The second one while the first one is open; then the first one ends."""
    a, b = Session(store), Session(store)
    begin = f"BEGIN ISOLATION LEVEL {level}"
    trace = [a.run(begin), a.run(one), b.run(begin), b.start(other), a.run(end), b.finish(), b.run("COMMIT")]
    return trace


def duplicate_after_snapshot(store, level, lane, other, id, end="COMMIT"):
    """A transaction takes its snapshot, another one stores the id, and the first one stores it, too; and what is there."""
    a, b = Session(store), Session(store)
    trace = [a.run(f"BEGIN ISOLATION LEVEL {level}"), a.run(f"SELECT stream_version('{lane}')"),
             b.run("BEGIN"), b.run(write(other, "NULL", id)), b.run(end), a.run(write(lane, "NULL", id)), a.run("COMMIT")]
    return trace + [store.answer(f"SELECT stream_version('{stream}')")[0] for stream in (lane, other)]


def serialized(trace):
    """At SERIALIZABLE the server may refuse a write as such before the index does: both are a refusal that is tried again."""
    return [("refused",) if answer[0] == "error" and answer[1] in ("23505", "40001") else answer for answer in trace]


def after_snapshot(store, level, seen, then, stream):
    """A transaction takes its snapshot, another one commits, and the first one goes on."""
    a, b = Session(store), Session(store)
    trace = [a.run(f"BEGIN ISOLATION LEVEL {level}"), a.run(seen), b.run(write(stream)), a.run(then), a.run("COMMIT")]
    return trace + [store.answer(f"SELECT stream_version('{stream}')")[0]]


def deadlock(store, lane):
    """Two transactions write to two streams of a category, each in the other's order."""
    a, b = Session(store), Session(store)
    trace = [a.run("BEGIN"), a.run(write(f"{lane}-1")), b.run("BEGIN"), b.start(write(f"{lane}-2"))]
    if trace[-1] == "waits":  # for the category
        return trace + [a.run(write(f"{lane}-2")), a.run("COMMIT"), b.finish(), b.run(write(f"{lane}-1")), b.run("COMMIT")]
    b.finish()
    a.start(write(f"{lane}-2"))
    failure = b.run(write(f"{lane}-1"))
    b.run("ROLLBACK")
    return trace + [failure[:2] if failure[0] == "error" else failure, a.finish()[:2], a.run("COMMIT")]


def read_beside_open_writer(store, stream, category, other):
    """A category is read while a writer of a stream is open and another stream was written."""
    a = Session(store)
    a.run("BEGIN")
    a.run(write(stream))
    b = Session(store)
    b.start(write(other))
    trace = [b.finish() if not b.thread.is_alive() else "waits"]
    trace.append(store.answer(f"SELECT count(*) FROM get_category_messages('{category}')")[0])
    a.run("COMMIT")
    b.finish()
    trace.append(store.answer(f"SELECT count(*) FROM get_category_messages('{category}')")[0])
    return trace


def timeout(store, stream):
    """A writer does not wait for ever, and a later one finds the stream free."""
    a, b = Session(store), Session(store)
    trace = [a.run("BEGIN"), a.run(write(stream)), b.run("SET lock_timeout = '50ms'")]
    trace.append(b.run(write(stream))[:2])
    return trace + [a.run("ROLLBACK"), b.run(write(stream, -1))]


def savepoint(store, stream):
    """An error in a subtransaction leaves the rest."""
    a, id = Session(store), str(uuid.uuid5(uuid.NAMESPACE_OID, stream))
    return [a.run(s) for s in (
        "BEGIN", write(stream, -1, id), "SAVEPOINT s", write(stream, 5), "ROLLBACK TO s",
        write(stream, 0, id), "ROLLBACK TO s", write(stream, 0), "COMMIT",
        f"SELECT position FROM get_stream_messages('{stream}')")]


def lock_then_write(store, stream):
    """The lock of the transaction itself keeps nothing out."""
    a = Session(store)
    return [a.run(s) for s in ("BEGIN", f"SELECT acquire_lock('{stream}')", write(stream, -1), write(stream, 0), "COMMIT")]


def many_writers(store, stream, expected, id=":id", count=25, sessions=8):
    """What comes of writers at the same time: how many of each answer, and the positions."""
    results, lock = {}, threading.Lock()

    def work():
        session = Session(store)
        for _ in range(count):
            answer = session.run(write(stream, expected, id))
            kind = answer[1] if answer[0] == "error" else "written"
            with lock:
                results[kind] = results.get(kind, 0) + 1
    threads = [threading.Thread(target=work) for _ in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, store.answer(
        f"SELECT count(*), min(position), max(position), count(DISTINCT position) FROM get_stream_messages('{stream}', 0, -1)")[0]


def many_lanes(store, name, id, sessions=8):
    """What comes of writers of one id that no category makes wait for each other: one is stored."""
    results, lock, ready = [], threading.Lock(), threading.Barrier(sessions)

    def work(number):
        session = Session(store)
        ready.wait(WAIT)
        answer = session.run(write(f"{name}{number}-1", "NULL", id))
        with lock:
            results.append(answer[:3] if answer[0] == "error" else "written")
    threads = [threading.Thread(target=work, args=(n,)) for n in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(map(str, results)), store.answer(f"SELECT count(*) FROM messages WHERE id = '{id}'")[0]


def in_order(store, category, sessions=4, count=50):
    """A reader that follows a category while it is written sees every message, once and in order."""
    def work(number):
        session = Session(store)
        for i in range(count):
            session.run(write(f"{category}-{number}x{i % 5}"))
    threads = [threading.Thread(target=work, args=(n,)) for n in range(sessions)]
    for thread in threads:
        thread.start()
    seen, position, deadline = [], 1, time.monotonic() + 2 * WAIT
    reader = connect(store.database)
    while len(seen) < sessions * count and time.monotonic() < deadline:
        page = reader.execute("SELECT global_position FROM get_category_messages(%s, %s, 7)", (category, position)).fetchall()
        seen += [row[0] for row in page]
        if page:
            position = seen[-1] + 1
    for thread in threads:
        thread.join()
    return len(seen), len(set(seen)), seen == sorted(seen)


def run_sessions():
    wrong = "'P0001', 'Wrong expected version: -1"

    def both(name, scenario, *arguments, differs=None):
        compare(name, [scenario(store, *arguments) for store in stores], differs)

    both("two writers expect no stream, the first commits", two_writers, write("two-1", -1), write("two-1", -1), "COMMIT")
    both("two writers expect no stream, the first rolls back", two_writers, write("two-2", -1), write("two-2", -1), "ROLLBACK")
    both("two writers without an expected version", two_writers, write("two-3"), write("two-3"), "COMMIT")
    both("two writers of different categories", two_writers, write("two-4"), write("three-4"), "COMMIT")
    both("two writers of one category", two_writers, write("two-5"), write("two-6"), "COMMIT", differs=("category lock", "goes on"))
    both("the same id in two categories, the first commits", two_writers,
         write("two-7", "NULL", fixed_id(502)), write("three-7", "NULL", fixed_id(502)), "COMMIT")
    both("the same id in two categories, the first rolls back", two_writers,
         write("two-8", "NULL", fixed_id(503)), write("three-8", "NULL", fixed_id(503)), "ROLLBACK")
    both("the same id in one stream, the first commits", two_writers,
         write("two-9", "NULL", fixed_id(504)), write("two-9", "NULL", fixed_id(504)), "COMMIT")
    both("a write waits for acquire_lock", two_writers, "SELECT acquire_lock('two-1')", write("two-10"), "COMMIT")
    both("a write of another category does not", two_writers, "SELECT acquire_lock('two-1')", write("three-10"), "COMMIT")
    both("acquire_lock waits for a write", two_writers, write("two-11"), "SELECT acquire_lock('two-12')", "COMMIT")
    both("acquire_lock waits for acquire_lock", two_writers, "SELECT acquire_lock('two')", "SELECT acquire_lock('two-1')", "ROLLBACK")
    both("acquire_lock, then a write of the same transaction", lock_then_write, "two-13")
    both("errors and rollbacks to a savepoint", savepoint, "two-14")
    both("two transactions in each other's order", deadlock, "dead", differs=("deadlock", "40P01"))
    number = 510
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        name = level[0:4].lower().replace(" ", "")
        for end in ("COMMIT", "ROLLBACK"):
            def of_level(scenario):
                return lambda *arguments: (serialized if level == "SERIALIZABLE" else list)(scenario(*arguments))

            both(f"the same id in two categories at {level}, the first ends by {end}", of_level(two_writers),
                 write(f"{name}two-1", "NULL", fixed_id(number)), write(f"{name}three-1", "NULL", fixed_id(number)), end, level)
            both(f"the same id in another category after the snapshot at {level}, {end}", of_level(duplicate_after_snapshot), level,
                 f"{name}four-1", f"{name}five-1", fixed_id(number + 1), end)
            number += 2
    for level in ("READ COMMITTED",):
        both(f"expected version at {level}", after_snapshot, level, "SELECT stream_version('iso-1')", write("iso-1", 0), "iso-1")
        both(f"no expected version at {level}", after_snapshot, level, "SELECT stream_version('iso-2')", write("iso-2"), "iso-2")
    for level in ("REPEATABLE READ", "SERIALIZABLE"):
        name = level[0].lower()
        both(f"expected version at {level}", after_snapshot, level, f"SELECT stream_version('{name}-1')", write(f"{name}-1", -1),
             f"{name}-1", differs=("snapshot", wrong))
        both(f"no expected version at {level}", after_snapshot, level, f"SELECT stream_version('{name}-2')", write(f"{name}-2"),
             f"{name}-2", differs=("snapshot", r"\(1,\)\]\), 'COMMIT'"))
        both(f"another stream at {level}", after_snapshot, level, f"SELECT stream_version('{name}-3')", write(f"{name}-4"), f"{name}-3")
        both(f"reading at {level}", after_snapshot, level, f"SELECT stream_version('{name}-5')", f"SELECT stream_version('{name}-5')",
             f"{name}-5")
    both("a category beside an open writer of it", read_beside_open_writer, "open-1", "open", "open-2",
         differs=("category lock", r"^\[\(\['write_message'\], \[20\], \[\(0,\)\]\), .*\(0,\).*\(2,\)"))
    both("a category beside an open writer of another one", read_beside_open_writer, "open-3", "shut", "shut-1",
         differs=("horizon", r"\['count'\], \[20\], \[\(0,\)\].*\(1,\)"))
    both("a lock timeout", timeout, "time-1")
    both("an error in a subtransaction", savepoint, "save-1")
    both("eight writers without an expected version", many_writers, "many-1", "NULL")
    both("eight writers of one id", many_writers, "many-2", "NULL", fixed_id(505), 3)
    both("eight writers of one id, each in a category of its own", many_lanes, "lane", fixed_id(506))
    both("eight writers that expect no stream", many_writers, "many-3", "-1", ":id", 3)
    both("a reader that follows a category", in_order, "follow")


def check_catalog():
    """The functions, types and views of message-db are all here, with the same arguments, columns and defaults."""
    questions = {
        "functions": "SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), p.provolatile = 'i'"
                     "  FROM pg_proc p WHERE pronamespace = 'message_store'::regnamespace AND prokind = 'f'",
        "columns": "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnum FROM pg_class c"
                   "  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
                   " WHERE relnamespace = 'message_store'::regnamespace AND relkind IN ('r', 'v', 'c')",
    }
    for name, question in questions.items():
        original, ours = [set(store.control.execute(question).fetchall()) for store in stores]
        # the view has no defaults of a table, and our own functions are more
        check(f"{name} of message-db", original <= ours, f"missing: {sorted(original - ours)}")
    row = stores[1].control.execute(
        "SELECT count(*) FROM pg_proc p WHERE pronamespace = 'message_store'::regnamespace AND obj_description(oid) IS NULL").fetchone()
    check("every function has a comment", row[0] == 0)


def check_together():
    """The messages are events, for which the functions of eventstore work as well."""
    store = stores[1]

    def holds(statement, expected):
        statement = with_ids(statement)
        answer = store.answer(statement)[0]
        got = answer[2] if isinstance(answer[0], list) else answer[:3]
        check(statement, got == expected, f"got: {got}")

    taken = ("error", "23505", 'duplicate key value violates unique constraint "messages_id"')
    holds(write("both-1", -1, fixed_id(601)), [(0,)])
    holds("SELECT version FROM es.es_append('both-1', 1, 'Appended', '{}', NULL, '" + fixed_id(602) + "')", [(2,)])
    holds(write("both-1", 1, fixed_id(603)), [(2,)])
    holds(write("both-1", 2, fixed_id(602)), taken)
    holds("SELECT version, type FROM es.es_load('both-1')", [(1, "Tried"), (2, "Appended"), (3, "Tried")])
    holds("SELECT position, type FROM get_stream_messages('both-1')", [(0, "Tried"), (1, "Appended"), (2, "Tried")])
    holds("SELECT g.global_position = e.position FROM get_last_stream_message('both-1') g, es.es_last_event('both-1') e", [(True,)])
    # A deleted stream goes on, and its ids stay taken, in any stream.
    holds(write("deleted-1", -1, fixed_id(604)), [(0,)])
    holds("SELECT count(es.es_delete_stream('deleted-1', 1))", [(1,)])
    holds(write("deleted-1", "NULL", fixed_id(604)), taken)
    holds(write("deleted-2", "NULL", fixed_id(604)), taken)
    holds(write("deleted-1", -1), [(2,)])
    holds(write("deleted-4", -1), [(0,)])
    holds("SELECT count(es.es_delete_stream('deleted-4', 1))", [(1,)])
    holds(write("deleted-4", -1, "00000000000040008000000000000699"), [(2,)])
    holds("SELECT count(es.es_delete_stream('deleted-3', 'any', true)) FROM write_message('" + fixed_id(605) + "', 'deleted-3', 'T', '{}')",
          [(1,)])
    # Errors that message-db has not come as they are.
    holds(write("deleted-3"), ("error", "ES003", 'stream "deleted-3" is closed'))
    holds("SELECT es.es_define_event_type('Checked', required => '{amount}')", [("",)])
    holds(write("both-2").replace("'Tried'", "'Checked'"), ("error", "ES004", 'invalid event of type "Checked"'))
    # An upcaster changes what is read.
    store.answer("CREATE FUNCTION public.upcast(data jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql"
                 " RETURN data || '{\"upcast\": true}'")
    store.answer("SELECT es.es_define_event_type('Tried', schema_version => 2)")
    store.answer("SELECT es.es_define_upcaster('Tried', 1, 'public.upcast(jsonb)')")
    for read in ("get_stream_messages('both-1')", "get_category_messages('both')", "get_last_stream_message('both-1', 'Tried')",
                 "messages"):
        holds(f"SELECT DISTINCT data::jsonb FROM {read} WHERE stream_name = 'both-1' AND type = 'Tried'", [({"upcast": True},)])


def state_of(database):
    """What a copy of the store must have: messages, what reads say, objects with their privileges and definitions."""
    questions = {
        "messages": "SELECT id, stream_name, type, position, global_position, data::text, metadata::text, time"
                    "  FROM message_store.messages ORDER BY global_position",
        "functions": "SELECT oid::regprocedure::text, pg_get_functiondef(oid), proacl::text, proowner::regrole::text FROM pg_proc"
                     " WHERE pronamespace = 'message_store'::regnamespace AND prokind = 'f' ORDER BY 1",
        "relations": "SELECT relname, relkind::text, relacl::text, relowner::regrole::text, CASE relkind WHEN 'v' THEN"
                     "  pg_get_viewdef(oid) END FROM pg_class WHERE relnamespace = 'message_store'::regnamespace ORDER BY 1",
        "schema": "SELECT nspacl::text, nspowner::regrole::text FROM pg_namespace WHERE nspname = 'message_store'",
        "extensions": "SELECT extname, extversion, extnamespace::regnamespace::text FROM pg_extension ORDER BY 1",
        "privileges of the role": "SELECT oid::regprocedure::text, has_function_privilege('message_store', oid, 'EXECUTE') FROM pg_proc"
                                  " WHERE pronamespace = 'message_store'::regnamespace ORDER BY 1",
        "last of each stream": "SELECT s, message_store.stream_version(s) FROM (SELECT DISTINCT stream_name FROM"
                               " message_store.messages) m (s) ORDER BY 1",
        "a category": "SELECT id, position, global_position FROM message_store.get_category_messages('both', 1, 100)",
    }
    with connect(database) as connection:
        return {name: connection.execute(question).fetchall() for name, question in questions.items()}


def goes_on(database):
    """The answers of a client of the role message_store, which writes to the copy and to the source alike."""
    store = Store(database)
    store.answer("SET ROLE message_store")
    store.session.execute("SET ROLE message_store")
    statements = (write("both-1", 99, fixed_id(701)), write("both-1", "NULL", fixed_id(601)), write("deleted-1", "NULL", fixed_id(604)),
                  write("deleted-3", "NULL", fixed_id(702)), write("copied-1", -1, fixed_id(703)), write("copied-1", 0, fixed_id(704)),
                  "SELECT position, type FROM get_stream_messages('copied-1')",
                  "SELECT position FROM get_category_messages('copied')", "SELECT message_store_version()")
    return [store.answer(statement)[0] for statement in statements]


def run_program(path, database, settings, tools):
    """What a program prints, without what differs from run to run: ids, times and the database's name."""
    environment = {**os.environ, "DATABASE_NAME": database, "DATABASE_USER": "message_store",
                   "PATH": f"{os.environ['PATH']}:{tools}", **settings}
    result = subprocess.run(["bash", path], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                            env=environment, cwd="/")
    output = result.stdout + result.stderr
    for pattern, word in ((r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"), (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", "TIME"),
                          (database, "DATABASE"), (r"[ -]{2,}", " ")):
        output = re.sub(pattern, word, output)
    return result.returncode, output


def run_programs(folder):
    """message-db's own programs for trying it and for looking at it, on stores that are empty at first."""
    calls = [("write-test-message", {"STREAM_NAME": f"tried-{n}", "INSTANCES": str(n)}) for n in (1, 2, 3)]
    calls += [("write-test-message", {"STREAM_NAME": "other-1", "TYPE": "OtherType", "METADATA": "NULL"})]
    calls += [(f"print-{name}", {}) for name in (
        "message-store-version", "messages", "category-type-summary", "stream-summary", "stream-type-summary",
        "type-category-summary", "type-stream-summary", "type-summary")]
    calls += [("print-messages", {"STREAM_NAME": "tried-3"}), ("print-stream-summary", {"STREAM_NAME": "tried"}),
              ("print-type-summary", {"TYPE": "Other"}), ("print-category-type-summary", {"CATEGORY": "other"})]
    with tempfile.TemporaryDirectory() as tools:
        # one of the programs needs it, and a small machine may not have it
        with open(f"{tools}/uuidgen", "w", encoding="ascii") as file:
            file.write("#!/bin/sh\ncat /proc/sys/kernel/random/uuid\n")
        os.chmod(f"{tools}/uuidgen", 0o755)
        for name, settings in calls:
            answers = [run_program(f"{folder}/{name}.sh", f"programs_{database}", settings, tools) for database in DATABASES]
            compare(f"{name}.sh {settings}", answers)
            check(f"{name}.sh {settings} succeeds", answers[0][0] == 0, answers[0])


def shell(*command, stdin=None):
    result = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    check(" ".join(command), result.returncode == 0 and not result.stderr, result.stderr[-2000:])


def check_copies():
    """A dump of a store with the extension is restored, as text and by two processes, with all that belongs to it."""
    source = state_of("ours")
    check("there are messages to be dumped", len(source["messages"]) > 500)
    with tempfile.TemporaryDirectory() as folder:
        shell("pg_dump", "-f", f"{folder}/sql", "ours")
        shell("pg_dump", "-Fd", "-j2", "-f", f"{folder}/dir", "ours")
        for name in "copy_text", "copy_jobs":
            stores[1].control.execute(f"CREATE DATABASE {name}")
            stores[1].control.execute(f"ALTER DATABASE {name} SET search_path = message_store, public")
        shell("psql", "-XqAt", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", "copy_text", "-f", f"{folder}/sql")
        shell("pg_restore", "-j2", "-d", "copy_jobs", f"{folder}/dir")
    for name in "copy_text", "copy_jobs":
        copy = state_of(name)
        for what, rows in source.items():
            check(f"{name}: {what}", copy[what] == rows, f"source: {str(rows)[:300]}", f"copy:   {str(copy[what])[:300]}")
    answers = [goes_on(name) for name in ("ours", "copy_text", "copy_jobs")]
    check("a copy goes on as the source does", answers[0] == answers[1] == answers[2], *answers)
    check("a client of the role may write", answers[0][4][0] != "error", answers[0])


def check_document(path):
    """The table of differences has a row for each that was seen, and no other."""
    keys = set(re.findall(r"^\| \*\*(.+?)\*\* \|", open(path, encoding="utf-8").read(), re.M))
    check("differences of the document", keys == used_keys, f"not seen: {keys - used_keys}", f"not in it: {used_keys - keys}")


run_programs(sys.argv[3])
check_catalog()
run_statements(sys.argv[1])
run_sessions()
check_together()
check_copies()
check_document(sys.argv[2])
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
