"""The oracle: finds the promises that were broken, in the histories that the clients have
written and in the log as it is after them. It asks no server.

Each promise is a function that yields what it has looked at: None, or a sentence
with the evidence of a violation.
"""
import bisect
import collections
import hashlib
import json
import os

PROMISES = {}


TRIED = {}


def promise(words, tried):
    """The words are the promise, tried is what is looked at, once each."""
    def add(function):
        number = len(PROMISES) + 1
        PROMISES[number] = (words, function)
        TRIED[number] = tried
        return function
    return add


Event = collections.namedtuple("Event", "position version id stream type data metadata mark value")
Call = collections.namedtuple("Call", "client sent answered entry answer")
SEMANTIC = ("ES001", "ES002", "P0001")
SUBSCRIPTIONS = ("all", "acct", "typed")


class Attempt:
    def __init__(self, entry):
        self.sent = entry["t"]
        self.answered = None
        self.result = "unknown"
        self.sqlstate = None
        self.values = None
        self.prepared = self.deciding = self.decided = None


class Unit:
    def __init__(self, entry):
        self.name = entry["u"]
        self.kind = entry["kind"]
        self.end = entry["end"]
        self.gid = entry.get("gid")
        self.calls = entry["calls"]
        self.attempts = []

    def events(self, undone=False):
        return [event for call in self.calls if bool(call.get("undone")) == undone for event in call["events"]]

    def is_ok(self):
        return any(attempt.result == "ok" for attempt in self.attempts)


