"""Tokens at the door: forged, expired, of no algorithm, and what each role may do behind it."""
import hashlib
import hmac
import json
import os
import signal
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import harness
from harness import ask, base64url, part, request, until

EVENT = {"type": "noted", "data": {}}


def status(gateway, token, path="/v1/events?limit=1", method="GET", **options):
    return ask(gateway, request(method, path, token, **options))


def refused(gateway, token):
    """401 with a challenge that tells nothing about the key, and no effect."""
    answer = status(gateway, token)
    assert answer is not None and answer.status == 401, answer
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    return answer


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_jwt(gateway, keys, algorithm):
    assert status(gateway, keys.jwt("reader", algorithm)).status == 200
    assert status(gateway, keys.jwt("nobody", algorithm)).status == 403
    assert status(gateway, keys.jwt("reader", algorithm, exp=int(time.time()) - 3600)).status == 401


def test_token_of_the_file(gateway, keys):
    assert status(gateway, keys.static["reader"]).status == 200
    refused(gateway, keys.static["reader"][:-1])
    refused(gateway, keys.static["reader"] + "x")
    digest = hashlib.sha256(keys.static["reader"].encode()).hexdigest()
    refused(gateway, digest)                   # what is in the file is no token


def test_no_token(gateway):
    answer = status(gateway, None)
    assert answer.status == 401
    assert "error=" not in answer.headers["www-authenticate"]      # RFC 6750, 3.1


def test_expired_is_said(gateway, keys):
    answer = refused(gateway, keys.jwt(exp=int(time.time()) - 3600))
    assert "expired" in answer.headers["www-authenticate"] and "invalid_token" in answer.headers["www-authenticate"]
    assert "expired" not in refused(gateway, keys.jwt(exp=int(time.time()) - 3600, signature=b"x" * 32)).body.decode()


def none_tokens(keys):
    for name in ("none", "None", "NONE", "nOnE", "", None, 0, [], {}, "HS256 ", "hs256", "HS512", "PS256", "RS512", "EdDSA"):
        for signature in (b"", b"x"):
            yield keys.jwt("operator", head={"alg": name}, signature=signature)
    text = f"{part({'typ': 'JWT'})}.{part({'role': 'operator'})}"
    yield text + "."
    yield text
    yield keys.jwt("operator", signature=b"")


def test_no_algorithm(gateway, keys):
    for token in none_tokens(keys):
        refused(gateway, token)


def test_algorithm_of_another_key(gateway, keys):
    """A public key is not the secret of an HMAC, and no key serves two algorithms."""
    for key in (keys.rsa, keys.ec):
        for form in (serialization.Encoding.PEM, serialization.Encoding.DER):
            public = key.public_key().public_bytes(form, serialization.PublicFormat.SubjectPublicKeyInfo)
            for secret in (public, public.strip(), public + b"\n"):
                text = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'role': 'operator', 'exp': time.time() + 60})}"
                forged = hmac.new(secret, text.encode(), hashlib.sha256).digest()
                refused(gateway, f"{text}.{base64url(forged)}")
    for claimed in ("HS256", "RS256", "ES256"):
        for used in ("HS256", "RS256", "ES256"):
            if claimed != used:
                text = f"{part({'alg': claimed, 'typ': 'JWT'})}.{part({'role': 'operator', 'exp': int(time.time()) + 60})}"
                refused(gateway, f"{text}.{base64url(keys.sign(used, text.encode()))}")


def test_keys_of_the_token(gateway, keys):
    """A key, an address of a key, or a path in the head is not believed."""
    other = harness.Keys.__new__(harness.Keys)
    other.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    other.ec = ec.generate_private_key(ec.SECP256R1())
    other.secret = b"x" * 32
    numbers = other.rsa.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": base64url(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
    for head in ({"jwk": jwk}, {"jku": "https://example.com/keys"}, {"x5u": "https://example.com/"}, {"x5c": ["AAAA"]},
                 {"kid": "../../../../dev/null"}, {"kid": "' OR 1=1 --"}, {"kid": "x" * 5000}, {"kid": None}, {"kid": 1},
                 {"crit": ["exp"]}, {"b64": False, "crit": ["b64"]}):
        for algorithm in ("HS256", "RS256", "ES256"):
            refused(gateway, other.jwt("operator", algorithm, head=head))
    for head in ({"crit": ["exp"]}, {"b64": False, "crit": ["b64"]}):
        refused(gateway, keys.jwt("operator", head=head))


