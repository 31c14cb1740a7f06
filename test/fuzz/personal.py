"""Changes what is stored of personal attributes, of keys and in key files at random, and reads on.

    python3 personal.py SEED ROUNDS DATABASE FOLDER    FOLDER: for key files

A store has events of some persons, and each personal value is a mark of its own.  A round
changes one thing, which only the owner of the store or of the server can: a column of an event
that has ciphertext, in the log or in the archive, a row of es_subject_keys, or the key files.
Then a session reads in one of many ways, it or another one writes in a transaction that is rolled
back, and the change is undone.  Sessions stay, so that what they cache is that of other rounds.

What is wrong is printed in lines "not ok": the end of a connection, an error of class XX or 58, any
error of a read, a mark in an error or at another place than its own, a value that can be read
although what seals it was changed, one that cannot although nothing was, and a word in metadata
that is not one of those of the documents.  First a control shows that these checks see it.  The
same SEED makes the same changes; ids, keys and nonces are the store's.
"""
import base64
import copy
import json
import os
import random
import re
import shutil
import socket
import string
import sys
import time

from psycopg import pq

from fuzz import Session, literal

MARK = re.compile("Zq[a-z0-9]{30}")
WORDS = {"hidden", "erased", "no key", "damaged"}
SETUP = """
SELECT es_define_event_type('named', personal => '{name,note}');
SELECT es_define_event_type('sent', personal => '{sender_name}', subject => 'sender');
SELECT es_define_personal_attributes('sent', '{recipient_name}', 'recipient');
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[]'::jsonb $$;
ALTER TABLE es_events DISABLE TRIGGER es_events_refuse;
ALTER TABLE es_events DISABLE TRIGGER es_events_refuse_row;
CREATE ROLE fuzz_reader;
SELECT es_grant('fuzz_reader', 'reader');
"""
# Of events: position, stream, data, metadata. Of states: null, stream, state, null.
READS = [
    "SELECT position, stream, data, metadata FROM es_read()", "SELECT position, stream, data, metadata FROM es_read(0, 1000)",
    "SELECT position, stream, data, metadata FROM es_read_category('person')",
    "SELECT position, stream, data, metadata FROM es_read_category('letter')",
    "SELECT position, stream, data, metadata FROM es_load('person-%d')",
    "SELECT position, stream, data, metadata FROM es_load_backward('person-%d')",
    "SELECT position, stream, data, metadata FROM es_last_event('person-%d')",
    "SELECT position, stream, data, metadata FROM es_load_archived('gone-6')",
    "SELECT position, stream, data, metadata FROM es_query('[{\"types\": [\"sent\"]}]')",
    "SELECT position, stream, es_upcast_data(position, id, stream, type, data, metadata),"
    " es_upcast_metadata(position, id, stream, type, data, metadata) FROM es_events",
    "SELECT (es_upcast(es_recorded_event(e))).position, stream, (es_upcast(es_recorded_event(e))).data,"
    " (es_upcast(es_recorded_event(e))).metadata FROM es_events e",
    "SELECT NULL, 'person-%d', state, NULL FROM es_state('person-%d', 'es_merge')",
    "SELECT NULL, 'letter-%d', state, NULL FROM es_history('letter-%d', 'es_last')"]
WRITES = [
    "SELECT es_append('person-%d', 'any', 'named', '{\"name\": \"x\"}')", "SELECT es_append('person-new', 'any', 'named', '{\"name\": \"x\"}')",
    "SELECT es_append('letter-1', 'any', 'sent', '{\"sender\": %d, \"sender_name\": \"x\", \"recipient\": 7, \"recipient_name\": \"y\"}')",
    "INSERT INTO es_import (stream, type, data) VALUES ('person-%d', 'named', '{\"name\": \"x\"}')", "SELECT es_rotate_keys(%d)",
    "SELECT es_rotate_keys()", "SELECT es_personal_hash('%d', 'x')", "SELECT es_execute('person-%d', 'decide', '{}', 'es_merge')",
    "SELECT es_decide('[{\"types\": [\"sent\"]}]', 'decide', '{}', 'es_merge')", "SELECT es_snapshot('person-%d', 'es_merge')",
    "SELECT es_compact_stream('person-%d', 'es_merge')", "SELECT es_archive_stream('person-%d')", "SELECT es_append(stream, 'any', type, data, id => id) FROM es_load('person-%d')"]


