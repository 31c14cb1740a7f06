"""The measurements of bench/erasures."""
import statistics
import subprocess
import sys
import threading
import time

import psycopg

from sessions import Server

SERVER = Server(sys.argv[1])
SUBJECTS, EVENTS, OTHERS, STREAMS = map(int, sys.argv[2:6])
BATCH = 500             # persons of a transaction that appends
READS_A_SECOND = 50
TABLES = ["es_subject_keys", "es_erasures", "es_events", "es_tags"]

FILL = """
INSERT INTO es_import (stream, type, data)
SELECT format('person-%%s.%%s', n, i %% %(streams)s), 'registered',
       jsonb_build_object('person', n, 'name', 'Ada Lovelace ' || n, 'email', n || '@example.com', 'plan', 'gold')
  FROM generate_series(%(first)s::int, %(last)s::int) n, generate_series(1, %(events)s::int) i"""

# Rows as archiving, handlers and es_receive make them; by these it would take too long.
FILL_OTHERS = [
    """INSERT INTO es_archived_events (position, version, recorded_at, id, stream, type, data, tags)
       SELECT 1000000000 + n, mod(n, 10) + 1, now(), gen_random_uuid(), 'old-' || n / 10, 'moved', '{"to": "nowhere"}',
              ARRAY['lorry:' || mod(n, 1000), 'order:' || n]
         FROM generate_series(0, %(others)s - 1) n""",
    """INSERT INTO es_failures (projection, event_id, position, stream, version, type, sqlstate, message, attempts,
                                first_failed_at, last_failed_at)
       SELECT 'shipments', gen_random_uuid(), 1000000000 + n, 'old-' || n / 10, mod(n, 10) + 1, 'moved', 'P0001', 'it fails', 3,
              now(), now()
         FROM generate_series(0, %(others)s - 1) n""",
    """INSERT INTO es_inbox (topic, group_id, event_type, message_id, checksum, payload, position)
       SELECT 'orders', 'shop', 'placed', n::text, md5(n::text), '{"order": 1, "what": "a book"}', 1000000000 + n
         FROM generate_series(0, %(others)s - 1) n"""]


def fill(connection):
    connection.execute("SELECT es_define_event_type('registered', personal => '{name,email}', subject => 'person')")
    for first in range(1, SUBJECTS + 1, BATCH):
        connection.execute(FILL, {"streams": STREAMS, "events": EVENTS, "first": first,
                                  "last": min(first + BATCH - 1, SUBJECTS)})
    connection.execute(FILL, {"streams": 1, "events": 20, "first": 0, "last": 0})
    for statement in FILL_OTHERS:
        connection.execute(statement % {"others": OTHERS} if OTHERS else "SELECT 1")
    connection.execute("VACUUM ANALYZE")
    connection.execute("CHECKPOINT")


class Reader(threading.Thread):
    """Loads the events of the person who stays, again and again."""

    def __init__(self):
        super().__init__(daemon=True)
        self.latencies, self.stopped = [], False

    def run(self):
        with psycopg.connect(autocommit=True) as connection:
            while not self.stopped:
                began = time.monotonic()
                rows = connection.execute("SELECT data->>'name' FROM es_load('person-0.0')").fetchall()
                if rows != [("Ada Lovelace 0",)] * 20:
                    raise RuntimeError("the reader got %r" % (rows,))
                self.latencies.append(time.monotonic() - began)
                time.sleep(1 / READS_A_SECOND)

    def take(self):
        taken, self.latencies = self.latencies, []
        return taken


def erase():
    """Erases all by psql; returns the processor time of its session and of the others, in ns."""
    statement = ("SELECT format('SELECT count(*) FROM es_erase_subject(%%L, %%L)', n, 'request ' || n)"
                 " FROM generate_series(1, %d) n \\gexec\n" % SUBJECTS)
    before = SERVER.times()
    last = dict(before)
    with subprocess.Popen(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null"], stdin=subprocess.PIPE, text=True) as psql:
        psql.stdin.write(statement)
        psql.stdin.close()
        while psql.poll() is None:
            last.update(SERVER.times())
            time.sleep(0.2)
        if psql.returncode != 0:
            raise SystemExit("psql failed")
    return {pid: ns - before.get(pid, 0) for pid, ns in last.items()}


def rates(connection):
    """Erasures a second in the first tenth and in the last one, by when they were made."""
    rate = ("(SELECT (count(*) - 1) / nullif(extract(epoch FROM max(erased_at) - min(erased_at)), 0)"
            " FROM (SELECT erased_at FROM es_erasures ORDER BY erased_at %s LIMIT greatest(%d / 10, 2)) t)")
    return connection.execute("SELECT " + ", ".join(rate % (order, SUBJECTS) for order in ("ASC", "DESC"))).fetchone()


def state(connection):
    sizes = {table: connection.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone()[0] for table in TABLES}
    sizes["WAL"] = int(connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()[0])
    return sizes


def show_latency(name, latencies):
    ordered = sorted(latencies)
    print("%-44s median %6.2f ms, 99 of 100 %6.2f ms, longest %7.2f ms, of %d"
          % (name, 1000 * statistics.median(ordered), 1000 * ordered[len(ordered) * 99 // 100], 1000 * ordered[-1], len(ordered)))


def main():
    connection = psycopg.connect(autocommit=True)
    began = time.monotonic()
    fill(connection)
    print("%d persons with %d events each in %d streams, and three tables of %d others: filled in %.0f s"
          % (SUBJECTS, EVENTS, STREAMS, OTHERS, time.monotonic() - began), flush=True)
    reader = Reader()
    reader.start()
    time.sleep(5)
    reader.take()
    time.sleep(10)
    alone, before, began = reader.take(), state(connection), time.monotonic()
    times = erase()
    seconds, after, beside = time.monotonic() - began, state(connection), reader.take()
    reader.stopped = True
    reader.join()
    session = max(times.values())
    first, last = rates(connection)
    print("erased in %.0f s: %.0f a second; %.0f in the first tenth, %.0f in the last" % (seconds, SUBJECTS / seconds, first, last))
    print("processor time of an erasure: %.0f us, and %.0f us of the rest of the server"
          % (session / SUBJECTS / 1000, (sum(times.values()) - session) / SUBJECTS / 1000))
    for table in TABLES:
        print("%-44s from %.1f MB to %.1f MB" % (table, before[table] / 1048576, after[table] / 1048576))
    print("%-44s %.0f MB, %.1f kB an erasure" % ("WAL", (after["WAL"] - before["WAL"]) / 1048576, (after["WAL"] - before["WAL"]) / 1024 / SUBJECTS))
    show_latency("es_load of 20 events of another person", alone)
    show_latency("the same beside the erasures", beside)
    left = connection.execute("SELECT count(*) FROM es_read_category('person') WHERE data->>'name' IS NOT NULL").fetchone()[0]
    print("events that can still be read: %d, all of the person who stays" % left)


main()