class Evidence:
    """Histories up to now, and a log that was read after them, put in order. Clients may still be at work.

    final has: log (rows of position, version, id, stream, type, data, metadata),
    resolved (gid -> COMMIT or ROLLBACK, of transactions that were found prepared),
    crashes (intervals in which the server was down or its clock jumped), rebuilt
    (what read models were before and after a rebuild, when it is over), and for an
    asynchronous promotion failed_over (when the first server was gone).
    """

    def __init__(self, folder):
        self.units = {}
        self.calls = collections.defaultdict(list)
        self.handled = []
        self.cuts = 0
        self.ended = set()
        for name in sorted(os.listdir(folder)):
            self.read_history(name, f"{folder}/{name}")

    def complete(self, final):
        self.final = final
        self.read_log(final["log"])
        self.find_tail()

    def read_log(self, rows):
        self.log = []
        self.by_mark = collections.defaultdict(list)
        self.streams = collections.defaultdict(list)
        for row in sorted(rows):
            value = json.loads(row[5])
            event = Event(*row, value.get("mark"), value)
            self.log.append(event)
            self.by_mark[event.mark].append(event)
            self.streams[event.stream].append(event)
        self.positions = {event.position: event for event in self.log}

    def read_history(self, name, path):
        open_calls, attempts = {}, {}
        with open(path) as file:
            for line in file:
                if not line.endswith("\n"):
                    break
                entry = json.loads(line)
                kind, number = entry["k"], entry.get("n")
                if kind == "sent" and entry["call"] == "unit":
                    unit = self.units.get(entry["u"]) or self.units.setdefault(entry["u"], Unit(entry))
                    attempts[number] = Attempt(entry)
                    unit.attempts.append(attempts[number])
                elif kind == "sent":
                    open_calls[number] = entry
                elif kind == "answered" and number in attempts:
                    attempt = attempts[number]
                    attempt.answered = entry["t"]
                    attempt.result = entry["result"]
                    attempt.sqlstate = entry.get("sqlstate")
                    attempt.values = entry.get("values")
                elif kind == "answered" and number in open_calls:
                    sent = open_calls.pop(number)
                    self.calls[sent["call"]].append(Call(name, sent["t"], entry["t"], sent, entry))
                elif kind in ("prepared", "deciding", "decided"):
                    setattr(attempts[number], kind, entry.get("verb", True))
                elif kind == "cut":
                    self.cuts += 1
                elif kind == "handled":
                    self.handled.append((entry["t"], name, entry))
                elif kind == "end":
                    self.ended.add((name, entry["way"]))
        for sent in open_calls.values():
            self.calls[sent["call"]].append(Call(name, sent["t"], None, sent, {"result": "unknown"}))

    def find_tail(self):
        """After an asynchronous promotion: what was answered before the last surviving event was sent
        must have survived, since commits are replicated in their order. The rest is the server's contract."""
        self.tail_from = None
        self.lost_tail = 0
        over = self.final.get("failed_over")
        if over is None:
            return
        self.tail_from = max((attempt.sent for unit in self.units.values()
                              if any(event["mark"] in self.by_mark for event in unit.events())
                              for attempt in unit.attempts[:1] if attempt.sent < over), default=0)

    def in_tail(self, answered):
        """Whether what was answered then may be lost by the server's contract."""
        over = self.final.get("failed_over")
        return over is not None and (answered is None or self.tail_from <= answered <= over)

    def fate(self, unit):
        """kept, absent, or maybe."""
        fates = {self.fate_of_attempt(unit, attempt) for attempt in unit.attempts}
        if "kept" in fates:
            if all(self.in_tail(attempt.answered) for attempt in unit.attempts if attempt.result == "ok"):
                return "tail"
            return "kept"
        return "maybe" if "maybe" in fates else "absent"

    def fate_of_attempt(self, unit, attempt):
        if unit.end != "prepare":
            return {"ok": "kept", "refused": "absent"}.get(attempt.result, "maybe")
        if attempt.decided:
            return "kept" if attempt.decided == "COMMIT" else "absent"
        if unit.gid in self.final["resolved"]:
            return "kept" if self.final["resolved"][unit.gid] == "COMMIT" else "absent"
        # It is not there any more, so what was asked for has been done.
        if attempt.deciding:
            return "kept" if attempt.deciding == "COMMIT" else "absent"
        return "lost" if attempt.prepared else "absent"

    def otherwise(self):
        """What was sent again otherwise, with its unit, if that has to be there."""
        return ((call, self.units[call.entry["of"]]) for call in self.calls["otherwise"]
                if call.entry["of"] in self.units and self.fate(self.units[call.entry["of"]]) == "kept")

    def attempts(self):
        return (attempt for unit in self.units.values() for attempt in unit.attempts)

    def refusals(self):
        """What was refused, and by which error."""
        for unit in self.units.values():
            yield from ((unit.kind, attempt.sqlstate) for attempt in unit.attempts if attempt.sqlstate)
        for kind, calls in self.calls.items():
            yield from ((kind, call.answer["sqlstate"]) for call in calls if call.answer.get("sqlstate"))

    def spoken(self):
        """When each consumer has sent a call."""
        times = collections.defaultdict(list)
        for kind in ("poll", "ack", "nack"):
            for call in self.calls[kind]:
                times[call.client].append(call.sent)
        for sent in times.values():
            sent.sort()
        return times

    def crashed_between(self, begin, end):
        return any(c[0] <= end and begin <= c[1] for c in self.final["crashes"])


def show(unit):
    return f"unit {unit.name} ({unit.kind}, {', '.join(a.result + (' ' + a.sqlstate if a.sqlstate else '') for a in unit.attempts)})"


#
# Appends
#

@promise("every acknowledged event is there once, byte for byte",
         "events compared with what was sent, and units")
def acknowledged(e):
    anew = {call.entry["of"] for call in e.calls["otherwise"] if call.answer["result"] != "refused"}
    for unit in e.units.values():
        fate = e.fate(unit)
        if fate == "tail" and unit.name in anew:
            continue                          # it was lost, and its ids were free
        missing = [event["mark"] for event in unit.events() if event["mark"] not in e.by_mark]
        if fate == "tail":
            e.lost_tail += bool(missing)
        if fate == "lost":
            yield f"{show(unit)}: what was prepared is not there any more"
        elif fate == "kept":
            yield f"{show(unit)}: {len(missing)} acknowledged events are not there: {missing[:3]}" if missing else None
        for call in unit.calls:
            yield from (differs(e, unit, call, event) for event in call["events"] if event["mark"] in e.by_mark)
        if fate == "kept" and not missing:
            yield from told(e, unit)


