"""A consumer that keeps its own position, in Python: it follows the log into a file of SQLite.

    python3 follower.py FILE

One transaction of the file writes the position together with the result of the events, so
each event counts once. The file keeps the incarnation of the store beside the position. After a
restore or a failover the log may have other events at positions that were read already.
es_position_valid() then returns false, and the program stops. Delete the file and run it again,
and it reads the log from the start.
"""
import select
import signal
import sqlite3
import sys
import time

import psycopg

BATCH = 1000
stopping = False


def open_file(name):
    file = sqlite3.connect(name, isolation_level=None)
    file.executescript("""
        CREATE TABLE IF NOT EXISTS at (position INTEGER NOT NULL, incarnation TEXT);
        INSERT INTO at SELECT 0, NULL WHERE NOT EXISTS (SELECT 1 FROM at);
        CREATE TABLE IF NOT EXISTS streams (stream TEXT PRIMARY KEY, events INTEGER NOT NULL)""")
    return file


def check(db, file):
    """Stops if the log does not have the events that were read."""
    position, incarnation = file.execute("SELECT position, incarnation FROM at").fetchone()
    valid, = db.execute("SELECT es_position_valid(%s::uuid, %s)", (incarnation, position)).fetchone()
    if not valid:
        sys.exit(f"The log is not the one that was read up to position {position}: it was restored, or a "
                 "standby was promoted. Delete the file to begin again.")


def follow(db, file):
    """Reads what is new, and the incarnation in the same statement. Returns how many events there were."""
    position, = file.execute("SELECT position FROM at").fetchone()
    events = db.execute("SELECT es_incarnation()::text, position, stream FROM es_read(%s, %s)",
                        (position, BATCH)).fetchall()
    if events:
        file.execute("BEGIN")
        for _, _, stream in events:
            file.execute("INSERT INTO streams VALUES (?, 1) ON CONFLICT (stream) DO UPDATE SET events = events + 1",
                         (stream,))
        file.execute("UPDATE at SET position = ?, incarnation = ?", (events[-1][1], events[-1][0]))
        file.execute("COMMIT")
    return len(events)


def main():
    file = open_file(sys.argv[1])
    while not stopping:
        try:
            with psycopg.connect(autocommit=True) as db:
                if not db.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
                    db.execute("LISTEN es_events")  # a standby has no notifications
                check(db, file)  # after each connect: it may be another server now
                while not stopping:
                    if not follow(db, file):
                        # a notification may fail to come, so it looks every second as well
                        select.select([db], [], [], 1)
        except psycopg.OperationalError as error:
            print(f"connection lost, next try in 1 s: {error}", file=sys.stderr)
            time.sleep(1)


def stop(*_):
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
main()