class Expected:
    """What the value of an attribute may be: "whole", "closed", or "either"; and the words of subjects."""

    def __init__(self, otherwise="whole", word=None):
        self.otherwise, self.word = otherwise, word
        self.events = {}        # by position
        self.subjects = {}      # by name: a word

    def of(self, position, subject):
        """What is expected, and with which word; None: any."""
        if self.subjects.get(subject) == "erased" or self.otherwise == "closed":
            return "closed", self.subjects.get(subject, self.word)
        if position in self.events:
            return self.events[position], None
        if subject in self.subjects:
            return "closed", self.subjects[subject]
        return self.otherwise, None


class Store:
    """The events, as they were appended, and what is stored of them."""

    def __init__(self, session, rng):
        self.session, self.rng = session, rng
        self.values = {}        # (position, attribute): (subject, mark, value)
        for statement in SETUP.strip().split(";\n"):
            session.value(statement)
        for n in range(1, 7):
            for version in range(3):
                self.append("%s-%d" % ("gone" if n == 6 else "person", n), "named", {"n": version}, {"name": str(n), "note": str(n)}, version == 1)
        for n in range(1, 7):
            self.append("letter-%d" % (n % 3), "sent", {"sender": n, "recipient": n % 6 + 1},
                        {"sender_name": str(n), "recipient_name": str(n % 6 + 1)}, n == 3)
        session.value("SELECT es_append('other-1', 'none', 'plain', '{\"name\": \"plain\"}')")
        session.value("SELECT es_erase_subject('5')")
        session.value("SELECT es_archive_stream('gone-6')")
        session.value("CREATE TABLE kept AS SELECT position, version, id, stream, type, data, metadata FROM es_events"
                      " UNION ALL SELECT position, version, id, stream, type, data, metadata FROM es_archived_events")
        session.value("CREATE TABLE kept_keys AS TABLE es_subject_keys")
        self.stored = {row[0]: row[1:] for row in json.loads(session.value(
            "SELECT json_agg(json_build_array(position, id, stream, type, data, metadata) ORDER BY position) FROM kept"
            " WHERE metadata ? '$personal'"))}
        self.archived = json.loads(session.value("SELECT json_agg(position) FROM es_archived_events"))

    def mark(self):
        return "Zq" + "".join(self.rng.choice(string.ascii_lowercase + string.digits) for _ in range(30))

    def append(self, stream, type_name, data, personal, is_long):
        marks = {attribute: self.mark() for attribute in personal}
        values = {attribute: mark + "".join(self.rng.choice(string.ascii_uppercase) for _ in range(6000 if is_long else 0))
                  for attribute, mark in marks.items()}
        position = int(self.session.value("SELECT position FROM es_append(%s, 'any', %s, %s)"
                                          % (literal(stream), literal(type_name), literal(json.dumps({**data, **values})))))
        for attribute, subject in personal.items():
            self.values[position, attribute] = (subject, marks[attribute], values[attribute])

    def marks_of(self, position, stream):
        """Marks that an event, or else a state of the stream, may have."""
        return {mark for (at, _), (subject, mark, _) in self.values.items()
                if subject != "5" and (at == position if position else self.stored[at][1] == stream)}


def rows_of(result):
    def value(i, n):
        text = result.get_value(i, n)
        return None if text is None else text.decode() if n == 1 else json.loads(text)
    return [[value(i, n) for n in range(4)] for i in range(result.ntuples)]


def faults_of_words(stored, shown, hidden):
    if not isinstance(stored, dict):
        return [] if shown == stored else ["metadata has %r" % (shown,)]
    if shown is None:
        return []
    if not isinstance(shown, dict) or not set(shown) <= set(stored):
        return ["metadata tells of other subjects: %r" % (shown,)]
    return ["a word of metadata: %r" % (word,) for word in shown.values() if word not in (["hidden"] if hidden else WORDS)]


