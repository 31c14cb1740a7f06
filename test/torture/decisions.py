"""The race of decisions: writers read the events of a query and append on the condition
that nothing has come since, as many as there are at once, and the log says afterwards
whether any of them decided on what was not so.

    decisions.py [name=value]...

    seconds=10 writers=20     of each round
    decisions=1000000         the rounds go on until so many have been made
    slow=1                    so many times as long as usual are transactions held open; 0: many more
                              decisions a second
    seed=1                    random choices; the times are the machine's
    rounds=word               the rounds and controls with this word in their names
    sql=1                     the protocol of conditions.sql instead of the extension's functions
    kills=1                   a backend is killed by signal 9 about once a second, on this machine, and
                              there are no controls; kills=2: first without kills, and then so

It connects as libpq's environment says. Each round has a database of its own.

The rule is stronger than that of the public consistency test. Each event stores its
query, and how many events matched it above a base position when it was read. The events
below the first one of a call, in the order of positions, must be as many. This also finds
a reader that was given a position above an event that it did not see, which no condition
can find later. An event between the position that was read and the first one of the call
is reported apart: the check of the condition has failed.

The tags and types of a round change with time, so that a query finds some hundred events
however long the round is. Half of the transactions do something between: they are slow,
roll back to a savepoint, append twice, are prepared, or store so many tags that the whole
log is locked. Appends without tags, to a stream of their own, must never wait.

The controls are the protocol in SQL with one step left out. Each has to be found.
"""
import collections
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback

import psycopg

HERE = os.path.dirname(os.path.abspath(__file__))
fork = multiprocessing.get_context("fork")
logging.getLogger("psycopg").setLevel(logging.ERROR)   # of connections that were killed

TAGS = 10
TYPES = 10
GENERATION = 3.0                              # seconds for which tags and types are in use
PATIENCE = 60                                 # seconds until a server is up again
CHANCES = 5                                   # rounds in which a control's fault is to be found
REFUSED = "ES007"
DEADLOCK = "40P01"
# What a kill does: the server goes down, or is down; a prepared transaction was ended by us.
LOST = ("57P01", "57P02", "57P03", "42704")

OTHER_STATE = "decided on another state"
WAITED = "an unrelated append has waited"

Control = collections.namedtuple("Control", "fault words kinds finding", defaults=(OTHER_STATE,))
CONTROLS = [
    Control("no lock", "a condition takes no lock", {"tagged": 2, "plain": 1}),
    Control("one lock too few", "a condition takes the lock of its first item alone", {"tagged": 2, "plain": 1}),
    Control("snapshot first", "a condition is checked before its locks", {"tagged": 1}),
    Control("no barrier", "a reader takes no lock", {"observing": 1, "lingering": 1}),
    Control("no waiting", "a condition without tags does not wait for others", {"untagged": 1, "plain": 2}),
    Control("log late", "the log is locked after the check", {"tagged": 1, "large": 0.3}),
    Control("decided before", "a second round goes by what the first has read", {"decide": 1}),
    Control("whole log", "a condition without tags locks the whole log", {"untagged": 1, "staying": 1}, WAITED),
]
# What writers do, and how often, in a round without a control.
ROUNDS = {
    "tags": {"tagged": 6, "decide": 2, "plain": 2, "several": 0.5},
    "barrier": {"observing": 1, "lingering": 1},
    "items without tags": {"tagged": 3, "untagged": 3, "decide": 1, "decide untagged": 1, "plain": 2, "staying": 0.1},
    "whole log": {"tagged": 5, "untagged": 1, "decide": 2, "plain": 2, "large": 0.5, "several": 0.5},
}


