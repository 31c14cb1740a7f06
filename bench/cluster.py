"""The measurements of bench/cluster: microseconds of processor time a call."""
import json
import os
import statistics
import sys

import psycopg

DATA = '{"value": 21.5, "unit": "C", "place": "hall 7, east"}'
BATCH = json.dumps([{"type": "measured", "data": json.loads(DATA)}] * 100)

with open(sys.argv[1], encoding="ascii") as pid_file:
    POSTMASTER = int(pid_file.readline())
ROUNDS, CALLS = int(sys.argv[2]), int(sys.argv[3])


def times():
    """Nanoseconds that each session has run for, by process id."""
    result = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            if parent == POSTMASTER:
                with open(f"/proc/{pid}/schedstat", encoding="ascii") as schedstat:
                    result[int(pid)] = int(schedstat.read().split()[0])
        except OSError:
            pass  # it has ended
    return result


class Session:
    """A session that makes one call again and again."""

    def __init__(self, database, prepared, sql, arguments, fails):
        self.connection = psycopg.connect(dbname=database, autocommit=True)
        self.connection.prepare_threshold = 0 if prepared else None
        self.cursor = self.connection.cursor()
        self.sql, self.arguments, self.fails, self.number = sql, arguments, fails, 0
        self.call(60)

    def call(self, count):
        for _ in range(count):
            self.number += 1
            try:
                self.cursor.execute(self.sql, self.arguments(self.number))
                self.cursor.fetchall()
            except psycopg.Error as error:
                if not self.fails or error.sqlstate != "ES001":
                    raise

    def measure(self, count):
        """Microseconds a call: of this session, and of the others."""
        before = times()
        self.call(count)
        after = times()
        pid = self.connection.info.backend_pid
        own = after[pid] - before[pid]
        others = sum(time - before.get(other, 0) for other, time in after.items() if other != pid)
        return own / count / 1000, others / count / 1000


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
    sessions = {(call, way): Session(*ways[way], *calls[call][:2], call == "conflict") for call in calls for way in ways}
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
