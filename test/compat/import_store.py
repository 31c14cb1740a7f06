"""What the test of the importers has of each store that it moves: sessions, and the class of a store.

The arguments are those of imports.py.
"""
import os
import subprocess
import sys
import threading
import time

import psycopg

scripts, node_folder, *chosen = sys.argv[1:]
MANY = bool(os.environ.get("LONG"))
WAIT = 60  # seconds until something that is to happen has failed
counts = {True: 0, False: 0}  # of checks, by whether they hold


def check(name, good, *lines):
    counts[bool(good)] += 1
    if not good:
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
