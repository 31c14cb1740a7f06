"""The torture: rounds of clients and faults, and what the oracle says of each.

    torture.py long|short|controls [SEED]

A round has a server of its own, copied from one that was made once. Its clients
(clients.py) work while faults (faults.py) are done at random; then the writers
stop, what was left prepared is committed or rolled back, the subscriptions are
drained, the read models are rebuilt, and the oracle (oracle.py) judges. A test is
one promise in one round in which there was something to judge it by.

The random choices are made of the seed, which is printed; the times are the
machine's. What a failed round leaves is in results/torture.
"""
import collections
import copy
import glob
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback

import psycopg

import clients
import controls
import faults
import oracle
import servers

HERE = os.path.dirname(os.path.abspath(__file__))
KEPT = f"{HERE}/../../results/torture"
fork = multiprocessing.get_context("fork")


def say(*words):
    print(*words, flush=True)


class Round:
    """A server, its clients, what was done to them."""

    environment = ()
    may_panic = False

    def __init__(self, torture, name, **how):
        self.torture = torture
        self.name = name
        self.number = next(torture.numbers)
        self.seed = f"{torture.seed}.{self.number}"
        self.random = random.Random(self.seed)
        self.version = torture.version
        self.how = how
        self.counts = collections.Counter()
        self.crashes = []
        self.resolved = {}
        self.prepared = {}                    # gid -> when it was first seen
        self.failed_over = None
        self.tests = []
        self.folder = f"{servers.SCRATCH}/round-{self.number}"
        os.makedirs(f"{self.folder}/histories")
        servers.give(self.folder)
        self.server = servers.Server(f"round-{self.number}/data")
        self.standby = None
        self.processes = {}
        self.born = collections.Counter()
        self.place = clients.Place(self.server.socket, [5432, 5433], how.get("options", ""))

    def rest(self, longest):
        time.sleep(self.random.uniform(0, longest))

    # clients

    def start_client(self, kind, **options):
        self.born[kind] += 1
        name = f"{kind.lower()}{self.born[kind]}"
        client = getattr(clients, kind)(self.place, f"{self.folder}/histories", name, self.seed, **options)
        process = fork.Process(target=self.be_client, args=(client,), name=name)
        process.start()
        self.processes[name] = (process, kind, options)

    def be_client(self, client):
        # What the parent would do with a signal is nothing for a client.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        try:
            client.main()
        except BaseException:
            with open(f"{self.folder}/{client.name}.failed", "w") as file:
                traceback.print_exc(file=file)
            os._exit(1)
        os._exit(0)

    def start_clients(self, appenders=4, **options):
        for number in range(appenders):
            self.start_client("Appender", **options, notify="commit" if number == 0 else None)
        self.start_client("Executor", **options)
        self.start_client("Executor", **options)
        self.start_client("Decider", **options)
        for way in ("log", "category", "horizon"):
            self.start_client("Reader", way=way)
        for subscription, named, nacks in (("all", True, False), ("all", True, False), ("all", False, False),
                                           ("acct", True, False), ("acct", False, False), ("typed", True, True),
                                           ("typed", True, True)):
            self.start_client("Consumer", subscription=subscription, named=named, nacks=nacks)
        self.start_client("Watcher")
        self.start_client("Watcher")
        self.start_client("Rebuilder", pause=self.how.get("rebuild", 3))

    def kill_client(self):
        """kill -9 of a client; another one takes its place."""
        name = self.random.choice([name for name, (_, kind, _) in self.processes.items() if kind != "Rebuilder"])
        process, kind, options = self.processes.pop(name)
        process.kill()
        process.join()
        self.start_client(kind, **options)
        return True

    def join_writers(self):
        """What they have left prepared must not hold up the others."""
        kinds = ("Appender", "Executor", "Decider")
        end = time.monotonic() + 30
        while time.monotonic() < end and any(
                process.is_alive() for process, kind, _ in self.processes.values() if kind in kinds):
            try:
                faults.end_prepared(self, 1.5)
            except psycopg.Error:
                pass                          # it is not up again
            time.sleep(0.2)
        self.join(kinds, 0)

    def join(self, kinds, patience):
        end = time.monotonic() + patience
        for name, (process, kind, _) in list(self.processes.items()):
            if kinds is None or kind in kinds:
                process.join(max(end - time.monotonic(), 0))
                if process.is_alive():
                    process.kill()
                    process.join()
                    self.counts["client that did not end"] += 1
                del self.processes[name]

    # the round

    def run(self):
        self.began = time.monotonic()
        try:
            self.prepare()
            self.stage('prepared')
            self.start_clients(**self.how.get("clients", {}))
            self.work()
            self.stage('worked')
            self.settle()
            self.stage('settled')
            self.judge()
        except PermissionError:
            self.tests = []
            raise
        except Exception:
            self.fail("the round itself", traceback.format_exc())
        finally:
            faults.end_idle()
            self.place.phase = clients.Place.END
            self.join(None, 3)
            self.seconds = time.monotonic() - self.began
            self.stage('judged')
            self.close()
            self.stage('closed')
        self.report()
        return self

    def stage(self, name):
        if os.environ.get("TORTURE_DEBUG"):
            say(f"# {time.monotonic() - self.began:.1f} s: {name}")

    def prepare(self):
        self.server.copy_of(self.torture.base)
        self.server.start(self.environment)
        self.server.wait_for("SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'eventstore worker'", 15)

    def work(self):
        raise NotImplementedError

    def wait(self, seconds):
        """Lets the clients work. What they leave prepared would hold others up for ever."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(0.5, seconds))
            try:
                faults.end_prepared(self, 1.5)
            except psycopg.Error:
                pass                          # it has no room, or is gone

    def work_until(self, events, patience=60):
        """Until there is something to judge, on a slow machine, too."""
        end = time.monotonic() + patience
        self.wait(2)
        while time.monotonic() < end and self.server.value("SELECT count(*) FROM es_events") < events:
            self.wait(0.2)

    def do(self, name, function):
        """A fault, counted when it was done. What a fault meets is not its business."""
        try:
            if function(self):
                self.counts[name] += 1
                return True
        except psycopg.Error as error:
            if os.environ.get("TORTURE_DEBUG"):
                say(f"# {name}: {str(error).strip()}")
        return False

    def settle(self):
        """Writers end; what was left is ended; readers and consumers come to the end of the log."""
        faults.end_idle()
        self.place.phase = clients.Place.SETTLE
        self.join_writers()
        self.server.wait_up()
        self.stage("writers ended")
        writers = "FROM pg_stat_activity WHERE application_name ~ 'client (appender|executor|decider)'"
        if not self.server.wait_for(f"SELECT count(*) = 0 {writers}", 30):
            stuck = self.server.query(f"SELECT application_name, state, wait_event, pg_blocking_pids(pid)::text, left(query, 80) {writers}")
            self.fail("settling", f"backends of writers do not end: {stuck}")
        faults.end_prepared(self, 0)
        self.server.query("CALL es_work()")
        self.stage("work done")
        self.drain()
        self.stage("drained")
        self.place.phase = clients.Place.END
        self.join(None, 30)
        self.stage("all ended")
        self.before_rebuild = self.models()
        for name in ("chain", "totals", "live"):
            self.server.query(f"SELECT es_rebuild_projection('{name}')")

    def drain(self):
        """Until nothing is left to be delivered."""
        done = self.server.wait_for("""SELECT bool_and(lag_events = 0 AND in_flight = 0) AND NOT EXISTS (SELECT FROM es_failures)
            AND NOT EXISTS (SELECT FROM es_projections WHERE mode = 'async' AND position < es_horizon())
            FROM es_subscription_status""", self.how.get("drain", 60))
        if not done:
            self.fail("settling", "subscriptions or projections do not come to the end: "
                      f"{self.server.query('SELECT * FROM es_subscription_status')} {self.server.query('SELECT * FROM es_failures LIMIT 5')}"
                      f" {self.server.query('SELECT name, mode, state, position, message FROM es_projections')}")

    def models(self):
        return {name: json.loads(json.dumps(self.server.query(
            clients.Watcher.looks[name], (clients.ACCOUNTS,) if name == "live" else None), default=str))
            for name in ("chain", "totals", "live")}

    def judge(self):
        after = self.models()
        self.test("the horizon reaches the end of the log", lambda: self.server.value(
            "SELECT es_horizon() = max(position) FROM es_events") or "it does not")
        self.test("table and indexes agree", self.check_indexes)
        self.test("no process of the server has failed by itself", self.check_log)
        self.test("no client has failed", self.check_clients)
        self.final = {
            "log": self.server.query("""SELECT position, version, id::text, stream, type, data::text, metadata::text
                FROM es_events ORDER BY position"""),
            "resolved": self.resolved, "crashes": self.crashes, "failed_over": self.failed_over,
            "rebuilt": {name: (self.before_rebuild[name], after[name]) for name in after}}
        self.seen = self.evidence()
        self.verdict = oracle.judge(self.seen)
        self.count_attempts()
        self.conclude()

    def count_attempts(self):
        """What the clients did to themselves, and what became of their calls."""
        self.counts["connection cut after COMMIT, or the append, was sent"] += self.seen.cuts
        self.counts["event in the log"] += len(self.seen.log)
        for unit in self.seen.units.values():
            for attempt in unit.attempts:
                self.counts[f"append {attempt.result}"] += 1
                if attempt.sqlstate == "57014":
                    self.counts["append cancelled, or its time was out"] += 1
                if attempt.prepared:
                    self.counts["PREPARE TRANSACTION"] += 1

    def evidence(self):
        return oracle.Evidence(f"{self.folder}/histories", copy.deepcopy(self.final))

    def conclude(self):
        for number, (looked, violations) in self.verdict.items():
            if looked:
                self.tests.append((f"{number}. {oracle.PROMISES[number][0]}", violations))

    def test(self, name, function):
        try:
            result = function()
        except Exception as error:
            result = str(error)
        self.tests.append((name, [] if result is True else [result]))

    def fail(self, name, evidence):
        self.tests.append((name, [evidence]))

    def check_indexes(self):
        self.server.query("""SELECT bt_index_check(i.indexrelid, true) FROM pg_index AS i
            JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam
            WHERE a.amname = 'btree' AND i.indisvalid
              AND i.indrelid::regclass::text ~ '^(es_|chain|totals|live)'""")
        return True

    def check_log(self):
        bad = [line.strip() for server in (self.server, self.standby) if server for line in open(server.log, errors="replace")
               if any(sign in line for sign in ("signal 11", "signal 7:", "TRAP:"))
               or not self.may_panic and any(sign in line for sign in ("signal 6:", "PANIC:"))]
        return not bad or f"{len(bad)} lines: {bad[:3]}"

    def check_clients(self):
        failed = [name for name in os.listdir(self.folder) if name.endswith(".failed")]
        return not failed or f"{failed}: {open(f'{self.folder}/{failed[0]}').read()}"

    def close(self):
        for server in (self.server, self.standby):
            if server and server.pid() and servers.alive(server.pid()):
                server.stop("immediate")

    def report(self):
        failed = [(name, violations) for name, violations in self.tests if violations]
        kills = sum(self.counts[name] for name in faults.KILLS)
        log = len(getattr(self, "final", {"log": ()})["log"])
        say(f"round {self.number} ({self.name}, seed {self.seed}): {log} events, {kills} kills, {self.seconds:.0f} s"
            f"{'' if not failed else ', FAILED'}")
        if failed:
            for name, violations in failed:
                say(f"not ok: {name}: {len(violations)} violations")
                for violation in violations[:5]:
                    say(f"    {str(violation)[:2000]}")
            self.keep()
        if not os.environ.get("TORTURE_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self):
        """Histories, the server's log, and the log of events of a round that failed."""
        to = f"{KEPT}/round-{self.number}"
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("data", "standby", "disk*"))
        with open(f"{to}/final.json", "w") as file:
            json.dump(getattr(self, "final", None), file, default=str)


