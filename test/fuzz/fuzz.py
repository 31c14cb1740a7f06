"""Calls every function of the extension with random and hostile arguments.

    python3 fuzz.py calls SEED CALLS DATABASE SESSION   random calls, one session
    python3 fuzz.py memory SEED CALLS DATABASE          a session's memory in a loop
    python3 fuzz.py control SEED CALLS DATABASE         the same, with a leak

What there is to call comes from the catalog: every function, aggregate,
procedure, cast and type of the extension, by its arguments' types, the tables
and the view es_import; a new function is fuzzed by itself.  Values are SQL
expressions, so that each call is a statement that can be typed again; text that
is not valid in the server's encoding comes as bytes, and binary input as
parameters.

What is wrong is printed in lines "not ok": an error of class XX, the end of the
connection, an event that was stored by a call that failed (where the session
has its database for itself), versions with holes, entries of tags that differ from
the events, memory that grows.  The same SEED makes the same statements.
"""
import json
import os
import random
import re
import sys
import time

import psycopg
from psycopg import pq

HERE = os.path.dirname(os.path.abspath(__file__))
FITTING = {"reducer": ("es", "fold"), "decider": ("decide",), "upcaster": ("up",), "handler": ("handle", "receive")}
INT8 = ["0", "1", "-1", "2", "3", "7", "100", "9223372036854775807", "9223372036854775806",
        "(-9223372036854775808)", "2147483648", "1024"]
INT4 = ["0", "1", "-1", "2", "5", "1000", "2147483647", "(-2147483648)"]
NAMED = [
    ("stream", ["a-1", "a-2", "a-3", "a-4", "b-1", "full-1", "new-%d"]), ("subscription", ["s1", "s2"]),
    ("projection", ["p1", "p2"]), ("^name$", ["p1", "p2", "s1", "s2", "x%d"]), ("category", ["a", "b", "new"]),
    ("type", ["a", "b", "moved"]), ("attribute", ["a", "k", "u"]), ("mode", ["sync", "async"]),
    ("action", ["retry", "park", "skip"]), ("on_failure", ["stop", "park"]), ("consumer", ["c1", "c2"]),
    ("topic|group", ["t1", "t2"]),
    ("payload", ['{"header": {"message_id": "%d", "event_type": "a", "entity_id": "e"}, "payload": {"a": 1}}']),
    ("query", ["INSERT INTO read_model SELECT stream, 1 FROM new_events ON CONFLICT DO NOTHING"]),
    ("by|basis", ["recorded", "occurred"]), ("^subject$", ["1", "2", "3", "k", "x%d"]), ("^tags$", ["t:1", "t:2", "t:3", "all", "t:%d"])]
TAGS = ["t:1", "t:2", "t:3", "all", "no", "a%", "b'", '"', "\\", "\u00e9", "\t", " ", "", "x" * 255, "x" * 256]
STREAMS = ["a-1", "a-2", "a-3", "a-4", "full-1", "b-1", "new-%d"]
NAMES = ["a", "b", "moved", "p1", "p2", "s1", "s2", "k", "up", "es_events", "handlers"]


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def words():
    """What the sources compare with: 'retry', 'sync', 'recorded' and so on."""
    found = set()
    folder = os.path.join(HERE, "..", "..", "src")
    if os.path.isdir(folder):
        for path, _, names in os.walk(folder):
            for name in names:
                if name.endswith(".c"):
                    with open(os.path.join(path, name)) as source:
                        found.update(re.findall(r'"([a-z]{2,12})"', source.read()))
    return sorted(found)


