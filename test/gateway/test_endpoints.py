"""Every endpoint: what it is for, who may call it, and what it answers to input that is bad or hostile.

The table CASES has a good call of each route of gateway/routes. A route without a case fails test_table_is_complete. Each
case is called by every role: by those that may not first, so that they would be found out by what they changed.
"""
import json
import os
import re
import subprocess
import time
import uuid
from urllib.parse import quote, urljoin

import pytest

import harness
from harness import ask, request, until

READERS = ("reader", "writer", "operator", "retention")
EVENT = {"type": "noted", "data": {"text": "x"}}


class World:
    """A database with something of everything in it, and a gateway for it."""

    def __init__(self, database, gateway):
        self.database = database
        self.gateway = gateway
        self.client = {role: gateway.client(role) for role in harness.ROLES}
        self.numbers = iter(range(1, 10**9))

    def append(self, stream, *events):
        return self.client["writer"].post(f"/v1/streams/{quote(stream, safe='')}", list(events) or [EVENT], expect=201).json()

    def account(self):
        stream = f"account-{next(self.numbers)}"
        self.append(stream, {"type": "opened"}, {"type": "deposited", "data": {"amount": 5}})
        return {"stream": stream}

    def subscription(self, role="reader", events=True, **settings):
        name = f"subscription-{next(self.numbers)}"
        stream = f"polled{next(self.numbers)}-1"
        if events:
            self.append(stream, EVENT, EVENT)
        self.client[role]("PUT", f"/v1/subscriptions/{name}", 201, json={"category": stream[:-2], **settings})
        return {"subscription": name, "stream": stream}

    def delivery(self, role="reader"):
        made = self.subscription(role)
        answer = self.client[role].post(f"/v1/subscriptions/{made['subscription']}/poll?consumer=c", expect=200).json()
        return {**made, "token": answer["token"], "position": answer["events"][0]["position"]}

    def failure(self, role=None):
        """A failure of a projection, or of a subscription of the role."""
        if role:
            made = self.delivery(role)
            self.client[role].post(f"/v1/subscriptions/{made['subscription']}/nack",
                                   {"token": made["token"], "position": made["position"], "reason": "no <b>mail</b>",
                                    "action": "park"}, expect=200)
            return {**made, "id": self.database.value("SELECT id FROM es_failures WHERE subscription = %s", (made["subscription"],))}
        stream = f"paid-{next(self.numbers)}"
        self.append(stream, {"type": "paid"})
        found = until(lambda: self.database.query("SELECT id, position FROM es_failures WHERE stream = %s", (stream,)), "the failure")
        return {"id": found[0][0], "stream": stream, "position": found[0][1]}

    def skipped(self):
        made = self.failure()
        self.client["operator"]("PUT", f"/v1/projections/fails/skipped/{made['position']}?reason=x", 204)
        return made

    def message(self):
        number = next(self.numbers)
        self.client["writer"].post(f"/v1/inbox/payments/shop?message_id=m-{number}", {"id": str(number), "at": "2026-01-01T00:00:00Z"},
                                   expect=200)
        return {"id": self.database.value("SELECT max(id) FROM es_inbox"), "number": number}

    def new(self):
        return {"n": next(self.numbers), "uuid": str(uuid.uuid4())}

    def event(self):
        made = self.append(f"one-{next(self.numbers)}")
        return {"id": self.database.value("SELECT id FROM es_events WHERE position = %s", (made["position"],))}

    def removable(self):
        stream = f"removable-{next(self.numbers)}"
        self.append(stream, EVENT, EVENT)
        return {"stream": stream}

    def caught_up(self):
        self.account()
        position = self.database.value("SELECT max(position) FROM es_events WHERE type = 'deposited'")
        until(lambda: self.database.value("SELECT position FROM es_projection_status WHERE name = 'balance'") >= position, "the projection")
        return {"position": position}


@pytest.fixture(scope="module")
def world(keys):
    database = harness.Database("endpoints").make()
    with database.connect() as session, open(os.path.join(os.path.dirname(__file__), "endpoints.sql"), encoding="utf-8") as file:
        session.execute(file.read())
        session.execute("""SELECT es_define_event_type('measured', '{value}', description => 'A <value>',
            attributes => '{"value": "number"}')""")
    gateway = harness.Gateway(database, keys).start()
    world = World(database, gateway)
    world.append("course-1", {"type": "opened", "tags": ["course:c1"], "body": "AAH/"})
    yield world
    gateway.stop()


