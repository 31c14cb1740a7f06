"""The measurements of bench/cluster: microseconds of processor time a call."""
import json
import statistics
import sys

import psycopg

from sessions import Server, Session

DATA = '{"value": 21.5, "unit": "C", "place": "hall 7, east"}'
BATCH = json.dumps([{"type": "measured", "data": json.loads(DATA)}] * 100)

SERVER = Server(sys.argv[1])
ROUNDS, CALLS = int(sys.argv[2]), int(sys.argv[3])


def main():
    with psycopg.connect(dbname="shard0") as connection:
        streams = [row[0] for row in connection.execute(
            "SELECT s FROM (SELECT 'meter-' || i AS s FROM generate_series(1, 4000) i) x"
            " WHERE es_partition(s, 1024) < 512 LIMIT 1000")]
        short = streams.pop()
        connection.execute("SELECT es_append_batch(%s, 'none', %s)", (short, json.dumps(json.loads(BATCH)[:5])))
    calls = {
        "append": ("SELECT * FROM es_append(%s, 'any', 'measured', %s)",
                   lambda i: (streams[i % len(streams)], DATA), CALLS),
        "batch of 100": ("SELECT * FROM es_append_batch(%s, 'any', %s)",
                         lambda i: (streams[i % len(streams)], BATCH), max(CALLS // 10, 1)),
        "load of 5": ("SELECT * FROM es_load(%s)", lambda i: (short,), CALLS),
        "conflict": ("SELECT * FROM es_append(%s, 'none', 'measured', %s)", lambda i: (short, DATA), CALLS),
    }
    ways = {"prepared": ("shard0", True), "not prepared": ("shard0", False), "routed": ("router", True)}
    sessions = {(call, way): Session(SERVER, *ways[way], *calls[call][:2], "ES001" if call == "conflict" else None)
                for call in calls for way in ways}
    measured = {key: [] for key in sessions}
    for _ in range(ROUNDS):
        for (call, way), session in sessions.items():
            measured[call, way].append(session.measure(calls[call][2]))
    middle = {key: sorted(rounds, key=sum)[len(rounds) // 2] for key, rounds in measured.items()}
    total = {key: sum(parts) for key, parts in middle.items()}
    print(f"{'':14}{'prepared':>10}{'not prepared':>14}{'routed':>16}{'/ prepared':>12}{'/ not':>8}")
    for call in calls:
        router, shard = middle[call, "routed"]
        print(f"{call:14}{total[call, 'prepared']:10.0f}{total[call, 'not prepared']:14.0f}"
              f"{f'{router:.0f} + {shard:.0f}':>16}{total[call, 'routed'] / total[call, 'prepared']:12.2f}"
              f"{total[call, 'routed'] / total[call, 'not prepared']:8.2f}")
    print(f"conflict / routed append: {total['conflict', 'routed'] / total['append', 'routed']:.2f}")
    spread = statistics.median(max(map(sum, rounds)) / min(map(sum, rounds)) for rounds in measured.values())
    print(f"largest / smallest round, median of all: {spread:.2f}")


main()