class Values:
    """Random SQL expressions by type."""

    def __init__(self, rng, catalog):
        self.rng = rng
        self.catalog = catalog
        self.words = words()
        self.tokens = []

    def one(self, *choices):
        return self.rng.choice(choices)

    def named(self, name):
        """Text that the argument of this name may be meant to be; else None."""
        for pattern, values in NAMED:
            if re.search(pattern, name):
                value = self.rng.choice(values)
                return literal(value % self.rng.randrange(300) if "%d" in value else value)
        return None

    def text(self, name=""):
        r = self.rng.random()
        if r < 0.65 and self.named(name):
            return self.named(name)
        r = self.rng.random()
        if r < 0.30:
            stream = self.rng.choice(STREAMS)
            return literal(stream % self.rng.randrange(1000) if "%" in stream else stream)
        if r < 0.55:
            return literal(self.rng.choice(NAMES))
        if r < 0.75 and self.words:
            return literal(self.rng.choice(self.words))
        return self.one(
            "''", "' '", "'-'", "'a'' b'", "'\"'", "'x\"y.\"z'", "E'\\n\\t\\x01'", "'%s%n%d'", "'$1'",
            "repeat('x', 255)", "repeat('x', 256)", "repeat('x', 63)", "repeat('x', 64)", "repeat('x', 2048)",
            "repeat('x', 2049)", "repeat('-', 3000)", "repeat('x', %d)" % self.one(100000, 1000000, 3000000),
            "'SELECT 1'", "'SELECT * FROM new_events'", "'INSERT INTO read_model SELECT stream, 1 FROM new_events'",
            "'{\"type\": \"a\"}'", "'..'", "'../../etc'", "NULL", "'null'", "'any'",
            "'{\"header\": {\"message_id\": \"%d\", \"event_type\": \"a\"}, \"payload\": {}}'"
            % self.rng.randrange(50), "quote_ident('a\"b')", "chr(127)", "b'\xc3\xa9'", "b'\xff\xfe'", "b'a\xc3'",
            "b'\xf4\x90\x80\x80'")

    def strings(self, some):
        """A JSON array that may be tags, or types."""
        r = self.rng.random()
        if r < 0.1:
            return self.rng.choice([None, [], {}, 1, "t:1", [None], [1], [["t:1"]], ["t:1"] * 1000, [str(n) for n in range(self.rng.choice([64, 65, 5000]))]])
        return [self.rng.choice(some) for _ in range(self.rng.choice([1, 1, 2, 3]))]

    def item(self):
        item = {}
        if self.rng.random() < 0.7:
            item["tags"] = self.strings(TAGS[:5] if self.rng.random() < 0.8 else TAGS)
        if self.rng.random() < 0.4:
            item["types"] = self.strings(["a", "b", "moved", "x"])
        if self.rng.random() < 0.05:
            item[self.rng.choice(["tag", "", "type", "Tags"])] = self.strings(TAGS)
        return item

    def query(self):
        """A query of events, or nearly one."""
        r = self.rng.random()
        if r < 0.05:
            return literal(json.dumps(self.rng.choice([None, 1, "x", {}, [], [[]], [None], {"tags": ["t:1"]}]))) + "::jsonb"
        if r < 0.10:
            return "(SELECT jsonb_agg(%s::jsonb) FROM generate_series(1, %d))" % (literal(json.dumps(self.item())), self.one(64, 65, 1000))
        return literal(json.dumps([self.item() for _ in range(self.rng.choice([1, 1, 1, 2, 3]))])) + "::jsonb"

    def event(self):
        event = {"type": self.rng.choice(["a", "b", "moved", "x", "es_x"])}
        for key, value in (("tags", self.strings(TAGS)), ("stream", self.rng.choice(["a-1", "b-1", "new-%d" % self.rng.randrange(300), "", None])),
                           ("expected_version", self.rng.choice(["any", "none", 1, 3, -1, 1.5, None])), ("data", {"k": self.rng.randrange(100), "a": 1}),
                           ("id", "00000000-0000-4000-8000-%012d" % self.rng.randrange(50)), ("body", self.rng.choice(["AP8=", "", "!", 1])),
                           ("nothing", 1)):
            if self.rng.random() < {"tags": 0.9, "stream": 0.5, "data": 0.5, "nothing": 0.02}.get(key, 0.15):
                event[key] = value
        return event

    def jsonb(self, name="", deep=0):
        r = self.rng.random()
        if deep == 0 and name in ("query", "event_query") and r < 0.8:
            return self.query()
        if deep == 0 and name == "events" and r < 0.7:
            return literal(json.dumps([self.event() for _ in range(self.rng.choice([1, 1, 1, 2, 5]))])) + "::jsonb"
        if deep < 3 and r < 0.25:
            return "jsonb_build_object(%s)" % ", ".join(
                "%s, %s" % (literal(self.one("a", "k", "u", "t", "type", "data", "id", "metadata", "expected",
                                             "schema_version", "events", "stream", "command_id", "correlation_id", "$personal")),
                            self.jsonb(deep=deep + 1))
                for _ in range(self.rng.randrange(4)))
        if deep < 3 and r < 0.45:
            return "jsonb_build_array(%s)" % ", ".join(
                self.jsonb(deep=deep + 1) for _ in range(self.rng.randrange(4)))
        if deep > 0 and r < 0.60:
            return "to_jsonb(%s::text)" % self.text().replace("b'", "'")
        return self.one(
            "NULL::jsonb", "'{}'::jsonb", "'[]'::jsonb", "'null'::jsonb", "'1'::jsonb", "'\"s\"'::jsonb", "'true'::jsonb",
            "'1e100000'::jsonb", "'-0.0'::jsonb", "'9223372036854775808'::jsonb", "'{\"a\": 1}'::jsonb",
            "'{\"a\": {\"a\": [1, {\"a\": null}]}}'::jsonb", "'{\"k\": 1, \"u\": \"x\"}'::jsonb",
            "'{\"schema_version\": 1}'::jsonb", "'{\"schema_version\": 99999999999}'::jsonb",
            "'{\"schema_version\": -1.5}'::jsonb", "'[{\"type\": \"a\"}]'::jsonb",
            "'[{\"type\": \"a\", \"data\": {\"a\": 1}}, {\"type\": \"b\", \"data\": 5}]'::jsonb",
            "'[{\"type\": \"moved\", \"data\": {\"k\": 1}}]'::jsonb", "'[{\"type\": null}]'::jsonb",
            "'{\"type\": \"a\"}'::jsonb", "'{\"\": {\"\": \"\"}}'::jsonb", "'{\"a\": \"\\u00e9\"}'::jsonb",
            "'{\"u\": \"uuid\", \"t\": \"timestamptz\", \"k\": \"n\"}'::jsonb",
            "'{\"command_id\": \"00000000-0000-4000-8000-000000000001\"}'::jsonb",
            "(repeat('[', %(n)s) || repeat(']', %(n)s))::jsonb" % {"n": self.one(100, 1000, 5000, 20000)},
            "(repeat('{\"a\":', %(n)s) || '1' || repeat('}', %(n)s))::jsonb" % {"n": self.one(100, 3000)},
            "to_jsonb(repeat('x', 1000000))",
            "(SELECT metadata FROM es_events WHERE metadata ? '$personal' ORDER BY position LIMIT 1 OFFSET %d)" % self.rng.randrange(20),
            "(SELECT jsonb_object_agg('a' || i, i) FROM generate_series(1, 2000) i)",
            "(SELECT jsonb_agg(jsonb_build_object('type', 'a')) FROM generate_series(1, 300))")

    def array(self, element, name=""):
        def some(n):
            return ", ".join("(%s)::%s" % (self.of(element, name), element) for _ in range(n))
        return self.one(
            "NULL", "'{}'", "ARRAY[%s]::%s[]" % (some(1), element), "ARRAY[%s]::%s[]" % (some(2), element),
            "ARRAY[%s]::%s[]" % (some(3), element), "ARRAY[NULL]::%s[]" % element,
            "ARRAY[ARRAY[%s], ARRAY[%s]]::%s[]" % (some(1), some(1), element),
            "array_fill(%s::%s, ARRAY[2], ARRAY[-5])" % (self.of(element), element),
            "array_fill(NULL::%s, ARRAY[1, 0])" % element,
            "array_fill((%s)::%s, ARRAY[%d])" % (self.of(element), element, self.one(1, 1000, 20000)))

    def composite(self, name):
        columns = self.catalog.columns.get(name)
        if columns is None or self.rng.random() < 0.1:
            return self.one("NULL::%s" % name, "ROW(1, 'x')::\"a row\"::text::%s" % name, "ROW()", "'()'::%s" % name)
        if name == "es_events" and self.rng.random() < 0.5:
            return "(SELECT e FROM es_events e ORDER BY position LIMIT 1 OFFSET %d)" % self.rng.randrange(60)
        return "ROW(%s)::%s" % (", ".join("(%s)::%s" % (self.of(t), t) for t in columns), name)

    def of(self, type_name, name=""):
        r = self.rng.random()
        if r < 0.04:
            return "NULL"
        if type_name.endswith("[]"):
            return self.array(type_name[:-2], name)
        if type_name in ("text", "name", "cstring", "character varying"):
            return self.text(name)
        if type_name == "jsonb" or type_name == "json":
            return self.jsonb(name)
        if type_name == "bigint":
            if "token" in name and self.tokens and r < 0.7:
                return str(self.rng.choice(self.tokens))
            return self.rng.choice(INT8) if r < 0.6 else str(self.rng.randrange(80))
        if type_name in ("integer", "smallint"):
            return self.rng.choice(INT4) if r < 0.6 else str(self.rng.randrange(20))
        if type_name in ("double precision", "real", "numeric"):
            return self.one("0", "1.5", "-1", "'NaN'", "'Infinity'", "'-Infinity'", "1e300")
        if type_name == "boolean":
            return self.one("true", "false")
        if type_name == "uuid":
            return self.one("es_uuid7()", "'00000000-0000-0000-0000-000000000000'",
                            "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "md5('%d')::uuid" % self.rng.randrange(20),
                            "(SELECT id FROM es_events ORDER BY position LIMIT 1 OFFSET %d)" % self.rng.randrange(60))
        if type_name.startswith("timestamp") or type_name == "date":
            return self.one("now()", "'infinity'", "'-infinity'", "'2026-01-01'", "'4713-01-01 BC'", "'294276-12-31'",
                            "now() - interval '1 ms'")
        if type_name == "interval":
            return self.one("'0'", "'1 ms'", "'1 s'", "'-1 s'", "'30 s'", "'178000000 years'", "'-178000000 years'",
                            "'1 mon -30 days'", "'10000 days'")
        if type_name in ("es_function", "regproc", "oid", "regclass", "regnamespace", "regtype", "regrole"):
            return self.reg(type_name, name)
        if type_name == "es_expected_version":
            return self.one("'any'", "'any'", "'none'", "'exists'", "'x'", "''", "0", "1", "-1", "5",
                            "9223372036854775807::bigint", "9223372036854775806::bigint", "'9223372036854775808'")
        if type_name == "int4multirange":
            return self.one("NULL", "'{[0,1024)}'", "'{[0,1),[3,1024)}'", "'{[0,1025)}'", "'{[-1,3)}'", "'{(,)}'", "'{[0,'", "'{}'")
        if type_name == "es_categories":
            return self.one("'a'", "'{a,b}'", "'{}'", "'{a'", "'a-1'", "'{a,a}'", "'{NULL}'", "''", "ARRAY['a', 'x']", "ARRAY['a']::varchar[]", "NULL",
                            "(SELECT array_agg(n::text) FROM generate_series(1, %d) n)" % self.rng.choice((64, 65)))
        if type_name in self.catalog.columns:
            return self.composite(type_name)
        if type_name == "internal":
            return "NULL::internal"
        if type_name == "bytea":
            return self.one("''", "'\\x00ff'", "repeat('x', 100000)::bytea")
        return self.one("NULL", "''", "'0'", "'x'", "'{}'")

    def reg(self, type_name, name):
        if type_name == "regclass":
            return self.one("'es_events'", "'read_model'", "'a_view'", "'a_matview'", "'\"a \"\"sequence\"\"\"'",
                            "'pg_class'", "'es_events_pkey'", "'\"a row\"'", "0::oid", "4294967295::oid", "'nothing'",
                            "'es_import'", "'read_model'", "'a_matview'", "'es_events'")
        if type_name == "regnamespace":
            return self.one("'public'", "'handlers'", "'pg_catalog'", "0::oid", "4294967295::oid", "'nothing'")
        if type_name == "es_function":
            functions = ["es_merge(jsonb,es_recorded_event)", "es_last(jsonb,es_recorded_event)", "fold(jsonb,es_recorded_event)",
                         "fold_strict(jsonb,es_recorded_event)", "fold_null(jsonb,es_recorded_event)", "fold_fails(jsonb,es_recorded_event)",
                         "decide(jsonb,jsonb)", "up(jsonb)", "up_null(jsonb)", "handle(es_recorded_event)",
                         "handle_fails(es_recorded_event)", "receive(text,jsonb)", "receive_fails(text,jsonb)", "handlers.es_reduce(jsonb,es_recorded_event)", "now()",
                         "es_horizon()", "count(*)", "sum(int4)", "lower(text)", "jsonb_typeof(jsonb)"]
            fitting = [f for f in functions if f.split("(")[0].split("_")[0] in FITTING.get(name, ())]
            if fitting and self.rng.random() < 0.6:
                function = self.rng.choice(fitting)
                return self.one(literal(function), literal(function.split("(")[0]), literal(function) + "::regprocedure",
                                literal(function.split("(")[0]) + "::text")
            return self.one(*map(literal, functions), "0::regproc", "4294967295::regprocedure", "'0'", "'99999999999'",
                            "''", "'.'", "'a.'", "'\"'", "'\"a b\"'", "'a.b.c.d'", "'nothing.es_merge'", "'es_merge('",
                            "'es_merge(jsonb'", "'lower'", "'handle(nothing)'", "repeat('x', 100000)")
        return self.one("0::oid", "4294967295::oid", "1::oid", "'nothing'")


