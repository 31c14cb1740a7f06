"""The torture: rounds of clients and faults, and what the oracle says of each.

    torture.py long|short|controls [SEED]

A round has a server of its own, copied from one that was made once. Its clients
(clients.py) work while faults (faults.py) are done, and go on until every fault has
been done and there is something to judge each promise by; then the writers stop,
what was left prepared is committed or rolled back, the subscriptions are drained,
the read models are rebuilt, and the oracle (oracle.py) judges. A test is one promise
in one round.

The random choices are made of the seed and of what they are for, so that a round
makes them again when it is run alone, and whatever came before; the times are the
machine's. A failure says how it is repeated. What a failed round leaves is in
results/torture.
"""
import collections
import glob
import json
import multiprocessing
import multiprocessing.connection
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
DEBUG = bool(os.environ.get("TORTURE_DEBUG"))
# Of what a call may be refused by, the SQLSTATEs that are some fault's, or the caller's own.
EXPECTED = {*clients.PASSING, "ES001", "ES002", "ES006", "P0001"}


def say(*words, sep=" "):
    print(*words, sep=sep, flush=True)


class Apart:
    """A function in a process of its own, which has a copy of all that is here."""

    def __init__(self, function, *arguments):
        self.receiver, sender = fork.Pipe(False)
        self.process = fork.Process(target=lambda: sender.send(function(*arguments)))
        self.process.start()
        sender.close()

    def result(self):
        try:
            return self.receiver.recv()
        except EOFError:
            raise RuntimeError("a process has ended without a result") from None
        finally:
            self.process.join()
            self.receiver.close()


Outcome = collections.namedtuple("Outcome", "number name control tests counts verdict seconds skipped lines")


