"""The consumer whose effect is in the same database, exactly once, in Python.

    python3 exactly-once.py SUBSCRIPTION [NAME]

Poll, writes and acknowledgement are one transaction. Either all of it takes effect,
or none of it does and the events are delivered again. A connection may be lost at
any moment, also between the commit and its answer.
"""
import os
import signal
import sys
import time

import psycopg
from psycopg.rows import namedtuple_row

subscription, name = (sys.argv[1:] + [None])[:2]
stopping = False


def handle(connection, event):
    """Writes to this database, and nothing else."""
    connection.execute(
        "INSERT INTO handled (consumer, position, stream, version, attempt) VALUES (%s, %s, %s, %s, %s)",
        (name, event.position, event.stream, event.version, event.attempt))


def deliver(connection, events):
    failed = set()
    for event in events:
        if event.stream in failed:
            continue  # it is delivered again, after the one that failed
        try:
            with connection.transaction():  # a savepoint: what the others wrote stays
                handle(connection, event)
        except Exception as error:
            connection.execute("SELECT es_nack(%s, %s, %s, %s)",
                               (subscription, event.token, event.position, str(error)))
            failed.add(event.stream)
    connection.execute("SELECT es_ack(%s, %s)", (subscription, events[0].token))


def consume(connection):
    try:
        connection.execute("SELECT es_create_subscription(%s, partitions => 4, lease => %s::interval)",
                           (subscription, os.environ.get("LEASE", "30s")))
    except psycopg.errors.DuplicateObject:
        pass
    while not stopping:
        with connection.transaction():  # waiting in es_poll, it keeps no snapshot
            events = connection.execute("SELECT * FROM es_poll(%s, consumer => %s, wait => '5s')",
                                        (subscription, name)).fetchall()
            if events:
                deliver(connection, events)


def main():
    pause = 0.1
    while not stopping:
        try:
            with psycopg.connect(autocommit=True, prepare_threshold=None, row_factory=namedtuple_row) as connection:
                pause = 0.1
                consume(connection)
        except psycopg.OperationalError as error:
            print(f"connection lost, next try in {pause} s: {error}", file=sys.stderr)
            time.sleep(pause)
            pause = min(pause * 2, 10)


def stop(*_):
    """Lets the loop finish the events in flight. es_poll returns within its wait."""
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
main()
