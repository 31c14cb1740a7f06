"""The oracle of removals.py: what the clients know, and what the store has after them.

Each check is a function that yields sentences, one for each violation. A tamper changes the
evidence of a round in which nothing was wrong, such that the check that it names must find
it.
"""
import bisect
import collections
import json
import multiprocessing
import os

fork = multiprocessing.get_context("fork")
CHECKS = {}
TAMPERS = []

Row = collections.namedtuple("Row", "position version id stream type data tags")
Removal = collections.namedtuple("Removal", "id action stream position positions versions removed horizon removed_at mark")
Seen = collections.namedtuple("Seen", "position id stream version type at")
NOTICES = ("es_stream_deleted", "es_compacted", "es_stream_archived")


def check(words):
    def add(function):
        CHECKS[words] = function
        return function
    return add


def tamper(words, named):
    """The function is given the evidence and dice; it returns False if there is nothing to be tampered with."""
    def add(function):
        TAMPERS.append((words, named.__name__, function))
        return function
    return add


class Attempt:
    def __init__(self, entry):
        self.sent = entry["t"]
        self.entry = entry
        self.answer = {"result": "unknown", "t": None}

    result = property(lambda self: self.answer["result"])


class Evidence:
    """log, archive: rows by position; removed_ids: id -> (position, version, stream); removals: in order of their ids; tags: a
    set of (tag, position, type); seen, now, typed: what projections have seen; partitions: of streams; retried: what calls returned
    when all was over; folded: what folds of streams had then."""

    def __init__(self, folder):
        self.calls = collections.defaultdict(list)
        for name in sorted(os.listdir(folder)):
            self.read_history(name, f"{folder}/{name}")
        self.units = {}
        for attempt in self.calls["append"]:
            self.units.setdefault(attempt.entry["u"], []).append(attempt)

    def read_history(self, name, path):
        open_calls = {}
        with open(path) as file:
            for line in file:
                entry = json.loads(line)
                entry["client"] = name
                if entry["k"] == "sent":
                    attempt = open_calls[entry["n"]] = Attempt(entry)
                    self.calls[entry["call"]].append(attempt)
                elif entry["k"] == "answered":
                    open_calls[entry["n"]].answer = entry

    def complete(self):
        """What follows from the rest."""
        self.sent = {event["id"]: (event, attempts[0].entry) for attempts in self.units.values() for event in attempts[0].entry["events"]}
        self.known = {}                       # position -> (id, stream, version) of all that was ever stored
        for row in (*self.archive.values(), *self.log.values()):
            self.known[row.position] = (row.id, row.stream, row.version)
        for id, (position, version, stream) in self.removed_ids.items():
            self.known.setdefault(position, (id, stream, version))
        self.by_id = {id: position for position, (id, _, _) in self.known.items()}
        self.notices = {removal.position for removal in self.removals if removal.position is not None}
        self.removed_at = {}                  # position -> when it was removed first
        for removal in self.removals:
            if removal.action != "unarchive":
                for position in removal.positions:
                    self.removed_at.setdefault(position, removal.removed_at)

    def ok(self, call):
        return (attempt for attempt in self.calls[call] if attempt.result == "ok")

    def types(self, position):
        """Types that the event stood for when it was appended; None: not known any more."""
        row = self.log.get(position) or self.archive.get(position)
        if position in self.notices and (row is None or row.id not in self.sent):
            return None if row is None else {row.type, *row.data["types"]}
        return {self.sent[self.known[position][0]][0]["type"]} if self.known[position][0] in self.sent else None


def category(stream):
    return stream.split("-")[0]


#
# Appends
#

