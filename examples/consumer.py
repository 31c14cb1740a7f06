"""A consumer of a subscription in Python, with the driver psycopg 3.

    python3 consumer.py SUBSCRIPTION [NAME]

It connects by the usual variables, such as PGHOST, PGDATABASE and PGUSER. One
running program at a time may use a NAME. If it is started again under its NAME,
it continues at once with the events that it had in flight. Without a NAME it
waits until their lease expires.

It uses long polls. es_poll sleeps in the server until there is an event, a retry
is due, or the lease of another consumer has expired. This is the simplest way,
and the best one for a program that does nothing else on its connection. If many
consumers wait, or behind a connection pool, one LISTEN can wake all of them, as in
consumer.js and consumer.rb.
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
    """Does the work. It may run twice for an event, so it should be idempotent."""
    connection.execute(
        "INSERT INTO handled (consumer, position, stream, version, attempt) VALUES (%s, %s, %s, %s, %s)",
        (name, event.position, event.stream, event.version, event.attempt))


def deliver(connection, events):
    failed = set()
    for event in events:
        if event.stream in failed:
            continue  # it is delivered again, after the one that failed
        try:
            handle(connection, event)
        except Exception as error:
            # If the connection is lost, this fails as well, and nothing is settled.
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
        events = connection.execute("SELECT * FROM es_poll(%s, consumer => %s, wait => '5s')",
                                    (subscription, name)).fetchall()
        try:
            if events:
                deliver(connection, events)
        except psycopg.DatabaseError as error:
            if error.sqlstate != "ES006":
                raise
            print("the lease expired, and another consumer has these events now", file=sys.stderr)


def main():
    pause = 0.1
    while not stopping:
        try:
            # prepare_threshold: prepared statements belong to a session, which a pool
            # in transaction mode changes. Leave it out without such a pool.
            with psycopg.connect(autocommit=True, prepare_threshold=None, row_factory=namedtuple_row) as connection:
                pause = 0.1
                consume(connection)
        except psycopg.OperationalError as error:  # classes 08, 53 and 57, and all that has no SQLSTATE
            print(f"connection lost, next try in {pause} s: {error}", file=sys.stderr)
            time.sleep(pause)
            pause = min(pause * 2, 10)


def stop(*_):
    """Lets the loop finish the events in flight. es_poll returns within its wait."""
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
main()