class Round:
    """A server, its clients, what was done to them."""

    environment = ()
    may_panic = False
    control = None                            # the promise that is broken here
    limit = "3s"                              # of a statement that may have to wait for transactions that were left

    def __init__(self, torture, number, name, **how):
        self.torture = torture
        self.name = name
        self.number = number
        self.seed = f"{torture.seed} {name}"
        self.version = torture.version
        self.how = how
        self.counts = collections.Counter()
        self.crashes = []
        self.resolved = {}
        self.prepared = {}                    # gid -> when it was first seen
        self.failed_over = None
        self.rebuilt = {}
        self.tests = []
        self.verdict = {}
        self.folder = f"{servers.SCRATCH}/round-{self.number}"
        os.makedirs(f"{self.folder}/histories")
        servers.give(self.folder)
        self.server = servers.Server(f"round-{self.number}/data")
        self.standby = None
        self.processes = {}
        self.born = collections.Counter()
        self.place = clients.Place(self.server.socket, [5432, 5433], how.get("options", ""))

    def dice(self, *words):
        """A generator of random choices, the same for the same words."""
        return random.Random(" ".join([self.seed, *map(str, words)]))

    # clients

    def start_client(self, kind, **options):
        self.born[kind] += 1
        name = f"{kind.lower()}{self.born[kind]}"
        client = getattr(clients, kind)(self.place, f"{self.folder}/histories", name, self.seed, **options)
        process = fork.Process(target=self.be_client, args=(client,), name=name)
        process.start()
        self.processes[name] = (process, kind, options)
        return name

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
        self.start_client("Rebuilder", **options)

    def kill_client(self, dice):
        """kill -9 of a client; another one takes its place."""
        name = dice.choice(sorted(name for name, (_, kind, _) in self.processes.items() if kind != "Rebuilder"))
        process, kind, options = self.processes.pop(name)
        process.kill()
        process.join()
        self.start_client(kind, **options)
        return True

    def join_writers(self):
        """What they have left prepared must not hold up the others."""
        kinds = ("Appender", "Executor", "Decider")
        end = time.monotonic() + servers.PATIENCE
        while time.monotonic() < end and any(
                process.is_alive() for process, kind, _ in self.processes.values() if kind in kinds):
            self.end_prepared()
            time.sleep(0.1)
        self.join(kinds, 0)

    def join(self, kinds=None, patience=servers.PATIENCE):
        end = time.monotonic() + patience
        for name, (process, kind, _) in list(self.processes.items()):
            if kinds is None or kind in kinds:
                process.join(max(end - time.monotonic(), 0))
                if process.is_alive():
                    process.kill()
                    process.join()
                    self.fail("settling", f"client {name} does not end")
                del self.processes[name]

    def end_prepared(self):
        """What is left prepared for some time would hold others up for ever."""
        try:
            faults.end_prepared(self, 1.5)
        except psycopg.Error:
            pass                              # it has no room, or is not up

    # the round

    def run(self):
        self.began = time.monotonic()
        skipped = None
        signal.signal(signal.SIGALRM, self.give_up)
        self.stage("begun")
        try:
            self.prepare()
            self.stage("prepared")
            self.start_clients(**self.how.get("clients", {}))
            self.work()
            self.stage("worked")
            self.calm = time.monotonic()
            self.work_on(self.lacks)
            self.stage("had enough")
            self.settle()
            self.stage("settled")
            self.judge()
            self.stage("judged")
        except faults.Unavailable as error:
            skipped = str(error)
        except Exception:
            # No round may be without a test.
            self.tests.append((self.name, [traceback.format_exc()]))
        finally:
            signal.alarm(0)
            faults.end_idle()
            self.place.phase = clients.Place.END
            for process, _, _ in self.processes.values():
                process.kill()
                process.join()
            self.close()
            self.seconds = time.monotonic() - self.began
        lines = [] if skipped else self.report()
        return Outcome(self.number, self.name, self.control, self.tests, self.counts,
                       {n: (looked, len(violations)) for n, (looked, violations) in self.verdict.items()},
                       self.seconds, skipped, lines)

    def give_up(self, number, frame):
        raise RuntimeError(f"nothing has happened for {2 * servers.PATIENCE} s")

    def stage(self, name):
        """All that is between two of them has a limit of its own; but a server that hangs need not know what time it is."""
        signal.alarm(2 * servers.PATIENCE)
        if DEBUG:
            say(f"# round {self.number}, {time.monotonic() - self.began:.1f} s, {time.process_time():.1f} s of them computing: {name}")

    def prepare(self):
        self.server.copy_of(self.torture.base)
        self.server.start(self.environment)
        self.server.wait_for("SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'eventstore worker'")

    def work(self):
        raise NotImplementedError

    def wait(self, seconds):
        """Lets the clients work."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(0.5, left))
            self.end_prepared()

    def work_on(self, lacks):
        """Lets the clients work until there is all that must be there; lacks says of the evidence what is not."""
        end = time.monotonic() + servers.PATIENCE
        while lacking := lacks(self.evidence()):
            if time.monotonic() > end:
                raise RuntimeError(f"in {servers.PATIENCE} s there was none of these: {'; '.join(lacking)}")
            self.stage(f"lacks {'; '.join(lacking)}")
            self.wait(0.2)

    def lacks(self, e):
        """There must be something to judge each promise by, and the store must go on after the last fault."""
        lacking = [f"what promise {number} is judged by" for number, (_, function) in oracle.PROMISES.items()
                   if not any(True for _ in function(e))]
        return lacking + self.lacks_append(e, self.calm)

    def lacks_append(self, e, since):
        stored = any(attempt.result == "ok" and attempt.sent > since for attempt in e.attempts())
        return [] if stored else ["an append that was begun later and stored"]

    def do(self, name, tried):
        """A fault, counted when it was done. What a fault meets is not its business."""
        if tried:
            faults.end_idle()                 # they may be what it could not wait for
        self.limit = f"{3 * 2 ** min(tried, 4)}s"
        try:
            if {**faults.KILLS, **faults.HARMS}[name](self, self.dice(name, self.counts[name], tried)):
                self.counts[name] += 1
                self.stage(name)
                return True
        except psycopg.Error as error:
            self.stage(f"{name} could not be done: {str(error).strip()}")
        return False

    def do_all(self, names):
        """What could not be done has another turn after the others."""
        left = collections.deque((name, 0) for name in names)
        end = time.monotonic() + servers.PATIENCE
        while left:
            name, tried = left.popleft()
            faults.end_idle(time.monotonic())
            self.end_prepared()
            if tried or name in faults.KILLS:
                time.sleep(self.dice("rest", len(left), tried).uniform(0, 0.6))
            if self.do(name, tried):
                end = time.monotonic() + servers.PATIENCE
            elif time.monotonic() > end:
                raise RuntimeError(f"for {servers.PATIENCE} s none of these could be done: {', '.join([name, *(n for n, _ in left)])}")
            else:
                left.append((name, tried + 1))

    def settle(self):
        """Writers end; what was left is ended; readers and consumers come to the end of the log."""
        faults.end_idle()
        self.place.phase = clients.Place.SETTLE
        self.join_writers()
        self.server.wait_up()
        self.stage("writers ended")
        writers = "FROM pg_stat_activity WHERE application_name ~ 'client (appender|executor|decider)'"
        try:
            self.server.wait_for(f"SELECT count(*) = 0 {writers}")
        except RuntimeError:
            stuck = self.server.query(f"SELECT application_name, state, wait_event, pg_blocking_pids(pid)::text, left(query, 80) {writers}")
            self.fail("settling", f"backends of writers do not end: {stuck}")
        faults.end_prepared(self, 0)
        self.server.query("CALL es_work()")
        self.stage("work done")
        self.drain()
        self.stage("drained")
        self.place.phase = clients.Place.END
        self.join()
        self.stage("all ended")
        before = self.models()
        for name in before:
            self.server.query(f"SELECT es_rebuild_projection('{name}')")
        after = self.models()
        self.rebuilt = {name: (before[name], after[name]) for name in after}

    def drain(self):
        """Until nothing is left to be delivered."""
        try:
            self.server.wait_for("""SELECT bool_and(lag_events = 0 AND in_flight = 0) AND NOT EXISTS (SELECT FROM es_failures)
                AND NOT EXISTS (SELECT FROM es_projections WHERE mode = 'async' AND position < es_horizon())
                AND es_horizon() = (SELECT max(position) FROM es_events)
                FROM es_subscription_status""", self.how.get("drain", servers.PATIENCE))
        except RuntimeError:
            self.fail("settling", "subscriptions or projections do not come to the end: "
                      f"{self.server.query('SELECT * FROM es_subscription_status')} {self.server.query('SELECT * FROM es_failures LIMIT 5')}"
                      f" {self.server.query('SELECT name, mode, state, position, message FROM es_projections')}")

    def models(self):
        return {name: json.loads(json.dumps(self.server.query(
            clients.Watcher.looks[name], (clients.ACCOUNTS,) if name == "live" else None), default=str))
            for name in ("chain", "totals", "live")}

    def judge(self):
        self.seen = self.evidence()
        self.test("the horizon reaches the end of the log", lambda: self.server.value(
            "SELECT es_horizon() = max(position) FROM es_events") or "it does not")
        self.test("table and indexes agree", self.check_indexes)
        self.test("no process of the server has failed by itself", self.check_log)
        self.test("no client has failed", self.check_clients)
        self.test("nothing was refused that no fault explains", self.check_refusals)
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
        """What there is up to now."""
        evidence = oracle.Evidence(f"{self.folder}/histories")
        self.final = {
            "log": self.server.query("""SELECT position, version, id::text, stream, type, data::text, metadata::text
                FROM es_events ORDER BY position"""),
            "resolved": self.resolved, "crashes": self.crashes, "failed_over": self.failed_over, "rebuilt": self.rebuilt}
        evidence.complete(self.final)
        return evidence

    def conclude(self):
        for number, (looked, violations) in self.verdict.items():
            self.tests.append((f"{number}. {oracle.PROMISES[number][0]}",
                               violations if looked else ["there was nothing to judge it by"]))

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
        signs = ("signal 11", "signal 7:", "TRAP:", ": XX000: ", ": XX001: ", ": XX002: ")
        bad = [line for server in (self.server, self.standby) if server
               for line in server.logged(*signs, *(() if self.may_panic else ("signal 6:", "PANIC:")))]
        return not bad or f"{len(bad)} lines: {bad[:3]}"

    def check_clients(self):
        failed = [name for name in os.listdir(self.folder) if name.endswith(".failed")]
        return not failed or f"{failed}: {open(f'{self.folder}/{failed[0]}').read()}"

    def check_refusals(self):
        strange = collections.Counter(refusal for refusal in self.seen.refusals() if refusal[1] not in EXPECTED)
        return not strange or str(dict(strange))

    def close(self):
        for server in (self.server, self.standby):
            if server and server.pid():
                server.stop("immediate")

    def report(self):
        failed = [(name, violations) for name, violations in self.tests if violations]
        kills = sum(self.counts[name] for name in faults.KILLS)
        log = len(getattr(self, "final", {"log": ()})["log"])
        lines = [f"round {self.number} ({self.name}): {log} events, {kills} kills, {self.seconds:.0f} s"
                 f"{'' if not failed else ', FAILED'}"]
        for name, violations in failed:
            lines.append(f"not ok: {name}: {len(violations)} violations")
            lines += [f"    {str(violation)[:2000]}" for violation in violations[:5]]
        if failed:
            lines.append(f"to repeat it: {self.torture.again(self.name)}")
            self.keep()
        shutil.rmtree(self.folder, ignore_errors=True)
        return lines

    def keep(self):
        """Histories, the server's log, and the log of events of a round that failed."""
        to = f"{KEPT}/round-{self.number}"
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("data", "standby", "disk*", ".s.*"))
        with open(f"{to}/final.json", "w") as file:
            json.dump(getattr(self, "final", None), file, default=str)