class Catalog:
    """What the extension has."""

    def __init__(self, connection):
        def rows(sql):
            return connection.execute(sql).fetchall()
        member = ("JOIN pg_depend d ON d.classid = '%s'::regclass AND d.objid = %s AND d.deptype = 'e' "
                  "JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'eventstore'")
        self.functions = rows(
            "SELECT n.nspname, p.proname, p.prokind::text, p.pronargdefaults::int, p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype),"
            " p.proargnames, ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY u(t, i)"
            " ORDER BY i) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
            + member % ("pg_proc", "p.oid") + " ORDER BY p.oid::regprocedure::text")
        self.columns = dict(rows(
            "SELECT format_type(c.reltype, NULL), array_agg(format_type(a.atttypid, NULL) ORDER BY a.attnum)"
            " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            " LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'"
            " WHERE c.reltype <> 0 AND (d.objid IS NOT NULL OR c.relname ~ '^es_|^a row') AND c.relkind IN ('r', 'v', 'c')"
            " GROUP BY 1"))
        self.operators = rows(
            "SELECT o.oprname, format_type(o.oprleft, NULL), format_type(o.oprright, NULL) FROM pg_operator o "
            + member % ("pg_operator", "o.oid") + " ORDER BY o.oid")
        self.casts = rows(
            "SELECT format_type(c.castsource, NULL), format_type(c.casttarget, NULL) FROM pg_cast c "
            + member % ("pg_cast", "c.oid") + " ORDER BY c.oid")
        self.types = [r[0] for r in rows(
            "SELECT format_type(t.oid, NULL) FROM pg_type t " + member % ("pg_type", "t.oid")
            + " WHERE t.typtype IN ('b', 'c') ORDER BY 1")]
        self.types = [t for t in self.types if not t.endswith("[]")]