class Case:
    def __init__(self, route, target=None, may=READERS, status=200, body=None, prepare=None, headers=None, check=None, other=403,
                 raw=None):
        self.method, self.path = route.split(" ")
        self.route = route
        self.target = target or self.path
        self.may = may
        self.status = status if isinstance(status, tuple) else (status,)
        self.body = body
        self.prepare = prepare
        self.headers = headers or {}
        self.check = check
        self.other = other if isinstance(other, tuple) else (other,)
        self.raw = raw

    def call(self, world, role, values):
        def fill(text):
            return re.sub(r"<(\w+)>", lambda found: quote(str(values[found[1]]), safe=""), text)
        options = {"headers": {name: fill(value) for name, value in self.headers.items()}}
        if self.body is not None:
            text = re.sub(r'"<(\w+)>"', lambda found: json.dumps(values[found[1]]), json.dumps(self.body))
            options["data"] = re.sub(r"<(\w+)>", lambda found: str(values[found[1]]), text)
            options["headers"]["Content-Type"] = "application/json"
        elif self.raw is not None:
            options["data"] = self.raw
        client = world.client[role] if role else world.gateway.client()
        return client(self.method, fill(self.target), **options)


def has(**members):
    """The answer is an object with these members."""
    def check(answer):
        body = answer.json()
        for name, value in members.items():
            assert body[name] == value, (name, body)
    return check


def listed(*names):
    """The answer is a list that is not empty, and its entries have these members."""
    def check(answer):
        body = answer.json()
        assert isinstance(body, list) and body
        for name in names:
            assert name in body[0], (name, body[0])
    return check


RECORDED = ("position", "version", "recorded_at", "occurred_at", "id", "stream", "type", "data", "metadata", "tags", "body")
APPENDERS = ("writer", "appender")
EVERYBODY = harness.ROLES