class Writer:
    """One of those that race. What it has done is in the events, but for what was refused."""
    lock_timeout = "0"

    def __init__(self, number, kinds, settings):
        self.number = number
        self.kinds = kinds
        self.settings = settings
        self.random = random.Random(f"{settings['seed']} {settings['name']} {number}")
        self.counts = collections.Counter()
        self.told = {}                        # mark -> first position, of what was acknowledged
        self.refused = []                     # marks
        self.marks = 0
        self.known = 0                        # a position below which nothing can come any more

    def run(self):
        self.connection = connect(self.settings, self.lock_timeout)
        while time.time() < self.settings["until"] and not self.settings["stop"].is_set():
            kind = self.random.choices(list(self.kinds), self.kinds.values())[0]
            try:
                getattr(self, kind.replace(" ", "_"))()
                self.counts[kind] += 1
            except psycopg.Error as error:
                self.go_on(kind, error)
        self.connection.close()
        return self.counts, self.told, self.refused

    def go_on(self, kind, error):
        try:
            if not self.is_lost(error):
                self.after(kind, error)
        except psycopg.Error as another:
            if another is error or not self.is_lost(another):
                raise

    def is_lost(self, error):
        """Connects again if the server was killed. What became of the transaction nobody knows."""
        if not self.settings["kills"] or error.sqlstate not in (None, *LOST):
            return False
        self.counts["connection lost"] += 1
        self.connection.close()
        self.connection = connect(self.settings, self.lock_timeout)
        return True

    def after(self, kind, error):
        if error.sqlstate not in (REFUSED, DEADLOCK):
            raise error
        self.connection.rollback()
        if self.settings["sql"]:
            self.execute("SELECT pg_advisory_unlock_all()")
        self.counts[f"{kind}, {'refused' if error.sqlstate == REFUSED else 'deadlock'}"] += 1
        if error.sqlstate == DEADLOCK and self.settings["alone"]:
            raise error                       # there is none where each transaction appends once

    def execute(self, sql, parameters=None):
        return self.connection.execute(sql, parameters)

    # choices

    def generation(self):
        return int(time.time() / GENERATION)

    def tag(self, n):
        return f"g{n}:{self.generation()}"

    def type(self, n):
        return f"t{n}.{self.generation()}"

    def tags(self, most):
        return [self.tag(n) for n in self.random.sample(range(TAGS), self.random.randint(1, most))]

    def item(self, tagged):
        item = {}
        if tagged:
            item["tags"] = self.tags(3 if self.random.random() < 0.2 else 1)
        if not tagged or self.random.random() < 0.3:
            item["types"] = [self.type(n) for n in self.random.sample(range(TYPES), self.random.randint(1, 4))]
        return item

    def query(self, tagged):
        items = [self.item(tagged or self.random.random() < 0.4) for _ in range(self.random.randint(1, 3))]
        if not tagged and not any("tags" not in item for item in items):
            items[self.random.randrange(len(items))] = self.item(False) if self.random.random() < 0.9 else {}
        return items

    def event(self, more):
        event = {"type": self.type(self.random.randrange(TYPES)), "data": more}
        if self.random.random() < 0.85:
            event["tags"] = self.tags(3)
            event["data"]["tags"] = event["tags"]
        if "tags" not in event or self.random.random() < 0.5:
            event["stream"] = f"s-{self.random.randrange(1000)}"
        return event

    def mark(self):
        self.marks += 1
        return f"{self.number}:{self.marks}"

    def be_slow(self):
        """Now and then for longer than an unrelated append may wait."""
        self.sleep(0.3 if self.random.random() < 0.01 else self.random.random() * 0.01)

    def sleep(self, seconds):
        if self.settings["slow"] > 0:
            time.sleep(seconds * self.settings["slow"])

    # what it does

    def read(self, query):
        """The last position that matches, how many do, and above which position."""
        base = max(0, self.known - self.random.randrange(300))
        last, seen = self.execute("SELECT coalesce(max(position), %s), count(*) FROM es_query(%s, %s)",
                                  (base, json.dumps(query), base)).fetchone()
        return base, last, seen

    def decision(self, tagged):
        query = self.query(tagged)
        base, after, seen = self.read(query)
        if self.random.random() < 0.2:
            self.sleep(self.random.random() * 0.01)
        mark = self.mark()
        count = self.random.randint(1, 2)
        events = [self.event({"mark": mark, "place": place, "of": count, "q": query, "base": base, "after": after, "seen": seen})
                  for place in range(count)]
        return mark, events, query, after

    def append_if(self, decision):
        mark, events, query, after = decision
        try:
            first, = self.execute("SELECT first_position FROM es_append_if(%s, %s, %s)",
                                  (json.dumps(events), json.dumps(query), after)).fetchone()
        except psycopg.Error as error:
            if error.sqlstate == REFUSED:
                self.refused.append(mark)
            raise
        return mark, first

    def conditional(self, tagged):
        how = self.random.random()
        decision = self.decision(tagged)
        if how < 0.5:
            mark, first = self.append_if(decision)
        elif how < 0.8:
            with self.connection.transaction():
                mark, first = self.append_if(decision)
                self.be_slow()
        elif how < 0.9 and not self.settings["alone"]:
            return self.undone(tagged, decision)
        else:
            return self.prepared(decision)
        self.told[mark] = first

    def tagged(self):
        self.conditional(True)

    def untagged(self):
        self.conditional(False)

    def undone(self, tagged, other):
        """A savepoint, to which it is rolled back, and then another decision."""
        with self.connection.transaction():
            self.execute("SAVEPOINT s")
            mark, _ = self.append_if(other)
            self.refused.append(mark)
            self.execute("ROLLBACK TO s")
            mark, first = self.append_if(self.decision(tagged))
        self.told[mark] = first
        self.counts["savepoint"] += 1

    def prepared(self, decision):
        name = f"{self.settings['database']} {self.number} {self.marks}"
        with_it = self.random.random() < 0.7
        self.execute("BEGIN")
        mark, first = self.append_if(decision)
        self.execute(f"PREPARE TRANSACTION '{name}'")
        self.be_slow()
        self.execute(f"{'COMMIT' if with_it else 'ROLLBACK'} PREPARED '{name}'")
        if with_it:
            self.told[mark] = first
        else:
            self.refused.append(mark)
        self.counts["prepared"] += 1

    def command(self, tagged):
        query = self.query(tagged)
        while {} in query:                    # the state would be all of the log
            query = self.query(tagged)
        mark = self.mark()
        count = self.random.randint(1, 2)
        events = [self.event({"mark": mark, "place": place, "of": count, "q": query, "base": 0}) for place in range(count)]
        for event in events:
            event.setdefault("stream", f"s-{self.random.randrange(1000)}")
        self.execute("SELECT FROM es_decide(%s, 'race_decide', %s, 'race_reduce')", (json.dumps(query), json.dumps({"events": events})))
        self.told[mark] = None

    def decide(self):
        self.command(True)

    def decide_untagged(self):
        self.command(False)

    def plain(self):
        """Without a condition. Some are slow."""
        event = self.event({"mark": self.mark(), "place": 0, "of": 1})
        slow = self.random.random() < 0.3
        with self.connection.transaction():
            first, = self.execute("SELECT position FROM es_append(%s, 'any', %s, %s, tags => %s)",
                                  (event.get("stream", f"p-{self.random.randrange(1000)}"), event["type"], json.dumps(event["data"]),
                                   event.get("tags"))).fetchone()
            if slow:
                self.be_slow()
        self.told[event["data"]["mark"]] = first
        self.known = self.execute("SELECT es_horizon()").fetchone()[0]

    def observing(self):
        """Decides on events with two tags, and stores one that nobody asks for."""
        query = [{"tags": [tag]} for tag in self.random.sample([self.tag(n) for n in range(TAGS)], 2)]
        base, after, seen = self.read(query)
        event = {"type": "observed", "stream": f"o-{self.number}",
                 "data": {"mark": self.mark(), "place": 0, "of": 1, "q": query, "base": base, "after": after, "seen": seen}}
        mark, first = self.append_if((event["data"]["mark"], [event], query, after))
        self.told[mark] = first

    def lingering(self):
        """Has an event of one tag for some time, while those of other tags overtake it."""
        tags = [self.tag(self.random.randrange(TAGS))]
        data = {"mark": self.mark(), "place": 0, "of": 1, "tags": tags}
        with self.connection.transaction():
            first, = self.execute("SELECT position FROM es_append(%s, 'any', 'lingered', %s, tags => %s)",
                                  (f"l-{self.number}", json.dumps(data), tags)).fetchone()
            self.sleep(self.random.random() * 0.02)
        self.told[data["mark"]] = first

    def staying(self):
        """Has an event for longer than an unrelated append may wait."""
        data = {"mark": self.mark(), "place": 0, "of": 1}
        with self.connection.transaction():
            first, = self.execute("SELECT position FROM es_append(%s, 'any', 'stayed', %s)", (f"w-{self.number}", json.dumps(data))).fetchone()
            self.sleep(0.2)
        self.told[data["mark"]] = first

    def several(self):
        """Two decisions in one transaction, which may be a deadlock."""
        with self.connection.transaction():
            told = [self.append_if(self.decision(self.random.random() < 0.8)) for _ in range(2)]
        self.told.update(told)

    def large(self):
        """More tags than locks are taken for."""
        mark = self.mark()
        events = []
        for place in range(17):
            event = self.event({"mark": mark, "place": place, "of": 17})
            event["data"]["tags"] = event["tags"] = self.tags(2) + [f"fill:{mark}:{place}:{n}" for n in range(62)]
            events.append(event)
        for event in events:
            event.pop("stream", None)
        with self.connection.transaction():
            self.execute("SELECT FROM es_append_batch(%s, 'any', %s)", (f"large-{self.random.randrange(100)}", json.dumps(events)))
            self.be_slow()
        self.told[mark] = None