@check("what was acknowledged is there, or was removed")
def lost(e):
    for attempts in e.units.values():
        for attempt in attempts:
            if attempt.result != "ok":
                continue
            events = attempt.entry["events"]
            for left, event in enumerate(reversed(events)):
                position = e.by_id.get(event["id"])
                if position is None:
                    yield f"{attempt.entry['u']}: event {event['id']} of stream {attempt.entry['stream']} is nowhere, {attempt.answer}"
                elif left == 0 and position != attempt.answer["position"] or e.known[position][1] != attempt.entry["stream"]:
                    yield f"{attempt.entry['u']}: event {event['id']} is at {position} {e.known[position]}, {attempt.answer}"
                elif attempt.answer["version"] is not None and e.known[position][2] != attempt.answer["version"] - left:
                    yield f"{attempt.entry['u']}: event {event['id']} has another version: {e.known[position]}, {attempt.answer}"
                elif position not in e.log and position not in e.removed_at:
                    yield f"{attempt.entry['u']}: event {event['id']} at {position} is gone, and no removal says so"


@check("events are as they were sent")
def changed(e):
    for row in (*e.log.values(), *e.archive.values()):
        if row.id in e.sent and row.type != "es_compacted":
            event = e.sent[row.id][0]
            if (row.type, row.data, row.tags) != (event["type"], event["data"], event.get("tags")):
                yield f"position {row.position}: {row}, and {event} was sent"
        elif row.id not in e.sent and row.position not in e.notices:
            yield f"position {row.position}: nobody has sent it: {row}"


@check("a call is stored as a whole, and not if it was refused")
def parts(e):
    for name, attempts in e.units.items():
        positions = [e.by_id.get(event["id"]) for event in attempts[0].entry["events"]]
        there = [position for position in positions if position is not None]
        versions = [e.known[position][2] for position in there]
        if there and (len(there) < len(positions) or there != sorted(there) or versions != list(range(versions[0], versions[0] + len(versions)))):
            yield f"{name}: its events are at {positions}, versions {versions}"
        if there and all(attempt.result == "refused" for attempt in attempts):
            yield f"{name} was refused, and is there: {positions}"


@check("a retry has the first result")
def retries(e):
    for name, attempts in e.units.items():
        results = {(a.answer["version"], a.answer["position"]) for a in attempts if a.result == "ok"} | e.retried.get(name, set())
        if len(results) > 1:
            yield f"{name}: {results}"
    if e.grown:
        yield f"{e.grown} events were stored by retries"


@check("a condition holds though its evidence was removed")
def conditions(e):
    by_tag = collections.defaultdict(list)
    for position, (id, _, _) in sorted(e.known.items()):
        row = e.log.get(position)
        for tag in e.sent[id][0].get("tags", ()) if id in e.sent else row.tags or () if row else ():
            by_tag[tag].append(position)
    for attempts in e.units.values():
        entry = attempts[0].entry
        position = e.by_id.get(entry["events"][0]["id"])
        if "query" in entry and position is not None:
            positions = by_tag[entry["query"][0]["tags"][0]]
            between = positions[bisect.bisect_right(positions, entry["after"]):bisect.bisect_left(positions, position)]
            if between:
                yield f"{entry['u']} at {position}: {entry['query']} after {entry['after']} matches {between[:5]}"


#
# Removals
#

@check("a removal is recorded if it was acknowledged, and not if it was refused")
def records(e):
    by_mark = collections.Counter(removal.mark for removal in e.removals if removal.mark)
    numbers = {removal.mark: removal.removed for removal in e.removals}
    first = {removal.position: removal.mark for removal in e.removals if removal.position is not None}
    for attempt in e.calls["remove"]:
        kind, mark = attempt.entry["kind"], attempt.entry["mark"]
        if kind in ("unarchive", "archive many"):
            continue
        row = attempt.answer.get("row")
        if attempt.result == "unknown":
            expected = {0, 1}
        elif attempt.result == "refused":
            expected = {0}
        elif kind in ("delete", "tombstone", "archive"):   # one that was done before returns its first result
            expected = {int(row[1] is not None and first.get(row[1], mark) == mark)}
        else:
            expected = {int(row[-1] > 0)}
        if by_mark[mark] not in expected:
            yield f"{mark}: {kind} of {attempt.entry['stream']}, {attempt.answer}, is recorded {by_mark[mark]} times"
        elif by_mark[mark] and attempt.result == "ok" and row[-1] - (kind == "compact") != numbers[mark]:
            yield f"{mark}: {row} was returned, {numbers[mark]} events are recorded"