CASES = [
    # the log
    Case("GET /v1/events", "/v1/events?limit=5", check=listed(*RECORDED)),
    Case("GET /v1/events", "/v1/events?category=course&types=opened&tags=course:c1&limit=5", check=listed(*RECORDED)),
    Case("GET /v1/events", "/v1/events?backward=true&limit=3", check=listed(*RECORDED)),
    Case("GET /v1/events", "/v1/events?query=%5B%7B%22tags%22%3A%5B%22course%3Ac1%22%5D%7D%5D", check=listed(*RECORDED)),
    Case("GET /v1/events/{id}", "/v1/events/<id>", prepare=World.event, check=has(type="noted", version=1)),
    Case("POST /v1/query", body={"query": [{"tags": ["course:c1"]}], "limit": 10}, check=listed(*RECORDED)),
    Case("POST /v1/append", may=("writer",), status=201, prepare=World.new,
         body={"events": [{"type": "noted", "stream": "conditional-1", "tags": ["c:1"], "id": "<uuid>"}], "query": [{"tags": ["c:2"]}]}),
    Case("POST /v1/commands/{decider}", "/v1/commands/account.enrol?reducer=account.es_reduce", may=("writer",), status=201,
         prepare=World.new, body={"query": [{"tags": ["course:<n>"]}], "command": {"course": "<n>"}}),
    # streams
    Case("GET /v1/streams", "/v1/streams?prefix=course", check=listed("stream", "version", "category")),
    Case("GET /v1/streams", "/v1/streams?newest=true&limit=5", check=listed("stream", "version", "category")),
    Case("GET /v1/streams/{stream}", "/v1/streams/course-1", check=listed(*RECORDED)),
    Case("POST /v1/streams/{stream}", "/v1/streams/appended-<n>", may=APPENDERS, status=201, prepare=World.new,
         body=[{"type": "noted", "id": "<uuid>"}], check=has(version=1)),
    Case("GET /v1/streams/{stream}/events/{version}", "/v1/streams/course-1/events/1", check=has(type="opened", body="AAH/")),
    Case("GET /v1/streams/{stream}/state", "/v1/streams/<stream>/state?reducer=account.es_reduce", may=("reader", "writer", "operator"),
         prepare=World.account, check=has(state={"balance": 5}, version=2)),
    Case("GET /v1/streams/{stream}/state", "/v1/streams/<stream>/state?reducer=account.es_reduce&version=1",
         may=("reader", "writer", "operator"), prepare=World.account, check=has(state={"balance": 0}, version=1)),
    Case("GET /v1/streams/{stream}/history", "/v1/streams/<stream>/history?reducer=account.es_reduce", may=("reader", "writer", "operator"),
         prepare=World.account, check=listed("version", "recorded_at", "type", "state")),
    Case("POST /v1/streams/{stream}/commands/{decider}", "/v1/streams/<stream>/commands/account.deposit?reducer=account.es_reduce",
         may=("writer",), status=201, prepare=World.account, body={"amount": 7}, check=has(version=3, state={"balance": 12}, events=1)),
    Case("DELETE /v1/streams/{stream}", "/v1/streams/<stream>?tombstone=true", may=("retention",), prepare=World.removable,
         check=has(removed=2)),
    # subscriptions
    Case("GET /v1/subscriptions", may=("reader", "writer", "operator", "retention"), prepare=lambda world: world.subscription("reader"),
         check=lambda answer: isinstance(answer.json(), list)),
    Case("GET /v1/subscriptions/{subscription}", "/v1/subscriptions/<subscription>", may=("reader", "operator"), other=(403, 404),
         prepare=World.subscription, check=listed("partition", "position", "lag_events", "in_flight")),
    Case("PUT /v1/subscriptions/{subscription}", "/v1/subscriptions/made-<n>", status=201, prepare=World.new, body={"category": "course"}),
    Case("DELETE /v1/subscriptions/{subscription}", "/v1/subscriptions/<subscription>", may=("reader",), status=204,
         prepare=World.subscription),
    Case("POST /v1/subscriptions/{subscription}/poll", "/v1/subscriptions/<subscription>/poll?consumer=c&limit=1", may=("reader",),
         prepare=World.subscription, check=lambda answer: len(answer.json()["events"]) == 1),
    Case("POST /v1/subscriptions/{subscription}/ack", "/v1/subscriptions/<subscription>/ack", may=("reader",), prepare=World.delivery,
         body={"token": "<token>"}),
    Case("POST /v1/subscriptions/{subscription}/nack", "/v1/subscriptions/<subscription>/nack", may=("reader",), prepare=World.delivery,
         body={"token": "<token>", "position": "<position>", "reason": "no", "action": "skip"}, check=has(action="skip")),
    Case("POST /v1/subscriptions/{subscription}/seek", "/v1/subscriptions/<subscription>/seek", may=("reader", "operator"), status=204,
         prepare=World.subscription, body={"position": 0}),
    # projections
    Case("GET /v1/projections", check=lambda answer: isinstance(answer.json(), list)),
    Case("GET /v1/projections/{projection}", "/v1/projections/balance", may=("operator",), other=(403, 404), check=has(name="balance", mode="async")),
    Case("GET /v1/projections/{projection}/reached", "/v1/projections/balance/reached?position=<position>&wait=20",
         may=(*READERS, "appender"), prepare=World.caught_up, check=has(reached=True)),
    Case("POST /v1/projections/{projection}/pause", "/v1/projections/fails/pause", may=("operator",), status=204),
    Case("POST /v1/projections/{projection}/resume", "/v1/projections/fails/resume", may=("operator",), status=204),
    Case("POST /v1/projections/{projection}/rebuild", "/v1/projections/balance/rebuild", may=("operator",), status=(200, 202),
         prepare=World.account),
    Case("GET /v1/projections/{projection}/skipped", "/v1/projections/fails/skipped", may=("operator",), other=(403, 404), prepare=World.skipped),
    Case("PUT /v1/projections/{projection}/skipped/{position}", "/v1/projections/fails/skipped/<position>?reason=no", may=("operator",),
         status=204, prepare=World.failure),
    Case("DELETE /v1/projections/{projection}/skipped/{position}", "/v1/projections/fails/skipped/<position>", may=("operator",), status=204,
         prepare=World.skipped),
    # failures
    Case("GET /v1/failures", may=(*READERS, "appender"), prepare=World.failure),
    Case("GET /v1/failures/count", may=(*READERS, "appender"), prepare=World.failure),
    Case("GET /v1/failures/{id}", "/v1/failures/<id>", may=("operator",), other=(403, 404), prepare=World.failure,
         check=lambda answer: "<prices>" in answer.json()["message"]),
    Case("POST /v1/failures/{id}/retry", "/v1/failures/<id>/retry", may=("operator",), status=422, other=(403, 404), prepare=World.failure),
    Case("DELETE /v1/failures/{id}", "/v1/failures/<id>", may=("operator",), status=204, other=(403, 404), prepare=World.failure),
    Case("POST /v1/failures/retry", may=("operator",), body={"ids": ["<id>"]}, prepare=World.failure),
    Case("POST /v1/failures/discard", may=("operator",), body={"ids": ["<id>"]}, prepare=World.failure),
    # inbox
    Case("POST /v1/inbox/{topic}/{group}", "/v1/inbox/payments/shop?message_id=<uuid>", may=APPENDERS, prepare=World.new,
         body={"id": "<n>", "at": "2026-01-01T00:00:00Z"}, check=has(result="acknowledged")),
    Case("GET /v1/inbox", may=("operator",), prepare=World.message, check=listed("id", "topic", "payload")),
    Case("GET /v1/inbox/{id}", "/v1/inbox/<id>", may=("operator",), prepare=World.message, check=has(topic="payments")),
    # types, overview, removals
    Case("GET /v1/types", check=listed("type", "defined", "recent_events")),
    Case("GET /v1/types/{type}", "/v1/types/measured", may=(*READERS, "appender"), check=has(type="measured")),
    Case("GET /v1/types/{type}/samples", "/v1/types/noted/samples", check=listed(*RECORDED)),
    Case("GET /v1/reducers", may=EVERYBODY, check=listed("reducer")),
    Case("GET /v1/whoami", may=EVERYBODY),
    Case("GET /v1/overview"),
    Case("GET /v1/health"),
    Case("GET /v1/stats", may=("operator",)),
    Case("GET /v1/horizon", may=("operator",)),
    Case("GET /v1/categories", check=listed("category", "last_position")),
    Case("GET /v1/removals", may=("operator", "retention")),
    Case("GET /v1/retention", may=("operator", "retention")),
]


