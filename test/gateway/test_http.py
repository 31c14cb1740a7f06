"""The conventions of HTTP: methods, status codes, validators, encodings, connections, framing, targets."""
import gzip
import json
import time
import zlib

import pytest

import harness
from harness import Wire, ask, request, until

EVENT = {"type": "noted", "data": {"text": "x"}}
PROBLEM = "application/problem+json"


def is_problem(answer, status):
    """The answer is a problem of RFC 9457, in the members that older clients read, too."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    found = getattr(answer, "status", None) or answer.status_code
    assert found == status, answer
    assert headers["content-type"].split(";")[0] == PROBLEM, headers
    body = answer.json()
    assert body["status"] == status
    assert body["error"] is True
    assert isinstance(body["title"], str) and isinstance(body["message"], str) and isinstance(body["type"], str)
    return True


def store(writer, stream, count=1, **options):
    return writer.post(f"/v1/streams/{stream}", [EVENT] * count, expect=201, **options)


#
# Methods
#

def test_unknown_path(reader, gateway):
    for path in ("/v1/nothing", "/v2/events", "/v1", "/v1/", "/v1/streams/a/b/c/d", "/v1/events/", "/v1//events"):
        is_problem(reader.get(path, 404), 404)


def test_head_is_get_without_body(reader, writer, stream):
    store(writer, stream, 3)
    for path in (f"/v1/streams/{stream}", "/v1/events?limit=2", f"/v1/streams/{stream}/events/1", "/healthz",
                 "/openapi.json"):
        get, head = reader.get(path), reader.head(path)
        assert head.content == b""
        for name in ("Content-Type", "ETag", "Cache-Control", "Link", "Content-Length"):
            assert head.headers.get(name) == get.headers.get(name), (path, name)


def test_head_of_what_is_not_there(reader):
    answer = reader.head("/v1/streams/stream-that-is-not-there", 404)
    assert answer.content == b""


def test_options_and_allow(anonymous, reader, stream):
    answer = reader("OPTIONS", f"/v1/streams/{stream}")
    assert answer.status_code in (200, 204)
    assert {"GET", "HEAD", "POST", "DELETE", "OPTIONS"} <= set(answer.headers["Allow"].replace(" ", "").split(","))
    answer = reader("OPTIONS", "/v1/events")
    assert set(answer.headers["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST", "TRACE", "BREW"])
def test_method_that_a_path_has_not(reader, method):
    answer = reader(method, "/v1/events", json={} if method in ("PUT", "PATCH", "POST") else None)
    assert answer.status_code in (405, 501), answer.text
    if answer.status_code == 405:
        assert set(answer.headers["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "OPTIONS"}
        is_problem(answer, 405)


def test_methods_are_case_sensitive(gateway, keys):
    answer = ask(gateway, request("get", "/v1/events", keys.static["reader"]))
    assert answer.status in (400, 405, 501)


#
# Bodies and their types
#

@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded",
                                  "multipart/form-data; boundary=x", "application/jsonx", ""])
def test_media_type_that_is_not_read(writer, stream, kind):
    answer = writer("POST", f"/v1/streams/{stream}", data=json.dumps(EVENT), headers={"Content-Type": kind})
    is_problem(answer, 415)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_media_type_that_is_read(writer, stream, kind):
    writer("POST", f"/v1/streams/{stream}", 201, data=json.dumps(EVENT), headers={"Content-Type": kind})


@pytest.mark.parametrize("body", [b"", b"{", b"[", b"nul", b"[1,2", b'"\\u0000"', b"\xff\xfe", b'{"type": "\xff"}', b"\x00",
                                  b'{"type": "a", "data": NaN}', b'{"type": "a"} {}', b"[" * 100000,
                                  b'{"type": "\\ud800"}'])
def test_body_that_is_no_json(writer, stream, body):
    answer = writer("POST", f"/v1/streams/{stream}", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    is_problem(answer, answer.status_code)


@pytest.mark.parametrize("body", [None, 1, "text", True, [1], [None], {}, [{}], {"type": None}, {"type": 1}, {"type": ""},
                                  {"type": "x" * 256}, {"type": "es_x"}, {"type": "a", "id": "nope"},
                                  {"type": "a", "id": "00000000-0000-0000-0000-000000000000"},
                                  {"type": "a", "metadata": []}, {"type": "a", "tags": "x"}, {"type": "a", "tags": [1]},
                                  {"type": "a", "tags": ["x" * 256]}, {"type": "a", "body": "no base64!"},
                                  {"type": "a", "occurred_at": "yesterday"}, {"type": "a", "unknown": 1},
                                  {"type": "a\u0000b"}])
def test_body_that_is_no_event(writer, reader, stream, body):
    answer = writer("POST", f"/v1/streams/{stream}", data=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 409, 422), answer.text
    is_problem(answer, answer.status_code)
    reader.get(f"/v1/streams/{stream}", 404)


def test_body_that_is_too_large(make_gateway, reader, stream, keys):
    gateway = make_gateway(max_body=10000)
    writer = gateway.client("writer")
    fits = json.dumps({"type": "large", "data": "x" * 9950}).encode()
    assert len(fits) <= 10000
    kind = {"Content-Type": "application/json"}
    writer("POST", f"/v1/streams/{stream}", 201, data=fits, headers=kind)
    is_problem(writer("POST", f"/v1/streams/{stream}", data=b'"' + b"x" * 10000 + b'"', headers=kind), 413)
    # one that declares it, and sends nothing
    token = keys.static["writer"]
    answer = ask(gateway, request("POST", f"/v1/streams/{stream}", token,
                                  [("Content-Length", "10000000000"), ("Content-Type", "application/json")]))
    is_problem(answer, 413)
    # and one that does not declare it
    head = request("POST", f"/v1/streams/{stream}", token,
                   [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")])
    answer = ask(gateway, head + b"1000\r\n" + b"[" * 4096 + b"\r\n" + (b"1000\r\n" + b"[" * 4096 + b"\r\n") * 3 + b"0\r\n\r\n")
    assert answer is None or is_problem(answer, 413)
    # a client that asks first is told before it sends
    with Wire(gateway) as wire:
        wire.send(request("POST", f"/v1/streams/{stream}", token, [
            ("Content-Length", "10001"), ("Content-Type", "application/json"), ("Expect", "100-continue")]))
        status, _ = wire.head()
        assert status == 413
    assert reader.head(f"/v1/streams/{stream}").headers["ETag"] == '"1"'


def test_large_body(writer, reader, stream):
    """Half a million bytes, and a thousand events."""
    text = "ä" * 250000
    writer.post(f"/v1/streams/{stream}", {"type": "large", "data": {"text": text}}, expect=201)
    writer.post(f"/v1/streams/{stream}", [EVENT] * 1000, expect=201)
    assert reader.get(f"/v1/streams/{stream}/events/1").json()["data"]["text"] == text
    assert reader.head(f"/v1/streams/{stream}").headers["ETag"] == '"1001"'


def test_expect_continue(gateway, keys, stream):
    body = json.dumps(EVENT).encode()
    with Wire(gateway) as wire:
        wire.send(request("POST", f"/v1/streams/{stream}", keys.static["writer"], [
            ("Content-Type", "application/json"), ("Expect", "100-continue"), ("Content-Length", str(len(body)))]))
        assert wire.head()[0] == 100
        wire.send(body)
        assert wire.answer().status == 201


@pytest.mark.parametrize("token, status", [(None, 401), ("wrong", 401)])
def test_expect_continue_of_a_stranger(gateway, stream, token, status):
    """Who may not is told before it sends the body."""
    with Wire(gateway) as wire:
        wire.send(request("POST", f"/v1/streams/{stream}", token, [
            ("Content-Type", "application/json"), ("Expect", "100-continue"), ("Content-Length", "1000")]))
        assert wire.head()[0] == status


#
# Validators, caching, compression
#

def test_etag_of_a_stream(reader, writer, stream):
    store(writer, stream, 2)
    answer = reader.get(f"/v1/streams/{stream}")
    etag = answer.headers["ETag"]
    fresh = reader.get(f"/v1/streams/{stream}", 304, headers={"If-None-Match": etag})
    assert fresh.content == b"" and fresh.headers["ETag"] == etag
    for value in ("*", f'"x", {etag}', f"W/{etag}" if not etag.startswith("W/") else etag):
        reader.get(f"/v1/streams/{stream}", 304, headers={"If-None-Match": value})
    for value in ('"x"', "", "nonsense", '"', '"1', "W/", ","):
        reader.get(f"/v1/streams/{stream}", 200, headers={"If-None-Match": value})
    reader.head(f"/v1/streams/{stream}", 304, headers={"If-None-Match": etag})
    store(writer, stream)
    assert reader.get(f"/v1/streams/{stream}", headers={"If-None-Match": etag}).headers["ETag"] != etag


def test_etag_of_an_event(reader, writer, stream):
    store(writer, stream)
    answer = reader.get(f"/v1/streams/{stream}/events/1")
    assert "Cache-Control" in answer.headers
    reader.get(f"/v1/streams/{stream}/events/1", 304, headers={"If-None-Match": answer.headers["ETag"]})


@pytest.mark.parametrize("accept, compressed", [
    ("gzip", True), ("gzip, deflate, br", True), ("GZIP", True), ("br;q=1, gzip;q=0.5", True),
    ("identity", False), ("gzip;q=0", False), ("gzip; q=0.0", False), ("x-gzipped", False), ("", False), (None, False)])
def test_compression(gateway, keys, reader, writer, stream, accept, compressed):
    store(writer, stream, 100)
    headers = [] if accept is None else [("Accept-Encoding", accept)]
    answer = ask(gateway, request("GET", f"/v1/streams/{stream}", keys.static["reader"], headers))
    assert answer.status == 200
    assert "accept-encoding" in answer.headers["vary"].lower()
    assert (answer.headers.get("content-encoding") == "gzip") == compressed
    body = gzip.decompress(answer.body) if compressed else answer.body
    assert json.loads(body) == reader.get(f"/v1/streams/{stream}").json()


#
# Connections
#

def test_connection_is_kept(gateway, keys):
    with Wire(gateway) as wire:
        for _ in range(5):
            wire.send(request("GET", "/v1/events?limit=1", keys.static["reader"]))
            assert wire.answer().status == 200
        wire.send(request("GET", "/v1/nothing", keys.static["reader"]))
        assert wire.answer().status == 404
        wire.send(request("GET", "/v1/events?limit=1", keys.static["reader"], [("Connection", "close")]))
        answer = wire.answer()
        assert answer.status == 200 and answer.headers["connection"].lower() == "close"
        assert wire.closed()


def test_http_1_0(gateway, keys):
    with Wire(gateway) as wire:
        wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200
        assert wire.closed()


def test_pipelining(gateway, keys, stream):
    """Requests that come in one write are answered in their order, and writes take effect in it."""
    token, body = keys.static["writer"], json.dumps(EVENT).encode()
    with Wire(gateway) as wire:
        post = request("POST", f"/v1/streams/{stream}", token, [("Content-Type", "application/json")], body)
        get = request("GET", f"/v1/streams/{stream}?limit=1000", token)
        wire.send((post + get) * 10)
        for count in range(1, 11):
            assert wire.answer().status == 201
            answer = wire.answer()
            assert answer.status == 200 and answer.headers["etag"] == f'"{count}"'


@pytest.mark.parametrize("size", [1, 2, 7])
def test_request_in_small_pieces(gateway, keys, stream, size):
    body = json.dumps(EVENT).encode()
    data = request("POST", f"/v1/streams/{stream}", keys.static["writer"], [("Content-Type", "application/json")], body)
    with Wire(gateway) as wire:
        for start in range(0, len(data), size):
            wire.send(data[start:start + size])
            if start % 50 == 0:
                time.sleep(0.001)
        assert wire.answer().status == 201


#
# Framing
#

def chunked(body, pieces=1):
    size = max(1, len(body) // pieces)
    return b"".join(b"%x\r\n%s\r\n" % (len(body[n:n + size]), body[n:n + size])
                    for n in range(0, len(body), size)) + b"0\r\n\r\n"


def test_chunked_body(gateway, keys, stream):
    body = json.dumps(EVENT).encode()
    with Wire(gateway) as wire:
        head = request("POST", f"/v1/streams/{stream}", keys.static["writer"],
                       [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")])
        for pieces in (1, 3, len(body)):
            wire.send(head + chunked(body, pieces))
            assert wire.answer().status == 201
        # with extensions and a trailer
        wire.send(head + b"%x;a=b\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body), body))
        assert wire.answer().status == 201
        wire.send(request("GET", f"/v1/streams/{stream}", keys.static["writer"]))
        assert wire.answer().headers["etag"] == '"4"'


@pytest.mark.parametrize("body", [
    b"zz\r\n", b"-1\r\n", b"\r\n", b"5", b"ffffffffffffffff\r\nabc", b"10000000000000000\r\nabc", b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloworld\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"5\r\nhello0\r\n\r\n",
    b"5;" + b"x" * 100000, b"0" * 100000])
def test_chunks_that_are_none(gateway, keys, stream, reader, body):
    head = request("POST", f"/v1/streams/{stream}", keys.static["writer"],
                   [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")])
    with Wire(gateway) as wire:
        try:
            wire.send(head + body)
            wire.socket.shutdown(1)
            answer = wire.answer()
            assert answer.status in (400, 413, 415, 422), answer
        except (EOFError, OSError):
            pass
    reader.get(f"/v1/streams/{stream}", 404)


# A front end and the gateway must not see different requests in these: what is inside must never be run.
@pytest.mark.parametrize("framing", [
    [("Content-Length", "{inner}"), ("Content-Length", "{outer}")],
    [("Content-Length", "{outer}"), ("Content-Length", "{inner}")],
    [("Content-Length", "{outer}, {inner}")],
    [("Content-Length", "+{inner}")],
    [("Content-Length", "-{inner}")],
    [("Content-Length", "0x10")],
    [("Content-Length", "{inner}x")],
    [("Content-Length", "99999999999999999999999999")],
    [("Content-Length", "")],
    [("Transfer-Encoding", "chunked"), ("Content-Length", "{outer}")],
    [("Content-Length", "{outer}"), ("Transfer-Encoding", "chunked")],
    [("Transfer-Encoding", "identity"), ("Content-Length", "{outer}")],
    [("Transfer-Encoding", "xchunked"), ("Content-Length", "{outer}")],
    [("Transfer-Encoding", "chunked, identity"), ("Content-Length", "{outer}")],
    [("Transfer-Encoding", "gzip, chunked"), ("Content-Length", "{outer}")],
    [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "identity"), ("Content-Length", "{outer}")],
    [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
    [("Transfer-Encoding ", "chunked"), ("Content-Length", "{outer}")],
    [(" Transfer-Encoding", "chunked"), ("Content-Length", "{outer}")],
    [("X", "y\r\n Transfer-Encoding: chunked"), ("Content-Length", "{outer}")],
    [("X", "y\nTransfer-Encoding: chunked"), ("Content-Length", "{outer}")],
    [("X", "y\rTransfer-Encoding: chunked"), ("Content-Length", "{outer}")],
    [("Transfer-Encoding", "\tchunked"), ("Content-Length", "{outer}")],
    [("Transfer-Encoding", "chunked\0"), ("Content-Length", "{outer}")],
    [("Transfer_Encoding", "chunked"), ("Content-Length", "{outer}")],
])
def test_two_readings_of_a_length(gateway, keys, stream, database, framing):
    """One of the two lengths would leave a second request behind. The whole must be refused and the connection closed,
    or be read as the standard says, and then the second request has no effect."""
    token, event = keys.static["writer"], json.dumps(EVENT).encode()
    second = request("POST", f"/v1/streams/{stream}-smuggled", token, [("Content-Type", "application/json")], event)
    body = b"0\r\n\r\n" + second
    headers = [(name, value.format(inner=5, outer=len(body))) for name, value in framing]
    with Wire(gateway, 3) as wire:
        wire.send(request("POST", f"/v1/streams/{stream}", token, [("Content-Type", "application/json"), *headers], None)
                  + body)
        statuses = []
        try:
            while len(statuses) < 3:
                statuses.append(wire.answer().status)
                wire.socket.settimeout(0.5)
        except (EOFError, TimeoutError, OSError):
            pass
    assert all(status in (400, 411, 413, 415, 422, 501) for status in statuses), statuses
    assert len(statuses) <= 1
    assert database.value("SELECT count(*) FROM es_events WHERE stream LIKE %s", (f"{stream}%",)) == 0


@pytest.mark.parametrize("data", [
    b"GET /healthz HTTP/1.1\r\n\r\n",                                       # no Host
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /healthz\r\n\r\n",
    b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/1.1x\r\nHost: a\r\n\r\n",
    b"GET /healthz XTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /heal\0thz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n: empty\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",                        # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\n\r\n\r\n",
    b"\0" * 1000,
    b"A" * 100000,
])
def test_head_that_is_none(gateway, data):
    """It is refused, or the connection is closed."""
    with Wire(gateway, 10) as wire:
        try:
            wire.send(data)
            wire.socket.shutdown(1)
            answer = wire.answer()
        except (EOFError, OSError) as end:
            assert not isinstance(end, TimeoutError)
            return
    assert answer.status in (400, 404, 405, 414, 431, 501, 505), answer


def test_headers_that_are_too_large(gateway, keys):
    token = keys.static["reader"]
    answer = ask(gateway, request("GET", "/v1/events?limit=1", token, [("X-Large", "x" * 200000)]))
    assert answer is None or answer.status == 431
    answer = ask(gateway, request("GET", "/v1/events?limit=1", token, [(f"X-{n}", "x" * 50) for n in range(5000)]))
    assert answer is None or answer.status == 431
    answer = ask(gateway, request("GET", "/v1/events?limit=1", token, [("Cookie", "x" * 1000)]))
    assert answer.status == 200


def test_headers_that_are_too_large_get_an_answer(gateway, keys):
    """Somewhat too large, so that the client is still there for the answer."""
    memory = int(gateway.settings.get("connection_memory", 16384))
    answer = ask(gateway, request("GET", "/v1/events", keys.static["reader"], [("X-Large", "x" * memory)]))
    assert answer is not None and answer.status == 431


#
# Targets
#

def test_target_that_is_too_long(gateway, keys):
    answer = ask(gateway, request("GET", "/v1/streams/" + "x" * 10000, keys.static["reader"]))
    assert answer is not None and answer.status == 414, answer
    answer = ask(gateway, request("GET", "/v1/streams/" + "x" * 1000000, keys.static["reader"]))
    assert answer is None or answer.status in (414, 431)


@pytest.mark.parametrize("name", ["a/b", "a b", "a?b", "a#b", "a%b", "a+b", "äöü", "日本", "\U0001f600", "a\tb", "a\r\nX-Injected: 1",
                                  "<script>", "'; DROP TABLE es_events; --", "..", ".", "a/../b", "a;b=c", "a,b", "\x7f", "a\"b",
                                  "%2F", "x" * 600])
def test_any_name_of_a_stream(gateway, keys, reader, writer, name, stream):
    """A stream may have any name. It comes back as it was, and no header is made of it."""
    name = f"{stream}-{name}"
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())
    answer = ask(gateway, request("POST", f"/v1/streams/{quoted}", keys.static["writer"],
                                  [("Content-Type", "application/json")], json.dumps(EVENT).encode()))
    assert answer.status == 201, answer
    assert "x-injected" not in answer.headers
    location = answer.headers["location"]
    assert location.isascii() and " " not in location
    events = reader.get(f"/v1/streams/{quoted}").json()
    assert name in json.dumps(events, ensure_ascii=False) or json.dumps(name)[1:-1] in json.dumps(events)
    found = ask(gateway, request("GET", location[location.index("/v1/"):], keys.static["reader"]))
    assert found.status == 200 and name in json.dumps(found.json(), ensure_ascii=False).replace("\\\\", "\\") or \
        json.dumps(name)[1:-1] in json.dumps(found.json())
    page = reader.get(f"/v1/streams/{quoted}?limit=1")
    assert "X-Injected" not in page.headers


@pytest.mark.parametrize("target", [
    "/v1/streams/a%00b", "/v1/streams/%", "/v1/streams/%4", "/v1/streams/%zz", "/v1/streams/%ff", "/v1/streams/%c0%af",
    "/v1/streams/%ed%a0%80", "/v1/streams/%f4%90%80%80", "/v1/streams/%e4%bd", "/v1/streams/a\xffb", "/v1/streams/",
    "/v1/events?category=%00", "/v1/events?category=%ff", "/v1/events?category=%", "/v1/events?%ff=1",
    "/v1/events?unknown=1", "/v1/events?limit=1&limit=2", "/v1/events?limit=x", "/v1/events?limit=", "/v1/events?limit=1e9",
    "/v1/events?limit=99999999999999999999", "/v1/events?after_position=1.5", "/v1/events?=1", "/v1/events?limit",
    "/v1/streams/a/events/x", "/v1/streams/a/events/1x", "/v1/streams/a/events/%31%00"])
def test_target_that_is_refused(gateway, keys, target):
    answer = ask(gateway, request("GET", target, keys.static["reader"]))
    assert answer is not None and answer.status in ((400, 404) if target.endswith("/") else (400, 422)), answer
    if answer.status != 404:
        is_problem(answer, answer.status)


@pytest.mark.parametrize("target", ["/v1/streams/../../etc/passwd", "/../../../../etc/passwd", "/..%2f..%2f..%2fetc%2fpasswd",
                                    "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/console/../../../etc/passwd",
                                    "/index.html%00.js", "/.git/config", "/\\..\\..\\etc\\passwd"])
def test_files_outside(gateway, keys, target):
    answer = ask(gateway, request("GET", target, keys.static["reader"]))
    assert answer is None or answer.status in (400, 404), answer
    assert answer is None or b"root:" not in answer.body


def test_absolute_form(gateway, keys):
    answer = ask(gateway, request("GET", f"http://localhost:{gateway.port}/v1/events?limit=1", keys.static["reader"]))
    assert answer.status in (200, 400), answer
    answer = ask(gateway, request("OPTIONS", "*"))
    assert answer is None or answer.status in (200, 204, 400, 404), answer


def test_plus_and_percent_in_a_query(gateway, keys, writer):
    writer.post("/v1/streams/a%20b+c-1", EVENT, expect=201)
    token = keys.static["reader"]
    for query in ("a+b%2Bc", "a%20b%2bc"):
        answer = ask(gateway, request("GET", f"/v1/events?category={query}", token))
        assert answer.status == 200 and b"a b+c-1" in answer.body, answer


#
# Too much at once, too slow, half
#

def test_too_many_requests_of_an_address(make_gateway, keys):
    """Long polls of one address at once, up to the limit. One more is 429, and one is free when one has ended."""
    gateway = make_gateway(max_requests_per_address=3)
    wires = [Wire(gateway) for _ in range(3)]
    for wire in wires:
        wire.send(request("GET", "/v1/events", keys.static["reader"], [("Accept", "text/event-stream")]))
        assert wire.head()[0] == 200
    answer = ask(gateway, request("GET", "/v1/events?limit=1", keys.static["reader"]))
    is_problem(answer, 429)
    assert int(answer.headers["retry-after"]) >= 0
    wires[0].close()
    until(lambda: ask(gateway, request("GET", "/v1/events?limit=1", keys.static["reader"])).status == 200, "a free place")
    for wire in wires:
        wire.close()


def test_too_many_connections(make_gateway, keys):
    gateway = make_gateway(max_connections=20, max_connections_per_address=10)
    wires = [Wire(gateway, 10) for _ in range(30)]
    answers = 0
    for wire in wires:
        try:
            wire.send(request("GET", "/healthz"))
            answers += wire.answer().status == 200
        except (OSError, EOFError):
            pass
    assert 1 <= answers <= 20
    for wire in wires:
        wire.close()
    until(lambda: ask_or_none(gateway), "a connection after the others have ended")


def ask_or_none(gateway):
    try:
        answer = ask(gateway, request("GET", "/healthz"))
        return answer is not None and answer.status == 200
    except (OSError, EOFError):
        return False


def test_slow_clients_are_ended(make_gateway, keys, stream, database):
    """Heads and bodies that do not come to their end do not stay, and keep nobody from being served."""
    gateway = make_gateway(request_timeout=2, idle_timeout=2)
    token = keys.static["writer"]
    halves = [b"", b"G", b"GET /v1/ev", b"GET /v1/events HTTP/1.1\r\nHost: a\r\nX-Slow: ",
              request("POST", f"/v1/streams/{stream}", token, [("Content-Length", "100"), ("Content-Type", "application/json")])
              + b'{"type"',
              request("POST", f"/v1/streams/{stream}", token, [("Transfer-Encoding", "chunked"),
                                                               ("Content-Type", "application/json")]) + b"5\r\n[",
              request("GET", "/v1/events?limit=1", token)]
    wires = [Wire(gateway, 30).send(half) for half in halves * 5]
    started = time.monotonic()
    assert ask(gateway, request("GET", "/v1/events?limit=1", token)).status == 200
    assert time.monotonic() - started < 2
    for wire in wires:
        try:
            while wire.more():
                pass
        except TimeoutError:
            raise AssertionError("a half request stays") from None
        wire.close()
    assert database.value("SELECT count(*) FROM es_events WHERE stream = %s", (stream,)) == 0


def test_slowloris_is_ended(make_gateway):
    """A byte now and then does not keep a head open for ever."""
    gateway = make_gateway(request_timeout=2, idle_timeout=2)
    with Wire(gateway, 30) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        started = time.monotonic()
        try:
            while time.monotonic() - started < 20:
                wire.send(b"X-Slow: 1\r\n")
                time.sleep(0.3)
                wire.socket.settimeout(0.01)
                try:
                    if not wire.more():
                        break
                except TimeoutError:
                    pass
                wire.socket.settimeout(30)
            else:
                raise AssertionError("a slow head stays")
        except ConnectionError:
            pass


def test_clients_that_leave_at_any_moment(gateway, keys, stream, chance):
    """Connections end, orderly or not, after each number of bytes of a request, and while the answer comes."""
    token = keys.static["writer"]
    body = json.dumps([EVENT] * 20).encode()
    post = request("POST", f"/v1/streams/{stream}", token, [("Content-Type", "application/json")], body)
    get = request("GET", f"/v1/streams/{stream}?limit=1000", token)
    live = request("GET", "/v1/events", token, [("Accept", "text/event-stream")])
    for _ in range(harness.few_or_many(300, 5000)):
        data = chance.choice([post, get, live, post + get, get * 5])
        wire = Wire(gateway, 10)
        wire.send(data[:chance.choice([len(data), chance.randrange(len(data))])])
        if chance.random() < 0.3:
            wire.socket.settimeout(chance.choice([0.001, 0.01]))
            try:
                wire.socket.recv(chance.choice([1, 100, 10000]))
            except OSError:
                pass
        chance.choice([wire.close, wire.reset])()
    assert ask(gateway, request("GET", "/v1/events?limit=1", token)).status == 200


def test_client_that_does_not_read(gateway, keys, writer, stream):
    """A large answer to one that does not read it holds up nobody."""
    for _ in range(4):
        writer.post(f"/v1/streams/{stream}", {"type": "large", "data": {"text": "x" * 900000}}, expect=201)
    wires = [Wire(gateway) for _ in range(5)]
    for wire in wires:
        if wire is not wires[0]:
            wire.socket.setsockopt(harness.socket.SOL_SOCKET, harness.socket.SO_RCVBUF, 4096)
        wire.send(request("GET", f"/v1/streams/{stream}", keys.static["reader"]) * 3)
    started = time.monotonic()
    for _ in range(20):
        assert ask(gateway, request("GET", "/v1/events?limit=1", keys.static["reader"])).status == 200
    assert time.monotonic() - started < 10
    answer = wires[0].answer()
    assert answer.status == 200 and len(answer.body) > 3600000
    for wire in wires:
        wire.reset()


def test_client_that_half_closes(gateway, keys, stream, database):
    """One that has sent its request and closes its side for writing gets its answer."""
    with Wire(gateway) as wire:
        wire.send(request("POST", f"/v1/streams/{stream}", keys.static["writer"], [("Content-Type", "application/json")],
                          json.dumps(EVENT).encode()))
        wire.socket.shutdown(1)
        try:
            assert wire.answer().status == 201
        except EOFError:
            pass
    # The write that was under way is not undone by the client's leaving.
    until(lambda: database.value("SELECT count(*) FROM es_events WHERE stream = %s", (stream,)) == 1, "the event")


def test_compressed_request_is_refused(writer, stream):
    answer = writer("POST", f"/v1/streams/{stream}", data=zlib.compress(json.dumps(EVENT).encode()),
                    headers={"Content-Type": "application/json", "Content-Encoding": "deflate"})
    assert answer.status_code in (400, 415, 422)