class Unrelated(Writer):
    """Appends to a stream of its own without a tag; it must not wait for those that are slow."""
    lock_timeout = "100ms"

    def plain(self):
        self.execute("SELECT FROM es_append(%s, 'any', 'noted', %s)", (f"own-{self.number}", json.dumps({"mark": self.mark(), "place": 0, "of": 1})))
        time.sleep(0.002)

    def after(self, kind, error):
        if error.sqlstate != "55P03":
            raise error
        self.connection.rollback()
        self.counts["append without tags, waits"] += 1


def connect(settings, lock_timeout="0"):
    """Waits for a server that was killed."""
    path = "race,public" if settings["sql"] else "public"
    fault = settings["fault"].replace(" ", "\\ ")
    end = time.time() + PATIENCE
    while True:
        try:
            return psycopg.connect(dbname=settings["database"], autocommit=True, options=f"-c search_path={path} -c race.fault={fault} "
                                   f"-c eventstore.notify=off -c lock_timeout={lock_timeout}")
        except psycopg.OperationalError:
            if not settings["kills"] or time.time() > end:
                raise
            time.sleep(0.05)


def be_writer(kind, number, kinds, settings, pipe):
    try:
        pipe.send(kind(number, kinds, settings).run())
    except BaseException:
        settings["stop"].set()
        pipe.send(traceback.format_exc())


