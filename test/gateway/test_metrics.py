"""/metrics, /healthz and /readyz."""
import collections
import json
import re
import time

import pytest

import harness

from harness import ask, request, until

LINE = re.compile(r'([a-z_:][a-z0-9_:]*)(?:\{((?:[a-z_]+="[^"\\\n]*",?)*)\})? (-?[0-9.e+-]+|\+Inf|NaN)')


def metrics_of(text):
    """Series as {(name, labels): value}; what Prometheus would refuse fails."""
    series, types = {}, {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} has two types"
            types[name] = kind
        elif line.startswith("# HELP "):
            assert len(line.split(" ", 3)) == 4
        else:
            match = LINE.fullmatch(line)
            assert match, line
            base = match[1] if match[1] in types else re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert base in types, f"{line} has no type"
            assert types[base] != "counter" or match[1].endswith("_total")
            labels = tuple(re.findall(r'([a-z_]+)="([^"]*)"', match[2] or ""))
            assert (match[1], labels) not in series, f"{line} stands twice"
            series[match[1], labels] = float(match[3])
    return series


def scrape(gateway, token=None):
    answer = ask(gateway, request("GET", "/metrics", token))
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return metrics_of(answer.body.decode())


def count(series, name, **labels):
    return sum(value for (of, found), value in series.items() if of == name and set(labels.items()) <= set(found))


def test_requests_are_counted(make_gateway, keys):
    gateway = make_gateway()
    name = "eventstore_gateway_requests_total"
    before = scrape(gateway)
    for _ in range(3):
        ask(gateway, request("GET", "/v1/streams/no-such-1", keys.static["reader"]))
    ask(gateway, request("HEAD", "/v1/streams/no-such-1", keys.static["reader"]), "HEAD")
    ask(gateway, request("GET", "/v1/streams/no-such-1"))
    for path in ("/v1/nothing", "/a", "/b"):
        ask(gateway, request("GET", path))
    after = until(lambda: (series := scrape(gateway)) and count(series, name, route="other", code="404") >= 3 and series)
    route = "/v1/streams/{stream}"
    assert count(after, name, route=route, method="GET", code="404") == 3
    assert count(after, name, route=route, method="HEAD", code="404") == 1
    assert count(after, name, route=route, method="GET", code="401") == 1
    assert count(before, name, route=route) == 0
    assert not any("no-such" in value or "nothing" in value for _, labels in after for _, value in labels)


def test_both_forms_of_a_path_are_one_series(make_gateway):
    gateway = make_gateway()
    for accept in ("application/json", "text/event-stream"):
        assert ask(gateway, request("GET", "/v1/events", headers=[("Accept", accept)])).status == 401
    labels = {"route": "/v1/events", "method": "GET", "code": "401"}
    until(lambda: count(scrape(gateway), "eventstore_gateway_requests_total", **labels) == 2)


def test_histogram(make_gateway, keys):
    gateway = make_gateway()
    for _ in range(5):
        ask(gateway, request("GET", "/v1/events?limit=1", keys.static["reader"]))
    series = scrape(gateway)
    name = "eventstore_gateway_request_duration_seconds"
    buckets = collections.defaultdict(list)
    for (of, labels), value in series.items():
        if of == f"{name}_bucket":
            bound = dict(labels)["le"]
            rest = tuple(label for label in labels if label[0] != "le")
            buckets[rest].append((float(bound.replace("+Inf", "inf")), value))
    assert buckets
    for labels, found in buckets.items():
        assert found == sorted(found) and [v for _, v in found] == sorted(v for _, v in found)
        assert found[-1] == (float("inf"), series[f"{name}_count", labels])
        assert 0 <= series[f"{name}_sum", labels] < 60
    assert sum(series[key] for key in series if key[0] == f"{name}_count" and ("route", "/v1/streams/{stream}") in key[1]) == 0


def test_figures_of_the_process_and_the_pool(gateway):
    series = scrape(gateway)
    assert count(series, "eventstore_gateway_database_up") == 1
    assert count(series, "eventstore_gateway_pool_connections") >= 1
    assert 1e6 < count(series, "process_resident_memory_bytes") < 1e9
    assert 0 < count(series, "process_open_fds") < count(series, "process_max_fds")
    assert count(series, "process_cpu_seconds_total") > 0
    assert count(series, "eventstore_gateway_connections") >= 1
    assert count(series, "eventstore_gateway_sent_bytes_total") > 0