class Crashes(Round):
    """Kills, one after the other, and everything that hurts less between them."""

    def work(self):
        dice = self.dice("order")
        kills = self.as_often(faults.KILLS, self.how["kills"], dice)
        harms = self.as_often(faults.HARMS, max(self.how["kills"], len(faults.HARMS)), dice)
        turns = [kills] * len(kills) + [harms] * len(harms)
        dice.shuffle(turns)
        self.do_all([turn.pop() for turn in turns])

    @staticmethod
    def as_often(faults, count, dice):
        """So many of them, each as often as the others."""
        names = []
        while len(names) < count:
            names += dice.sample(list(faults), len(faults))
        return names[:count]


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
            self.work_on(lambda e: self.lacks_append(e, full if number else 0))
            full = time.monotonic()
            self.disk.fill()
            self.work_on(lambda e: self.lacks_refusal(e, full))
            self.wait(1)
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

    def lacks_refusal(self, e, since):
        refused = any(attempt.sqlstate == "53100" and attempt.sent > since for attempt in e.attempts())
        return [] if refused else ["an append that the full disk refuses"]

    def conclude(self):
        super().conclude()
        self.counts["append refused by a full disk"] += sum(attempt.sqlstate == "53100" for attempt in self.seen.attempts())

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
        for number in range(self.how["times"]):
            self.wait(1)
            self.work_on(lambda e: self.lacks_append(e, self.crashes[-1][1] if self.crashes else 0))
            began = time.monotonic()
            self.disk.fill()
            self.write_wal()
            self.disk.clear()
            self.come_back()
            # It may have panicked a second time before there was room.
            self.crashes.append((began, time.monotonic() + 1))
            self.counts["disk of the WAL full"] += 1

    def panics(self):
        """How often the postmaster has seen it."""
        return len(self.server.logged("was terminated by signal 6"))

    def write_wal(self):
        """Until the server panics."""
        before, end = self.panics(), time.monotonic() + servers.PATIENCE
        while self.panics() == before:
            if time.monotonic() > end:
                raise RuntimeError("the server does not mind that its WAL has no room")
            try:
                with self.server.connect() as connection:
                    while True:
                        connection.execute("SELECT pg_logical_emit_message(false, 'torture', repeat('x', 500000))")
            except psycopg.Error:
                time.sleep(0.02)

    def come_back(self):
        """It may have given up, or be about to, or try again."""
        end = time.monotonic() + servers.PATIENCE
        while time.monotonic() < end:
            if self.server.is_up():
                return
            if not self.server.pid():
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
        readers = [self.start_client("StandbyReader", way=way) for way in ("log", "horizon")]
        self.wait(self.how["seconds"])
        self.work_on(lambda e: [f"an event that {name} has read" for name in readers if not any(
            call.client == name and call.answer["result"] == "ok" for call in e.calls["read"])] + self.lacks_append(e, 0))
        began = time.monotonic()
        if self.dice("end of the primary").random() < 0.5:
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

    def wait_for_clock(self, offset):
        end = time.monotonic() + servers.PATIENCE
        while abs(float(self.server.value("SELECT extract(epoch FROM clock_timestamp())")) - time.time() - offset) > 0.5:
            if time.monotonic() > end:
                raise RuntimeError(f"the server's clock is not {offset} s off")
            time.sleep(0.02)

    def work(self):
        offset = 0
        for number in range(self.how["times"]):
            self.wait(1)
            dice = self.dice("jump", number)
            began = time.monotonic()
            offset += dice.choice([-1, -5, -3600, -86400, 30])
            self.set_clock(offset)
            self.wait_for_clock(offset)
            jumped = time.monotonic()
            self.wait(1.2)
            self.work_on(lambda e: self.lacks_append(e, jumped))
            self.counts["jump of the clock"] += 1
            if dice.random() < 0.5:
                self.do_all(["kill -9 of a backend"])
            # each process of the server looks at it every other second
            self.crashes.append((began, time.monotonic() + 2))
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
        self.appenders = {name: client for name, client in self.processes.items() if client[1] == "Appender"}
        listener = self.server.connect()
        listener.execute("LISTEN torture")
        listener.execute("BEGIN")
        listener.execute("SELECT 1")
        # First in thousands, then what still fits.
        refused = [self.notify(*what) for what in ((5000, 7900), (50, 7900), (1, 7900), (1, 1000), (1, 100), (1, 1))]
        self.test("the queue is full", lambda: set(refused) == {"54000"} or str(refused))
        self.counts["queue of notifications full"] += 1
        full = time.monotonic()
        projection = "SELECT position FROM es_projections WHERE name = 'totals'"
        before = self.server.value(projection)
        self.work_on(lambda e: self.lacks_of_full_queue(e, full))
        after = self.server.value(projection)
        say(f"# while the queue was full a projection went from {before} to {after}")
        self.server.query("SELECT pg_terminate_backend(%s)", (listener.info.backend_pid,))
        listener.close()

    def notify(self, count, size):
        """Until it is refused; returns why."""
        try:
            with self.server.connect() as connection:
                while True:
                    connection.execute(f"DO $$ BEGIN FOR i IN 1 .. {count} LOOP PERFORM pg_notify('torture', repeat('x', {size}) || i); "
                                       "END LOOP; END $$")
        except psycopg.Error as error:
            return error.sqlstate

    def met(self, e, notify, since=0):
        """What became of the appends of clients with this eventstore.notify, if the queue can have been its cause."""
        names = [f"{name}/" for name, (_, kind, options) in self.appenders.items() if options["notify"] == notify]
        met = sorted((attempt.sent, attempt.sqlstate) for unit in e.units.values() if unit.name.startswith(tuple(names))
                     for attempt in unit.attempts
                     if attempt.sent > since and (attempt.result == "ok" or attempt.sqlstate == "54000"))
        return [sqlstate for _, sqlstate in met]

    def lacks_of_full_queue(self, e, since):
        """An append that leaves it to workers notifies by itself while they are slow, which a machine may make them."""
        left = self.met(e, None, since)
        return (([] if "54000" in self.met(e, "commit", since) else ["an append that notifies and is refused"])
                + ([] if len(left) >= 20 and not any(left[-20:]) else ["20 appends in a row that leave it to workers, and are stored"]))

    def conclude(self):
        super().conclude()
        for notify, words in (("commit", "that notify"), (None, "that leave it to workers"), ("off", "that never notify")):
            self.counts[f"append refused by a full queue, of those {words}"] += self.met(self.seen, notify).count("54000")
        self.tests.append(("appends that never notify go on", [] if "54000" not in self.met(self.seen, "off") else ["one was refused"]))


