"""Clients. Each is a process with a history: a file of lines of JSON, one before
each call is sent and one after it was answered, with the time of the machine's
monotonic clock. Nothing of what a client knows is anywhere else, so that it may
be killed at any moment.

An answer is `ok`, `refused` (an error that the server has told, or the connection
was lost before the commit was sent: nothing is stored) or `unknown` (the connection
was lost after that).

A unit is what one transaction appends. Each of its events has a mark in its data
which no other has. A unit whose events have ids is repeated until its end is known,
and now and then after that. What was stored is also sent again otherwise: with other
content, which must be refused, or with fewer ids, which is a retry.
"""
import json
import mmap
import os
import random
import socket
import time
import uuid

import psycopg
from psycopg import pq

ACCOUNTS = [f"acct-{n}" for n in range(6)]
ORDERS = [f"order-{n}" for n in range(15)]
DECIDED = [f"dec-{n}" for n in range(3)]
WORDS = ["", "a", "naïve", "日本語", "🐘🐘", "\\x00", "\"quoted\"", "tab\tline\n", "%s $1", "\u0001\u007f", "'; --", "\\u0041", "e\u0301", "\ufeff"]


# What an append may be refused by without a fault of its own: a rollback, a lost connection, cancel, deadlock,
# time-outs of locks, a full disk, a full queue, a deadlock of transactions that are serialized.
PASSING = ("rollback", "lost", "57014", "40P01", "40001", "55P03", "53100", "54000")


class Stopped(Exception):
    """The round is over."""


class Unknown(Exception):
    pass


class Refused(Exception):
    def __init__(self, sqlstate, message=""):
        super().__init__(sqlstate, message)
        self.sqlstate = sqlstate
        self.message = message


class Place:
    """What all processes of a round share: the phase, and where the server is."""
    WORK, SETTLE, END = 0, 1, 2

    def __init__(self, socket_folder, ports, options=""):
        self.memory = mmap.mmap(-1, 16)
        self.socket = socket_folder
        self.ports = ports
        self.options = options

    phase = property(lambda self: self.memory[0], lambda self, value: self.memory.__setitem__(0, value))
    primary = property(lambda self: self.memory[1], lambda self, value: self.memory.__setitem__(1, value))