def arguments_of(function):
    return list(zip(function[5] or [], function[6]))


class Statements:
    """Random statements: bytes, and binary parameters."""

    def __init__(self, seed, catalog, everything=True):
        self.rng = random.Random(seed)
        self.catalog = catalog
        self.values = Values(self.rng, catalog)
        self.everything = everything
        self.tagged = [f for f in catalog.functions if ("tags", "text[]") in arguments_of(f) or ("query", "jsonb") in arguments_of(f)]

    def next(self):
        r = self.rng.random()
        if r < 0.86 or not self.everything:
            return self.call()
        if r < 0.90:
            return self.write()
        if r < 0.92:
            return self.convert()
        if r < 0.94:
            return self.binary()
        return self.tend()

    def call(self):
        # Those that take tags or a query of them more often: most of their values are wrong somewhere.
        schema, name, kind, defaults, trigger, names, types = self.rng.choice(
            self.tagged if self.rng.random() < 0.15 else self.catalog.functions)
        if (trigger or name == "es_start_worker" or "_drop_" in name) and self.rng.random() < 0.9:
            return self.call()
        given = list(enumerate(types))
        if defaults and self.rng.random() < 0.7:
            given = given[:len(types) - self.rng.randrange(defaults + 1)]
        arguments = []
        for i, type_name in given:
            argument = names[i] if names and i < len(names) else ""
            value = self.values.of(type_name, argument or "")
            if type_name.startswith("reg") or type_name in ("text", "jsonb", "bigint", "integer", "cstring"):
                value = "(%s)::%s" % (value, type_name)
            arguments.append(value)
        call = "%s.%s(%s)" % (schema, name, ", ".join(arguments))
        if kind == "p":
            return self.plain("CALL " + call)
        if kind == "a":
            return self.plain("SELECT %s FROM es_events" % call)
        return self.plain(self.values.one("SELECT * FROM %s", "SELECT %s", "SELECT %s", "SELECT count(*) FROM %s x")
                          % call)

    def plain(self, sql):
        """b'..' stands for these bytes, which may be no text at all."""
        return (re.sub(r"b'([^']*)'", r"'\1'", sql).encode("latin-1", "replace"), [])

    def write(self):
        v = self.values
        rows = ", ".join("(%s, %s, %s, %s)" % (v.text(), v.text(), v.jsonb(), v.jsonb())
                         for _ in range(self.rng.randrange(1, 4)))
        table, columns = self.rng.choice(sorted(self.catalog.columns.items()))
        return self.plain(v.one(
            "INSERT INTO es_import (stream, type, data, metadata) VALUES %s" % rows,
            "INSERT INTO es_import (stream, type, data, metadata) VALUES %s RETURNING *" % rows,
            "INSERT INTO es_import (stream, type, id, occurred_at) VALUES (%s, %s, %s, %s)"
            % (v.text(), v.text(), v.of("uuid"), v.of("timestamp with time zone")),
            "UPDATE es_import SET type = 'x'", "DELETE FROM es_import", "UPDATE es_events SET type = %s" % v.text(),
            "TRUNCATE es_events", "DELETE FROM es_events",
            "SELECT * FROM %s LIMIT 20" % table, "SELECT t::text FROM %s t LIMIT 20" % table,
            "SELECT jsonb_populate_record(NULL::%s, %s)" % (table, v.jsonb()),
            # What a superuser stores by an INSERT has whatever version it says.
            "DO $$ BEGIN INSERT INTO es_events SELECT (%s).*; RAISE SQLSTATE '22000'; END $$" % v.composite("es_events")))

    def convert(self):
        if self.catalog.operators and self.rng.random() < 0.3:
            name, left, right = self.rng.choice(self.catalog.operators)
            return self.plain("SELECT (%s)::%s %s (%s)::%s"
                              % (self.values.of(left), left, name, self.values.of(right), right))
        if self.catalog.casts and self.rng.random() < 0.5:
            source, target = self.rng.choice(self.catalog.casts)
            return self.plain("SELECT ((%s)::%s)::%s" % (self.values.of(source), source, target))
        return self.plain("SELECT (%s)::text::%s" % (self.values.text(), self.rng.choice(self.catalog.types)))

    def binary(self):
        """Random bytes where a type's receive function, or text, reads them."""
        size = self.values.one(0, 1, 4, 7, 8, 9, 16, 24, 100)
        value = bytes(self.rng.randrange(256) for _ in range(size))
        if self.rng.random() < 0.5:
            type_name = self.rng.choice(self.catalog.types)
            return (("SELECT ($1::%s)::text" % type_name).encode(), [value])
        return (b"SELECT es_append($1::text, 'any', 'a')", [value])

    def tend(self):
        """What was dropped comes again."""
        return self.plain(self.values.one(
            "SELECT es_create_subscription(%s, partitions => %s, lease => '1 s')"
            % (literal(self.values.one("s1", "s2")), self.values.one("1", "3")),
            "SELECT es_create_projection(%s, handler => %s, on_failure => %s)"
            % (literal(self.values.one("p1", "p2", "a")), literal(self.values.one("handle(es_recorded_event)", "handle_fails(es_recorded_event)")),
               literal(self.values.one("stop", "park"))),
            "SELECT es_create_projection('p2', query => 'INSERT INTO read_model SELECT stream, 1 FROM new_events"
            " ON CONFLICT DO NOTHING', tables => '{read_model}', mode => %s)" % literal(self.values.one("sync", "async")),
            "SELECT es_append(%s, 'any', 'a', '{}')" % self.values.text(),
            "SELECT token FROM es_poll('s1', 'c')", "SELECT token FROM es_poll('s2')", "SELECT es_set_slots(NULL)"))