@check("nothing is removed by half")
def halves(e):
    streams = collections.defaultdict(dict)
    for position, (_, stream, version) in e.known.items():
        streams[stream][version] = position
    removals = collections.defaultdict(list)
    for removal in e.removals:
        removals[removal.stream].append(removal)
    for stream, positions in streams.items():
        place = dict.fromkeys(positions.values(), "log")
        for removal in removals[stream]:
            yield from remove(stream, positions, place, removal)
        for position, where in place.items():
            there = [name for name, rows in (("log", e.log), ("archive", e.archive)) if position in rows] or ["gone"]
            if there != [where]:
                yield f"position {position} of {stream} is in {there} and must be in {where}"
            if where == "gone" and e.known[position][0] not in e.removed_ids:
                yield f"position {position} of {stream}: es_removed_ids has no row"
            if where == "log" and e.known[position][0] in e.removed_ids:
                yield f"position {position} of {stream}: es_removed_ids has a row"


def remove(stream, positions, place, removal):
    """Does it, of places; says what it has taken too much or too little."""
    source, target = {"archive": (("log",), "archive"), "unarchive": (("archive",), "log"), "delete": (("log", "archive"), "gone"),
                      "tombstone": (("log", "archive"), "gone")}.get(removal.action, (("log",), "gone"))
    first, last = removal.versions
    taken = set(removal.positions)
    if removal.action == "compact":
        taken.discard(removal.position)
        last -= 1
    all_of_it = {position for version, position in positions.items() if version <= last and place[position] in source}
    if taken != all_of_it:
        yield f"removal {removal.id} {removal.action} of {stream}, versions {first} to {last}: too many {sorted(taken - all_of_it)[:5]}, too few {sorted(all_of_it - taken)[:5]}"
    if removal.removed != len(removal.positions):
        yield f"removal {removal.id}: removed is {removal.removed}, positions are {len(removal.positions)}"
    for position in taken & place.keys():
        place[position] = target


@check("a notice has the types and tags of what was removed")
def notices(e):
    for removal in e.removals:
        row = e.log.get(removal.position)
        if row is None or removal.action == "compact" and row.data["last_version"] != removal.versions[1]:
            continue
        events = [e.sent[e.known[position][0]][0] for position in removal.positions if position in e.known and e.known[position][0] in e.sent]
        types, tags = {event["type"] for event in events}, {tag for event in events for tag in event.get("tags", ())}
        if types - set(row.data["types"]) or tags - set(row.tags or ()) or row.stream != removal.stream:
            yield f"removal {removal.id} at {removal.position}: {row}, types {types}, tags {tags}"
        if row.data["removed"] != removal.removed and removal.action != "compact":
            yield f"removal {removal.id} at {removal.position}: {row.data['removed']} events, {removal.removed} are recorded"


@check("versions are dense from the first that is kept to the last")
def dense(e):
    last, kept = collections.Counter(), collections.defaultdict(list)
    for position, (_, stream, version) in e.known.items():
        last[stream] = max(last[stream], version)
        if position in e.log:
            kept[stream].append(version)
    for stream, version in last.items():
        versions = sorted(kept[stream])
        if not versions or versions != list(range(versions[0], version + 1)):
            yield f"{stream}: {versions[:3]} to {versions[-3:]}, the last one was {version}"


@check("es_tags has the tags of the log")
def tags(e):
    expected = {(tag, row.position, row.type) for row in e.log.values() for tag in row.tags or ()}
    for entry in e.tags - expected:
        yield f"{entry} is there too much"
    for entry in expected - e.tags:
        yield f"{entry} is missing"


@check("folds of compacted streams count every event")
def folds(e):
    for attempt in e.ok("state"):
        if attempt.answer["count"] != attempt.answer["version"]:
            yield f"{attempt.entry['stream']}: {attempt.answer['count']} events, at version {attempt.answer['version']}"
    amounts = collections.Counter()
    for id, stream, _ in e.known.values():
        amounts[stream] += e.sent[id][0]["data"]["amount"] if id in e.sent else 0
    for stream, total in e.folded.items():
        if total != amounts[stream]:
            yield f"{stream}: the sum is {total}, and must be {amounts[stream]}"