def routes():
    folder = os.path.join(harness.TOP, "gateway/routes")
    files = sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".sql"))
    return subprocess.run([os.path.join(folder, "generate"), "--list", *files], capture_output=True, text=True, check=True).stdout


def declared():
    return {" ".join(line.split()[:2]) for line in routes().splitlines() if re.match(r"(GET|POST|PUT|PATCH|DELETE) /", line)}


def test_table_is_complete():
    assert declared() - {case.route for case in CASES} == {"GET /ping"}
    assert {case.route for case in CASES} - declared() == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.target}")
def test_roles(world, case):
    """Each role gets what the database gives it; nobody without a token gets anything."""
    made = case.prepare(world) if case.prepare else {}
    answer = case.call(world, None, made)
    assert answer.status_code == 401, answer.text
    for role in harness.ROLES:
        if role not in case.may:
            answer = case.call(world, role, made)
            assert answer.status_code in case.other, (role, answer.status_code, answer.text)
            body = answer.json()
            assert body["error"] is True and body["status"] == answer.status_code
            if answer.status_code == 403:
                assert body["sqlstate"] == "42501"
    for role in case.may:
        # What a reader has made, readers alone have.
        answer = case.call(world, role, made)
        assert answer.status_code in case.status, (role, answer.status_code, answer.text)
        assert "X-Request-Id" in answer.headers
        if answer.content:
            answer.json()
        if case.check:
            assert case.check(answer) in (None, True)
        if case.method != "GET" and case.prepare:
            made = case.prepare(world)         # what is used up is made anew


#
# Hostile input
#

TEXTS = ["", " ", "'", "\"", "\\", "%", "_", "$1", ":stream", "; DROP TABLE es_events; --", "' OR '1'='1", "null", "NULL", "{}", "[]", "{a,b}",
         "{\"", "\\x00", "a\nb", "a\r\nb: c", "\x01", "\x7f", "<script>alert(1)</script>", "../../..", "ä", "\U0001f600", "\u202e", "\ufeff",
         "e\u0301" * 50, "x" * 300, "x" * 3000, "0", "-1", "1", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1e309", "NaN",
         "infinity", "-infinity", "0x1", "1_000", "true", "2026-01-01", "epoch", "now", "pg_sleep", "public.es_append", "pg_catalog.pg_sleep"]
BODIES = ["", "null", "[]", "{}", "1", "-1", "\"\"", "true", "[null]", "[[]]", "[{}]", "{\"a\": null}", "[" * 5000 + "]" * 5000,
          "{\"ids\": null}", "{\"ids\": [null]}", "{\"ids\": {}}", "{\"ids\": [\"x\"]}", "{\"ids\": [1e400]}", "{\"ids\": [-1]}", "{\"ids\": \"x\"}",
          "{\"token\": null}", "{\"token\": \"x\"}", "{\"token\": -1}", "{\"token\": 1.5}", "{\"token\": {}}", "{\"token\": 1e30}",
          "{\"token\": 1, \"position\": \"x\"}", "{\"position\": -1}", "{\"position\": 1e30}", "{\"position\": []}", "{\"action\": \"x\"}",
          "{\"query\": null}", "{\"query\": {}}", "{\"query\": [{}]}", "{\"query\": [1]}", "{\"query\": [{\"tags\": 1}]}", "{\"query\": [{\"types\": []}]}",
          "{\"query\": [{}], \"limit\": -1}", "{\"query\": [{}], \"limit\": \"x\"}", "{\"query\": [{}], \"after_position\": -1}",
          "{\"query\": [{}], \"after_position\": 9223372036854775807}", "{\"query\": [{}], \"backward\": \"maybe\"}",
          "{\"events\": null, \"query\": []}", "{\"events\": [], \"query\": [{}]}", "{\"events\": [{\"type\": \"a\"}], \"query\": [{\"tags\": [\"x\"]}]}",
          "{\"category\": 1}", "{\"category\": \"a-b\"}", "{\"category\": []}", "{\"category\": [null]}", "{\"category\": \"{\"}", "{\"partitions\": 0}",
          "{\"partitions\": 99999}", "{\"lease\": -1}", "{\"lease\": \"x\"}", "{\"lease\": 1e300}", "{\"start_position\": -5}", "{\"types\": []}",
          "{\"types\": [null]}", "{\"max_attempts\": 0}", "{\"command\": null}", "{\"query\": [{}], \"command\": {}, \"metadata\": 1}",
          "\"\\ud800\"", "\"\\u0000\"", "{\"a\": 1, \"a\": 2}", "1e1000000", "[1e-1000000]", "\"" + "x" * 100000 + "\""]


def hostile_calls():
    """For each route its parameters, in turn, with each hostile value; the others are those of the good call."""
    parameters = {}
    current = None
    for line in routes().splitlines():
        words = line.split()
        if re.match(r"(GET|POST|PUT|PATCH|DELETE) /", line):
            current = parameters.setdefault(" ".join(words[:2]), [])
        elif current is not None and len(words) >= 2:
            current.append(words)
    return parameters