class Crashes(Round):
    """Kills, one after the other, and everything that hurts less between them."""

    def work(self):
        self.rest(0.5)
        done, queue, end = 0, [], time.monotonic() + self.how["seconds"]
        harms = []
        while done < self.how["kills"] and time.monotonic() < end:
            for _ in range(self.random.randint(0, 2)):
                harms = harms or self.random.sample(list(faults.HARMS), len(faults.HARMS))
                name = harms.pop()
                self.do(name, faults.HARMS[name])
            faults.end_idle(time.monotonic())
            faults.end_prepared(self, 1.5)
            self.rest(0.6)
            queue = queue or self.random.sample(list(faults.KILLS), len(faults.KILLS))
            name = queue.pop()
            done += self.do(name, faults.KILLS[name])
        self.rest(0.5)


class LogDisk(Round):
    """The disk of the log fills up, again and again: what cannot be stored is refused."""

    def prepare(self):
        super().prepare()
        self.disk = faults.Disk(f"round-{self.number}/disk", 64)
        os.mkdir(f"{self.disk.path}/log")
        servers.give(f"{self.disk.path}/log")
        self.server.query(f"CREATE TABLESPACE small LOCATION '{self.disk.path}/log'")
        self.server.query("ALTER TABLE es_events SET TABLESPACE small")
        for (index,) in self.server.query("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'es_events'::regclass"):
            self.server.query(f"ALTER INDEX {index} SET TABLESPACE small")

    def work(self):
        for number in range(self.how["times"]):
            self.wait(1)
            self.disk.fill()
            self.wait(1.5)
            kill = number % 2 == 1
            if kill:
                began = time.monotonic()
                self.server.kill_postmaster()
            self.disk.clear()
            if kill:
                self.server.start()
                self.crashes.append((began, time.monotonic()))
                self.counts["kill -9 of the postmaster"] += 1
            self.counts["disk of the log full"] += 1
        self.rest(0.5)

    def conclude(self):
        super().conclude()
        full = sum(attempt.sqlstate == "53100" for unit in self.seen.units.values() for attempt in unit.attempts)
        self.counts["append refused by a full disk"] += full
        self.tests.append(("the full disk was met", [] if full else ["no append was refused by it"]))

    def close(self):
        super().close()
        if hasattr(self, "disk"):
            self.disk.remove()