class Quiet(Round):
    """No fault, and a client that makes sure that controls find what they need."""

    def work(self):
        self.certain = self.start_client("Certain")

    def lacks(self, e):
        process = self.processes[self.certain][0]
        if not process.is_alive() and process.exitcode != 0:
            raise RuntimeError(f"{self.certain} has failed: {self.check_clients()}")
        return ["the end of what Certain does"] if process.is_alive() else []


class Control(Quiet):
    """A database in which something is broken: what it breaks must be found out."""

    def prepare(self):
        self.control = self.how["broken"].number
        super().prepare()
        self.server.query(f"CREATE SCHEMA broken; {self.how['broken'].sql}")
        self.server.query(f"ALTER DATABASE {servers.DATABASE} SET search_path = broken, public")

    def work(self):
        super().work()
        if self.how["broken"].overtaken:
            self.overtake()

    def overtake(self):
        """An append whose transaction ends when a reader has seen a later event. Behind a horizon none does."""
        with self.server.connect() as connection:
            connection.execute("BEGIN")
            (position,) = connection.execute("SELECT position FROM es_append('late', 'any', 'noted', '{\"mark\": \"late\"}')").fetchone()
            self.work_on(lambda e: [] if any(call.entry["way"] != "category" and call.answer["got"][-1][0] > position
                                             for call in controls.reads(e)) else ["a reader that has seen a later event"])
            connection.execute("COMMIT")

    def lacks(self, e):
        found = any(oracle.PROMISES[self.control][1](e))
        return super().lacks(e) + ([] if found else [f"a violation of promise {self.control}"])

    def conclude(self):
        looked, violations = self.verdict[self.control]
        self.tests = [(f"control: {self.name}", [] if violations else [f"promise {self.control} was kept, in {looked} cases"])]

    def fail(self, name, evidence):
        """Only what the oracle says counts here."""

    def test(self, name, function):
        pass