def places(words):
    """Name and place of a parameter of --list, whichever comes first."""
    known = {"path", "query", "header", "body", "batch"}
    place = next(word for word in words if word in known)
    return next(word for word in words if word != place and word != "--"), place


@pytest.mark.parametrize("route", sorted(declared() - {"GET /ping"}) if harness.TOP else [])
def test_hostile(world, keys, chance, route):
    """No value of a parameter or a body makes a 500, or an answer that is no JSON; none makes the gateway wait for long."""
    case = next(case for case in CASES if case.route == route)
    role = next((role for role in ("operator", "retention", "writer") if role in case.may and case.method != "POST"),
                case.may[0])
    token = keys.static[role]
    values = case.prepare(world) if case.prepare else {}

    def check(method, target, headers, body=None):
        started = time.monotonic()
        answer = ask(world.gateway, request(method, target, token, headers, body), method)
        assert answer is not None, (target, headers, body)
        assert answer.status < 500 or answer.status in (501, 504), (target, headers, body, answer)
        assert time.monotonic() - started < 15, (target, headers, body)
        if answer.body:
            answer.json()
        if answer.status >= 400:
            assert answer.headers["content-type"].startswith("application/problem+json"), (target, answer)
            assert answer.json()["status"] == answer.status

    def path(changed=None, value=None):
        names = iter(re.findall(r"{(\w+)}", case.path))
        given = re.split(r"[/?]", case.target)[1:]
        parts = []
        for place, part in enumerate(case.path.split("/")[1:]):
            if part.startswith("{"):
                name = next(names)
                filled = re.sub(r"<(\w+)>", lambda found: quote(str(values[found[1]]), safe=""), given[place])
                part = quote(value, safe="", errors="surrogatepass") if name == changed else filled
            parts.append(part)
        return "/" + "/".join(parts)

    body = json.dumps(case.body).encode() if case.body is not None else None
    kind = [("Content-Type", "application/json")] if body is not None else []
    query = case.target.partition("?")[2]
    query = re.sub(r"<(\w+)>", lambda found: quote(str(values[found[1]]), safe=""), query)
    every = harness.LONG
    for words in hostile_calls()[route]:
        name, place = places(words)
        if place in ("body", "batch"):
            continue
        texts = TEXTS if every else chance.sample(TEXTS, 12)
        for text in texts:
            if place == "path":
                if text not in ("", ".", ".."):
                    check(case.method, path(name, text), kind, body)
            elif place == "query":
                rest = "&".join(pair for pair in query.split("&") if pair and pair.split("=")[0] != name)
                if name == "wait":
                    text = {"9223372036854775807": "x"}.get(text, text)
                target = f"{path()}?{rest}{'&' if rest else ''}{name}={quote(text, safe='', errors='surrogatepass')}"
                check(case.method, target, kind, body)
            else:
                header = text.encode("utf-8", "surrogatepass").translate(None, b"\r\n\0").strip()
                check(case.method, path() + (f"?{query}" if query else ""), [*kind, (name.replace("_", "-"), header)], body)
    if body is not None:
        for text in BODIES if every else chance.sample(BODIES, 25):
            check(case.method, path() + (f"?{query}" if query else ""), kind, text.encode())
    assert world.gateway.alive()


#
# What endpoints are for, beyond one call
#

def test_expected_versions(world):
    """If-Match and If-None-Match are the expected version; a conflict says both versions."""
    writer, stream = world.client["writer"], f"/v1/streams/versions-{next(world.numbers)}"

    def append(expect, **headers):
        return writer("POST", stream, expect, json=EVENT, headers={name.replace("_", "-"): value for name, value in headers.items()})

    append(412, If_Match='"1"')
    append(412, If_Match="*")
    first = append(201, If_None_Match="*")
    assert first.headers["ETag"] == '"1"' and first.json()["version"] == 1
    assert first.headers["Location"].endswith(stream + "/events/1")
    conflict = append(412, If_None_Match="*").json()
    assert (conflict["sqlstate"], conflict["expected_version"], conflict["actual_version"]) == ("ES001", "none", 1)
    conflict = append(412, If_Match='"7"').json()
    assert (conflict["sqlstate"], conflict["expected_version"], conflict["actual_version"]) == ("ES001", 7, 1)
    append(201, If_Match='"1"')
    append(201, If_Match="*")
    append(201, If_Match='W/"3"')
    for value in ("", "x", '"x"', '"1", "4"', '"-1"', '"99999999999999999999"', "any\0".strip("\0") + "thing", '"4'):
        answer = writer("POST", stream, json=EVENT, headers={"If-Match": value})
        assert answer.status_code in (400, 412, 422) or value == "", (value, answer.text)
    answer = writer("POST", stream, json=EVENT, headers={"If-None-Match": '"1"'})
    assert answer.status_code in (400, 412, 422), answer.text