#
# The judge
#

def matching(query, by_type, by_tag, everything):
    """The places of events that match, as bits."""
    found = 0
    for item in query:
        bits = everything
        if item.get("types"):
            bits = 0
            for name in item["types"]:
                bits |= by_type.get(name, 0)
        for tag in item.get("tags", ()):
            bits &= by_tag.get(tag, 0)
        found |= bits
    return found


def judge(log, told, refused):
    """What is wrong with a log of (position, type, data, tags), and how many decisions were judged."""
    wrong = collections.defaultdict(list)
    decisions = 0
    by_type, by_tag, everything = {}, {}, 0
    positions = []
    calls = collections.defaultdict(list)
    for place, (position, kind, data, tags) in enumerate(sorted(log, key=lambda row: row[0])):
        if tags is not None and tags != sorted(set(data.get("tags", ()))):
            wrong["other tags are stored"].append(f"position {position}: {tags}, {data.get('tags')} were given")
        if data["place"] == 0 and "q" in data:
            decisions += 1
            below = next_place(positions, data["base"])
            bits = matching(data["q"], by_type, by_tag, everything) >> below
            if bits.bit_count() != data["seen"]:
                wrong[OTHER_STATE].append(
                    f"position {position}: {bits.bit_count()} events match above {data['base']}, {data['seen']} were read, query {json.dumps(data['q'])}")
            if "after" in data and bits >> (next_place(positions, data["after"]) - below):
                wrong["condition did not hold"].append(f"position {position}: something matches above {data['after']}")
        calls[data["mark"]].append((data["place"], data["of"], position))
        positions.append(position)
        everything |= 1 << place
        by_type[kind] = by_type.get(kind, 0) | 1 << place
        for tag in data.get("tags", ()):
            by_tag[tag] = by_tag.get(tag, 0) | 1 << place
    for mark, there in calls.items():
        if [place for place, _, _ in sorted(there)] != list(range(there[0][1])):
            wrong["a call is not whole"].append(f"{mark}: {there}")
    for mark, first in told.items():
        if mark not in calls or first not in (None, calls[mark][0][2]):
            wrong["an acknowledged call is not there"].append(f"{mark}: {first}, {calls.get(mark)}")
    for mark in refused:
        if mark in calls:
            wrong["a refused call is there"].append(mark)
    return decisions, wrong