class WalDisk(Round):
    """The disk of the WAL fills up: the server panics, until there is room."""
    may_panic = True

    def prepare(self):
        self.server.copy_of(self.torture.base)
        self.server.configure("wal_keep_size = 0")
        self.disk = faults.Disk(f"round-{self.number}/disk", 40)
        servers.run("cp", "-a", f"{self.server.data}/pg_wal", self.disk.path)
        shutil.rmtree(f"{self.server.data}/pg_wal")
        os.symlink(f"{self.disk.path}/pg_wal", f"{self.server.data}/pg_wal")
        self.server.start()

    def work(self):
        for _ in range(self.how["times"]):
            self.wait(1)
            began = time.monotonic()
            self.disk.fill()
            self.write_wal(began + 20)
            if self.server.pid() and self.server.is_up():
                raise RuntimeError("the server does not mind that its WAL has no room")
            self.disk.clear()
            self.come_back()
            self.crashes.append((began, time.monotonic()))
            self.counts["disk of the WAL full"] += 1
        self.rest(0.5)

    def write_wal(self, until):
        try:
            with self.server.connect() as connection:
                while time.monotonic() < until:
                    connection.execute("SELECT pg_logical_emit_message(false, 'torture', repeat('x', 500000))")
        except psycopg.Error:
            pass

    def come_back(self):
        """It may have given up, or be about to, or try again."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.server.is_up():
                return
            if not (self.server.pid() and servers.alive(self.server.pid())):
                self.server.start()
                return
            time.sleep(0.05)
        raise RuntimeError(f"the server does not come back: {self.server.tail()}")

    def close(self):
        super().close()
        if hasattr(self, "disk"):
            self.disk.remove()


class Promotion(Round):
    """The primary is killed under load, and its standby takes over."""

    def prepare(self):
        self.standby = servers.Server(f"round-{self.number}/standby", 5433)
        self.standby.copy_of(self.torture.base)
        self.standby.follow(self.server)
        super().prepare()
        self.standby.start()
        self.server.wait_for("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'")
        if self.how["sync"]:
            self.server.configure("synchronous_standby_names = 'standby'", "synchronous_commit = remote_apply")
            self.server.query("SELECT pg_reload_conf()")
            self.server.wait_for("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")

    def work(self):
        for way in ("log", "horizon"):
            self.start_client("StandbyReader", way=way)
        self.wait(self.how["seconds"])
        began = time.monotonic()
        if self.random.random() < 0.5:
            self.server.kill_postmaster()
            self.counts["kill -9 of the postmaster"] += 1
        else:
            self.server.stop("immediate")
            self.counts["immediate stop"] += 1
        if not self.how["sync"]:
            self.end_epoch()
        self.standby.promote()
        self.server, self.standby = self.standby, self.server
        self.place.primary = 1
        self.crashes.append((began, time.monotonic()))
        self.counts["promotion, synchronous" if self.how["sync"] else "promotion, asynchronous"] += 1
        if not self.how["sync"]:
            self.start_clients(**self.how["clients"])
        self.wait(self.how["seconds"] / 2)

    def end_epoch(self):
        """Clients of the first server know of things that the second may not have: others go on."""
        for name, (process, kind, _) in list(self.processes.items()):
            if kind != "StandbyReader":
                process.kill()
                process.join()
                del self.processes[name]
        self.failed_over = time.monotonic()

    def conclude(self):
        super().conclude()
        self.counts["acknowledged units that an asynchronous promotion has lost"] += self.seen.lost_tail


class Clock(Round):
    """
    The server's clock jumps, mostly back.  The server finds deadlocks by this
    clock, perhaps a day later: there are none.
    """

    def prepare(self):
        self.file = f"{self.folder}/clock"
        self.set_clock(0)
        self.environment = (f"LD_PRELOAD={self.how['library']}", f"FAKETIME_TIMESTAMP_FILE={self.file}",
                            "FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1")
        super().prepare()

    def set_clock(self, seconds):
        with open(f"{self.file}.new", "w") as file:
            file.write(f"{seconds:+d}\n")
        os.chmod(f"{self.file}.new", 0o644)
        os.rename(f"{self.file}.new", self.file)

    def work(self):
        offset = 0
        for _ in range(self.how["times"]):
            self.wait(1)
            began = time.monotonic()
            offset += self.random.choice([-1, -5, -3600, -86400, 30])
            self.set_clock(offset)
            self.wait(1.2)
            self.counts["jump of the clock"] += 1
            if self.random.random() < 0.5:
                self.do("kill -9 of a backend", faults.kill_backend)
            # each process of the server looks at it every other second
            self.crashes.append((began, time.monotonic() + 2))
        jumped = f"SELECT abs(extract(epoch FROM clock_timestamp()) - {time.time() + offset}) < 15"
        self.test("the clock has jumped", lambda: self.server.wait_for(jumped, 10) or f"it is not {offset} off")
        # Leases of a later day end when that is here again.
        began = time.monotonic()
        self.set_clock(7200)
        time.sleep(2.2)
        self.crashes.append((began, time.monotonic()))


class FullQueue(Round):
    """The server's queue of notifications is full, since a session that listens does not come to read it."""

    def prepare(self):
        super().prepare()
        if self.torture.major >= 17:
            self.server.stop()
            self.server.configure("max_notify_queue_pages = 64")
            self.server.start()

    def work(self):
        self.start_client("Appender", notify="off", prepare=False)
        listener = self.server.connect()
        listener.execute("LISTEN torture")
        listener.execute("BEGIN")
        listener.execute("SELECT 1")
        self.rest(0.5)
        began = time.monotonic()
        # First in thousands, then what still fits.
        refused = [self.notify(*what) for what in ((5000, 7900), (50, 7900), (1, 7900), (1, 1000), (1, 100), (1, 1))]
        self.test("the queue is full", lambda: set(refused) == {"54000"} or str(refused))
        self.counts["queue of notifications full"] += 1
        self.full_at = time.monotonic()
        self.filled = self.full_at - began
        progress = "SELECT position, es_horizon() FROM es_projections WHERE name = 'totals'"
        before = self.server.query(progress)[0]
        time.sleep(4)
        after = self.server.query(progress)[0]
        say(f"# while the queue was full a projection went from {before[0]} to {after[0]}, the horizon from {before[1]} to {after[1]}")
        self.emptied_at = time.monotonic()
        self.server.query("SELECT pg_terminate_backend(%s)", (listener.info.backend_pid,))
        listener.close()
        time.sleep(1)

    def notify(self, count, size):
        """Until it is refused; returns why."""
        try:
            with self.server.connect() as connection:
                while True:
                    connection.execute(f"DO $$ BEGIN FOR i IN 1 .. {count} LOOP PERFORM pg_notify('torture', repeat('x', {size}) || i); "
                                       "END LOOP; END $$")
        except psycopg.Error as error:
            return error.sqlstate

    def conclude(self):
        super().conclude()
        for unit in self.seen.units.values():
            notifies = "that notify" if unit.name.startswith("appender1/") else "that leave it to workers"
            for attempt in unit.attempts:
                if attempt.sqlstate == "54000":
                    self.counts[f"append refused by a full queue, of those {notifies}"] += 1
        stopped = self.counts["append refused by a full queue, of those that leave it to workers"]
        self.tests.append(("appends that leave it to workers go on", [] if stopped == 0 else [f"{stopped} were refused"]))
        self.tests.append(("appends go on when the queue is empty again", [] if any(
            attempt.result == "ok" and attempt.sent > self.emptied_at
            for unit in self.seen.units.values() for attempt in unit.attempts) else ["none was stored"]))


