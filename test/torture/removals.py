"""Removals under load, on servers that are killed: clients append, read, consume, and remove
events in every way there is (removal_clients.py), and the oracle (removal_oracle.py) says
afterwards what was lost, or removed by half, or missed.

    removals.py [name=value]...

    seconds=8                 of the round
    kills=6                   signals 9 in it: half of them to the server as a whole, the others to a
                              backend that is removing something, for each kind of removal in turn
    seed=1                    random choices; the times are the machine's

The last checks are controls: the evidence is tampered with, in a way for each promise, and the
oracle must find that.
"""
import collections
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time

import psycopg

import clients
import removal_clients
import removal_oracle
import servers
from removal_clients import REMOVALS

HERE = os.path.dirname(os.path.abspath(__file__))
KEPT = f"{HERE}/../../results/removals"
fork = multiprocessing.get_context("fork")
# What a removal or an append may be refused by: a lost connection, a deadlock, a cancel, another version, a tombstone, a
# condition that failed, a stream that is archived or has tags.
EXPECTED = {*clients.PASSING, "ES001", "ES003", "ES006", "ES007", "0A000", "55000"}


def say(*words):
    print(*words, flush=True)


class Round:
    def __init__(self, options):
        self.options = options
        self.folder = f"{servers.SCRATCH}/removals"
        self.server = servers.Server("removals/data")
        self.dice = random.Random(f"{options['seed']} kills")
        self.counts = collections.Counter()
        self.processes = []

    def prepare(self):
        os.makedirs(f"{self.folder}/histories")
        servers.give(self.folder)
        self.server.make()
        self.server.configure("autovacuum_naptime = 1s", "eventstore.retention_rate = 10000")
        self.server.start()
        self.server.query(f"CREATE DATABASE {servers.DATABASE}", database="postgres")
        with open(f"{HERE}/removal_setup.sql") as file:
            self.server.query(file.read())
        self.server.query(f"SELECT es_set_retention('c', max_count => {removal_clients.KEPT})")
        self.place = clients.Place(self.server.socket, [5432])

    def start_client(self, kind, name, **options):
        client = getattr(removal_clients, kind)(self.place, f"{self.folder}/histories", name, self.options["seed"], **options)
        process = fork.Process(target=client.main, name=name)
        process.start()
        self.processes.append(process)

    def start_clients(self):
        for n in range(4):
            self.start_client("Appender", f"appender{n}")
        for n in range(3):
            self.start_client("Remover", f"remover{n}", kinds=list(REMOVALS))
        for n in range(2):
            self.start_client("Reader", f"reader{n}")
            self.start_client("Consumer", f"consumer{n}")

    def work(self):
        """Kills at random moments, evenly over the time that there is."""
        began = time.monotonic()
        kinds = list(REMOVALS)
        for n in range(self.options["kills"]):
            until = began + self.options["seconds"] * (n + self.dice.uniform(0.4, 1)) / (self.options["kills"] + 1)
            time.sleep(max(0.0, until - time.monotonic()))
            if n % 2 == 0:
                self.kill_remover(kinds[n // 2 % len(kinds)])
            else:
                self.counts["kill -9 of the server"] += 1
                self.server.kill_postmaster()
                self.server.start()
        time.sleep(max(0.0, began + self.options["seconds"] - time.monotonic()))

    def kill_remover(self, kind):
        """A backend in the middle of a removal of this kind, if one comes by within a second; otherwise of another kind."""
        function = REMOVALS[kind][1].split("es_")[1].split("(")[0]
        end = time.monotonic() + 1
        while time.monotonic() < end + 1:
            like = f"%es_{function}(%" if time.monotonic() < end else "%metadata%"
            try:
                found = self.server.query("SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid() LIMIT 1",
                                          (like,), timeout=5)
            except psycopg.OperationalError:
                found = None
            if found:
                time.sleep(self.dice.random() * 0.01)
                if servers.kill(found[0][0]):
                    self.counts[f"kill -9 of {function if time.monotonic() < end else 'another removal'}"] += 1
                    self.server.wait_up()
                return
            time.sleep(0.002)

    def settle(self):
        """Writers come to their ends; then readers come to the end of the log."""
        self.place.phase = clients.Place.SETTLE
        self.server.wait_up()
        self.join(lambda process: process.name.startswith(("appender", "remover")))
        self.server.query("SELECT es_run_retention('c')")
        last = self.server.value("SELECT max(position) FROM es_events")
        for name in ("seen", "typed"):
            self.server.wait_for(f"SELECT es_wait('{name}', {last}, '10s')", 60)
        self.server.wait_for("SELECT bool_and(position >= %d) FROM es_partitions" % last, 60)
        self.place.phase = clients.Place.END
        self.join(lambda process: True)

    def join(self, chosen):
        for process in filter(chosen, self.processes):
            process.join(60)
            if process.exitcode != 0:
                raise RuntimeError(f"{process.name} has ended with {process.exitcode}")

    # evidence

    def collect(self):
        e = removal_oracle.Evidence(f"{self.folder}/histories")
        e.log, e.archive = self.rows("es_events"), self.rows("es_archived_events")
        e.removed_ids = {row[0]: row[1:] for row in self.server.query("SELECT id::text, position, version, stream FROM es_removed_ids")}
        e.tags = set(self.server.query("SELECT tag, position, type FROM es_tags"))
        e.removals = [self.removal(*row) for row in self.server.query(
            """SELECT id, action, stream, position, positions::text, lower(versions), upper(versions) - 1, removed, horizon,
                      extract(epoch FROM removed_at)::float8, metadata->>'mark' FROM es_removals ORDER BY id""")]
        for name in ("seen", "now", "typed"):
            rows = self.server.query(f"SELECT position, id::text, stream, version, type, extract(epoch FROM at)::float8 FROM seen{'' if name == 'seen' else '_' + name}")
            setattr(e, name, {row[0]: removal_oracle.Seen(*row) for row in rows})
        e.folded = dict(self.server.query(f"""SELECT stream, ((es_state(stream, '{removal_clients.REDUCER}')).state->>'sum')::bigint
            FROM (SELECT DISTINCT stream FROM es_events WHERE es_category(stream) = 'k') s"""))
        self.retry(e)
        e.complete()
        return e

    def rows(self, table):
        rows = self.server.query(f"SELECT position, version, id::text, stream, type, data, tags FROM {table}")
        return {row[0]: removal_oracle.Row(*row) for row in rows}

    def removal(self, id, action, stream, position, positions, first, last, *rest):
        flat = []
        for part in positions.strip("{}").replace("),[", ") [").split():
            low, high = part.strip("[)").split(",")
            flat += range(int(low), int(high))
        return removal_oracle.Removal(id, action, stream, position, flat, (first, last), *rest)

    def retry(self, e):
        """Sends everything again that was acknowledged."""
        e.retried = {}
        with self.server.connect() as connection:
            before = connection.execute("SELECT count(*), max(position) FROM es_events").fetchone()
            for name, attempts in e.units.items():
                if any(attempt.result == "ok" for attempt in attempts) and "query" not in attempts[0].entry:
                    entry = attempts[0].entry
                    try:
                        row = connection.execute("SELECT version, position FROM es_append_batch(%s, 'none', %s)",
                                                 (entry["stream"], json.dumps(entry["events"]))).fetchone()
                    except psycopg.Error as error:
                        row = error.sqlstate, str(error)
                    e.retried[name] = {row}
            after = connection.execute("SELECT count(*), max(position) FROM es_events").fetchone()
            e.grown = after[0] - before[0]

    def unexpected(self, e):
        """Errors that nothing here explains."""
        found = collections.Counter((call, attempt.answer["sqlstate"], attempt.answer["message"]) for call, attempts in e.calls.items()
                                    for attempt in attempts if attempt.result == "refused" and attempt.answer["sqlstate"] not in EXPECTED)
        return [f"{call}: {sqlstate} {message}, {n} times" for (call, sqlstate, message), n in found.items()]

    def count(self, e):
        for call, attempts in e.calls.items():
            for attempt in attempts:
                words = attempt.entry["kind"] if call == "remove" else call
                self.counts[f"{words}, {attempt.result}"] += 1
        for removal in e.removals:
            self.counts[f"removals recorded: {removal.action}"] += 1
            self.counts["events removed"] += removal.removed

    def run(self):
        try:
            self.prepare()
            self.start_clients()
            self.work()
            self.settle()
            e = self.collect()
        finally:
            self.end()
        self.count(e)
        verdicts = list(removal_oracle.judge(e).items())
        verdicts.append(("every error is explained", self.unexpected(e) + self.server.logged("PANIC", "TRAP")))
        lacking = [action for action in ("delete", "tombstone", "truncate", "compact", "archive", "unarchive")
                   if not self.counts[f"removals recorded: {action}"]]
        verdicts.append(("there are removals of every kind", [f"none: {action}" for action in lacking]))
        if not any(violations for _, violations in verdicts):
            verdicts += [(f"control: {words}", found) for words, found in removal_oracle.control(e, self.dice)]
        return verdicts

    def end(self):
        for process in self.processes:
            if process.is_alive():
                process.kill()
        if self.server.pid():
            self.server.stop("immediate")


def main(arguments):
    options = {"seconds": 8.0, "kills": 6, "seed": 1}
    for argument in arguments:
        name, value = argument.split("=", 1)
        options[name] = type(options[name])(value)
    shutil.rmtree(KEPT, ignore_errors=True)
    round = Round(options)
    verdicts = round.run()
    for what, n in sorted(round.counts.items()):
        say(f"# {what}: {n}")
    for words, violations in verdicts:
        say(f"{'skipped' if violations is None else 'not ok' if violations else 'ok'} - {words}")
        for violation in (violations or [])[:5]:
            say(f"#   of {len(violations)}: {violation}")
    failed = sum(bool(violations) for _, violations in verdicts)
    skipped = sum(violations is None for _, violations in verdicts)
    if failed:
        shutil.copytree(f"{round.folder}/histories", f"{KEPT}/histories")
        shutil.copy(round.server.log, KEPT)
        say(f"# the histories of the clients and the server's log are in results/removals; seed={options['seed']}")
    say(f"\n{len(verdicts) - failed - skipped} passed, {failed} failed{f', {skipped} skipped' if skipped else ''}")
    return not failed


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
