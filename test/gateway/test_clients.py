"""Clients that people have: curl, the fetch of Node.js, requests of Python, and an EventSource from npm."""
import json
import os
import re
import shutil
import subprocess
import threading
import uuid
from urllib.parse import urljoin

import pytest

import harness
from harness import until

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients")
EVENT = {"type": "counted", "data": {"number": 1}}


def need(program):
    if not shutil.which(program):
        pytest.skip(f"there is no {program}")


@pytest.fixture(scope="session")
def node():
    """A folder with the clients in JavaScript, and the package that one of them needs."""
    need("node")
    need("npm")
    return harness.npm_folder(HERE, "clients")


def curl(*arguments, code=0):
    need("curl")
    done = subprocess.run(["curl", "-sS", "--max-time", "30", *arguments], capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode()


def test_curl(gateway, keys, stream):
    url = f"{gateway.url.rstrip('/')}/v1/streams/{stream}"
    auth = ["-H", f"Authorization: Bearer {keys.static['writer']}"]
    form = ["-w", "\n%{http_code}"]
    body, status = curl(*auth, *form, "--json", json.dumps(EVENT), url).rsplit("\n", 1)
    assert status == "201" and json.loads(body)["version"] == 1
    _, status = curl(*auth, *form, "--json", json.dumps(EVENT), "-H", 'If-Match: "7"', url).rsplit("\n", 1)
    assert status == "412"
    # a body of two megabytes makes curl ask first
    large = harness.private_file("large.json", json.dumps([{"type": "large", "data": {"x": "y" * 900000}}]))
    _, status = curl(*auth, *form, "-H", "Content-Type: application/json", "--data-binary", f"@{large}", url).rsplit("\n", 1)
    assert status == "201"
    _, status = curl(*auth, *form, "-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked", "--data-binary",
                     f"@{large}", url).rsplit("\n", 1)
    assert status == "201"
    assert len(json.loads(curl(*auth, "--compressed", url))) == 3
    head = curl(*auth, "-I", url)
    assert re.search(r'(?mi)^etag: "3"\r$', head)
    # HTTP/2 is offered and not taken
    assert json.loads(curl(*auth, "--http2", f"{url}/events/1"))["type"] == "counted"
    assert curl("-o", "/dev/null", "-w", "%{http_code}", url) == "401"
    # a stream of events that the client ends
    text = curl(*auth, "-N", "--max-time", "1", "-H", "Accept: text/event-stream",
                f"{gateway.url.rstrip('/')}/v1/events?category=stream", code=28)
    assert "data: " in text and "id: " in text
    # the log up to its end, a line an event
    lines = curl(*auth, "-H", "Accept: application/x-ndjson", f"{gateway.url.rstrip('/')}/v1/events?category=stream").splitlines()
    assert len([line for line in lines if json.loads(line)["stream"] == stream]) == 3


def test_fetch(gateway, keys, stream, node):
    done = subprocess.run(["node", os.path.join(node, "fetch.mjs"), gateway.url.rstrip("/"), keys.static["writer"],
                           f"{stream}/ü"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["first"]["status"] == 201 and found["first"]["etag"] == '"1"'
    assert found["retry"]["status"] in (200, 201) and found["retry"]["body"] == found["first"]["body"]
    assert found["conflict"]["status"] == 412
    assert found["conflict"]["body"]["sqlstate"] == "ES001"
    assert (found["conflict"]["body"]["expected_version"], found["conflict"]["body"]["actual_version"]) == ("none", 1)
    assert found["batch"]["body"]["version"] == 26
    assert found["pages"] == [list(range(1, 11)), list(range(11, 21)), list(range(21, 27))]
    assert found["many"] == [200] * 50


def test_requests(reader, writer, stream):
    writer.post(f"/v1/streams/{stream}", [{**EVENT, "id": str(uuid.uuid4())} for _ in range(10)], expect=201)
    seen, path = [], f"/v1/streams/{stream}?limit=4"
    while path:
        answer = reader.get(path)
        seen += [event["version"] for event in answer.json()]
        path = urljoin(path, answer.links["next"]["url"]) if "next" in answer.links else None
    assert seen == list(range(1, 11))
    seen, path = [], f"/v1/streams/{stream}?limit=4&backward=true"
    while path:
        answer = reader.get(path)
        seen += [event["version"] for event in answer.json()]
        path = urljoin(path, answer.links["next"]["url"]) if "next" in answer.links else None
    assert seen == list(range(10, 0, -1))


class Lines(threading.Thread):
    """Lines of a program, as they come."""

    def __init__(self, *command):
        super().__init__(daemon=True)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.start()

    def run(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def events(self):
        return [line for line in list(self.lines) if isinstance(line, dict) and "id" in line]


def test_eventsource(make_gateway, make_database, keys, node):
    """It gets each event once and in order, live, and over restarts of the gateway."""
    gateway = make_gateway(make_database())
    writer = gateway.client("writer")
    writer.post("/v1/streams/source-1", [{**EVENT, "data": {"number": n}} for n in range(1, 101)], expect=201)
    client = Lines("node", os.path.join(node, "eventsource.mjs"), gateway.url.rstrip("/"), keys.static["reader"], "category=source",
                   "300")
    try:
        until(lambda: len(client.events()) >= 100, "what was there")
        writer.post("/v1/streams/source-1", [{**EVENT, "data": {"number": n}} for n in range(101, 201)], expect=201)
        until(lambda: len(client.events()) >= 200, "what is live")
        gateway.again(gently=True)
        gateway.client("writer").post("/v1/streams/source-1", [{**EVENT, "data": {"number": n}} for n in range(201, 301)], expect=201)
        assert client.process.wait(harness.PATIENCE) == 0, client.process.stderr.read()
        client.join()
    finally:
        client.process.kill()
    events = client.events()
    assert [event["data"]["data"]["number"] for event in events] == list(range(1, 301))
    assert [int(event["id"]) for event in events] == [event["data"]["position"] for event in events]
    assert client.lines.count("open") >= 2