class Session:
    def __init__(self, database):
        self.connection = psycopg.connect(dbname=database, autocommit=True, client_encoding="utf8")
        self.catalog = Catalog(self.connection)
        # The encoding of the database: nothing is converted on the way.
        self.connection.execute("SELECT set_config('client_encoding', getdatabaseencoding(), false)")
        for setting in ("statement_timeout = '1s'", "lock_timeout = '200ms'", "client_min_messages = error",
                        "eventstore.snapshot_every = 3", "max_stack_depth = '1MB'"):
            self.connection.execute("SET " + setting)

    def run(self, sql, parameters):
        """The SQLSTATE and the message, or None and the rows."""
        connection = self.connection.pgconn
        if parameters:
            result = connection.exec_params(sql, parameters, None, [1] * len(parameters))
        else:
            result = connection.exec_(sql)
        if result.status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.FATAL_ERROR):
            state = result.error_field(pq.DiagnosticField.SQLSTATE)
            return (state or b"").decode(), result.error_message.decode("utf-8", "replace")
        return None, result

    def value(self, sql):
        state, result = self.run(sql.encode(), [])
        if state is not None:
            raise RuntimeError("%s: %s" % (sql, result))
        return (result.get_value(0, 0) or b"").decode()


def show(sql, parameters):
    text = sql.decode("utf-8", "backslashreplace")
    return text if not parameters else "%s -- $1 = '\\x%s', binary" % (text, parameters[0].hex())