#
# Readers
#

@check("the horizon of a session never goes back")
def horizons(e):
    for calls in by_session(e).values():
        for before, after in zip(calls, calls[1:]):
            if after.answer["horizon"] < before.answer["horizon"]:
                yield f"{after.entry['client']}: {after.answer['horizon']}, it was {before.answer['horizon']} before"


def by_session(e):
    """Horizons in their order. Another session may find a lower one (doc/internals/horizon.md)."""
    sessions = collections.defaultdict(list)
    for call in e.ok("horizon"):
        sessions[call.entry["client"], call.entry["session"]].append(call)
    return sessions


def misses(e, who, rows, expected=lambda position: True):
    """rows: (position, when) as they were seen. What was passed over had been removed before."""
    seen = sorted(rows)
    positions = [position for position, _ in seen]
    if len(set(positions)) != len(positions):
        yield f"{who} has seen a position twice"
    there = set(positions)
    for position in e.known:
        if position in there or not positions or position > positions[-1] or not expected(position):
            continue
        passed = seen[bisect.bisect(positions, position)][1]
        if e.removed_at.get(position, passed) >= passed:
            yield f"{who} has not seen {position} {e.known[position]}, passed at {passed}, removed at {e.removed_at.get(position)}"


def strange(e, who, rows):
    """rows: position, id, stream, version."""
    for position, id, stream, version in rows:
        if e.known.get(position) != (id, stream, version):
            yield f"{who} has seen {(position, id, stream, version)}, it is {e.known.get(position)}"


@check("a reader sees each event once, but for what was removed before")
def reads(e):
    by_client = collections.defaultdict(list)
    for call in e.ok("read"):
        by_client[call.entry["client"]].append(call)
    for client, calls in by_client.items():
        rows = [(row, call.answer["at"]) for call in calls for row in call.answer["rows"]]
        if [row[0] for row, _ in rows] != sorted(row[0] for row, _ in rows):
            yield f"{client} has seen positions in another order"
        yield from misses(e, client, [(row[0], at) for row, at in rows])
        yield from strange(e, client, [row[:4] for row, _ in rows])


@check("a projection sees each event once, but for what was removed before")
def projections(e):
    yield from misses(e, "the projection", [(row.position, row.at) for row in e.seen.values()])
    yield from misses(e, "the projection of types", [(row.position, row.at) for row in e.typed.values()],
                      lambda position: "x" in (e.types(position) or ()))
    for row in e.typed.values():
        if row.type != "es_compacted" and e.types(row.position) is not None and "x" not in e.types(row.position):
            yield f"the projection of types has seen {row}"
    for table in (e.seen, e.now, e.typed):
        yield from strange(e, "a projection", [(row.position, row.id, row.stream, row.version) for row in table.values()])


@check("a projection that is part of the append sees every event")
def sync(e):
    for position, (_, stream, _) in e.known.items():
        if category(stream) in "abc" and position not in e.now:
            yield f"it has not seen {position} {e.known[position]}"


@check("consumers handle every event that was not removed")
def consumed(e):
    rows = {tuple(row[:4]) for call in e.ok("poll") for row in call.answer["rows"]}
    handled = {row[0] for row in rows}
    for position in e.known:
        if position not in handled and position not in e.removed_at:
            yield f"they have not handled {position} {e.known[position]}"
    yield from strange(e, "a consumer", rows)


@check("a rule removes only what everyone has read")
def rules(e):
    handled = {row[0] for call in e.ok("poll") for row in call.answer["rows"]}
    for position, (_, stream, _) in e.known.items():
        if category(stream) == "c":
            if position not in e.seen or position not in handled or position not in e.typed and "x" in (e.types(position) or ()):
                yield f"position {position} of {stream} was removed at {e.removed_at.get(position)}"


