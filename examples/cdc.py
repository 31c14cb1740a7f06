"""A consumer of the write-ahead log that keeps the order of positions, in Python.

    python3 cdc.py SLOT wal2json|pgoutput FILE

It reads a replication slot, in which transactions come in the order of their commits, and writes
the events into a file of SQLite in the order of their positions. To that end it holds an event back
until the published horizon, which comes by the same slot, has reached its position.

It keeps nothing in memory from one look to the next. What it cannot write yet stays in the slot,
since it confirms the slot only up to the first transaction that has an event it did not write. The
file has the last position that was written, so that nothing is written twice after a crash.

The slot must have been created before the first append. Otherwise copy the events that were there
first (doc/guide/cdc.md). pgoutput reads the publication "cdc":

    CREATE PUBLICATION cdc FOR TABLE es_events, es_published_horizon WITH (publish = 'insert, update');
"""
import json
import signal
import sqlite3
import struct
import sys
import time

import psycopg
from psycopg import sql

SCHEMA = "public"  # of the extension
CHANGES = 10000    # at least so many in a look; more, if no transaction ends there
PAUSE = 0.2
stopping = False


def wal2json(db, slot, count):
    """What is in the slot: ("commit", lsn) after the rows of a transaction, ("row", table, {column: value})."""
    tables = f"{SCHEMA}.es_events,{SCHEMA}.es_published_horizon"
    for lsn, data in db.execute(
            "SELECT lsn, data FROM pg_logical_slot_peek_changes(%s, NULL, %s, 'format-version', '2', 'actions',"
            " 'insert,update', 'add-tables', %s)", (slot, count, tables)):
        change = json.loads(data)
        if change["action"] == "C":
            yield "commit", lsn
        elif change["action"] in "IU":
            yield "row", change["table"], {column["name"]: column["value"] for column in change["columns"]}


class Message:
    """A message of pgoutput: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html"""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        value, = struct.unpack_from("!" + form, self.data, self.at)
        self.at += struct.calcsize("!" + form)
        return value

    def bytes(self, length):
        self.at += length
        return self.data[self.at - length:self.at]

    def text(self):
        return self.bytes(self.data.index(b"\0", self.at) - self.at + 1)[:-1].decode()

    def relation(self):
        oid, _, name, _ = self.number("I"), self.text(), self.text(), self.bytes(1)
        columns = []
        for _ in range(self.number("H")):
            _, column, _, _ = self.bytes(1), self.text(), self.number("I"), self.number("i")
            columns.append(column)
        return oid, (name, columns)

    def row(self, columns):
        values = {}
        for column in columns[:self.number("H")]:
            kind = self.bytes(1)
            values[column] = self.bytes(self.number("I")).decode() if kind == b"t" else None
        return values


def pgoutput(db, slot, count):
    """The same, from the server's own plugin."""
    relations = {}
    for lsn, data in db.execute(
            "SELECT lsn, data FROM pg_logical_slot_peek_binary_changes(%s, NULL, %s, 'proto_version', '1',"
            " 'publication_names', 'cdc')", (slot, count)):
        message = Message(data)
        kind = message.bytes(1)
        if kind == b"C":
            yield "commit", lsn
        elif kind == b"R":
            oid, relation = message.relation()
            relations[oid] = relation
        elif kind in (b"I", b"U"):
            table, columns = relations[message.number("I")]
            if message.bytes(1) != b"N":  # before the new row of an update comes its old key
                message.row(columns)
                message.bytes(1)
            yield "row", table, message.row(columns)


def look(changes):
    """The greatest horizon, and the transactions with their events: [(lsn of the commit, [event])]."""
    horizon, transactions, events = 0, [], []
    for kind, *what in changes:
        if kind == "commit":
            transactions.append((what[0], events))
            events = []
        elif what[0] == "es_published_horizon":
            horizon = max(horizon, int(what[1]["position"]))
        else:
            events.append(what[1])
    return horizon, transactions


def follow(db, slot, read, file, count):
    """Writes what is stable, and confirms it. Returns whether anything was confirmed, and how many changes to read."""
    horizon, transactions = look(read(db, slot, count))
    last, = file.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    ready = {int(e["position"]): e for _, events in transactions for e in events if last < int(e["position"]) <= horizon}
    with file:
        file.executemany("INSERT INTO events (position, id, stream, type, data) VALUES (?, ?, ?, ?, ?)",
                         [(p, e["id"], e["stream"], e["type"], e["data"]) for p, e in sorted(ready.items())])
    confirmed = None
    for lsn, events in transactions:
        if any(int(event["position"]) > max(last, horizon) for event in events):
            break
        confirmed = lsn
    if confirmed:
        db.execute(sql.SQL("SELECT pg_replication_slot_advance({}, {})").format(slot, str(confirmed)))
    return confirmed is not None, count if confirmed or not transactions else count * 2


def main():
    slot, read = sys.argv[1], {"wal2json": wal2json, "pgoutput": pgoutput}[sys.argv[2]]
    file = sqlite3.connect(sys.argv[3])
    file.execute("CREATE TABLE IF NOT EXISTS events (ordinal INTEGER PRIMARY KEY AUTOINCREMENT, position INTEGER UNIQUE,"
                 " id TEXT, stream TEXT, type TEXT, data TEXT)")
    while not stopping:
        try:
            with psycopg.connect(autocommit=True) as db:
                count = CHANGES
                while not stopping:
                    moved, count = follow(db, slot, read, file, count)
                    if not moved:
                        time.sleep(PAUSE)
        except psycopg.Error as error:  # also that the backend of one that was killed has advanced the slot meanwhile
            print(f"next try in 1 s: {error}", file=sys.stderr)
            time.sleep(1)


def stop(*_):
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
main()