EVENTS = "SELECT count(*) || ' ' || coalesce(max(position), 0) FROM es_events"
HOLES = ("SELECT string_agg(left(stream, 50), ' ') FROM (SELECT stream FROM es_events GROUP BY stream"
         " HAVING max(version) - min(version) + 1 <> count(*)) s")
ENTRIES = "SELECT t.tag, e.position, e.type FROM es_events e, unnest(e.tags) t (tag)"
UNINDEXED = ("SELECT string_agg(left(d::text, 100), ' ') FROM ((%s EXCEPT TABLE es_tags) UNION ALL (TABLE es_tags EXCEPT %s)) d"
             % (ENTRIES, ENTRIES))


def fuzz(seed, calls, database, session_number):
    """session_number 0: the database is this session's alone."""
    alone = session_number == 0
    session = Session(database)
    statements = Statements("%s/%s/%s" % (seed, database, session_number), session.catalog)
    wrong = failed = 0
    states = {}
    before = session.value(EVENTS)
    for number in range(calls):
        sql, parameters = statements.next()
        try:
            state, result = session.run(sql, parameters)
        except (psycopg.Error, UnicodeError) as error:
            state, result = "client", str(error)
        if session.connection.pgconn.status != pq.ConnStatus.OK:
            print("not ok - call %d ended the connection: %s\n%s" % (number, show(sql, parameters), result), flush=True)
            wrong += 1
            if wrong > 5:
                break
            time.sleep(3)
            session = Session(database)
            before = session.value(EVENTS)
            continue
        if state is None:
            if result.nfields and result.fname(0) == b"token" and result.ntuples:
                token = result.get_value(0, 0)
                if token and token.isdigit():
                    statements.values.tokens = statements.values.tokens[-9:] + [int(token)]
        else:
            failed += 1
            states[state] = states.get(state, 0) + 1
            if state.startswith(("XX", "58")) or state in ("53200", "client", ""):
                print("not ok - call %d: %s %s\n%s" % (number, state, result.strip(), show(sql, parameters)[:3000]), flush=True)
                wrong += 1
        if alone:
            after = session.value(EVENTS)
            if state is not None and after != before:
                print("not ok - call %d failed (%s) and left something: %s, then %s\n%s"
                      % (number, state, before, after, show(sql, parameters)[:3000]), flush=True)
                wrong += 1
            before = after
        if number % 1000 == 999 or number == calls - 1:
            holes = session.value(HOLES)
            if holes != "":
                print("not ok - versions of these streams have holes after call %d: %s" % (number, holes), flush=True)
                wrong += 1
                break
            differ = session.value(UNINDEXED)
            if differ != "":
                print("not ok - es_tags is not what the events say after call %d: %s" % (number, differ), flush=True)
                wrong += 1
                break
    if failed == 0 or failed == calls:
        print("not ok - %d of %d calls failed" % (failed, calls))
        wrong += 1
    print("# %s: %d calls, %d errors: %s" % (database, calls, failed,
          " ".join("%s:%d" % pair for pair in sorted(states.items()))))
    if not wrong:
        print("ok - %d calls in %s, session %s" % (calls, database, session_number))