def differs(e, unit, call, event):
    found = e.by_mark[event["mark"]]
    if len(found) != 1:
        return f"{show(unit)}: {event['mark']} is there {len(found)} times, at {[f.position for f in found]}"
    found = found[0]
    if found.stream != (call["stream"] or event.get("stream")):
        return f"{show(unit)}: {event['mark']} is in stream {found.stream}"
    for what in ("type", "data", "metadata", "id"):
        if event.get(what) is not None and getattr(found, what) != event[what]:
            return f"{show(unit)}: {what} of {event['mark']} is {getattr(found, what)!r}, was {event[what]!r}"
    return None


def told(e, unit):
    """The version and position that were told are those of the call's last event."""
    for attempt in unit.attempts:
        for call, value in zip(unit.calls, attempt.values or []):
            if value is None or call.get("undone"):
                continue
            last = e.by_mark[call["events"][-1]["mark"]][0]
            ok = [last.version, last.position] == value[:2]
            if len(unit.attempts) == 1:
                yield None if ok else f"{show(unit)}: told {value[:2]}, is {[last.version, last.position]}"


@promise("a refused one left nothing",
         "units refused or undone, and events that no client sent")
def refused(e):
    for unit in e.units.values():
        if e.fate(unit) == "absent":
            there = [event["mark"] for event in unit.events() if event["mark"] in e.by_mark]
            yield f"{show(unit)}: refused, and there: {there[:3]}" if there else None
        for event in unit.events(undone=True):
            yield f"{show(unit)}: {event['mark']} was rolled back to a savepoint, and is there" if event["mark"] in e.by_mark else None
    sent = {event["mark"] for unit in e.units.values() for call in unit.calls for event in call["events"]}
    sent |= {mark for call in e.calls["otherwise"] for mark in call.entry["marks"]}
    for mark, found in e.by_mark.items():
        if mark not in sent:
            yield f"{mark} at {found[0].position} was sent by nobody"


@promise("an unknown one is there wholly or not at all",
         "units with an attempt whose end is unknown")
def unknown(e):
    for unit in e.units.values():
        if any(attempt.result == "unknown" for attempt in unit.attempts):
            there = sum(event["mark"] in e.by_mark for event in unit.events())
            yield (f"{show(unit)}: {there} of {len(unit.events())} events are there"
                   if there not in (0, len(unit.events())) else None)


@promise("versions are dense",
         "streams")
def dense(e):
    for stream, events in e.streams.items():
        versions = [event.version for event in events]
        yield None if versions == list(range(1, len(events) + 1)) else (
            f"{stream}: versions in the order of positions are not 1 to {len(events)}: "
            f"{[(i + 1, v) for i, v in enumerate(versions) if v != i + 1][:3]}")


@promise("a batch over several streams is all or nothing",
         "transactions over two to four streams, imports")
def whole(e):
    batches = collections.Counter(event.value["of"] for event in e.log if "of" in event.value)
    for name, there in batches.items():
        count = int(name.rsplit(" ", 1)[1])
        yield None if there == count else f"batch {name}: {there} of {count} events are there"


@promise("a success with expected n saw n",
         "appends with a number or `none` that are stored")
def expected(e):
    for unit in e.units.values():
        for call in unit.calls:
            first = e.by_mark.get(call["events"][0]["mark"])
            if call["expected"] == "any" or call.get("undone") or not first:
                continue
            n = 0 if call["expected"] == "none" else int(call["expected"])
            yield None if first[0].version == n + 1 else (
                f"{show(unit)}: expected {call['expected']} in {call['stream']}, is version {first[0].version}")


@promise("a retry returns the first result",
         "results of later attempts, and refused retries")
def retried(e):
    for unit in e.units.values():
        if len(unit.attempts) < 2 or not all(event["mark"] in e.by_mark for event in unit.events()) or e.fate(unit) == "tail":
            continue
        unknown_before = False
        for number, attempt in enumerate(unit.attempts):
            if attempt.result == "ok":
                yield from (f"{show(unit)}: attempt {number + 1} returned {value[:2]}, the first result is {first}"
                            if value[:2] != first else None for value, first in first_results(e, unit, attempt))
            elif attempt.result == "refused" and attempt.sqlstate in SEMANTIC and unknown_before:
                yield f"{show(unit)}: attempt {number + 1} was refused, and the first is stored"
            unknown_before = unknown_before or attempt.result in ("unknown", "ok")


