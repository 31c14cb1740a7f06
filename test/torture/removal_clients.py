"""Clients of removals.py: they append, remove, read and consume, each in a process of its own
with a history (clients.py).

Category a has tags and is deleted, b is deleted and truncated, c belongs to a rule alone, k is
compacted, r is archived and comes back, t ends with tombstones.
"""
import json
import time
import uuid

import psycopg

import clients
from clients import Place, Refused, Stopped, Unknown

STREAMS = 6                                   # of a category
TAGS = 6
KEPT = 20                                     # events of a stream that the rule keeps
MANY = 1500                                   # events of a stream that takes long to be removed
TYPES = ["x", "y", "z"]
REDUCER = "torture_sum(jsonb, es_recorded_event)"
# A statement for each kind of removal, and the categories that it is for.
REMOVALS = {
    "delete": ("ab", "SELECT version, position, removed FROM es_delete_stream(%(stream)s, %(expected)s, false, %(metadata)s)"),
    "tombstone": ("t", "SELECT version, position, removed FROM es_delete_stream(%(stream)s, %(expected)s, true, %(metadata)s)"),
    "truncate": ("b", "SELECT es_truncate_stream(%(stream)s, %(before)s, %(metadata)s)"),
    "compact": ("k", f"SELECT version, position, removed FROM es_compact_stream(%(stream)s, '{REDUCER}', metadata => %(metadata)s)"),
    "archive": ("r", "SELECT version, position, archived FROM es_archive_stream(%(stream)s, %(metadata)s)"),
    "unarchive": ("r", "SELECT es_unarchive_stream(%(stream)s)"),
    "archive many": ("r", "SELECT es_archive('r', '1 second', 2)"),
}


class Appender(clients.Client):
    """Appends, and sends again what was stored before."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.units = 0
        self.stored = []

    def step(self):
        how = self.random.random()
        if how < 0.15 and self.stored:
            self.send(self.random.choice(self.stored[-200:]))
        elif how < 0.3:
            self.decide()
        else:
            self.complete(self.new_unit(self.stream(), self.random.randint(1, 4)))
        self.rest(0.02)

    def stream(self):
        category = self.random.choice("aabbcckkrt")
        if category == "t":                   # each has a few that nobody else has
            return f"t-{self.name}.{self.units // 40}"
        return f"{category}-{self.random.randrange(STREAMS)}"

    def event(self, stream):
        event = {"id": str(uuid.UUID(int=self.random.getrandbits(128), version=4)), "type": self.random.choice(TYPES),
                 "data": {"m": self.random.getrandbits(40), "amount": self.random.randrange(100)}}
        if stream.startswith("a-") and self.random.random() < 0.6:
            event["tags"] = sorted({f"tag:{self.random.randrange(TAGS)}" for _ in range(2)})
        return event

    def new_unit(self, stream, many, **more):
        self.units += 1
        return {"u": f"{self.name}/{self.units}", "stream": stream, "expected": "any", "events": [self.event(stream) for _ in range(many)], **more}

    def complete(self, unit):
        """Until it is known what became of it, or the round is over."""
        while True:
            try:
                self.send(unit)
                self.stored.append(unit)
                return True
            except Unknown:
                continue
            except Refused as error:
                if error.sqlstate == "ES003" or "query" in unit:
                    return False
                self.rest(0.05)

    def send(self, unit):
        if "query" in unit:
            sql = "SELECT NULL, position FROM es_append_if(%s, %s, %s)"
            parameters = (json.dumps([{"stream": unit["stream"], **event} for event in unit["events"]]), json.dumps(unit["query"]), unit["after"])
        else:
            sql = "SELECT version, position FROM es_append_batch(%s, %s, %s)"
            parameters = (unit["stream"], unit["expected"], json.dumps(unit["events"]))
        number, rows = self.call("append", sql, parameters, **unit)
        self.history.answered(number, "ok", version=rows[0][0], position=rows[0][1])

    def decide(self):
        """Reads what has a tag, and appends on the condition that nothing has come since."""
        tag = f"tag:{self.random.randrange(TAGS)}"
        query = [{"tags": [tag]}]
        after = self.execute("SELECT coalesce(max(position), 0) FROM es_query(%s)", (json.dumps(query),)).fetchone()[0]
        unit = self.new_unit(f"a-{self.random.randrange(STREAMS)}", 1, query=query, after=after)
        unit["events"][0]["tags"] = [tag]
        self.complete(unit)


class Remover(Appender):
    """Removes, and now and then appends much before, so that the removal takes its time."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.kinds = options["kinds"]
        self.removals = 0

    def step(self):
        kind = self.random.choice(self.kinds)
        categories, sql = REMOVALS[kind]
        stream = f"{self.random.choice(categories)}-{self.random.randrange(STREAMS)}"
        if kind == "tombstone":
            stream = f"t-{self.name}.{self.steps}"
            self.complete(self.new_unit(stream, 3))
        if self.random.random() < 0.15 and kind != "unarchive":
            self.complete(self.new_unit(stream, MANY))
        self.remove(kind, sql, stream)
        if kind == "tombstone":
            self.complete(self.new_unit(stream, 1))
        self.rest(0.15)

    def remove(self, kind, sql, stream):
        self.removals += 1
        mark = f"{self.name}/{self.removals}"
        last = self.execute("SELECT es_stream_version(%s)", (stream,)).fetchone()[0]
        entry = {"kind": kind, "stream": stream, "mark": mark, "expected": self.random.choice(["any", "any", str(last)]),
                 "before": max(1, last - self.random.randrange(5)), "metadata": json.dumps({"mark": mark})}
        number, rows = self.call("remove", sql, entry, **entry)
        self.history.answered(number, "ok", row=list(rows[0]))


class Reader(clients.Client):
    """Tails the log, and folds what is compacted."""
    lasts_until = Place.END

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.last = 0

    def step(self):
        session = self.connect().info.backend_pid
        number, rows = self.call("horizon", "SELECT es_horizon()", (), session=session)
        self.history.answered(number, "ok", horizon=rows[0][0])
        if self.random.random() < 0.2:
            self.fold()
        return self.read()

    def read(self):
        number, rows = self.call("read", "SELECT position, id::text, stream, version, type FROM es_read(%s, %s)",
                                 (self.last, self.random.randint(1, 200)), after=self.last)
        self.history.answered(number, "ok", at=time.time(), rows=rows)
        if rows:
            self.last = rows[-1][0]
        self.rest(0.05)
        return rows

    def fold(self):
        stream = f"k-{self.random.randrange(STREAMS)}"
        number, rows = self.call("state", f"SELECT (state->>'n')::bigint, version FROM es_state(%s, '{REDUCER}')", (stream,), stream=stream)
        self.history.answered(number, "ok", count=rows[0][0] or 0, version=rows[0][1])

    def finish(self):
        """To the end of the log."""
        self.lasts_until = 3
        while True:
            try:
                if not self.read():
                    return
            except (Unknown, Refused):
                pass


class Consumer(clients.Client):
    """Handles what is delivered. Now and then it forgets to acknowledge it."""
    lasts_until = Place.END

    def step(self):
        number, rows = self.call("poll", "SELECT token, position, id::text, stream, version, type FROM es_poll('consumers', %s, %s, '200ms')",
                                 (self.name, self.random.randint(1, 100)))
        self.history.answered(number, "ok", at=time.time(), rows=[row[1:] for row in rows])
        if rows and (self.place.phase != Place.WORK or self.random.random() > 0.05):
            number, _ = self.call("ack", "SELECT es_ack('consumers', %s)", (rows[0][0],))
            self.history.answered(number, "ok")