class Tampered(Quiet):
    """A quiet round, whose evidence is tampered with: exactly the promise that is broken must be found broken."""

    def lacks(self, e):
        lacking = [f"what can be tampered with so that {tamper.words}" for tamper in controls.TAMPERS
                   if not any(True for _ in tamper.material(e))]
        return super().lacks(e) + Round.lacks(self, e) + lacking

    def conclude(self):
        super().conclude()
        judged = [(tamper, Apart(self.tampered, tamper)) for tamper in controls.TAMPERS]
        for tamper, apart in judged:
            broken = apart.result()
            self.tests.append((f"control: {tamper.words}", [] if broken == [tamper.number] else [
                f"promises {broken} were found broken, not {tamper.number}"]))

    def tampered(self, tamper):
        """In a process that has evidence of its own."""
        tamper.function(self.seen, self.dice(tamper.words).choice(list(tamper.material(self.seen))))
        return [number for number, (_, violations) in oracle.judge(self.seen).items() if violations]


class Torture:
    """Rounds are played two at a time, where there are two processors."""

    def __init__(self, form, seed):
        self.form = form
        self.seed = seed
        self.only = os.environ.get("ROUNDS") or ""
        self.kills = int(os.environ.get("KILLS") or 1000)
        self.plan = []
        self.times = collections.Counter()
        self.outcomes = []
        self.major = int(os.environ["TORTURE_MAJOR"])
        self.version = os.environ["TORTURE_VERSION"]

    def make_base(self):
        """The server that all others are copies of."""
        self.base = servers.Server("base/data")
        os.mkdir(f"{servers.SCRATCH}/base")
        servers.give(f"{servers.SCRATCH}/base")
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
        {"long": self.long, "short": self.short, "controls": self.control}[self.form]()
        self.make_base()
        waiting, playing = list(enumerate(self.plan, 1)), {}
        while waiting or playing:
            while waiting and len(playing) < min(2, os.cpu_count()):
                number, (kind, name, how) = waiting.pop(0)
                apart = Apart(lambda: kind(self, number, name, **how).run())
                playing[apart.receiver] = number, name, apart
            for receiver in multiprocessing.connection.wait(list(playing)):
                self.take(*playing.pop(receiver))
        self.outcomes.sort(key=lambda outcome: outcome.number)

    def take(self, number, name, apart):
        try:
            outcome = apart.result()
        except RuntimeError as error:
            outcome = Outcome(number, name, None, [(name, [error])], collections.Counter(), {}, 0, None,
                              [f"{name}: {error}", f"to repeat it: {self.again(name)}"])
        self.outcomes.append(outcome)
        say(*[f"skipped: {name}: {outcome.skipped}"] if outcome.skipped else outcome.lines, sep="\n")

    def short(self):
        self.play(Crashes, "crashes", kills=12)
        self.special(1, 1)
        self.play(Tampered, "tampered")
        self.broken(1, 8, 15)

    def long(self):
        self.control()
        for _ in range(max(1, self.kills // 400)):
            self.special(4, 4)
        if self.major >= 17 or self.kills >= 1000 or self.only:
            self.play(FullQueue, "full queue", clients={"prepare": False})
        else:
            self.skip("full queue", "before 17 it takes minutes")
        for done in range(0, self.kills, 50):
            self.play(Crashes, "crashes", kills=min(50, self.kills - done))

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

    def control(self):
        self.play(Tampered, "tampered")
        self.broken(*oracle.PROMISES)

    def broken(self, *numbers):
        for broken in controls.BROKEN:
            if broken.number in numbers:
                self.play(Control, broken.words, broken=broken, drain=4)

    def wanted(self, name):
        return f" {self.only} " in f" {name} " or not self.only

    def skip(self, name, why):
        if self.wanted(name):
            say(f"skipped: {name}: {why}")
            self.outcomes.append(Outcome(0, name, None, [], collections.Counter(), {}, 0, why, []))

    def play(self, kind, name, **how):
        """Its name, of which its seed is made, does not depend on which others are played."""
        self.times[name] += 1
        name += f" {self.times[name]}" if self.times[name] > 1 else ""
        if self.wanted(name):
            self.plan.append((kind, name, how))

    def again(self, only=""):
        """The command that repeats it."""
        words = ["make torture", f"FORM={self.form}", f"SEED={self.seed}"]
        if self.form == "long" and self.kills != 1000:
            words.append(f"KILLS={self.kills}")
        if only or self.only:
            words.append(f"ROUNDS='{only or self.only}'")
        return f"{' '.join(words)} (on PostgreSQL {self.major})"

    def print_table(self):
        """What doc/internals/reliability.md has."""
        played = [outcome for outcome in self.outcomes if not outcome.skipped]
        real = [outcome for outcome in played if not outcome.control]
        say(f"\n{len(real)} rounds and {len(played) - len(real)} of controls, {sum(outcome.seconds for outcome in played):.0f} s "
            f"if they were played one by one, seed {self.seed}\n")
        say("| promise | what was looked at | how often | lost |\n|---:|---|---:|---:|")
        for number in oracle.PROMISES:
            looked, lost = (sum(outcome.verdict.get(number, (0, 0))[i] for outcome in real) for i in (0, 1))
            say(f"| {number} | {oracle.TRIED[number]} | {looked:,} | {lost} |")
        counts = sum((outcome.counts for outcome in real), collections.Counter())
        say("\n| what was done to it | how often |\n|---|---:|")
        for name in [*faults.KILLS, *faults.HARMS, *sorted(counts.keys() - faults.KILLS.keys() - faults.HARMS.keys())]:
            if counts[name]:
                say(f"| {name} | {counts[name]:,} |")
        say("\n| negative control | broken promise | violations that were found |\n|---|---:|---:|")
        for outcome in played:
            if outcome.control:
                say(f"| {outcome.name} | {outcome.control} | {outcome.verdict.get(outcome.control, (0, 0))[1]} |")
        tampered = [violations for outcome in real for name, violations in outcome.tests if name.startswith("control")]
        say(f"| evidence that is tampered with, in {len(tampered)} ways | 1 to {len(oracle.PROMISES)}, exactly one each | "
            f"{sum(not violations for violations in tampered)} |")

    def end(self):
        self.print_table()
        verdicts = [violations for outcome in self.outcomes for _, violations in outcome.tests]
        failed = sum(bool(violations) for violations in verdicts)
        skipped = sum(bool(outcome.skipped) for outcome in self.outcomes)
        if failed:
            say(f"\nto repeat it: {self.again()}\nwhat failed rounds have left is in results/torture")
        if not self.outcomes:
            say(f"no round has {self.only} in its name")
        say(f"\n{len(verdicts) - failed} passed, {failed} failed{f', {skipped} skipped' if skipped else ''}")
        return not failed and self.outcomes


if __name__ == "__main__":
    seed = sys.argv[2] if len(sys.argv) > 2 and sys.argv[2] else str(random.SystemRandom().randrange(10**6))
    torture = Torture(sys.argv[1], seed)
    say(f"seed {seed}: {torture.again()}")
    torture.run()
    sys.exit(0 if torture.end() else 1)