class Control(Round):
    """A database in which something is broken: what it breaks must be found out."""

    def prepare(self):
        super().prepare()
        self.server.query(f"CREATE SCHEMA broken; {self.how['sql']}")
        self.server.query(f"ALTER DATABASE {servers.DATABASE} SET search_path = broken, public")

    def work(self):
        self.work_until(400)

    def conclude(self):
        number = self.how["number"]
        found = self.verdict[number][1]
        self.tests = [(f"control: {self.name}", [] if found else [f"promise {number} was kept: {self.verdict[number]}"])]
        self.found = found

    def fail(self, name, evidence):
        """Only what the oracle says counts here."""

    def test(self, name, function):
        pass


class Tampered(Round):
    """A quiet round, whose evidence is tampered with: exactly the promise that is broken must be found broken."""

    def work(self):
        self.work_until(800)

    def conclude(self):
        super().conclude()
        for number, words, function in controls.TAMPERS:
            evidence = self.evidence()
            random.seed(f"{self.seed} {words}")
            try:
                function(evidence)
            except controls.Impossible:
                self.fail(f"control: {words}", "there was nothing to tamper with")
                continue
            broken = [n for n, (_, violations) in oracle.judge(evidence).items() if violations]
            self.tests.append((f"control: {words}", [] if broken == [number] else [f"promises {broken} were found broken, not {number}"]))