def next_place(positions, position):
    """How many positions are not above it; they ascend."""
    low, high = 0, len(positions)
    while low < high:
        middle = (low + high) // 2
        if positions[middle] <= position:
            low = middle + 1
        else:
            high = middle
    return low


#
# Rounds
#

def prepare(database, settings):
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database}"')
    with psycopg.connect(dbname=database, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION eventstore")
        connection.execute("""
            CREATE FUNCTION race_reduce(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql
                RETURN jsonb_build_object('n', coalesce((state->>'n')::bigint, 0) + 1);
            CREATE FUNCTION race_decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
                RETURN (SELECT jsonb_agg(jsonb_set(event, '{data,seen}', coalesce(state->'n', '0')) ORDER BY place)
                          FROM jsonb_array_elements(command->'events') WITH ORDINALITY AS e (event, place))""")
        if settings["sql"]:
            with open(f"{HERE}/conditions.sql") as file:
                connection.execute(file.read())


def end_prepared(connection, age):
    """What was left prepared for some seconds would hold others up for ever."""
    for name, in connection.execute("""SELECT gid FROM pg_prepared_xacts
            WHERE database = current_database() AND prepared <= clock_timestamp() - make_interval(secs => %s)""", (age,)).fetchall():
        try:
            connection.execute(f"ROLLBACK PREPARED '{name}'")
        except psycopg.errors.UndefinedObject:
            pass                              # its writer has come to it


def kill_backends(settings):
    """Kills one now and then, as long as the round lasts. Returns how many."""
    dice = random.Random(f"{settings['seed']} {settings['name']} kills")
    killed = 0
    while time.time() < settings["until"] - 1:
        time.sleep(dice.uniform(0.3, 1.5))
        try:
            with connect(settings) as connection:
                end_prepared(connection, 2)
                busy = connection.execute("""SELECT pid FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
                      AND backend_type = 'client backend'""").fetchall()
            if busy:
                os.kill(dice.choice(busy)[0], signal.SIGKILL)
                killed += 1
        except (psycopg.Error, ProcessLookupError):
            pass                              # it is not up yet, or has ended
    return killed


def play(number, name, kinds, options, fault=""):
    """A round. Returns how many decisions were stored, what was counted, and what is wrong."""
    database = f"race{os.getpid()}_{number}"
    settings = {"database": database, "name": name, "fault": fault, "seed": options["seed"], "kills": options["kills"], "sql": options["sql"] or bool(fault),
                "slow": options["slow"],
                "until": time.time() + options["seconds"], "stop": fork.Event(),
                "alone": not ({"several", "large"} & kinds.keys())}
    prepare(database, settings)
    settings["until"] = time.time() + options["seconds"]
    writers = []
    for n in range(options["writers"] + 1):
        receiver, sender = fork.Pipe(False)
        kind, its = (Writer, kinds) if n < options["writers"] else (Unrelated, {"plain": 1})
        process = fork.Process(target=be_writer, args=(kind, n, its, settings, sender))
        process.start()
        sender.close()
        writers.append((process, receiver))
    counts, told, refused, failures = collections.Counter(), {}, [], []
    if options["kills"]:
        counts["kills"] = kill_backends(settings)
    for process, receiver in writers:
        try:
            result = receiver.recv()
        except EOFError:
            result = "a writer has ended without a result"
        process.join()
        if isinstance(result, str):
            failures.append(result)
            continue
        counts.update(result[0])
        told.update(result[1])
        refused += result[2]
    with connect(settings) as connection:
        end_prepared(connection, 0)
        log = connection.execute(f"SELECT position, type, data, {'NULL' if settings['sql'] else 'tags'} FROM public.es_events").fetchall()
    decisions, wrong = judge(log, told, refused)
    for failure in failures:
        wrong["a writer has failed"].append(failure)
    if counts["append without tags, waits"] and "large" not in kinds:
        wrong[WAITED].append(str(counts["append without tags, waits"]))
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
    return decisions, counts, wrong


def show(name, decisions, counts, wrong):
    found = ", ".join(f"{words}: {len(cases)}" for words, cases in wrong.items())
    print(f"# {name}: {decisions} decisions; {', '.join(f'{kind} {n}' for kind, n in sorted(counts.items()))}; {found or 'nothing is wrong'}",
          flush=True)


def find(control, number, options):
    """Plays rounds until the fault is found, a few at most."""
    for _ in range(CHANCES):
        number += 1
        decisions, counts, wrong = play(number, control.fault, control.kinds, options, control.fault)
        show(f"control, {control.words}", decisions, counts, wrong)
        if failures := wrong.get("a writer has failed"):
            print(failures[0])
            return number, False
        if control.finding in wrong:
            return number, True
    return number, False


class Tally:
    """What has passed and failed so far."""

    def __init__(self, options):
        self.options = options
        self.passed = self.failed = self.made = self.number = 0

    def count(self, is_ok, words):
        self.passed, self.failed = self.passed + is_ok, self.failed + (not is_ok)
        print(f"{'ok' if is_ok else 'not ok'} - {words}", flush=True)

    def wanted(self, name):
        return self.options["rounds"] in name

    def play_rounds(self, kills):
        """One of each kind."""
        for name, kinds in ROUNDS.items():
            if self.wanted(name):
                self.number += 1
                words = f"{name}, beside kills" if kills else name
                decisions, counts, wrong = play(self.number, f"{words} {self.number}", kinds, dict(self.options, kills=kills))
                show(words, decisions, counts, wrong)
                self.made += decisions
                self.count(decisions > 0 and not wrong, words)
                for what, cases in wrong.items():
                    print(f"#   {what}, the first of {len(cases)}: {cases[0]}", flush=True)

    def play_controls(self):
        for control in CONTROLS:
            if self.wanted(control.fault):
                self.number, is_ok = find(control, self.number, self.options)
                self.count(is_ok, f"control: {control.words}")


def main(arguments):
    options = {"seconds": 10.0, "writers": 20, "seed": 1, "slow": 1.0, "decisions": 0, "rounds": "", "sql": 0, "kills": 0}
    for argument in arguments:
        name, value = argument.split("=", 1)
        options[name] = type(options[name])(value)
    kills = options.pop("kills")
    tally = Tally(dict(options, kills=0))
    if kills != 1:
        tally.play_rounds(0)
        while 0 < tally.made < options["decisions"]:
            tally.play_rounds(0)
        tally.play_controls()
    if kills:
        tally.play_rounds(1)
        while 0 < tally.made < options["decisions"]:
            tally.play_rounds(1)
    print(f"\n{tally.made} decisions\n{tally.passed} passed, {tally.failed} failed")
    return tally.failed == 0


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