def test_changed_tokens(gateway, keys, chance):
    """One character of a good token is another one, or is not there, or the token is cut or doubled."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.="
    for algorithm in ("HS256", "RS256", "ES256"):
        token = keys.jwt("reader", algorithm)
        head, payload, signature = token.split(".")
        # the last character of a part has bits that stand for nothing, and must be zero
        for _ in range(harness.few_or_many(40, 500)):
            place = chance.randrange(len(token))
            letter = chance.choice(alphabet)
            if letter != token[place]:
                refused(gateway, token[:place] + letter + token[place + 1:])
            refused(gateway, token[:place] + token[place + 1:])
            refused(gateway, token[:place])
        for changed in (f"{head}.{payload}.{signature}.{signature}", f"{head}..{signature}", f"..{signature}", "..", ".", "...",
                        f"{payload}.{head}.{signature}", f"{head}.{payload}.", f"{head}.{payload}", token + "=",
                        f"{head}.{part({'role': 'operator', 'exp': int(time.time()) + 60})}.{signature}", token + token):
            refused(gateway, changed)
    refused(gateway, keys.jwt("reader", "ES256", signature=bytes(64)))
    refused(gateway, keys.jwt("reader", "ES256", signature=b"\xff" * 64))
    refused(gateway, keys.jwt("reader", "RS256", signature=bytes(256)))


@pytest.mark.parametrize("claims", [
    {"exp": None}, {"exp": "soon"}, {"exp": -1}, {"exp": 0}, {"exp": 1.5}, {"exp": True}, {"exp": []}, {"exp": {}},
    {"nbf": int(time.time()) + 3600}, {"nbf": "later"}, {"exp": -2**63}])
def test_times(gateway, keys, claims):
    refused(gateway, keys.jwt(**claims))


@pytest.mark.parametrize("claims", [{"exp": 2**62}, {"exp": 1e300}, {"nbf": int(time.time()) - 10}, {"exp": time.time() + 1000.5}])
def test_times_that_are_good(gateway, keys, claims):
    assert status(gateway, keys.jwt(**claims)).status in (200, 401)


@pytest.mark.parametrize("role", [None, "", "none", "absent", "stranger", "postgres", "gateway", "pg_read_all_data", "reader ",
                                  "READER", "reader\0", "\0reader", 1, True, {}, {"reader": 1}, "x" * 63, "x" * 64, "x" * 10000,
                                  "reader'; SELECT 1; --", "\"reader\"", "reader, operator", "\ud800", "default", "public",
                                  "pg_database_owner", "session_user", "current_user"])
def test_role_that_is_none(gateway, keys, role):
    """A role that the gateway may not set, or none, or its own, or a superuser's: 401 or 403, never a privilege."""
    answer = status(gateway, keys.jwt(role))
    assert answer is not None and answer.status in (401, 403), (role, answer)
    answer = status(gateway, keys.jwt(role), "/v1/streams/role-that-is-none", "POST", body=json.dumps(EVENT).encode(),
                    headers=[("Content-Type", "application/json")])
    assert answer is not None and answer.status in (401, 403), (role, answer)


@pytest.mark.parametrize("name", ["absent", "stranger"])
def test_role_of_the_file_that_is_none(gateway, keys, name):
    assert status(gateway, keys.static[name]).status == 403


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Bearer  ", "Basic cmVhZGVyOnJlYWRlcg==", "Digest x", "bearer", "Token {token}",
                                   "{token}", "Bearer {token} x", "Bearer x {token}", "Bearer\t{token}", "Bearer,{token}",
                                   "Bearer {token},", "Bearer \"{token}\"", "Bearer \xff", "Bearer {token}\xff", "Basic, Bearer {token}"])
def test_header_that_is_none(gateway, keys, value):
    answer = ask(gateway, request("GET", "/v1/events?limit=1", None,
                                  [("Authorization", value.format(token=keys.static["reader"]))]))
    assert answer is not None and answer.status in (400, 401), answer


@pytest.mark.parametrize("value", ["bearer {token}", "BEARER {token}", "Bearer   {token}", "Bearer {token} "])
def test_header_that_is_good(gateway, keys, value):
    answer = ask(gateway, request("GET", "/v1/events?limit=1", None,
                                  [("Authorization", value.format(token=keys.static["reader"]))]))
    assert answer.status == 200


def test_two_headers(gateway, keys):
    answer = ask(gateway, request("GET", "/v1/events?limit=1", keys.static["reader"],
                                  [("Authorization", f"Bearer {keys.static['operator']}")]))
    assert answer.status in (400, 401)


