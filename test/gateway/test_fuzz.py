"""Fuzz: the parsers by libFuzzer (fuzz/), and the socket by requests that were changed at random. The gateway must stay
there, answer a good request at any time, and its sanitizers must find nothing."""
import collections
import json
import os
import re
import selectors
import subprocess
import time

import pytest

import harness
from harness import Wire, ask, few_or_many, request


def test_parsers():
    folder = os.path.join(harness.SCRATCH, "fuzz")
    os.makedirs(folder, exist_ok=True)
    done = subprocess.run([os.path.join(harness.TOP, "test/gateway/fuzz/run"), folder, str(few_or_many(4, 300)),
                           str(harness.SEED % 2**31)], capture_output=True, text=True, timeout=1200)
    if done.returncode == 77:
        pytest.skip("there is no clang with libFuzzer")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    runs = [int(line.split()[-1]) for line in done.stdout.splitlines() if "number_of_executed_units" in line]
    assert len(runs) == 2 and min(runs) > 100, done.stdout


WORDS = [b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999", b"Transfer-Encoding: chunked",
         b"Transfer-Encoding: identity", b"Expect: 100-continue", b"Connection: close", b"Connection: keep-alive, upgrade",
         b"Upgrade: websocket", b"Range: bytes=0-1", b"If-None-Match: *", b"If-None-Match: \"1\"", b"If-Match: \"1\"",
         b"Accept: text/event-stream", b"Accept: application/x-ndjson", b"Accept-Encoding: gzip", b"Last-Event-ID: 1",
         b"Last-Event-ID: x", b"Origin: http://localhost", b"Access-Control-Request-Method: POST", b"Content-Encoding: gzip",
         b"Content-Type: application/json", b"Authorization: Bearer x", b"Host: a", b"Idempotency-Key: x", b"Prefer: wait=1",
         b"Trailer: X", b"Cookie: a=b", b"X-Forwarded-For: 1.2.3.4", b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"%00", b"%ff",
         b"%2F", b"%", b"?", b"&", b"=", b"#", b"/", b"//", b"..", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"GET ", b"POST ", b"HEAD ",
         b"OPTIONS ", b"DELETE ", b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffff\r\n", b"{}", b"[]", b"[[[[", b"null", b'"\\u0000"',
         b"limit=1", b"after_position=-1", b"wait=1", b"1" * 30, b"A" * 300, b"A" * 5000, b"\xff\xfe", b"\xe2\x82", b"'; --"]


def requests_of_everything(gateway, token):
    """A request for each operation that the gateway describes, to be changed."""
    description = json.loads(ask(gateway, request("GET", "/openapi.json")).body)
    made = []
    for path, item in description["paths"].items():
        for method in ("get", "post", "put", "delete"):
            if method not in item:
                continue
            target = path.replace("{", "fuzz-").replace("}", "")
            body = b'{"type": "fuzzed", "data": {"a": [1, "x", null]}}' if method in ("post", "put") else None
            headers = [("Content-Type", "application/json")] if body else []
            made.append(request(method.upper(), target, token, headers, body))
            query = [parameter["name"] for parameter in item[method].get("parameters", []) + item.get("parameters", [])
                     if parameter.get("in") == "query"]
            if query:
                made.append(request(method.upper(), target + "?" + "&".join(f"{name}=1" for name in query), token, headers,
                                    body))
            if method == "get":
                made.append(request("GET", target, token, [("Accept", "text/event-stream")]))
            if body:
                made.append(request(method.upper(), target, token, [*headers, ("Transfer-Encoding", "chunked")], None)
                            + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert len(made) > 20
    return made


def change(data, chance, others):
    """Some changes of a request, of the kinds that radamsa makes."""
    for _ in range(chance.choice([1, 1, 2, 3, 8])):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice([0, 1, 1, 2, 5, 20, 200]))
        kind = chance.randrange(9)
        if kind == 0:
            data = data[:start] + data[end:]
        elif kind == 1:
            data = data[:start] + data[start:end] * chance.choice([2, 3, 50]) + data[end:]
        elif kind == 2:
            data = data[:start] + bytes(chance.randrange(256) for _ in range(end - start)) + data[end:]
        elif kind == 3:
            data = data[:start] + chance.choice(WORDS) + data[end:]
        elif kind == 4:
            lines = data.split(b"\r\n")
            lines.insert(chance.randrange(len(lines)), chance.choice(WORDS))
            data = b"\r\n".join(lines)
        elif kind == 5:
            lines = data.split(b"\r\n")
            chance.shuffle(lines)
            data = b"\r\n".join(lines)
        elif kind == 6:
            other = chance.choice(others)
            data = data[:start] + other[chance.randrange(len(other)):]
        elif kind == 7 and end > start:
            data = data[:start] + bytes([data[start] ^ 1 << chance.randrange(8)]) + data[start + 1:]
        else:
            data = data[:start] + chance.choice(WORDS) * chance.choice([1, 2, 30]) + data[start:]
    return data


def exchange(gateway, batch, chance):
    """Sends each request on a connection of its own, and returns what came back, until all is quiet for a moment."""
    got = {}
    selector = selectors.DefaultSelector()
    for data in batch:
        try:
            wire = Wire(gateway, 5)
            got[wire] = [data, b""]
            selector.register(wire.socket, selectors.EVENT_READ, wire)
            wire.send(data)
            if chance.random() < 0.3:
                wire.socket.shutdown(1)
        except OSError:
            pass                               # refused before all of it was written
    while ready := selector.select(0.2):
        for key, _ in ready:
            try:
                more = key.fileobj.recv(262144)
            except OSError:
                more = b""
            got[key.data][1] += more
            if not more:
                selector.unregister(key.fileobj)
    selector.close()
    for wire in got:
        chance.choice([wire.close, wire.reset])()
    return got.values()


@pytest.mark.parametrize("role", ["operator", "writer"])
def test_socket(make_gateway, make_database, keys, chance, role):
    """What comes back is HTTP, a 500 is never an answer, and good requests are answered meanwhile."""
    database = make_database()
    gateway = make_gateway(database, request_timeout=2, idle_timeout=2)
    seeds = requests_of_everything(gateway, keys.static[role])
    good = request("GET", "/v1/events?limit=1", keys.static["reader"])
    end = time.monotonic() + few_or_many(4, 300)
    statuses = collections.Counter()
    rounds = memory = 0
    while time.monotonic() < end or rounds < 3:
        for data, text in exchange(gateway, [change(chance.choice(seeds), chance, seeds) for _ in range(50)], chance):
            assert not text or text.startswith(b"HTTP/1."), (data, text[:1000])
            found = re.findall(rb"HTTP/1\.[01] (\d{3}) ", text)
            assert b"500" not in found, (data, text[:2000])
            statuses.update(int(status) for status in found)
        assert gateway.alive(), gateway.text()[-5000:]
        assert ask(gateway, good).status == 200
        rounds += 1
        if rounds == 10:
            memory = gateway.memory()
    gateway.check()
    print(f"{rounds * 50} requests, {dict(statuses)}")
    assert {200, 400, 404} <= set(statuses), statuses
    if memory and rounds > 20:
        assert gateway.memory() < memory + 200 * 1024 * 1024