def canonical(value):
    """The text that jsonb has of a value."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{canonical(key)}: {canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(canonical, value)) + "]"
    if isinstance(value, Number):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


class Number(str):
    """A number with all its digits."""


class History:
    def __init__(self, folder, name):
        self.name = name
        self.file = os.open(f"{folder}/{name}", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        self.calls = 0

    def write(self, k, **entry):
        os.write(self.file, (json.dumps({"k": k, "t": time.monotonic(), **entry}) + "\n").encode())

    def sent(self, call, **entry):
        self.calls += 1
        self.write("sent", n=self.calls, call=call, **entry)
        return self.calls

    def answered(self, number, result, **entry):
        self.write("answered", n=number, result=result, **entry)


class Client:
    lasts_until = Place.SETTLE
    standby = False
    statement_timeout = "10s"

    def __init__(self, place, folder, name, seed, **options):
        self.place = place
        self.folder = folder
        self.name = name
        self.seed = seed
        self.random = random.Random()
        self.steps = 0
        self.options = options
        self.connection = None

    def main(self):
        self.history = History(self.folder, self.name)
        try:
            while self.place.phase < self.lasts_until:
                # What a step chooses does not depend on how earlier ones went.
                self.steps += 1
                self.random.seed(f"{self.seed} {self.name} {self.steps}")
                try:
                    self.step()
                except (Unknown, Refused):
                    pass
                except psycopg.Error as error:
                    self.after(error)
            self.finish()
        except Stopped:
            pass
        self.disconnect()

    def finish(self):
        pass

    def port(self):
        if self.standby:
            return self.place.ports[1]
        return self.place.ports[self.place.primary]

    def connect(self):
        """The connection; a new one when the last is gone."""
        while self.connection is None or self.connection.closed:
            self.check_stopped()
            try:
                self.connection = psycopg.connect(
                    host=self.place.socket, port=self.port(), user="postgres", dbname="store", autocommit=True,
                    connect_timeout=5, application_name=f"client {self.name}", 
                    options=f"-c statement_timeout={self.statement_timeout} {self.place.options}")
                self.begin_session()
            except psycopg.Error:
                self.disconnect()
                time.sleep(0.02)
        return self.connection

    def begin_session(self):
        pass

    def check_stopped(self):
        if self.place.phase >= self.lasts_until:
            raise Stopped

    def disconnect(self):
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.close()
            except psycopg.Error:
                pass

    def after(self, error):
        """Makes the connection usable again; raises what an error means."""
        if error.diag.severity_nonlocalized == "ERROR":
            try:
                if self.connection.info.transaction_status != pq.TransactionStatus.IDLE:
                    self.connection.execute("ROLLBACK")
            except psycopg.Error:
                self.disconnect()
            return Refused(error.sqlstate, str(error).split("\n")[0])
        self.disconnect()
        return Unknown(str(error).split("\n")[0])

    def execute(self, sql, parameters=None):
        return self.connect().execute(sql, parameters)

    def rest(self, longest):
        """No longer than its phase lasts."""
        end = time.monotonic() + self.random.uniform(0, longest)
        while (left := end - time.monotonic()) > 0 and self.place.phase < self.lasts_until:
            time.sleep(min(left, 0.1))

    def call(self, name, sql, parameters, **entry):
        """One statement that is one transaction, in the history. Returns its rows."""
        self.connect()
        number = self.history.sent(name, **entry)
        try:
            rows = self.connection.execute(sql, parameters).fetchall()
        except psycopg.Error as error:
            self.fail(number, error)
        return number, rows

    def fail(self, number, error):
        meaning = self.after(error)
        if isinstance(meaning, Refused):
            self.history.answered(number, "refused", sqlstate=meaning.sqlstate, message=meaning.message)
        else:
            self.history.answered(number, "unknown")
        raise meaning from None


#
# Writers
#

class Appender(Client):
    """Appends in every way there is."""
    pause = 0.03

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.units = 0
        self.marks = 0
        self.known = {}
        self.kinds = {
            "one": 30, "new": 6, "batch": 15, "streams": 15, "savepoints": 6, "rollback": 4, "import": 4,
            "prepared": 5 if options.get("prepare", True) else 0}
        self.deadlocks = options.get("deadlocks", True)
        # how often a connection is cut, a statement limited, what was acknowledged repeated, one append no transaction block
        self.cut = options.get("cut", 0.05)
        self.timeout = options.get("timeout", 0.04)
        self.again = 0.08
        self.otherwise = 0.06
        self.alone = 0.8

    def begin_session(self):
        if self.options.get("notify"):
            self.connection.execute(f"SET eventstore.notify = {self.options['notify']}")

    def step(self):
        unit = self.new_unit()
        self.complete(unit)
        self.rest(self.pause)

    # what to append

    def mark(self):
        self.marks += 1
        return f"{self.name}:{self.marks}"

    def data(self, mark, **more):
        value = {"mark": mark, **more}
        for _ in range(self.random.randrange(3)):
            value[self.random.choice(["x", "long name", "ключ", "n", "_"])] = self.value()
        if self.random.random() < 0.02 or self.options.get("large"):
            value["blob"] = "".join(self.random.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=4000))
        return canonical(value)

    def value(self, depth=0):
        kind = self.random.randrange(8 if depth < 2 else 6)
        if kind == 0:
            return Number(self.random.randrange(-10**25, 10**25))
        if kind == 1:
            return Number(f"{self.random.randrange(10**9)}.{self.random.randrange(10**6):06}00")
        if kind == 2:
            return self.random.choice([True, False, None])
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.random.randrange(3))]
        if kind == 7:
            return {self.random.choice(WORDS): self.value(depth + 1) for _ in range(self.random.randrange(3))}
        return "".join(self.random.choices(WORDS, k=3))

    def event(self, **more):
        mark = self.mark()
        return {"mark": mark, "type": self.random.choice(["opened", "moved", "noted"]), "data": self.data(mark, **more),
                "metadata": canonical({"by": self.name, "n": self.marks}) if self.random.random() < 0.3 else None,
                "id": str(uuid.UUID(int=self.random.getrandbits(128), version=4))}

    def expected(self, stream):
        if self.random.random() < 0.3:
            return "any"
        return str(self.known.get(stream, 0))

    def stream(self):
        return self.random.choice(ACCOUNTS if self.random.random() < 0.5 else ORDERS)

    def batch(self, stream, expected, most=6, **more):
        return {"how": self.random.choice(["json", "arrays"]), "stream": stream, "expected": expected,
                "events": [self.event(**more) for _ in range(self.random.randint(1, most))]}

    def new_unit(self):
        self.units += 1
        kind = self.random.choices(list(self.kinds), self.kinds.values())[0]
        unit = {"u": f"{self.name}/{self.units}", "kind": kind, "end": "commit"}
        getattr(self, f"make_{kind}")(unit)
        unit["ids"] = True
        if kind in ("one", "batch") and self.random.random() < 0.1:
            unit["ids"] = False
            for event in unit["calls"][0]["events"]:
                event["id"] = None
        elif kind == "batch" and self.random.random() < 0.2:
            self.drop_ids(unit["calls"][0]["events"])
        return unit

    def drop_ids(self, events):
        """Of some, but not of all."""
        with_id = [event for event in events if event["id"]]
        kept = self.random.choice(with_id)
        for event in with_id:
            if event is not kept and self.random.random() < 0.7:
                event["id"] = None

    def make_one(self, unit):
        stream = self.stream()
        unit["calls"] = [{"how": "one", "stream": stream, "expected": self.expected(stream), "events": [self.event()]}]

    def make_new(self, unit):
        stream = f"new-{unit['u']}"
        unit["calls"] = [{"how": "one", "stream": stream, "expected": "none", "events": [self.event()]}]

    def make_batch(self, unit):
        stream = self.stream()
        unit["calls"] = [self.batch(stream, self.expected(stream), 12)]

    def make_streams(self, unit):
        streams = self.random.sample(ACCOUNTS + ORDERS, self.random.randint(2, 4))
        if not self.deadlocks or self.random.random() < 0.9:
            streams.sort()
        unit["calls"] = [self.batch(stream, self.expected(stream), 4, of=unit["u"]) for stream in streams]
        self.say_how_many(unit)

    def say_how_many(self, unit):
        """Each event knows how many it came with, so that the log alone shows a part of a batch."""
        kept = [event for call in unit["calls"] if not call.get("undone") for event in call["events"]]
        for event in kept:
            event["data"] = event["data"].replace(canonical(unit["u"]), canonical(f"{unit['u']} {len(kept)}"), 1)

    def make_savepoints(self, unit):
        self.make_streams(unit)
        undone = self.random.choice(unit["calls"])
        undone["undone"] = True
        undone["expected"] = "any"  # it is no retry, as it was not stored
        for event in undone["events"]:
            event["data"] = self.data(event["mark"])
        for call in unit["calls"]:
            for event in call["events"]:
                if not call.get("undone"):
                    event["data"] = self.data(event["mark"], of=unit["u"])
        self.say_how_many(unit)

    def make_rollback(self, unit):
        self.make_streams(unit)
        unit["end"] = "rollback"

    def make_prepared(self, unit):
        self.make_streams(unit)
        unit["end"] = "prepare"
        unit["gid"] = unit["u"]

    def make_import(self, unit):
        events = [dict(self.event(of=unit["u"]), stream=f"imp-{self.random.randrange(5)}")
                  for _ in range(self.random.randint(1, 40))]
        if not self.deadlocks:
            events.sort(key=lambda event: event["stream"])
        unit["calls"] = [{"how": "copy", "stream": None, "expected": "any", "events": events}]
        self.say_how_many(unit)

    # how it is done

    def complete(self, unit):
        """Attempts it until its end is known, if it can be repeated."""
        first = True
        while True:
            try:
                self.attempt(unit, first)
                if unit["ids"] and unit["end"] == "commit" and self.random.random() < self.again:
                    self.attempt(unit, False)
                break
            except Refused as refused:
                if refused.sqlstate in ("ES001", "ES002"):
                    self.look(unit)
                    return
                if refused.sqlstate not in PASSING:
                    self.history.write("unexpected", sqlstate=refused.sqlstate, message=refused.message)
                    return
                if unit["end"] != "commit" or refused.sqlstate in ("53100", "54000"):
                    self.rest(0.2)
                    return
            except Unknown:
                self.check_stopped()
                if not unit["ids"] or unit["end"] != "commit":
                    return
            first = False
            self.check_stopped()
            self.rest(0.02)
        if unit["ids"] and unit["end"] == "commit" and self.random.random() < self.otherwise:
            self.repeat_otherwise(unit)

    def repeat_otherwise(self, unit, what=None):
        """Sends a call that was stored again, with something else in it, or with fewer ids."""
        call = self.random.choice([call for call in unit["calls"] if not call.get("undone")])
        if call["how"] not in ("one", "json", "arrays", "copy"):
            return
        alone = len(call["events"]) == 1 or call["how"] == "copy"
        what = what or self.random.choice(["data", "type"] if alone else ["data", "type", "stranger", "fewer"])
        events = [dict(event) for event in call["events"]]
        with_id = [event for event in events if event["id"]]
        marks = []
        if what == "type":
            changed = self.random.choice(with_id)
            changed["type"] += "!"
        elif what == "data":
            changed = self.random.choice(with_id)
        elif what == "stranger":
            kept = self.random.choice(with_id)
            changed = self.random.choice([event for event in events if event is not kept])
            changed["id"] = None
        else:
            self.drop_ids(events)
        if what in ("data", "stranger"):
            marks.append(self.mark())
            changed["data"] = self.data(marks[0])
        self.connect()
        number = self.history.sent("otherwise", of=unit["u"], what=what, marks=marks, last=call["events"][-1]["mark"])
        try:
            value = self.append(dict(call, events=events))
        except psycopg.Error as error:
            try:
                self.fail(number, error)
            except (Refused, Unknown):
                return
        self.history.answered(number, "ok", value=value)

    def look(self, unit):
        for call in unit["calls"]:
            try:
                row = self.execute("SELECT es_stream_version(%s)", (call["stream"],)).fetchone()
                self.known[call["stream"]] = row[0]
            except psycopg.Error as error:
                self.after(error)

    def attempt(self, unit, first):
        self.connect()
        if first:
            number = self.history.sent("unit", **unit)
        else:
            number = self.history.sent("unit", u=unit["u"])
        try:
            values = self.perform(unit, number)
        except Refused as refused:
            self.history.answered(number, "refused", sqlstate=refused.sqlstate, message=refused.message)
            raise
        except Unknown:
            self.history.answered(number, "unknown")
            raise
        for call, value in zip(unit["calls"], values):
            if value and not call.get("undone"):
                self.known[call["stream"]] = value[0]
        self.history.answered(number, "ok", values=values)

    def statement(self, call):
        events = call["events"]
        if call["how"] == "one":
            event = events[0]
            return ("SELECT version, position FROM es_append(%s, %s::es_expected_version, %s, %s::jsonb, %s::jsonb, %s::uuid)",
                    (call["stream"], call["expected"], event["type"], event["data"], event["metadata"], event["id"]))
        if call["how"] == "json":
            text = ", ".join(
                '{"type": %s, "data": %s%s%s}' % (
                    canonical(event["type"]), event["data"],
                    ', "metadata": ' + event["metadata"] if event["metadata"] else "",
                    f', "id": "{event["id"]}"' if event["id"] else "") for event in events)
            return ("SELECT version, position FROM es_append_batch(%s, %s::es_expected_version, %s::jsonb)",
                    (call["stream"], call["expected"], f"[{text}]"))
        return ("SELECT version, position FROM es_append_batch(%s, %s::es_expected_version, %s::text[], %s::text[]::jsonb[],"
                " %s::text[]::jsonb[], %s::text[]::uuid[])",
                (call["stream"], call["expected"], [e["type"] for e in events], [e["data"] for e in events],
                 [e["metadata"] for e in events], [e["id"] for e in events] if any(e["id"] for e in events) else None))

    def append(self, call):
        if call["how"] == "copy":
            with self.connection.cursor().copy("COPY es_import (stream, type, data, metadata, id) FROM STDIN") as copy:
                for event in call["events"]:
                    copy.write_row((event["stream"], event["type"], event["data"], event["metadata"], event["id"]))
            return None
        return self.connection.execute(*self.statement(call)).fetchone()

    def perform(self, unit, number):
        """Runs the transaction. Raises Refused or Unknown."""
        cut = self.random.random() < self.cut
        alone = len(unit["calls"]) == 1 and unit["end"] == "commit" and self.random.random() < self.alone
        sent = alone
        try:
            if self.random.random() < self.timeout:
                self.connection.execute(f"SET statement_timeout = '{self.random.randint(1, 8)}ms'")
                self.limited = True
            if alone:
                if cut and unit["calls"][0]["how"] != "copy":
                    self.cut_off(psycopg.ClientCursor(self.connection).mogrify(*self.statement(unit["calls"][0])))
                return [self.append(unit["calls"][0])]
            self.connection.execute("BEGIN")
            values = []
            for call in unit["calls"]:
                if call.get("undone"):
                    self.connection.execute("SAVEPOINT s")
                    self.append(call)
                    self.connection.execute("ROLLBACK TO s")
                    values.append(None)
                else:
                    values.append(self.append(call))
                if self.random.random() < 0.3:
                    self.rest(0.01)
            if unit["end"] == "rollback":
                self.connection.execute("ROLLBACK")
                raise Refused("rollback")
            if unit["end"] == "prepare":
                return self.prepare(unit, number, values, cut)
            sent = True
            if cut:
                self.cut_off("COMMIT")
            if self.connection.execute("COMMIT").statusmessage != "COMMIT":
                raise Refused("rollback")
            return values
        except psycopg.Error as error:
            meaning = self.after(error)
            if isinstance(meaning, Unknown) and not sent:
                meaning = Refused("lost")
            raise meaning from None
        finally:
            self.no_limit()

    limited = False

    def no_limit(self):
        if self.limited:
            self.limited = False
            try:
                if self.connection is not None and not self.connection.closed:
                    self.connection.execute("RESET statement_timeout")
            except psycopg.Error:
                self.disconnect()

    def prepare(self, unit, number, values, cut):
        gid = unit["gid"]
        try:
            if cut:
                self.cut_off(f"PREPARE TRANSACTION '{gid}'")
            self.connection.execute(f"PREPARE TRANSACTION '{gid}'")
        except psycopg.Error as error:
            raise self.after(error) from None
        self.history.write("prepared", n=number, gid=gid)
        self.rest(0.05)
        chance = self.random.random()
        if chance < 0.2:
            raise Unknown("left")
        verb = "COMMIT" if chance < 0.8 else "ROLLBACK"
        self.history.write("deciding", n=number, gid=gid, verb=verb)
        try:
            self.connection.execute(f"{verb} PREPARED '{gid}'")
        except psycopg.Error as error:
            self.after(error)
            raise Unknown("left") from None
        self.history.write("decided", n=number, gid=gid, verb=verb)
        if verb == "ROLLBACK":
            raise Refused("rollback")
        return values

    def cut_off(self, sql):
        """Sends a statement and cuts the connection, before or while or after it is carried out."""
        connection = self.connection.pgconn
        connection.send_query(sql.encode())
        while connection.flush():
            time.sleep(0)
        self.history.write("cut")
        time.sleep(self.random.choice([0, 0, 0.0005, 0.002, 0.01]))
        end = socket.socket(fileno=os.dup(connection.socket))
        end.shutdown(socket.SHUT_RDWR)
        end.close()
        self.disconnect()
        raise Unknown("cut")


class Certain(Appender):
    """Does once what controls need, and ends. Nobody else expects versions of its streams, so a server in which
    nothing is broken does each unit at the first attempt, however slow it is."""
    statement_timeout = "0"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.cut = self.timeout = self.again = self.otherwise = 0
        self.alone = 1
        # Marks are numbered: those of ten in a row end in every digit.
        self.program = [
            *[("one", lambda unit: [self.single("order-certain", "any")])] * 10,
            *[("one", lambda unit: [self.single(ACCOUNTS[0], "any")])] * 10,
            *[("streams", lambda unit: [self.several("order-certain", 2, of=unit["u"]), self.several("order-sure", 2, of=unit["u"])])] * 5,
            *[("batch", lambda unit: [self.several("order-sure", 3)])] * 2,
            *[("import", lambda unit: [self.imported("imp-certain", 3, of=unit["u"])])] * 2,
            ("new", lambda unit: [self.single(f"new-{unit['u']}", "none")]),
            ("one", lambda unit: [self.single("order-certain", "999999")]),
            ("one", lambda unit: [self.single("order-certain", "any")])]

    def step(self):
        if self.units == len(self.program):
            raise Stopped
        unit = self.new_unit()
        self.complete(unit)
        if unit["kind"] in ("batch", "new"):
            for what in ("data", "type", "stranger", "fewer") if unit["kind"] == "batch" else ("data", "type"):
                self.repeat_otherwise(unit, what)
        if self.units == len(self.program):
            self.attempt(unit, False)

    def new_unit(self):
        kind, calls = self.program[self.units]
        self.units += 1
        unit = {"u": f"{self.name}/{self.units}", "kind": kind, "end": "commit", "ids": True}
        unit["calls"] = calls(unit)
        if kind in ("streams", "import"):
            self.say_how_many(unit)
        return unit

    def single(self, stream, expected):
        return {"how": "one", "stream": stream, "expected": expected, "events": [self.event()]}

    def several(self, stream, count, **more):
        return {"how": "json", "stream": stream, "expected": str(self.known.get(stream, 0)),
                "events": [self.event(**more) for _ in range(count)]}

    def imported(self, stream, count, **more):
        return {"how": "copy", "stream": None, "expected": "any",
                "events": [dict(self.event(**more), stream=stream, type="noted") for _ in range(count)]}


class Executor(Appender):
    """Lets the database decide."""

    def new_unit(self):
        self.units += 1
        command = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        marks = [self.mark() for _ in range(self.random.randint(1, 3))]
        return {"u": f"{self.name}/{self.units}", "kind": "execute", "end": "commit", "ids": True, "calls": [
            {"how": "execute", "stream": self.random.choice(DECIDED), "expected": "any", "command": command,
             "amount": self.random.randint(-50, 60), "events": [{"mark": mark} for mark in marks]}]}

    def statement(self, call):
        command = {"marks": [event["mark"] for event in call["events"]], "amount": call["amount"]}
        return ("SELECT version, position, events, state::text FROM es_execute(%s, 'dec_decide'::regproc, %s::jsonb,"
                " 'dec_reduce'::regproc, %s::jsonb)",
                (call["stream"], json.dumps(command), json.dumps({"command_id": call["command"]})))

    def complete(self, unit):
        try:
            super().complete(unit)
        except Refused:
            pass

    def attempt(self, unit, first):
        try:
            super().attempt(unit, first)
        except Refused as refused:
            if refused.sqlstate == "P0001":
                raise Refused("ES001") from None
            raise


class Decider(Appender):
    """Decides by itself: loads, folds, appends with the version that it has loaded."""

    def new_unit(self):
        self.units += 1
        stream = self.random.choice(DECIDED)
        try:
            rows = self.execute("SELECT version, data->>'mark', (data->>'amount')::bigint FROM es_load(%s)",
                                (stream,)).fetchall()
        except psycopg.Error as error:
            raise self.after(error) from None
        saw = {}
        if rows:
            saw = {"n": len(rows), "sum": sum(row[2] for row in rows), "last": rows[-1][1]}
        events = []
        for back in range(self.random.randint(1, 2)):
            event = self.event(saw=saw, back=back, amount=self.random.randint(0, 9))
            events.append(dict(event, type="decided"))
        return {"u": f"{self.name}/{self.units}", "kind": "decide", "end": "commit", "ids": True, "calls": [
            {"how": "json", "stream": stream, "expected": str(len(rows)), "events": events}]}


#
# Readers
#

class Reader(Client):
    """Tails the log, or a category."""
    lasts_until = Place.END

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.last = 0
        self.way = options.get("way", "log")

    def step(self):
        sql = {
            "log": "SELECT position, id::text FROM es_read(%(last)s, 50)",
            "category": "SELECT position, id::text FROM es_read_category('acct', %(last)s, 50)",
            "horizon": "SELECT position, id::text FROM es_events WHERE position > %(last)s"
                       " AND position <= (SELECT es_horizon()) ORDER BY position LIMIT 200"}[self.way]
        repeatable = self.random.random() < 0.2
        self.connect()
        number = self.history.sent("read", after=self.last, way=self.way, standby=self.standby)
        try:
            if repeatable:
                self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                self.connection.execute("SELECT es_horizon()")
                self.rest(0.03)
            rows = self.connection.execute(sql, {"last": self.last}).fetchall()
            if repeatable:
                self.connection.execute("COMMIT")
        except psycopg.Error as error:
            self.fail(number, error)
        if rows:
            self.history.answered(number, "ok", got=[[row[0], row[1][:13]] for row in rows])
            self.last = rows[-1][0]
        self.rest(0.02)
        return rows

    def finish(self):
        """To the end of the log."""
        self.lasts_until = 3
        while True:
            try:
                if not self.step():
                    self.history.write("end", last=self.last, way=self.way)
                    return
            except (Unknown, Refused):
                pass


class StandbyReader(Reader):
    standby = True


class Watcher(Client):
    """Looks at checkpoints, read models and states, each with one snapshot."""
    lasts_until = Place.END
    looks = {
        "checkpoints": """SELECT 'projection ' || name, position FROM es_projections WHERE mode = 'async'
            UNION ALL SELECT 'subscription ' || subscription || ' ' || partition, position FROM es_partitions""",
        "chain": """SELECT p.position, (SELECT json_agg(json_build_array(stream, version, n, digest)) FROM chain)
            FROM es_projections p WHERE name = 'chain'""",
        "totals": """SELECT p.position, (SELECT json_agg(json_build_array(type, n, versions)) FROM totals)
            FROM es_projections p WHERE name = 'totals'""",
        "live": """SELECT (SELECT CASE mode WHEN 'async' THEN position END FROM es_projections WHERE name = 'live'),
            (SELECT json_agg(json_build_array(stream, version, n)) FROM live),
            (SELECT json_agg(json_build_array(s, es_stream_version(s))) FROM unnest(%s::text[]) AS s)""",
        "state": "SELECT state::text, version FROM es_state(%s, 'dec_reduce'::regproc)"}

    def step(self):
        what = self.random.choice(list(self.looks))
        if what == "checkpoints":
            self.look(what, None)
        elif what == "live":
            self.look(what, (ACCOUNTS,))
        elif what == "state":
            self.look(what, (self.random.choice(DECIDED),))
        else:
            self.look(what, None)
        self.rest(0.05)

    def look(self, what, parameters):
        number, rows = self.call("look", self.looks[what], parameters, what=what,
                                 stream=parameters[0] if what == "state" else None)
        self.history.answered(number, "ok", rows=json.loads(json.dumps(rows, default=str)))


class Rebuilder(Client):
    """Makes read models anew while everybody works."""

    def step(self):
        self.rest(2)
        # What is sync waits for appends, and they for it: the server finds that as it finds deadlocks.
        name = self.random.choice(["chain", "totals", *(["live"] if self.options.get("deadlocks", True) else [])])
        self.connect()
        number = self.history.sent("rebuild", what=name)
        try:
            self.connection.execute("BEGIN")
            self.connection.execute("SELECT es_rebuild_projection(%s)", (name,))
            rows = self.connection.execute(Watcher.looks[name], (ACCOUNTS,) if name == "live" else None).fetchall()
            self.connection.execute("COMMIT")
        except psycopg.Error as error:
            self.fail(number, error)
        self.history.answered(number, "ok", rows=json.loads(json.dumps(rows, default=str)))


#
# Consumers
#

class Consumer(Client):
    """Handles what it is given, acknowledges it or forgets to, or cannot handle it."""
    lasts_until = Place.END

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.subscription = options["subscription"]
        self.consumer = self.name if options.get("named", True) else None

    def step(self):
        number, rows = self.call(
            "poll", "SELECT token, partition, attempt, position, id::text, stream, version FROM es_poll(%s, %s, %s, %s)",
            (self.subscription, self.consumer, self.random.randint(1, 40), "200ms"),
            subscription=self.subscription, consumer=self.consumer)
        if not rows:
            self.history.answered(number, "ok", token=None)
            return False
        token, partition = rows[0][:2]
        events = [[row[3], row[4][:13], row[5], row[6]] for row in rows]
        self.history.answered(number, "ok", token=token, partition=partition, events=events)
        working = self.place.phase == Place.WORK
        if working and self.random.random() < 0.05:
            return True                       # it dies without a word
        if working and self.random.random() < 0.25:
            self.rest(0.3)                    # in flight for so long that others come by
        settled = self.nack(token, events) if working and self.options.get("nacks") else set()
        self.history.write("handled", token=token, subscription=self.subscription, partition=partition,
                           events=[e for e in events if e[0] not in settled])
        self.acknowledge(token, partition, [e for e in events if e[0] not in settled])
        return True

    def nack(self, token, events):
        """Positions that must not be handled now: one that fails, and later ones of its stream."""
        if self.random.random() > 0.1:
            return set()
        failing = self.random.choice(events)
        self.call("nack", "SELECT es_nack(%s, %s, %s, 'cannot')", (self.subscription, token, failing[0]))
        return {e[0] for e in events if e[2] == failing[2] and e[0] >= failing[0]}

    def acknowledge(self, token, partition, events):
        for _ in range(2):
            try:
                number, rows = self.call("ack", "SELECT es_ack(%s, %s)", (self.subscription, token),
                                         subscription=self.subscription, token=token, partition=partition,
                                         events=[e[0] for e in events])
            except Unknown:
                continue                      # it may be repeated
            self.history.answered(number, "ok", checkpoint=rows[0][0])
            return