def test_token_in_the_target(gateway, keys):
    """Targets are logged everywhere: a token there is none."""
    for name in ("access_token", "token", "authorization"):
        answer = ask(gateway, request("GET", f"/v1/events?limit=1&{name}={keys.static['reader']}"))
        assert answer.status in (400, 401)


def test_tokens_are_not_logged(gateway, keys, reader, anonymous):
    reader.get("/v1/events?limit=1")
    text = gateway.text()
    assert text
    for token in keys.static.values():
        assert token not in text
    assert keys.secret.decode() not in text


def test_anonymous_role(make_gateway, keys):
    """Only if it is set; and a bad token is not the same as none."""
    gateway = make_gateway(anonymous_role="visitor")
    assert status(gateway, None).status == 200
    answer = status(gateway, None, "/v1/streams/by-nobody", "POST", body=json.dumps(EVENT).encode(),
                    headers=[("Content-Type", "application/json")])
    assert answer.status in (401, 403)
    refused(gateway, "wrong")
    refused(gateway, keys.jwt(exp=1))


def test_issuer_and_audience(make_gateway, keys):
    gateway = make_gateway(jwt_issuer="https://id.example", jwt_audience="eventstore")
    assert status(gateway, keys.jwt(iss="https://id.example", aud="eventstore")).status == 200
    assert status(gateway, keys.jwt(iss="https://id.example", aud=["other", "eventstore"])).status == 200
    for claims in ({}, {"iss": "https://id.example"}, {"aud": "eventstore"}, {"iss": "https://id.example/", "aud": "eventstore"},
                   {"iss": "https://id.example", "aud": "other"}, {"iss": "https://id.example", "aud": []},
                   {"iss": ["https://id.example"], "aud": "eventstore"}, {"iss": "https://id.example", "aud": {"eventstore": 1}}):
        refused(gateway, keys.jwt(**claims))


def test_list_of_roles(make_gateway, keys):
    gateway = make_gateway(roles="reader,writer", role_claim="scope")
    assert status(gateway, keys.jwt(None, scope="reader")).status == 200
    for claims in ({"scope": "operator"}, {"role": "reader"}, {}):
        assert status(gateway, keys.jwt(None, **claims) if "role" not in claims else keys.jwt("reader")).status in (401, 403)


def test_keys_rotate(make_gateway):
    """SIGHUP reads keys and tokens again; a file that is broken leaves those that were there."""
    old, new = harness.Keys("old"), harness.Keys("new")
    gateway = make_gateway(with_keys=old)
    before = old.jwt("reader", "ES256")
    assert status(gateway, before).status == 200 and status(gateway, new.jwt("reader")).status == 401
    listed = open(new.list_file, "rb").read()
    harness.private_file("old-list", b"HS256 - no-such-file\n")
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: "no-such-file" in gateway.text(), "what is wrong")
    assert status(gateway, old.jwt("reader", "ES256")).status == 200
    harness.private_file("old-list", listed)
    harness.private_file("old-tokens", open(new.token_file, "rb").read())
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: status(gateway, new.jwt("reader")).status == 200, "the new keys")
    for token in (before, old.jwt("reader"), old.static["reader"]):     # what was verified before does not stay
        refused(gateway, token)
    assert status(gateway, new.static["reader"]).status == 200


def test_event_streams_of_tokens_that_are_removed(make_gateway, make_database):
    """A reload ends event streams whose token is gone or names another role, and no other ones."""
    keys = harness.Keys("removed")
    database = make_database()
    gateway = make_gateway(database, keys)
    streams = {role: harness.EventStream(gateway, token=keys.static[role]) for role in ("reader", "writer", "operator")}
    streams["jwt"] = harness.EventStream(gateway, token=keys.jwt("reader", "ES256"))
    streams["hmac"] = harness.EventStream(gateway, token=keys.jwt("reader", "HS256"))
    assert {stream.status for stream in streams.values()} == {200}
    digest = {role: hashlib.sha256(token.encode()).hexdigest() for role, token in keys.static.items()}
    harness.private_file("removed-tokens", f"{digest['reader']} reader\n{digest['operator']} writer\n")
    harness.private_file("removed-list", "ES256 - removed-es256.pem\n")
    gateway.process.send_signal(signal.SIGHUP)
    for name in ("writer", "operator", "hmac"):
        found = list(streams[name])
        assert found[-1][0] == "error" and "401" in found[-1][1], name
    database.query("SELECT es_append('removed-1', 'any', 'noted')")
    for name in ("reader", "jwt"):
        assert next(iter(streams[name]))[0] != "error"
        streams[name].close()