def faults_of(store, expected, changed, hidden, rows):
    """What is wrong with rows that were read; changed: what is stored now of an event that was changed."""
    found = []
    for position, stream, data, metadata in rows:
        marks = set(MARK.findall(json.dumps([data, metadata])))
        if not marks <= (set() if hidden else store.marks_of(position, stream)):
            found.append("position %s, %s: a mark that is not its own" % (position, stream))
        if position not in store.stored:
            continue
        shown = metadata.get("$personal") if isinstance(metadata, dict) else None
        sealed = changed.get(position, store.stored[position][4])
        sealed = sealed.get("$personal") if isinstance(sealed, dict) else None
        found += ["position %s: %s" % (position, fault) for fault in faults_of_words(sealed, shown, hidden)]
        for (at, attribute), (subject, _, value) in store.values.items():
            if at != position:
                continue
            read = data.get(attribute) if isinstance(data, dict) else None
            read = read if isinstance(read, str) else None  # data may have been changed
            state, word = ("closed", "hidden") if hidden else expected.of(position, subject)
            if read not in (None, value) or (read is not None and state == "closed") or (read is None and state == "whole"):
                found.append("position %s: %s is %r, and should be %s" % (position, attribute, read and read[:50], state))
            if word is not None and position not in changed and (shown or {}).get(subject) != word:
                found.append("position %s: metadata says %r of %s, and should say %s" % (position, shown, subject, word))
    return found