def test_retries_have_the_first_result(world):
    writer, stream = world.client["writer"], f"/v1/streams/retries-{next(world.numbers)}"
    events = [{"type": "noted", "id": str(uuid.uuid4()), "data": {"n": n}} for n in range(3)]
    first = writer.post(stream, events, expect=201, headers={"If-None-Match": "*"})
    writer.post(stream, EVENT, expect=201)
    again = writer.post(stream, events, headers={"If-None-Match": "*"})
    assert again.status_code in (200, 201) and again.json() == first.json() and again.headers["ETag"] == '"3"'
    other = writer.post(stream, [{**events[0], "data": {"n": 9}}])
    assert other.status_code == 409 and other.json()["sqlstate"] == "ES002"
    assert len(world.client["reader"].get(stream).json()) == 4


def follow_link(path, answer, relation="next"):
    """Where a link leads to, which may be relative; None without one."""
    return urljoin(path, answer.links[relation]["url"]) if relation in answer.links else None


def test_pages(world):
    stream = f"pages-{next(world.numbers)}"
    world.append(stream, *[EVENT] * 25)
    reader = world.client["reader"]

    def walk(path, relation="next"):
        seen = []
        while path:
            answer = reader.get(path)
            seen += [event["version"] for event in answer.json()]
            path = follow_link(path, answer, relation)
        return seen
    assert walk(f"/v1/streams/{stream}?limit=10") == list(range(1, 26))
    assert walk(f"/v1/streams/{stream}?limit=10&backward=true") == list(range(25, 0, -1))
    assert walk(f"/v1/streams/{stream}?limit=5&after_version=18") == list(range(19, 26))
    assert walk(f"/v1/streams/{stream}?limit=25") == list(range(1, 26))
    # from the middle back to the start
    middle = reader.get(f"/v1/streams/{stream}?limit=5&after_version=10")
    before = reader.get(follow_link(f"/v1/streams/{stream}?limit=5&after_version=10", middle, "prev")).json()
    assert sorted(event["version"] for event in before) == [6, 7, 8, 9, 10]
    seen, path = [], f"/v1/events?category=pages&limit=7"
    while path:
        answer = reader.get(path)
        seen += [(event["stream"], event["version"]) for event in answer.json()]
        path = follow_link(path, answer)
    assert [version for name, version in seen if name == stream] == list(range(1, 26))


def test_head_of_a_stream(world):
    stream = f"heads-{next(world.numbers)}"
    world.client["reader"].head(f"/v1/streams/{stream}", 404)
    world.append(stream, *[EVENT] * 7)
    assert world.client["reader"].head(f"/v1/streams/{stream}").headers["ETag"] == '"7"'


def test_removed(world):
    """A stream that was deleted is gone, one that was closed for good stays closed."""
    retention, writer, reader = (world.client[role] for role in ("retention", "writer", "reader"))
    stream = f"gone-{next(world.numbers)}"
    world.append(stream, EVENT, EVENT)
    retention("DELETE", f"/v1/streams/{stream}", 412, headers={"If-Match": '"1"'})
    retention("DELETE", f"/v1/streams/{stream}", 200, headers={"If-Match": '"2"'})
    assert reader("GET", f"/v1/streams/{stream}/events/1").status_code in (404, 410)
    writer.post(f"/v1/streams/{stream}", EVENT, expect=201)
    retention("DELETE", f"/v1/streams/{stream}?tombstone=true", 200)
    answer = writer.post(f"/v1/streams/{stream}", EVENT, expect=410)
    assert answer.json()["sqlstate"] == "ES003"
    assert reader("GET", f"/v1/streams/{stream}").status_code == 410
    assert retention("DELETE", "/v1/streams/there-is-none").status_code == 404


def test_erased_person(world):
    """Nothing personal is stored of a person who was erased."""
    subject = f"erased-{next(world.numbers)}"
    world.database.query("SELECT es_define_event_type('member_joined', personal => '{name}')")
    world.database.query("SELECT count(*) FROM es_erase_subject(%s)", (subject,))
    answer = world.client["writer"].post(f"/v1/streams/member-{subject}", {"type": "member_joined", "data": {"name": "Ann"}}, expect=410)
    assert answer.json()["sqlstate"] == "ES008"