class Torture:
    def __init__(self, form, seed):
        self.form = form
        self.seed = seed
        self.numbers = iter(range(1, 10**6))
        self.rounds = []
        self.skipped = 0
        self.major = int(os.environ["TORTURE_MAJOR"])
        self.version = os.environ["TORTURE_VERSION"]

    def make_base(self):
        """The server that all others are copies of."""
        self.base = servers.Server("base")
        self.base.make()
        self.base.start()
        for name in (servers.DATABASE, servers.OTHER):
            self.base.query(f"CREATE DATABASE {name}", database="postgres")
        with open(f"{HERE}/setup.sql") as file:
            self.base.query(file.read())
        self.base.query("CREATE EXTENSION amcheck")
        self.base.stop()

    def run(self):
        shutil.rmtree(KEPT, ignore_errors=True)
        self.make_base()
        {"long": self.long, "short": self.short, "controls": self.control}[self.form]()

    def short(self):
        self.play(Crashes, "crashes", kills=12, seconds=30)
        self.special(1, 1)
        self.play(Tampered, "tampered")
        for number, words, sql in controls.BROKEN:
            if number in (1, 8):
                self.play(Control, words, number=number, sql=sql, drain=4)

    def long(self):
        wanted = int(os.environ.get("KILLS") or 1000)
        self.control()
        for _ in range(max(1, wanted // 400)):
            self.special(4, 4)
        if self.major >= 17 or wanted >= 1000 or os.environ.get("ROUNDS"):
            self.play(FullQueue, "full queue", clients={"prepare": False})
        else:
            self.skip("full queue", "before 17 it takes minutes")
        while self.kills() < wanted and os.environ.get("ROUNDS", "") in "crashes":
            self.play(Crashes, "crashes", kills=min(50, wanted - self.kills()), seconds=120)

    def special(self, times, seconds):
        self.play(LogDisk, "disk of the log", times=times + 1)
        self.play(WalDisk, "disk of the WAL", times=times)
        limits = {"timeout": 0, "cut": 0.05}
        self.play(Promotion, "asynchronous promotion", sync=False, seconds=1 + seconds, clients={"prepare": False, **limits})
        self.play(Promotion, "synchronous promotion", sync=True, seconds=1 + seconds, clients=limits)
        library = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        if library:
            self.play(Clock, "clock", times=times + 1, library=library[0], clients={"deadlocks": False})
        else:
            self.skip("clock", "there is no libfaketime")
        if self.major >= 17 and times == 1:
            self.play(FullQueue, "full queue", clients={"prepare": False})

    def kills(self):
        return sum(round.counts[name] for round in self.rounds for name in faults.KILLS)

    def skip(self, name, why):
        say(f"skipped: {name}: {why}")
        self.skipped += 1

    def control(self):
        self.play(Tampered, "tampered")
        for number, words, sql in controls.BROKEN:
            self.play(Control, words, number=number, sql=sql, drain=4)

    def play(self, kind, name, **how):
        if os.environ.get("ROUNDS", "") not in name:
            return
        round = kind(self, name, **how)
        try:
            self.rounds.append(round.run())
        except PermissionError as error:
            self.skip(name, error)

    def print_table(self):
        """What doc/reliability.md has."""
        real = [round for round in self.rounds if not isinstance(round, Control)]
        say(f"\n{len(real)} rounds, {sum(round.seconds for round in self.rounds):.0f} s with the controls, seed {self.seed}\n")
        say("| | promise | what was looked at | how often | lost |\n|---:|---|---|---:|---:|")
        for number, (words, _) in oracle.PROMISES.items():
            verdicts = [round.verdict[number] for round in real if hasattr(round, "verdict")]
            say(f"| {number} | {words} | {oracle.TRIED[number]} | {sum(looked for looked, _ in verdicts):,} | "
                f"{sum(len(violations) for _, violations in verdicts)} |")
        counts = sum((round.counts for round in real), collections.Counter())
        say("\n| what was done to it | how often |\n|---|---:|")
        for name in [*faults.KILLS, *faults.HARMS, *sorted(counts.keys() - faults.KILLS.keys() - faults.HARMS.keys())]:
            if counts[name]:
                say(f"| {name} | {counts[name]:,} |")
        caught = [round for round in self.rounds if isinstance(round, Control)]
        say("\n| negative control | broken promise | violations that were found |\n|---|---:|---:|")
        for round in caught:
            say(f"| {round.name} | {round.how['number']} | {len(getattr(round, 'found', ()))} |")
        tampered = sum(name.startswith("control") for round in real for name, _ in round.tests)
        say(f"| evidence that is tampered with, in {tampered} ways | 1 to 14, exactly one each | "
            f"{sum(name.startswith('control') and not v for round in real for name, v in round.tests)} |")

    def end(self):
        self.print_table()
        passed = sum(not violations for round in self.rounds for _, violations in round.tests)
        failed = sum(bool(violations) for round in self.rounds for _, violations in round.tests)
        if failed:
            say(f"seed {self.seed}; what failed rounds have left is in results/torture")
        say(f"\n{passed} passed, {failed} failed{f', {self.skipped} skipped' if self.skipped else ''}")
        return failed == 0


if __name__ == "__main__":
    seed = sys.argv[2] if len(sys.argv) > 2 and sys.argv[2] else str(random.SystemRandom().randrange(10**6))
    say(f"seed {seed}")
    torture = Torture(sys.argv[1], seed)
    torture.run()
    sys.exit(0 if torture.end() else 1)