class Changes:
    """Makes a random change; each returns what is expected then, and the metadata of an event that was changed."""

    def __init__(self, store, rng, folder):
        self.store, self.rng, self.folder = store, rng, folder
        self.files = [os.path.join(folder, name) for name in ("first", "second")]
        self.key = "%064d" % 7
        self.undo = []
        self.said = ""

    def expected(self, otherwise="whole", word=None):
        expected = Expected(otherwise, word)
        expected.subjects["5"] = "erased"
        return expected

    def some_bytes(self, size):
        return bytes(self.rng.randrange(256) for _ in range(size))

    def sealed_bytes(self, sealed):
        """Other bytes of the same envelope."""
        way, size = self.rng.randrange(5), len(sealed)
        if way == 0:
            changed = bytearray(sealed)
            for bit in self.rng.sample(range(8 * size), self.rng.choice([1, 1, 2, 8])):
                changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)
        if way == 1:
            return sealed[:self.rng.randrange(size)]
        if way == 2:
            return sealed[self.rng.randrange(1, size):]
        if way == 3:
            return sealed + self.some_bytes(self.rng.choice([1, 2, 3, 16, 5000]))
        return self.some_bytes(self.rng.choice([0, 1, 28, 29, 30, size]))

    def json(self):
        return self.rng.choice([None, True, 1, -1.5, 1e20, "", "x", "AQ==", [], {}, ["AQ=="], {"5": "AQ=="}, {"1": {"1": "x"}}, [[[{}]]]])

    def text(self, sealed):
        """A text that may be base64, and may even be the same."""
        at = self.rng.randrange(len(sealed))
        return self.rng.choice([
            sealed[:at] + self.rng.choice(string.printable) + sealed[at + 1:], sealed[:at], sealed[at:], sealed * 2, "=" * (at - at % 4), sealed[:at] + "====" + sealed[at:],
            "".join(self.rng.choice(string.printable) for _ in range(at)), sealed[:at] + "\u00e9\U0001f600" + sealed[at:], " " + sealed, sealed + "\n", "A" * 3000000])

    def envelope(self, position, subjects):
        """A change of what is sealed, and what is expected of it."""
        rng, name = self.rng, self.rng.choice(sorted(subjects))
        way = rng.randrange(8)
        state = "closed" if len(subjects) == 1 else "either"
        if way < 3:
            subjects[name] = base64.b64encode(self.sealed_bytes(base64.b64decode(subjects[name]))).decode()
        elif way == 3:
            subjects[name], state = self.text(subjects[name]), "either"
        elif way == 4:
            subjects[name] = self.json()
        elif way == 5:
            other = rng.choice([at for at in self.store.stored if at != position])
            subjects[name] = rng.choice(sorted(self.store.stored[other][4]["$personal"].values()))
        elif way == 6:
            sealed = subjects.pop(name)
            name = rng.choice([other for other in ("1", "2", "5", "9", "", "x" * 247, "x" * 248, "x" * 5000, "\u00e9'\"\\") if other != name])
            subjects[name] = sealed
        else:
            for n in range(rng.choice([1, 10, 500])):
                subjects.setdefault(rng.choice(["x%d", "%d"]) % n, rng.choice(["", "AQ==", "x", None, base64.b64encode(self.some_bytes(40)).decode()]))
            state = "whole"
        return state, subjects

    def event(self):
        """A column of an event."""
        rng = self.rng
        position = rng.choice(sorted(self.store.stored))
        _, _, type_name, data, metadata = copy.deepcopy(self.store.stored[position])
        state, column, value = "closed", "metadata", None
        way = rng.randrange(14)
        if way == 0:
            column, value = "id", "gen_random_uuid()"
        elif way == 1:
            column, value = "stream", literal(rng.choice(["person-1000", "letter-1000", "new", "person-" + "9" * 200]))
        elif way == 2:
            column, value = "type", literal(rng.choice([t for t in ("named", "sent", "plain", "x" * 200) if t != type_name]))
        elif way == 3:
            metadata["schema_version"] = rng.choice([2, 3, 2147483647, 2147483648, 0, -1, 1.5, 1e300, "x", None, {}])
            state = "either"
        elif way == 4:
            metadata["$personal"] = self.json()
        elif way == 5:
            metadata = rng.choice([None, {}, [], 1, "x", ["$personal"], {"x": {"$personal": metadata["$personal"]}}])
        elif way == 6:
            column, state = "data", "either"
            value = literal(json.dumps(rng.choice([{}, [], 1, "x", None, {**data, "name": {"name": None}}, {**data, "name": [1]}, dict(sorted(data.items())[:1])])))
        else:
            state, metadata["$personal"] = self.envelope(position, metadata["$personal"])
        if value is None:
            value = "NULL" if metadata is None else literal(json.dumps(metadata)) + "::jsonb"
        self.said = "%s of event %d is %s" % (column, position, value)
        table = "es_archived_events" if position in self.store.archived else "es_events"
        self.store.session.value("UPDATE %s SET %s = %s WHERE position = %d" % (table, column, value, position))
        self.undo.append("UPDATE %s e SET id = k.id, stream = k.stream, type = k.type, data = k.data, metadata = k.metadata"
                         " FROM kept k WHERE k.position = e.position AND e.position = %d" % (table, position))
        expected = self.expected()
        expected.events[position] = state
        return expected, {position: metadata if column == "metadata" else self.store.stored[position][4]}

    def subject_key(self):
        """A row of es_subject_keys."""
        rng, expected = self.rng, self.expected()
        subject = rng.choice(["1", "2", "3", "4", "6"])
        key = bytes.fromhex(self.store.session.value("SELECT encode(key, 'hex') FROM kept_keys WHERE subject = '%s'" % subject))
        way = rng.randrange(8)
        word, change = "damaged", "UPDATE es_subject_keys SET key = '\\x%s'" % self.sealed_bytes(key).hex()
        if way == 4:
            other = rng.choice([s for s in ("1", "2", "3", "4", "6") if s != subject])
            change = "UPDATE es_subject_keys SET key = (SELECT key FROM kept_keys WHERE subject = '%s')" % other
        elif way == 5:
            text = rng.choice(["''", "'0123456789abcdef'", "repeat('0', 15)", "repeat('f', 100000)", "key_encryption_key || ' '", "upper(key_encryption_key) || 'A'", "'%s%n'"])
            word, change = "no key", "UPDATE es_subject_keys SET key_encryption_key = " + text
        elif way == 6:
            word, change = "no key", "DELETE FROM es_subject_keys"
        elif way == 7:
            word, change = "erased", "UPDATE es_subject_keys SET key = NULL, key_encryption_key = NULL, erased_at = now()"
        self.said = "%s WHERE subject = '%s'" % (change, subject)
        self.store.session.value(self.said)
        self.undo.append("DELETE FROM es_subject_keys WHERE subject = '%s'" % subject)
        self.undo.append("INSERT INTO es_subject_keys SELECT * FROM kept_keys WHERE subject = '%s'" % subject)
        expected.subjects[subject] = word
        return expected, {}

    def content(self):
        """What is in a file; and whether it is the key: None, where either is right."""
        rng, key = self.rng, self.key.encode()
        other = self.some_bytes(32)
        encoded = base64.b64encode(bytes.fromhex(self.key))
        at = rng.randrange(1, 64)
        return rng.choice([
            (b"", False), (self.some_bytes(rng.choice([1, 31, 32, 33, 43, 44, 45, 63, 64, 65, 127, 128, 129, 5000])), False),
            (b"\n" * rng.choice([1, 64, 128, 1000]), False), (b"\0" * rng.choice([1, 32, 44, 64, 128, 1000]), False),
            (key, True), (key + rng.choice([b"\n", b"\r\n", b" \t\n"]), True), (encoded + rng.choice([b"", b"\n", b"\r\n"]), True),
            (key + b"\n" * rng.choice([63, 64, 65]) + b"x", None), (key + b" " * 10000, None), (key + b"\0" * rng.choice([1, 64, 1000]), None),
            (other.hex().encode(), False), (other.hex().upper().encode() + b"\n", False), (base64.b64encode(other), False),
            (base64.b64encode(other[:rng.choice([24, 30, 31, 33])]), False), (base64.urlsafe_b64encode(other), False),
            (key[:at], False), (key + key[:at], False), (b" " + key, False), (b"\xef\xbb\xbf" + key, False), (b"0x" + key, False),
            (key[:at] + bytes([rng.choice(b" \n\0g:/@G`\xff=")]) + key[at + 1:], False), (b"=" * 44, False), (b" " * 20 + encoded[:24], False),
            (encoded[:at % 44] + rng.choice([b"=", b" ", b"\n", b"-", b"\0"]) + encoded[at % 44 + 1:], None),
            (b"ab" * 1000000, False)])

    def put_file(self, path):
        """Puts something in the place of a file.  Returns whether it is the key."""
        kind = self.rng.choice(["file"] * 12 + ["none", "folder", "pipe", "socket", "loop", "link", "device", "open", "closed"])
        content, fits = self.content()
        self.said += ", %s: %s %r" % (os.path.basename(path), kind, content[:200])
        self.remove(path)
        if kind == "folder":
            os.mkdir(path)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path)
        elif kind in ("loop", "link", "device"):
            os.symlink({"loop": path, "link": path + ".not", "device": "/dev/zero"}[kind], path)
        elif kind != "none":
            with open(path, "wb") as file:
                file.write(content)
            os.chmod(path, {"open": 0o644, "closed": 0o000}.get(kind, 0o600))
            self.give(path)
            return fits if kind == "file" else False
        if kind in ("folder", "pipe", "socket"):
            self.give(path)
        return False

    def give(self, path):
        owner = os.stat(self.folder)
        os.chown(path, owner.st_uid, owner.st_gid)

    def remove(self, path):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)

    def key_files(self):
        """One of the key files, or both."""
        fits = [True, False]    # as they are otherwise
        self.said = "key files"
        for n in self.rng.choice([[0], [0], [1], [0, 1]]):
            fits[n] = self.put_file(self.files[n])
        self.undo.append(self.files)
        if True in fits:
            return self.expected(), {}
        if None in fits:
            return self.expected("either"), {}
        return self.expected("closed", "no key"), {}

    def write_key_file(self):
        for path in self.files:
            self.remove(path)
        with open(self.files[0], "w", encoding="ascii") as file:
            file.write(self.key + "\n")
        os.chmod(self.files[0], 0o600)
        self.give(self.files[0])

    def make(self):
        return self.rng.choice([self.event, self.event, self.event, self.subject_key, self.key_files, self.key_files])()

    def undo_all(self):
        for step in self.undo:
            if step is self.files:
                self.write_key_file()
            else:
                self.store.session.value(step)
        self.undo = []