def test_no_cache_of_personal_data(world):
    """No cache has what may be erased, and a client is not told that it still has the same."""
    stream, reader = f"/v1/streams/member-cached-{next(world.numbers)}", world.client["reader"]
    world.database.query("SELECT es_define_event_type('member_joined', personal => '{name}')")
    world.client["writer"].post(stream, {"type": "member_joined", "data": {"name": "Ann"}}, expect=201)
    event = reader.get(f"{stream}/events/1").json()
    paths = [stream, f"{stream}/events/1", f"/v1/events/{event['id']}", f"/v1/events/{event['position']}",
             f"{stream}/state?reducer=es_merge", f"{stream}/history?reducer=es_merge"]
    world.database.query("SELECT es_grant('reader', 'personal')")
    try:
        seen = [reader.get(path) for path in paths]
    finally:
        world.database.query("SELECT es_revoke('reader', 'personal')")
    for path, answer in zip(paths, seen):
        assert '"Ann"' in answer.text and answer.headers["Cache-Control"] == "private, no-store", path
        again = reader.get(path, headers={"If-None-Match": answer.headers.get("ETag", "*")})
        assert '"Ann"' not in again.text, path
    world.database.query("SELECT es_grant('reader', 'personal')")
    try:
        world.database.query("SELECT count(*) FROM es_erase_subject(%s)", (stream.split("-", 1)[1],))
        for path, answer in zip(paths, seen):
            again = reader.get(path, headers={"If-None-Match": answer.headers.get("ETag", "*")})
            assert '"Ann"' not in again.text, path
    finally:
        world.database.query("SELECT es_revoke('reader', 'personal')")


def test_stream_of_another_store(world):
    """Every write to a stream that is not in the slots is misdirected."""
    made, writer = world.account(), world.client["writer"]
    stream = f"/v1/streams/{made['stream']}"
    slot = world.database.value("SELECT es_partition(%s, 1024)", (made["stream"],))
    world.database.query("SELECT es_set_slots(int4multirange(int4range(0, %s), int4range(%s, 1024)))", (slot, slot + 1))
    try:
        answers = [
            writer.post(stream, EVENT, expect=421),
            writer.post("/v1/append", {"events": [{**EVENT, "stream": made["stream"]}], "query": [{"tags": ["x"]}]}, expect=421),
            writer.post(f"{stream}/commands/account.deposit?reducer=account.es_reduce", {"amount": 3}, expect=421),
            world.client["retention"]("DELETE", stream, 421)]
    finally:
        world.database.query("SELECT es_set_slots(NULL)")
    for answer in answers:
        problem = answer.json()
        assert (problem["sqlstate"], problem["title"]) == ("ES009", "Misdirected Request")
        assert problem["detail"].startswith(f"Its slot is {slot}.")
    writer.post(stream, EVENT, expect=201)


def test_condition(world):
    writer, tag = world.client["writer"], f"seat:{next(world.numbers)}"
    body = {"events": [{"type": "taken", "tags": [tag]}], "query": [{"tags": [tag]}]}
    first = writer.post("/v1/append", body, expect=201).json()
    answer = writer.post("/v1/append", body, expect=412)
    assert answer.json()["sqlstate"] == "ES007"
    writer.post("/v1/append", {**body, "after_position": first["position"]}, expect=201)


def test_commands(world):
    made = world.account()
    writer = world.client["writer"]
    path = f"/v1/streams/{made['stream']}/commands/account.deposit?reducer=account.es_reduce"
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = writer.post(path, {"amount": 3}, expect=201, headers=key).json()
    assert writer.post(path, {"amount": 3}, headers=key).json()["version"] == first["version"] == 3
    assert writer.post(path, {"amount": 0}, expect=200).json()["events"] == 0
    answer = writer.post("/v1/streams/account-none/commands/account.deposit?reducer=account.es_reduce", {"amount": 1})
    assert answer.status_code == 422 and answer.json()["sqlstate"] == "23514" and "no such account" in answer.json()["message"]
    assert writer.post(path.replace("account.deposit", "account.nothing"), {"amount": 1}).status_code == 404
    assert writer.post(path.replace("account.es_reduce", "account.nothing"), {"amount": 1}).status_code == 404
    for function in ("pg_catalog.pg_sleep", "pg_sleep(9)", "account.deposit(jsonb,jsonb); SELECT 1", "1", "account.", ".x", '"'):
        answer = writer.post(path.replace("account.deposit", quote(function, safe="")), {"amount": 1})
        assert answer.status_code in (400, 403, 404, 409, 422), answer.text


def test_subscription_from_end_to_end(world):
    made = world.subscription(partitions=1, lease=60)
    reader, path = world.client["reader"], f"/v1/subscriptions/{made['subscription']}"
    first = reader.post(f"{path}/poll?consumer=a&limit=1", expect=200).json()
    assert isinstance(first["token"], str) and [event["version"] for event in first["events"]] == [1]
    assert reader.post(f"{path}/ack", {"token": first["token"]}, expect=200).json()["position"] == first["events"][0]["position"]
    second = reader.post(f"{path}/poll?consumer=a", expect=200).json()
    assert [event["version"] for event in second["events"]] == [2]
    reader.post(f"{path}/ack", {"token": second["token"]}, expect=200)
    answer = reader.post(f"{path}/ack", {"token": "999999"})
    assert answer.status_code == 409 and answer.json()["sqlstate"] == "ES006"
    started = time.monotonic()
    assert reader.post(f"{path}/poll?consumer=a&wait=0").status_code == 204
    assert reader.post(f"{path}/poll?consumer=a&wait=1").status_code == 204
    assert time.monotonic() - started >= 0.9
    reader.post(f"{path}/seek", {"position": 0}, expect=204)
    assert [event["version"] for event in reader.post(f"{path}/poll?consumer=a", expect=200).json()["events"]] == [1, 2]