def first_results(e, unit, attempt):
    for call, value in zip(unit.calls, attempt.values):
        if value is not None and not call.get("undone"):
            last = e.by_mark[call["events"][-1]["mark"]][0]
            yield value, [last.version, last.position]


#
# Readers
#

@promise("once a reader has seen position p nothing below it appears",
         "events read on primary and standby, by readers that must have the whole log")
def gap_free(e):
    readers = collections.defaultdict(list)
    for call in e.calls["read"]:
        if call.answer["result"] == "ok" and not (not call.entry["standby"] and e.in_tail(call.answered)):
            readers[call.client, call.entry["way"]].append(call)
    for client, way in sorted(readers.keys() | e.ended):
        calls = sorted(readers[client, way], key=lambda call: call.answered)
        seen = [tuple(got) for call in calls for got in call.answer["got"]]
        last = max(e.positions, default=0) if (client, way) in e.ended else seen[-1][0]
        there = [(event.position, event.id[:13]) for event in e.log
                 if event.position <= last and (way != "category" or event.stream.startswith("acct-"))]
        yield from (None for _ in seen)
        if seen != there:
            missed, phantom = sorted(set(there) - set(seen)), sorted(set(seen) - set(there))
            yield (f"{client} has read up to {last}: missed {len(missed)} {missed[:3]}, has seen {len(phantom)} "
                   f"that are not there {phantom[:3]}, {len(seen) - len(set(seen))} twice")


#
# Subscriptions
#

def wanted(subscription, event):
    return {"all": True, "acct": event.stream.startswith("acct-"),
            "typed": event.type in ("opened", "decided")}[subscription]


@promise("a subscriber gets every matching event, in order",
         "events, for each of three subscriptions")
def delivered(e):
    first = collections.defaultdict(dict)
    for t, client, entry in sorted(e.handled, key=lambda handled: handled[0]):
        positions = [event[0] for event in entry["events"]]
        if positions != sorted(positions):
            yield f"{client}: a delivery of {entry['subscription']} is not in order: {positions}"
        for place, (position, id, stream, version) in enumerate(entry["events"]):
            first[entry["subscription"]].setdefault((position, id), (t, place))
    for subscription in SUBSCRIPTIONS:
        handled = first[subscription]
        latest = {}
        there = set()
        for event in e.log:
            if not wanted(subscription, event):
                continue
            there.add((event.position, event.id[:13]))
            when = handled.get((event.position, event.id[:13]))
            if when is None:
                yield f"{subscription}: {event.position} of {event.stream} was never delivered"
            else:
                yield None if when > latest.get(event.stream, (0, 0)) else (
                    f"{subscription}: {event.position}, version {event.version} of {event.stream}, came before an earlier one")
                latest[event.stream] = max(when, latest.get(event.stream, (0, 0)))
        for key in handled.keys() - there:
            if not e.in_tail(handled[key][0]):
                yield f"{subscription}: {key} was delivered, and is not there, or not for it"


@promise("a checkpoint never goes back",
         "looks at a checkpoint, and results of es_ack")
def checkpoints(e):
    samples = collections.defaultdict(list)
    for call in e.calls["look"]:
        if call.entry["what"] == "checkpoints" and call.answer["result"] == "ok" and not e.in_tail(call.answered):
            for key, value in call.answer["rows"]:
                samples[key].append((call.sent, call.answered, value))
    for call in e.calls["ack"]:
        if call.answer["result"] == "ok" and not e.in_tail(call.answered):
            key = f"subscription {call.entry['subscription']} {call.entry['partition']}"
            samples[key].append((call.sent, call.answered, call.answer["checkpoint"]))
    for key, taken in samples.items():
        known = sorted((answered, value) for _, answered, value in taken)
        highest, place = 0, 0
        for sent, _, value in sorted(taken):
            while place < len(known) and known[place][0] <= sent:
                highest = max(highest, known[place][1])
                place += 1
            yield f"{key} was at {highest}, and later at {value}" if value < highest else None


