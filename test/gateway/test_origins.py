"""Pages of other sites: which origins may read answers, and what a preflight says."""
import pytest

import harness

from harness import ask, request

SHOP, PORT = "https://shop.example", "http://localhost:5173"


def asked(gateway, keys, origin, method="GET", target="/v1/events?limit=1", role="reader", **headers):
    extra = [("Origin", origin)] if origin else []
    extra += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return ask(gateway, request(method, target, role and keys.static[role], extra), method)


def cors(answer):
    return {name for name in answer.headers if name.startswith("access-control-")}


@pytest.fixture(scope="module")
def open_gateway(database, keys):
    gateway = harness.Gateway(database, keys, cors_origins=f"{SHOP}, {PORT}")
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.mark.parametrize("origin", [SHOP, PORT])
def test_origin_that_is_listed(open_gateway, keys, origin):
    for target, role, status in (("/v1/events?limit=1", "reader", 200), ("/v1/events?limit=1", None, 401),
                                 ("/v1/nothing", "reader", 404), ("/v1/events?limit=1", "nobody", 403)):
        answer = asked(open_gateway, keys, origin, target=target, role=role)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == origin
        assert "origin" in answer.headers["vary"].lower()
        assert "ETag" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", [
    "https://shop.example.evil.example", "https://evil.example", "http://shop.example", "https://shop.example:443",
    "https://SHOP.example", "https://shop.example/", "null", "*", "", "https://shop.example, http://localhost:5173",
    "https://shop.exampl", "file://", "https://a.shop.example"])
def test_origin_that_is_not_listed(open_gateway, keys, origin):
    answer = asked(open_gateway, keys, origin)
    assert answer.status == 200 and cors(answer) == set()
    assert "origin" in answer.headers["vary"].lower(), "a cache must not give this answer to a listed origin"


def test_preflight(open_gateway, keys):
    answer = asked(open_gateway, keys, SHOP, "OPTIONS", "/v1/streams/a-1", None,
                   Access_Control_Request_Method="POST", Access_Control_Request_Headers="authorization,content-type,if-match")
    assert answer.status in (200, 204)
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert {"GET", "POST"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "content-type", "if-match", "if-none-match", "last-event-id"} <= set(allowed)
    assert int(answer.headers["access-control-max-age"]) > 0
    answer = asked(open_gateway, keys, "https://evil.example", "OPTIONS", "/v1/streams/a-1", None,
                   Access_Control_Request_Method="POST")
    assert cors(answer) == set()


def test_no_list(gateway, keys):
    answer = asked(gateway, keys, SHOP)
    assert answer.status == 200 and cors(answer) == set()


def test_any_origin(make_gateway, keys):
    answer = asked(make_gateway(cors_origins="*"), keys, "https://anything.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.fixture(scope="module")
def public_gateway(database, keys):
    """One whose requests without a token may write."""
    gateway = harness.Gateway(database, keys, cors_origins=SHOP, anonymous_role="writer")
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.mark.parametrize("origin, site, status", [
    (None, None, 201), (None, "none", 201), (None, "same-origin", 201), ("http://localhost", None, 201), (SHOP, "cross-site", 201),
    ("https://evil.example", None, 403), ("null", None, 403), ("https://evil.example", "cross-site", 403),
    ("http://localhost:1", "same-site", 403), (None, "cross-site", 403)])
def test_pages_do_not_write_for_their_readers(public_gateway, keys, origin, site, status):
    """A browser sends such requests of any page, and a gateway at home has no token to ask for."""
    headers = [("Content-Type", "application/json")]
    headers += [("Origin", origin)] if origin else []
    headers += [("Sec-Fetch-Site", site)] if site else []
    event = b'{"type": "noted", "data": {}}'
    assert ask(public_gateway, request("POST", "/v1/streams/page-1", None, headers, event)).status == status
    assert ask(public_gateway, request("POST", "/v1/streams/page-1", keys.static["writer"], headers, event)).status == 201
    assert ask(public_gateway, request("GET", "/v1/streams/page-1", None, headers)).status == 200