class Fuzz:
    def __init__(self, seed, database, folder):
        self.rng = random.Random("%s/personal" % seed)
        self.database = database
        self.sessions = [self.connect(), self.connect()]
        self.changes = Changes(None, self.rng, folder)
        self.changes.write_key_file()
        self.name_key_files()
        self.store = self.changes.store = Store(self.sessions[0], self.rng)
        self.wrong = 0
        self.states = {}

    def connect(self):
        session = Session(self.database)
        session.value("SELECT set_config('statement_timeout', '1min', false)")
        return session

    def name_key_files(self):
        names = ",".join(self.changes.files)
        self.sessions[0].value("SELECT es_expected_version_in('any')")  # loads the library, which knows the setting
        self.sessions[0].value("ALTER SYSTEM SET eventstore.key_file = '%s'" % names)
        self.sessions[0].value("SELECT pg_reload_conf()")
        for session in self.sessions:
            session.value("SELECT es_expected_version_in('any')")
            while session.value("SHOW eventstore.key_file") != names:
                time.sleep(0.01)

    def fail(self, what):
        print("not ok - " + what[:3000], flush=True)
        self.wrong += 1

    def run(self, session, sql, what):
        state, result = session.run(sql.encode(), [])
        if session.connection.pgconn.status != pq.ConnStatus.OK:
            self.fail("%s: the connection ended: %s: %s" % (what, sql, result))
            raise SystemExit(1)
        if state is not None:
            self.states[state] = self.states.get(state, 0) + 1
            if state.startswith(("XX", "58")) or state in ("53200", ""):
                self.fail("%s: %s: %s %s" % (what, sql, state, result))
            if MARK.search(result) or self.changes.key[:60] in result:
                self.fail("%s: %s: the error shows something: %s" % (what, sql, result))
        return state, result

    def statement(self, statements):
        sql = self.rng.choice(statements)
        return sql.replace("%d", str(self.rng.randrange(1, 7)))

    def read(self, session, expected, changed, what, allowed=None):
        sql = self.statement(READS)
        hidden = self.rng.random() < 0.1
        if hidden:
            session.value("SET ROLE fuzz_reader")
            sql = self.statement([read for read in READS if "FROM es_events" not in read and "archived" not in read])
        state, result = self.run(session, sql, what)
        if hidden:
            session.value("RESET ROLE")
        if state is None:
            for fault in faults_of(self.store, expected, changed, hidden, rows_of(result))[:3]:
                self.fail("%s: %s: %s" % (what, sql, fault))
        elif state != allowed:
            self.fail("%s: %s: a read fails: %s %s" % (what, sql, state, result))

    def write(self, session, changed, what):
        session.value("BEGIN")
        state, _ = self.run(session, self.statement(WRITES), what)
        if state is None:
            # What was written may have wrapped keys anew, or archived a stream, which has no state then.
            self.read(session, self.changes.expected("either"), changed, what + ", after a write", "55000")
        session.value("ROLLBACK")

    def round(self, number):
        expected, changed = self.changes.make()
        what = "round %d: %s" % (number, self.changes.said[:500])
        for session in self.rng.sample(self.sessions, self.rng.choice([1, 2])):
            if self.changes.undo[0] is self.changes.files:
                # While all keys of a read are cached it does not look at the files; a hash does.
                session.run(b"BEGIN; SELECT es_personal_hash('nobody', 'x')", [])
                session.value("ROLLBACK")
            self.read(session, expected, changed, what)
        if self.rng.random() < 0.5:
            self.write(self.rng.choice(self.sessions), changed, what)
        self.changes.undo_all()

    def sees(self, change, read, closed=None):
        """Returns true if the checks see what a change of the store does to a read."""
        expected = self.changes.expected()
        if closed is not None:
            expected.events[closed] = "closed"
        session = self.sessions[0]
        session.value("BEGIN")
        session.value(change)
        faults = faults_of(self.store, expected, {}, False, rows_of(session.run(read.encode(), [])[1]))
        session.value("ROLLBACK")
        return faults != []

    def control(self):
        one, other = [at for (at, attribute) in sorted(self.store.values) if attribute == "name"][:2]
        update = "UPDATE es_events SET metadata = NULL, data = data || '%%s' WHERE position = %d" % one
        mark = self.store.values[other, "name"][1]
        seen = [
            not self.sees("SELECT 1", READS[0]),
            self.sees(update % json.dumps({"name": mark}), READS[0]),
            self.sees(update % json.dumps({"n": [mark]}), READS[0]),
            self.sees(update % "{}", READS[0]),
            self.sees("SELECT 1", READS[0], one),
            self.sees("SELECT 1", "SELECT position, stream, data, metadata FROM es_events"),
            self.sees("UPDATE es_subject_keys SET key = NULL, key_encryption_key = NULL, erased_at = now() WHERE subject = '1'", READS[0]),
            self.sees("SELECT 1", "SELECT NULL, 'person-1', data, NULL FROM es_load('person-2')"),
            MARK.search(self.sessions[0].run(b"SELECT (data->>'name')::int FROM es_load('person-1')", [])[1]) is not None]
        print("%s - control: the checks of what is read see what is wrong%s" % (("ok", "") if all(seen) else ("not ok", ": %s" % seen)))

    def all_rounds(self, rounds):
        self.control()
        for number in range(rounds):
            self.round(number)
            if self.wrong > 5:
                break
        for session in self.sessions:
            for sql in READS:
                for n in range(1, 7):
                    _, result = self.run(session, sql.replace("%d", str(n)), "at the end")
                    for fault in faults_of(self.store, self.changes.expected(), {}, False, rows_of(result)):
                        self.fail("at the end: %s: %s" % (sql, fault))
        print("# %d changes of ciphertext, keys and key files; errors of writes: %s"
              % (rounds, " ".join("%s:%d" % pair for pair in sorted(self.states.items()))))
        if not self.wrong:
            print("ok - %d changes of ciphertext, keys and key files" % rounds)


def main():
    seed, rounds, database, folder = sys.argv[1:]
    Fuzz(seed, database, folder).all_rounds(int(rounds))


if __name__ == "__main__":
    main()