#
# Projections
#

class Folds:
    """What read models must be."""

    def __init__(self, e):
        self.e = e
        self.chains = {}
        for stream, events in e.streams.items():
            if stream.startswith("acct-"):
                digest, digests = None, []
                for event in events:
                    one = hashlib.md5((event.id + event.data).encode()).hexdigest()
                    digest = one if digest is None else hashlib.md5((digest + one).encode()).hexdigest()
                    digests.append(digest)
                self.chains[stream] = ([event.position for event in events], digests)
        self.types = collections.defaultdict(lambda: ([], [], []))
        for event in e.log:
            positions, sums, _ = self.types[event.type]
            positions.append(event.position)
            sums.append((sums[-1] if sums else 0) + event.version)

    def chain(self, position):
        rows = {}
        for stream, (positions, digests) in self.chains.items():
            n = bisect.bisect_right(positions, position)
            if n:
                rows[stream] = [stream, n, n, digests[n - 1]]
        return rows

    def totals(self, position):
        rows = {}
        for type, (positions, sums, _) in self.types.items():
            n = bisect.bisect_right(positions, position)
            if n:
                rows[type] = [type, n, sums[n - 1]]
        return rows

    def wrong(self, what, rows):
        """None, or what is wrong with a read model in one snapshot."""
        if not rows:
            return None
        if what == "live":
            # As long as it is async it is as of its checkpoint, else it has all that the snapshot has.
            position, content, versions = rows[0]
            model = {row[0]: row for row in content or []}
            if position is not None:
                versions = [(stream, bisect.bisect_right(chain[0], position)) for stream, chain in self.chains.items()]
            must = {stream: [stream, version, version] for stream, version in versions if version}
        else:
            position, content = rows[0]
            model = {row[0]: row for row in content or []}
            must = getattr(self, what)(position)
        bad = [(model.get(key), must.get(key)) for key in model.keys() | must.keys() if model.get(key) != must.get(key)]
        return f"{what}{'' if what == 'live' else f' at {rows[0][0]}'}: is and must be {bad[:2]}" if bad else None


@promise("a projection is the fold of the log up to its checkpoint",
         "looks at a read model and its checkpoint in one snapshot")
def folded(e):
    folds = Folds(e)
    for call in e.calls["look"]:
        if call.entry["what"] in ("chain", "totals", "live") and call.answer["result"] == "ok" and not e.in_tail(call.answered):
            yield folds.wrong(call.entry["what"], call.answer["rows"])
    for what, (before, _) in e.final["rebuilt"].items():
        yield folds.wrong(what, before)


@promise("a rebuild equals it",
         "rebuilds under load and at the end")
def rebuilt(e):
    folds = Folds(e)
    for call in e.calls["rebuild"]:
        if call.answer["result"] == "ok" and not e.in_tail(call.answered):
            yield folds.wrong(call.entry["what"], call.answer["rows"])
    for what, (before, after) in e.final["rebuilt"].items():
        before, after = ([sorted(part) if isinstance(part, list) else part for part in rows[0]] for rows in (before, after))
        yield None if before[1] == after[1] else (
            f"{what}: before the rebuild {before}, after it {after}")


@promise("a leased partition has one owner",
         "acknowledged events, and pairs of deliveries of one partition")
def owned(e):
    yield from acknowledged_twice(e)
    yield from overlapping(e)


def acknowledged_twice(e):
    """An event is acknowledged with one token."""
    taken = {}
    for call in e.calls["ack"]:
        if call.answer["result"] != "ok" or e.in_tail(call.answered):
            continue
        for position in call.entry["events"]:
            key = (call.entry["subscription"], position)
            token = taken.setdefault(key, call.entry["token"])
            yield None if token == call.entry["token"] else f"{key} was acknowledged with tokens {token} and {call.entry['token']}"


