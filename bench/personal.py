"""The measurements of bench/personal: microseconds of processor time a call."""
import json
import statistics
import sys

import psycopg

from sessions import Server, Session

DATA = json.dumps({"name": "Ada Lovelace", "email": "ada@example.com", "phone": "+44 1234 567890", "plan": "gold"})
STREAMS = 1000

SERVER = Server(sys.argv[1])
ROUNDS, CALLS = int(sys.argv[2]), int(sys.argv[3])


def prepare(database):
    """Streams with a key each, one of 20 events, and one of 1,000 with a snapshot."""
    with psycopg.connect(dbname=database, autocommit=True) as connection:
        for stream, events in [("person-short", 20), ("person-long", 1000)] + [(f"person-{i}", 1) for i in range(STREAMS)]:
            batch = json.dumps([{"type": "registered", "data": json.loads(DATA)}] * events)
            connection.execute("SELECT es_append_batch(%s, 'none', %s)", (stream, batch))
        connection.execute("SELECT es_snapshot('person-long', 'es_merge')")
        connection.execute("ANALYZE es_events")


def main():
    databases = {"plain": "plain", "personal": "personal"}
    for database in databases.values():
        prepare(database)
    calls = {
        "append, the person is known": ("SELECT * FROM es_append(%s, 'any', 'registered', %s)",
                                        lambda i: (f"person-{i % STREAMS}", DATA), CALLS),
        "append, a new person": ("SELECT * FROM es_append(%s, 'any', 'registered', %s)",
                                 lambda i: (f"person-new-{i}", DATA), CALLS),
        "es_load of 20": ("SELECT * FROM es_load('person-short')", lambda i: (), CALLS),
        "es_load of 1,000": ("SELECT * FROM es_load('person-long')", lambda i: (), max(CALLS // 20, 1)),
        "es_state from a snapshot": ("SELECT * FROM es_state('person-long', 'es_merge')", lambda i: (), CALLS),
    }
    sessions = {(call, kind): Session(SERVER, database, True, *calls[call][:2])
                for call in calls for kind, database in databases.items()}
    measured = {key: [] for key in sessions}
    for _ in range(ROUNDS):
        for (call, kind), session in sessions.items():
            measured[call, kind].append(session.measure(calls[call][2])[0])
    middle = {key: statistics.median(rounds) for key, rounds in measured.items()}
    print(f"{'':30}{'plain':>10}{'personal':>10}{'plain / personal':>18}")
    for call in calls:
        plain, personal = middle[call, "plain"], middle[call, "personal"]
        print(f"{call:30}{plain:10.0f}{personal:10.0f}{plain / personal:18.2f}")
    spread = statistics.median(max(rounds) / min(rounds) for rounds in measured.values())
    print(f"largest / smallest round, median of all: {spread:.2f}")


main()
