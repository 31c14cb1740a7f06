"""Limits for each address, and which address a client has behind a proxy."""
import contextlib
import re

import pytest

import harness
from harness import EventStream, Wire, ask, request, until


def asked(gateway, keys, forwarded=None):
    headers = [("X-Forwarded-For", forwarded)] if forwarded is not None else []
    return ask(gateway, request("GET", "/v1/events?limit=1", keys.static["reader"], headers))


@contextlib.contextmanager
def following(gateway, keys, forwarded=None):
    """An event stream, which is a request under way as long as it is open."""
    headers = [("X-Forwarded-For", forwarded)] if forwarded is not None else []
    stream = EventStream(gateway, token=keys.static["reader"], headers=headers)
    assert stream.status == 200
    try:
        yield
    finally:
        stream.close()


def logged(gateway):
    return [entry["address"] for entry in gateway.entries() if entry.get("event") == "request" and entry.get("route") == "/v1/events"]


def test_requests_at_once(make_gateway, keys):
    """One more than the limit is 429 with Retry-After, and is served when another one has ended."""
    gateway = make_gateway(max_requests_per_address=2)
    with following(gateway, keys):
        assert asked(gateway, keys).status == 200
        with following(gateway, keys):
            answer = asked(gateway, keys)
            assert answer.status == 429 and answer.headers["retry-after"]
            assert answer.headers["content-type"] == "application/problem+json"
            # the header says nothing where no proxy is trusted
            assert asked(gateway, keys, "192.0.2.1").status == 429
    until(lambda: asked(gateway, keys).status == 200)


def test_addresses_behind_a_proxy(make_gateway, keys):
    gateway = make_gateway(max_requests_per_address=1, trust_proxy="on")
    with following(gateway, keys, "192.0.2.1"):
        for same in ("192.0.2.1", "198.51.100.7, 192.0.2.1", "spoofed,  192.0.2.1", "::ffff:192.0.2.1"):
            assert asked(gateway, keys, same).status == 429, same
        for other in ("192.0.2.2", "192.0.2.1, 192.0.2.2", "2001:db8::1", "", "192.0.2.1.", "192.0.2.1, ", "x" * 200, None):
            assert asked(gateway, keys, other).status == 200, other
    with following(gateway, keys, "2001:db8:1:2:3::1"):
        assert asked(gateway, keys, "2001:db8:1:2:ffff:ffff:ffff:ffff").status == 429, "the same network of 64 bits"
        assert asked(gateway, keys, "2001:db8:1:3:3::1").status == 200


@pytest.mark.parametrize("trust,forwarded,address", [
    ("off", None, "127.0.0.1"), ("off", "192.0.2.1", "127.0.0.1"), ("on", "192.0.2.1", "192.0.2.1"),
    ("on", "192.0.2.1, 2001:DB8::1", "2001:db8::1"), ("on", "nobody", "127.0.0.1"), ("on", None, "127.0.0.1")])
def test_address_in_the_log(make_gateway, keys, trust, forwarded, address):
    gateway = make_gateway(trust_proxy=trust)
    asked(gateway, keys, forwarded)
    assert until(lambda: logged(gateway)) == [address]


def test_connections_of_an_address(make_gateway):
    """They are not accepted, and there is room again when another one has closed."""
    gateway = make_gateway(max_connections_per_address=3)
    with contextlib.ExitStack() as open_ones:
        def is_served():
            wire = Wire(gateway)
            try:
                wire.send(request("GET", "/healthz"))
                answer = wire.answer()
            except (EOFError, ConnectionError):
                wire.close()
                return False
            assert answer.status == 200
            open_ones.callback(wire.close)
            return True

        until(is_served)
        until(is_served)
        until(is_served)
        assert not is_served()
        open_ones.close()
        until(is_served)
        open_ones.close()


def addresses(gateway):
    text = gateway.client().get("/metrics").text
    return float(re.search(r"^eventstore_gateway_addresses (\S+)$", text, re.MULTILINE)[1])


def test_many_addresses_leave_nothing(make_gateway, keys):
    """Each address is kept only while it has a request."""
    gateway = make_gateway(max_requests_per_address=1, trust_proxy="on", log_requests="off")
    with Wire(gateway) as wire:
        def some(first):
            for number in range(first, first + 150):
                wire.send(request("GET", "/v1/events?limit=0", keys.static["reader"],
                                  [("X-Forwarded-For", f"2001:db8:{number // 65536:x}:{number % 65536:x}::1")]))
                assert wire.answer().status in (200, 400)
        some(0)
    with contextlib.ExitStack() as streams:
        for number in range(3):
            streams.enter_context(following(gateway, keys, f"192.0.2.{number}"))
        assert 3 <= addresses(gateway) <= 4      # the question itself may count
    until(lambda: addresses(gateway) <= 1)
    assert harness.ALARMS.search(gateway.text()) is None