def judge(e):
    """The violations of each check."""
    return {words: list(function(e)) for words, function in CHECKS.items()}


#
# Tampers
#

def any_of(dice, items):
    items = list(items)
    return dice.choice(items) if items else None


def kept(e):
    """Events of the log that somebody has sent, and that are acknowledged."""
    acknowledged = {event["id"] for attempts in e.units.values() if any(a.result == "ok" for a in attempts) for event in attempts[0].entry["events"]}
    return [row for row in e.log.values() if row.id in acknowledged and row.type != "es_compacted"]


def removed(e, *actions):
    return [r for r in e.removals if r.action in actions and r.positions]


@tamper("an event that was acknowledged is nowhere", lost)
def take_away(e, dice):
    row = any_of(dice, kept(e))
    del e.log[row.position]


@tamper("an event is gone, and no removal says so", lost)
def unsay(e, dice):
    removal = any_of(dice, removed(e, "delete", "truncate"))
    e.removals.remove(removal)


@tamper("an event has other data", changed)
def change(e, dice):
    row = any_of(dice, kept(e))
    e.log[row.position] = row._replace(data={})


@tamper("an event that nobody has sent", changed)
def add(e, dice):
    position = max(e.log) + 1
    e.log[position] = Row(position, 1, "00000000-0000-0000-0000-000000000000", "k-new", "x", {"m": 1, "amount": 0}, None)


@tamper("a call was refused", parts)
def refuse(e, dice):
    attempts = any_of(dice, [attempts for attempts in e.units.values() if attempts[0].entry["events"][0]["id"] in e.by_id])
    for attempt in attempts:
        attempt.answer = {"result": "refused", "t": attempt.answer["t"]}


@tamper("a retry has another result", retries)
def answer_otherwise(e, dice):
    name = any_of(dice, e.retried)
    (version, position), = e.retried[name]
    e.retried[name] = {(version, position + 1)}


@tamper("a retry has stored something", retries)
def grow(e, dice):
    e.grown = 1


@tamper("an event came between a decision and its append", conditions)
def come_between(e, dice):
    attempts = any_of(dice, [a for a in e.units.values() if "query" in a[0].entry and a[0].entry["after"] and a[0].entry["events"][0]["id"] in e.by_id])
    if attempts is None:
        return False
    attempts[0].entry["after"] = 0


@tamper("an acknowledged removal is not recorded", records)
def forget(e, dice):
    marks = {a.entry["mark"] for a in e.ok("remove") if a.answer["row"][-1] and a.entry["kind"] in ("truncate", "compact")}
    e.removals.remove(any_of(dice, [r for r in e.removals if r.mark in marks]))


@tamper("one event of a removal is still there", halves)
def leave(e, dice):
    removal = any_of(dice, removed(e, "delete"))
    position = any_of(dice, [p for p in removal.positions if p in e.known and p not in e.archive])
    id, stream, version = e.known[position]
    e.log[position] = Row(position, version, id, stream, "x", {}, None)


@tamper("the id of a removed event is not kept", halves)
def forget_id(e, dice):
    removal = any_of(dice, [r for r in removed(e, "delete", "truncate") if len(r.positions) > 1])
    ids = {position: id for id, (position, _, _) in e.removed_ids.items()}
    del e.removed_ids[ids[any_of(dice, removal.positions)]]


@tamper("a removal has not taken all", halves)
def take_less(e, dice):
    removal = any_of(dice, removed(e, "delete"))
    e.removals[e.removals.index(removal)] = removal._replace(positions=removal.positions[1:])


@tamper("a notice lacks a type", notices)
def lack(e, dice):
    row = any_of(dice, [row for row in e.log.values() if row.type == "es_stream_deleted" and set(row.data["types"]) & {"x", "y", "z"}])
    e.log[row.position] = row._replace(data={**row.data, "types": []})


@tamper("a version is missing", dense)
def skip(e, dice):
    by_stream = collections.defaultdict(list)
    for row in kept(e):
        by_stream[row.stream].append(row)
    rows = any_of(dice, [rows for rows in by_stream.values() if len(rows) > 2])
    row = sorted(rows, key=lambda row: row.version)[-2]
    del e.log[row.position]
    e.removed_ids[row.id] = (row.position, row.version, row.stream)