def test_role_of_metrics(make_gateway, keys):
    gateway = make_gateway(metrics_role="operator")
    scrape(gateway, keys.static["operator"])
    for token, status in ((None, 401), ("wrong", 401), (keys.static["reader"], 403)):
        answer = ask(gateway, request("GET", "/metrics", token))
        assert answer.status == status and b"eventstore_gateway" not in answer.body
    assert "www-authenticate" in ask(gateway, request("GET", "/metrics")).headers
    assert ask(gateway, request("GET", "/healthz")).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_paths_of_the_gateway(gateway, path):
    answer = ask(gateway, request("GET", path))
    assert answer.status == 200 and answer.headers["cache-control"] == "no-store"
    head = ask(gateway, request("HEAD", path), "HEAD")
    assert head.status == 200 and head.body == b""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = ask(gateway, request(method, path, body=b""))
        assert answer.status == 405 and "GET" in answer.headers["allow"]


def test_ready_only_with_the_extension(make_gateway, make_database):
    database = make_database()
    gateway = make_gateway(database)
    assert ask(gateway, request("GET", "/readyz")).status == 200
    database.query("DROP EXTENSION eventstore CASCADE")
    answer = ask(gateway, request("GET", "/readyz"))
    assert answer.status == 503 and json.loads(answer.body)["status"] == "extension is missing"
    assert ask(gateway, request("GET", "/healthz")).status == 200


def test_not_ready_without_the_database(make_gateway, database):
    other = harness.Database(database.name, host="/nonexistent")
    gateway = harness.Gateway(other, harness.Keys("away"))
    gateway.start(wait=False)
    try:
        gateway.port = int(gateway.urls.get(timeout=harness.PATIENCE).rstrip("/").rsplit(":", 1)[1])
        for _ in range(3):
            start = time.monotonic()
            assert ask(gateway, request("GET", "/readyz")).status == 503
            assert time.monotonic() - start < 10, "before a probe loses patience, on a busy machine"
        assert ask(gateway, request("GET", "/healthz")).status == 200
        assert count(scrape(gateway), "eventstore_gateway_database_up") == 0
    finally:
        gateway.stop()


def test_event_streams_are_counted(make_gateway, make_database, keys):
    database = make_database()
    gateway = make_gateway(database)
    stream = harness.EventStream(gateway, token=keys.static["reader"])
    assert stream.status == 200
    until(lambda: count(scrape(gateway), "eventstore_gateway_followers") == 1, "the event stream")
    database.query("SELECT es_append('metrics-1', 'any', 'noted')")
    next(iter(stream))
    series = scrape(gateway)
    assert count(series, "eventstore_gateway_events_sent_total") == 1
    assert count(series, "eventstore_gateway_feeds") <= 1
    stream.close()
    until(lambda: count(scrape(gateway), "eventstore_gateway_followers") == 0, "the end of the event stream")
    series = scrape(gateway)
    assert count(series, "eventstore_gateway_requests_running") == 1, "the one that asks"
    assert count(series, "eventstore_gateway_request_duration_seconds_count", route="/v1/events") == 0


def test_not_ready_while_all_connections_are_busy(make_gateway, database, keys):
    """A probe is answered in time, and takes no connection when its client has left."""
    gateway = make_gateway(pool_size=1)
    with database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE es_event_types IN ACCESS EXCLUSIVE MODE")
        waiting = [harness.Wire(gateway).send(request("GET", "/v1/types", keys.static["reader"])) for _ in range(3)]
        start = time.monotonic()
        answer = ask(gateway, request("GET", "/readyz"))
        assert answer.status == 503 and time.monotonic() - start < 10
        harness.Wire(gateway).send(request("GET", "/readyz")).reset()
        assert ask(gateway, request("GET", "/healthz")).status == 200
        holder.execute("ROLLBACK")
    for wire in waiting:
        assert wire.answer().status == 200
        wire.close()
    assert until(lambda: ask(gateway, request("GET", "/readyz")).status == 200)