def test_expiry_while_it_is_remembered(gateway, keys):
    token = keys.jwt(exp=int(time.time()) + 2)
    assert status(gateway, token).status == 200
    leeway = int(gateway.settings.get("jwt_leeway", 0) or 0)
    until(lambda: status(gateway, token).status == 401, "the end of the token", patience=70 + leeway, pause=0.2)


#
# What roles may do
#

def test_roles(gateway, keys, stream, database):
    """The database decides: each role does what es_grant has given it, and no other thing."""
    body, kind = json.dumps(EVENT).encode(), [("Content-Type", "application/json")]

    def append(role, name):
        return status(gateway, keys.static[role], f"/v1/streams/{name}", "POST", body=body, headers=kind).status

    def read(role, name=stream):
        return status(gateway, keys.static[role], f"/v1/streams/{name}").status

    assert {role: append(role, stream) for role in harness.ROLES} == {
        "reader": 403, "writer": 201, "appender": 201, "operator": 403, "retention": 403, "nobody": 403}
    assert {role: read(role) for role in harness.ROLES} == {
        "reader": 200, "writer": 200, "appender": 403, "operator": 200, "retention": 200, "nobody": 403}
    assert {role: status(gateway, keys.static[role], f"/v1/streams/{stream}", "DELETE").status
            for role in ("reader", "writer", "appender", "operator", "nobody")} == {
                "reader": 403, "writer": 403, "appender": 403, "operator": 403, "nobody": 403}
    assert read("reader") == 200
    assert status(gateway, keys.static["retention"], f"/v1/streams/{stream}", "DELETE").status in (200, 204)
    assert status(gateway, None, f"/v1/streams/{stream}").status == 401


def test_nothing_of_a_role_stays(gateway, keys, database):
    """Connections are shared: nothing of one request is there in the next one."""
    pool = int(gateway.settings.get("pool_size", 10))
    for _ in range(3 * pool):
        assert status(gateway, keys.static["operator"], "/v1/projections").status == 200
        assert status(gateway, keys.static["nobody"]).status == 403
        assert status(gateway, keys.static["appender"]).status == 403


def test_row_security(make_gateway, make_database, keys):
    """Policies of the owner hold for a role of a token as in SQL."""
    database = make_database()
    gateway = make_gateway(database)
    writer, reader = gateway.client("writer"), gateway.client("reader")
    writer.post("/v1/streams/open-1", EVENT, expect=201)
    writer.post("/v1/streams/secret-1", EVENT, expect=201)
    database.query("""ALTER TABLE es_events ENABLE ROW LEVEL SECURITY""")
    database.query("""CREATE POLICY p ON es_events FOR SELECT TO reader USING (stream NOT LIKE 'secret%')""")
    database.query("""CREATE POLICY q ON es_events TO writer USING (true)""")
    assert "secret" not in reader.get("/v1/events").text
    reader.get("/v1/streams/secret-1", 404)
    assert "secret" in writer.get("/v1/events").text


def test_role_that_a_function_leaves(make_gateway, make_database, keys):
    """A function of a user that resets the role finds the gateway's own, which has no privilege."""
    database = make_database()
    gateway = make_gateway(database)
    database.query("""
        CREATE FUNCTION public.escape(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
        BEGIN
            RESET ROLE;
            RETURN jsonb_build_object('user', current_user, 'events', (SELECT count(*) FROM es_failures));
        END $$""")
    gateway.client("writer").post("/v1/streams/left-1", EVENT, expect=201)
    answer = gateway.client("reader")("GET", "/v1/streams/left-1/state?reducer=public.escape")
    assert answer.status_code in (403, 404, 409, 422), answer.text
    # and the next request is not affected
    assert gateway.client("nobody")("GET", "/v1/events").status_code == 403


def test_files_that_others_can_read(make_gateway, keys):
    """A secret that each user of the machine can read is refused when the gateway starts."""
    path = harness.private_file("open-tokens", open(keys.token_file, "rb").read())
    os.chmod(path, 0o644)
    gateway = make_gateway(start=False, token_file=path)
    gateway.start(wait=False)
    assert gateway.process.wait(harness.PATIENCE) != 0
    gateway.reader.join()
    gateway.stopped = True
    assert "open-tokens" in gateway.text()
