"""Decides outside the database, in Python, with the driver psycopg 3.

    python3 decide.py STREAM AMOUNT...

Each amount is a command: it is moved to, or from, an account that cannot be
overdrawn. It connects by the usual variables: PGHOST, PGDATABASE, PGUSER ...
"""
import os
import random
import sys
import time
import uuid

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

RETRIES = int(os.environ.get("RETRIES", "10"))
connection = None


def fold(events):
    return sum(event.data["amount"] for event in events)


def decide(balance, amount):
    """Returns events; an exception refuses the command."""
    if balance + amount < 0:
        raise ValueError(f"only {balance} left")
    return [{"type": "moved", "data": {"saw": balance, "amount": amount}}]


def attempt(stream, command, command_id):
    """Loads, decides and appends, once. Returns the version of the command's
    first event; None: there was nothing to do."""
    events = connect().execute("SELECT * FROM es_load(%s)", (stream,)).fetchall()
    ids = [event.id for event in events]
    first_id = uuid.uuid5(command_id, f"{stream}:1")
    if first_id in ids:  # an earlier attempt, whose answer was lost
        return events[ids.index(first_id)].version
    decided = decide(fold(events), command)
    if not decided:
        return None
    for number, event in enumerate(decided, 1):
        event["id"] = str(uuid.uuid5(command_id, f"{stream}:{number}"))
    last = connect().execute("SELECT version FROM es_append_batch(%s, %s::bigint, %s)",
                             (stream, events[-1].version if events else 0, Jsonb(decided))).fetchone()
    return last.version - len(decided) + 1


def execute(stream, command, command_id, retries=RETRIES):
    """Repeats the attempt until its result is known, at most RETRIES times."""
    pause = 0.01
    for retry in range(retries + 1):
        try:
            return attempt(stream, command, command_id)
        except psycopg.DatabaseError as error:
            conflict = error.sqlstate in ("ES001", "ES002")
            unknown = isinstance(error, psycopg.OperationalError)  # such as a lost connection
            if retry == retries or not (conflict or unknown):
                raise
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(pause * 2, 1)


def connect():
    global connection
    if connection is None or connection.closed:
        connection = psycopg.connect(autocommit=True, prepare_threshold=None, row_factory=namedtuple_row)
    return connection


def main():
    stream, *amounts = sys.argv[1:]
    for amount in amounts:
        # made once for the command, and kept with it, so that each repetition has the same id
        command_id = uuid.uuid4()
        print(execute(stream, int(amount), command_id))


if __name__ == "__main__":
    main()