def test_long_poll_wakes(world):
    """A poll that waits is answered by an append, and long before its time is over."""
    import threading
    made = world.subscription()
    reader, path = world.gateway.client("reader"), f"/v1/subscriptions/{made['subscription']}/poll?wait=30&consumer=b"
    token = reader.post(path, expect=200).json()["token"]
    reader.post(f"/v1/subscriptions/{made['subscription']}/ack", {"token": token}, expect=200)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(reader.post(path, expect=200)))
    thread.start()
    time.sleep(0.3)
    assert not answers
    started = time.monotonic()
    world.append(made["stream"], {"type": "late"})
    thread.join(harness.PATIENCE)
    assert answers and answers[0].json()["events"][0]["type"] == "late"
    assert time.monotonic() - started < 10


def test_failure_is_mended_and_retried(world):
    """A handler that fails is seen, mended and retried."""
    made = world.failure()
    operator = world.client["operator"]
    entry = operator.get(f"/v1/failures/{made['id']}").json()
    assert entry["stream"] == made["stream"] and entry["projection"] == "fails"
    assert any(found["id"] == made["id"] for found in operator.get(f"/v1/failures?stream={made['stream']}").json())
    assert operator.get(f"/v1/failures/count?stream={made['stream']}").json()["count"] == 1
    operator.post(f"/v1/failures/{made['id']}/retry", expect=422)
    world.database.query("INSERT INTO model.mended VALUES (true)")
    try:
        assert operator.post(f"/v1/failures/{made['id']}/retry", expect=200).json()["handled"] == 1
    finally:
        world.database.query("DELETE FROM model.mended")
    answer = operator("GET", f"/v1/failures/{made['id']}", 404)
    assert answer.json()["error"] is True and answer.json()["message"]
    for method, path in (("DELETE", f"/v1/failures/{made['id']}"), ("POST", f"/v1/failures/{made['id']}/retry"), ("DELETE", "/v1/failures/0")):
        assert operator(method, path, 404).json()["error"] is True


def test_failures_have_pages(world):
    many = [world.failure() for _ in range(5)]
    operator = world.client["operator"]
    seen, path = [], "/v1/failures?projection=fails&limit=2"
    while path:
        answer = operator.get(path)
        seen += [entry["id"] for entry in answer.json()]
        path = follow_link(path, answer)
    assert seen == sorted(set(seen), reverse=True) and {made["id"] for made in many} <= set(seen)
    answer = operator.post("/v1/failures/discard", {"ids": [made["id"] for made in many]}, expect=200)
    assert answer.json()["discarded"] == 5


def test_inbox_is_once(world):
    writer = world.client["writer"]
    number = next(world.numbers)
    body = json.dumps({"id": f"w{number}", "at": "2026-01-01T00:00:00Z"})
    kind = {"Content-Type": "application/json"}
    path = "/v1/inbox/payments/shop"
    assert writer("POST", path, 200, data=body, headers=kind).json()["result"] == "acknowledged"
    assert writer("POST", path, 200, data=body, headers=kind).json()["result"] == "duplicate"
    # other white space is another text, unless a key says what it is
    assert writer("POST", f"{path}?max_retries=0", 200, data="not JSON", headers={"Content-Type": "text/plain"}).json()["result"] == "failed"
    assert writer("POST", "/v1/inbox/undeclared/shop", 404, data=body, headers=kind).json()["error"] is True
    assert writer("POST", path, data="not JSON either", headers={"Content-Type": "text/plain"}).status_code in (400, 422)


def test_ping(world):
    answer = world.gateway.client().get("/ping")
    assert answer.text in ("PONG", "pong") and answer.headers["Content-Type"].startswith("text/plain")


def test_probes_and_description(world):
    anonymous = world.gateway.client()
    assert anonymous.get("/healthz").status_code == 200 and anonymous.get("/readyz").status_code == 200
    assert anonymous.get("/openapi.json").json()["openapi"].startswith("3.1")
    metrics = anonymous("GET", "/metrics")
    assert metrics.status_code in (200, 401, 403)


def test_names_come_back_as_they_were(world):
    """A stream called <script> is text wherever it comes."""
    name = "<script>alert('x')</script>-\"1\"&\u2028"
    world.append(name, {"type": "<b>", "data": {"</script>": "\u2029"}, "metadata": {"<": ">"}, "tags": ["<i>"]})
    for path in ("/v1/events?limit=1000&backward=true", f"/v1/streams?limit=1000&prefix={quote('<script>', safe='')}", "/v1/categories?limit=1000",
                 f"/v1/streams/{quote(name, safe='')}", "/v1/types"):
        answer = world.client["reader"].get(path)
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers.get("X-Content-Type-Options") == "nosniff"
        assert "<script>alert('x')</script>" in json.dumps(answer.json()) or path == "/v1/types"