LOOP = """DO $do$
DECLARE call text; BEGIN
    FOR call IN SELECT c.call FROM pg_temp.calls c LOOP
        BEGIN EXECUTE call; EXCEPTION WHEN OTHERS THEN NULL; END;
    END LOOP;
END $do$"""


# What is in use of each context. Its last block is up to 8 MB large, most of it free, so that blocks
# are taken off the process's memory.
CONTEXTS = """SELECT json_build_array(sum(total), json_object_agg(name, used)) FROM (
    SELECT concat_ws(' ', name, ident) AS name, sum(used_bytes) AS used, sum(total_bytes) AS total
      FROM pg_backend_memory_contexts GROUP BY 1) AS c"""


def memory(seed, calls, database, leak):
    """
    The same calls again and again: what is kept after each round has to stay
    the same when everything has been called some times.  A round is rolled
    back, so that the log does not grow.
    """
    session = Session(database)
    statements = Statements("%s/memory" % seed, session.catalog, everything=False)
    session.value("SELECT set_config('statement_timeout', '0', false)")
    session.value("SELECT set_config('eventstore.snapshot_every', '0', false)")
    session.run(b"CREATE TEMP TABLE calls (call text)", [])
    per_round = 500
    chosen = []
    while len(chosen) < per_round:
        sql, parameters = statements.next()
        text = sql.decode("latin-1")
        # What sleeps, is slow or ends the transaction is fuzzed elsewhere.
        if parameters or re.search(r"es_wait|es_poll|es_work|start_worker|000000|20000|CALL |b'|SELECT count", text) \
                or not text.isascii():
            continue
        started = time.time()
        session.run(b"BEGIN; SET LOCAL statement_timeout = '100ms'", [])
        session.run(sql, [])
        session.run(b"ROLLBACK", [])
        if time.time() - started < 0.005:
            chosen.append(text)
    with session.connection.cursor() as cursor:
        cursor.executemany("INSERT INTO pg_temp.calls VALUES (%s)", [(c,) for c in chosen])
    pid = session.value("SELECT pg_backend_pid()")
    measured = []
    made = 0
    while made < calls:
        for sql in (b"BEGIN", LOOP.encode(), b"ROLLBACK"):
            state, result = session.run(sql, [])
            if state is not None:
                print("not ok - the loop of calls: %s %s" % (state, result))
                return
        made += per_round
        session.run(b"ROLLBACK", [])
        if leak:
            for n in range(per_round):
                session.run(b"PREPARE leak%d AS SELECT %d" % (made + n, n), [])
        with open("/proc/%s/status" % pid) as status:
            rss = int(re.search(r"RssAnon:\s+(\d+)", status.read()).group(1)) * 1024
        blocks, contexts = json.loads(session.value(CONTEXTS))
        measured.append((sum(contexts.values()), rss - blocks, contexts))
    half, third = len(measured) // 2, max(len(measured) // 8, 1)

    def peak(rows, column):
        return max(row[column] for row in rows)
    grown = [peak(measured[-third:], c) - peak(measured[half:half + third], c) for c in (0, 1)]
    print("# %d calls; contexts %d kB, in the middle %d kB; other private memory %d kB, in the middle %d kB"
          % (made, peak(measured[-third:], 0) // 1024, peak(measured[half:half + third], 0) // 1024,
             peak(measured[-third:], 1) // 1024, peak(measured[half:half + third], 1) // 1024))
    if grown[0] > 0:
        first, last = (max(rows, key=lambda row: row[0])[2] for rows in (measured[half:half + third], measured[-third:]))
        print("# grown: %s" % {name: last[name] - first.get(name, 0) for name in last if last[name] > first.get(name, 0)})
    # Half a byte a call is less than any leak.
    limit = max(64 * 1024, made // 2)
    flat = grown[0] <= limit and grown[1] <= 16 * limit
    verdict = flat != leak
    print("%s - memory %s in a loop of %d calls%s" % ("ok" if verdict else "not ok", "is flat" if flat else "grows",
          made, " with a leak" if leak else ""))


def main():
    kind, seed, calls, database = sys.argv[1:5]
    if kind == "calls":
        fuzz(seed, int(calls), database, int(sys.argv[5]))
    else:
        memory(seed, int(calls), database, kind == "control")


if __name__ == "__main__":
    main()