@tamper("the last event of a stream is gone", dense)
def drop_last(e, dice):
    row = any_of(dice, [row for row in kept(e) if row.version == max(other.version for other in e.log.values() if other.stream == row.stream)])
    del e.log[row.position]
    e.removed_ids[row.id] = (row.position, row.version, row.stream)


@tamper("a tag is not in es_tags", tags)
def lose_tag(e, dice):
    e.tags.remove(any_of(dice, sorted(e.tags)))


@tamper("es_tags has a tag of a removed event", tags)
def keep_tag(e, dice):
    e.tags.add(("tag:1", any_of(dice, removed(e, "delete")).positions[0], "x"))


@tamper("a fold has one event less", folds)
def fold_less(e, dice):
    call = any_of(dice, e.ok("state"))
    if call is None:
        return False
    call.answer["count"] -= 1


@tamper("the horizon has gone back", horizons)
def go_back(e, dice):
    calls = max(by_session(e).values(), key=len)
    calls[-1].answer["horizon"] = calls[0].answer["horizon"] - 1


def read_rows(e, dice):
    """An answer to a reader, and an event in it that never was removed."""
    return any_of(dice, [(call, row) for call in e.ok("read") for row in call.answer["rows"][:-1] if row[0] not in e.removed_at])


@tamper("a reader has not seen an event", reads)
def not_read(e, dice):
    call, row = read_rows(e, dice)
    call.answer["rows"].remove(row)


@tamper("a reader has missed an event that was removed later", reads)
def not_read_yet(e, dice):
    found = any_of(dice, [(call, row) for call in e.ok("read") for row in call.answer["rows"][:-1]
                          if e.removed_at.get(row[0], 0) >= call.answer["at"]])
    if found is None:
        return False
    found[0].answer["rows"].remove(found[1])


@tamper("a reader has seen another event", reads)
def read_other(e, dice):
    _, row = read_rows(e, dice)
    row[3] += 1


@tamper("a projection has not seen an event", projections)
def not_seen(e, dice):
    del e.seen[any_of(dice, [p for p in e.seen if p not in e.removed_at and p < max(e.seen)])]


@tamper("a projection of types has not seen a notice", projections)
def not_noticed(e, dice):
    del e.typed[any_of(dice, [p for p in e.typed if p in e.notices and p not in e.removed_at and p < max(e.typed)])]


@tamper("a projection that is part of the append has not seen an event", sync)
def not_now(e, dice):
    del e.now[any_of(dice, e.now)]


@tamper("no consumer has handled an event", consumed)
def not_handled(e, dice):
    position = any_of(dice, [p for p in e.known if p not in e.removed_at])
    for call in e.ok("poll"):
        call.answer["rows"] = [row for row in call.answer["rows"] if row[0] != position]


@tamper("a rule has removed what a projection has not read", rules)
def not_read_by_rule(e, dice):
    positions = [p for p in e.seen if category(e.seen[p].stream) == "c" and p in e.removed_at]
    if not positions:
        return False
    del e.seen[any_of(dice, positions)]


def control(e, dice):
    """Tampers with the evidence, in a process that has a copy of it. Returns for each tamper its words, and what is wrong with it;
    None: there was nothing to be tampered with."""
    names = {function.__name__: words for words, function in CHECKS.items()}
    verdicts = []
    for words, name, function in TAMPERS:
        receiver, sender = fork.Pipe(False)
        process = fork.Process(target=lambda: sender.send(find(e, dice, function, CHECKS[names[name]])))
        process.start()
        sender.close()
        found = receiver.recv()
        process.join()
        verdicts.append((words, found if found is None else [] if found else [f"not found: {names[name]}"]))
    return verdicts


def find(e, dice, function, check):
    """Whether the check finds what was done."""
    if function(e, dice) is False:
        return None
    e.complete()
    return any(True for _ in check(e))