LEASES = {"all": 2.0, "acct": 1.0, "typed": 1.0}


def overlapping(e):
    """From the answer of a poll until its lease expires, or a call settles it, no other poll gets the
    partition. A delivery is not worth a flush of the disk: a crash takes it back."""
    deliveries = collections.defaultdict(list)
    spoken = e.spoken()
    for call in e.calls["poll"]:
        if call.answer["result"] == "ok" and call.answer.get("token"):
            deliveries[call.entry["subscription"], call.answer["partition"]].append(call)
    for key, calls in deliveries.items():
        calls.sort(key=lambda call: call.sent)
        for place, call in enumerate(calls):
            said = spoken[call.client]
            after = bisect.bisect_right(said, call.sent)
            until = min(said[after] if after < len(said) else 1e99, call.sent + LEASES[key[0]])
            for other in calls[place + 1:]:
                if other.sent > until:
                    break
                yield (f"partition {key}: {call.client} had token {call.answer['token']} from {call.answered:.3f} to {until:.3f}, "
                       f"{other.client} was given {other.answer['token']} between {other.sent:.3f} and {other.answered:.3f}"
                       if other.client != call.client and other.sent >= call.answered and other.answered <= until
                       and not e.crashed_between(call.sent, other.answered) else None)


#
# Decisions
#

@promise("a decision was made on the state it was appended to",
         "decided events with their states, and returned states")
def decided(e):
    states = {}
    for stream, events in e.streams.items():
        if stream.startswith("dec-"):
            total = 0
            states[stream] = [{}]
            for event in events:
                total += event.value.get("amount", 0)
                states[stream].append({"n": len(states[stream]), "sum": total, "last": event.mark})
            for event in events:
                before = event.version - 1 - event.value.get("back", 0)
                state = states[stream][before] if 0 <= before < len(states[stream]) else None
                yield None if event.value.get("saw") == state else (
                    f"{stream} version {event.version}: was decided on {event.value.get('saw')}, the state was {state}")
    told = [(call.entry["stream"], call.answer["rows"][0]) for call in e.calls["look"]
            if call.entry["what"] == "state" and call.answer["result"] == "ok" and not e.in_tail(call.answered)]
    for unit in e.units.values():
        if unit.kind == "execute" and e.fate(unit) == "kept":
            told += [(unit.calls[0]["stream"], (attempt.values[0][3], attempt.values[0][0]))
                     for attempt in unit.attempts if attempt.result == "ok"]
    for stream, (state, version) in told:
        must = states.get(stream, [{}])
        must = must[version] if version < len(must) else None
        yield None if json.loads(state) == must else f"{stream} at {version}: the state that was told is {state}, must be {must}"


#
# Retries that are none
#

@promise("what comes with a stored id and is another append is refused",
         "calls that were repeated with other data, types, events or ids")
def same_append(e):
    for call, unit in e.otherwise():
        what, result = call.entry["what"], call.answer["result"]
        stored = [mark for mark in call.entry["marks"] if mark in e.by_mark]
        last = e.by_mark.get(call.entry["last"], [None])[0]
        if stored:
            yield f"{show(unit)}: sent again with {what}, {stored} was stored"
        elif result == "ok" and what != "fewer":
            yield f"{show(unit)}: sent again with {what}, it was told {call.answer['value']}"
        elif result == "refused" and call.answer["sqlstate"] == ("ES002" if what == "fewer" else "ES001"):
            yield f"{show(unit)}: sent again with {what}, it was refused by {call.answer['sqlstate']}"
        elif result == "ok" and last and call.answer["value"] != [last.version, last.position]:
            yield f"{show(unit)}: sent again with fewer ids, it was told {call.answer['value']}, the first result is {[last.version, last.position]}"
        else:
            yield None


def judge(evidence):
    """For each promise: how much was looked at, and the violations."""
    verdict = {}
    for number, (words, function) in PROMISES.items():
        looked, violations = 0, []
        for found in function(evidence):
            looked += 1
            if found:
                violations.append(found)
        verdict[number] = (looked, violations)
    return verdict
