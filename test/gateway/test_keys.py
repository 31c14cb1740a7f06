"""Files of keys and tokens: what is accepted, what is refused at the start, and which key verifies which token."""
import datetime
import hashlib
import json
import os
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import harness
from harness import ask, base64url, request
from test_settings import call


def status(gateway, token):
    return ask(gateway, request("GET", "/v1/events?limit=1", token)).status


def pem(key):
    return harness.Keys.public(key)


def listed(name, *lines):
    return harness.private_file(name, "".join(line + "\n" for line in lines))


def certificate(key):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
    now = datetime.datetime(2026, 1, 1)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1) \
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=3650)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def jwk_of(key, **members):
    """A public key, or a secret, as a JSON web key."""
    if isinstance(key, bytes):
        return {"kty": "oct", "alg": "HS256", "k": base64url(key), **members}
    numbers = key.public_key().public_numbers()
    if isinstance(key, rsa.RSAPrivateKey):
        return {"kty": "RSA", "n": base64url(numbers.n.to_bytes(key.key_size // 8, "big")), "e": "AQAB", **members}
    return {"kty": "EC", "crv": "P-256", "x": base64url(numbers.x.to_bytes(32, "big")),
            "y": base64url(numbers.y.to_bytes(32, "big")), **members}


def private_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.fixture(scope="module")
def first():
    """Keys of these tests, made once, since RSA takes its time."""
    return harness.Keys("kid1")


@pytest.fixture(scope="module")
def second():
    return harness.Keys("kid2")


def test_kid_chooses(make_gateway, first, second):
    """Two keys of one algorithm: the id in the head says which one, and without it each is tried."""
    path = listed("kids", "# keys", "", "ES256 one kid1-es256.pem", "ES256\ttwo\tkid2-es256.pem", "RS256 - kid1-rs256.pem")
    gateway = make_gateway(jwt_keys=path)
    for keys, own, other in ((first, "one", "two"), (second, "two", "one")):
        assert status(gateway, keys.jwt(algorithm="ES256", head={"kid": own})) == 200
        assert status(gateway, keys.jwt(algorithm="ES256")) == 200
        assert status(gateway, keys.jwt(algorithm="ES256", head={"kid": other})) == 401
        assert status(gateway, keys.jwt(algorithm="ES256", head={"kid": "three"})) == 401
    assert status(gateway, first.jwt(algorithm="RS256", head={"kid": "any"})) == 200
    assert status(gateway, second.jwt(algorithm="RS256")) == 401
    assert status(gateway, first.jwt(algorithm="HS256")) == 401


def test_key_set(make_gateway, first):
    keys = first
    jwks = {"keys": [jwk_of(keys.rsa, kid="r", use="sig", alg="RS256"), jwk_of(keys.ec, kid="e"),
                     jwk_of(keys.secret, kid="h"), jwk_of(keys.rsa, kid="enc", use="enc"),
                     jwk_of(keys.rsa, kid="rs512", alg="RS512"), {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "o"},
                     {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}, {}, 1, None, "key"]}
    harness.private_file("set.json", json.dumps(jwks))
    gateway = make_gateway(jwt_keys=listed("set-list", "JWKS - set.json"))
    for algorithm, kid in (("RS256", "r"), ("ES256", "e"), ("HS256", "h")):
        assert status(gateway, keys.jwt(algorithm=algorithm, head={"kid": kid})) == 200
        assert status(gateway, keys.jwt(algorithm=algorithm)) == 200
    for kid in ("enc", "rs512", "e", "x"):
        assert status(gateway, keys.jwt(algorithm="RS256", head={"kid": kid})) == 401


def test_certificate(make_gateway, first):
    keys = first
    harness.private_file("provider.pem", certificate(keys.rsa))
    gateway = make_gateway(jwt_keys=listed("certified-list", "RS256 - provider.pem"))
    assert status(gateway, keys.jwt(algorithm="RS256")) == 200


def test_secret_with_a_line_end(make_gateway, first):
    keys = first
    harness.private_file("ended-secret", keys.secret + b"\n")
    gateway = make_gateway(jwt_keys=listed("ended-list2", f"HS256 - {harness.SCRATCH}/ended-secret"))
    assert status(gateway, keys.jwt()) == 200


def faulty_keys():
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    large = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    p256, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    sets = {"list": [], "text": {"keys": "x"}, "short secret": {"keys": [jwk_of(b"x" * 31)]},
            "no point": {"keys": [{**jwk_of(p256), "x": base64url(b"\1" * 32)}]},
            "short": {"keys": [{**jwk_of(p256), "y": "AA"}]}, "padded": {"keys": [{**jwk_of(large), "n": "AA=="}]},
            "small": {"keys": [jwk_of(small)]}, "no n": {"keys": [{"kty": "RSA", "e": "AQAB"}]}}
    yield "RS256", pem(small), "1024 bits"
    yield "RS256", pem(p256), "not an RSA key"
    yield "ES256", pem(large), "P-256"
    yield "ES256", pem(p384), "P-256"
    yield "HS256", pem(large), "no secret"
    yield "HS256", certificate(large), "no secret"
    yield "HS256", b"x" * 31, "31 bytes"
    yield "HS256", b"", "0 bytes"
    yield "RS256", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"
    yield "RS256", private_pem(large), "no public key"
    yield "RS256", b"\0" * 100, "no public key"
    for algorithm in ("none", "hs256", "HS512", "PS256", "EdDSA"):
        yield algorithm, b"x" * 64, "is not HS256"
    yield "JWKS", b"{ ", "not a JSON web key set"
    for value in sets.values():
        yield "JWKS", json.dumps(value).encode(), "faulty\""


@pytest.mark.parametrize("algorithm,content,word", list(faulty_keys()))
def test_keys_that_are_refused(algorithm, content, word):
    harness.private_file("faulty", content)
    answer = call("--check", "--config=", f"--jwt_keys={listed('faulty-list', '', f'{algorithm} - faulty')}")
    assert answer.returncode in (1, 2)
    message = " ".join(json.loads(line).get("message", "") for line in answer.stderr.splitlines() if line.startswith("{"))
    assert "line 2 of" in message and word in message.replace("\\", ""), answer.stderr
    assert len(content) < 10 or content.decode(errors="replace").strip() not in answer.stderr


@pytest.mark.parametrize("line", ["HS256", "HS256 -", "HS256 - a b", "HS256 - no-such-file", "x"])
def test_lines_of_keys_that_are_refused(line):
    answer = call("--check", "--config=", f"--jwt_keys={listed('faulty-list', line)}")
    assert answer.returncode in (1, 2) and "line 1 of" in answer.stderr


@pytest.mark.parametrize("mode,start", [(0o600, True), (0o640, True), (0o644, False), (0o604, False), (0o642, False)])
def test_modes(mode, start, first):
    """A secret that others may read, or that they may write, is refused."""
    os.chmod(first.hs256_file, mode)
    try:
        answer = call("--check", "--config=", f"--jwt_keys={first.list_file}")
    finally:
        os.chmod(first.hs256_file, 0o600)
    assert (answer.returncode == 0) == start
    assert start or ("kid1-hs256" in answer.stderr and "chmod" in answer.stderr)


def test_public_key_that_others_can_read(first):
    os.chmod(first.rs256_file, 0o644)
    assert call("--check", "--config=", f"--jwt_keys={first.list_file}").returncode == 0


def test_key_set_with_a_secret_that_others_can_read():
    os.chmod(harness.private_file("open-set", json.dumps({"keys": [jwk_of(b"x" * 32)]})), 0o644)
    answer = call("--check", "--config=", f"--jwt_keys={listed('open-set-list', 'JWKS - open-set')}")
    assert answer.returncode in (1, 2) and "chmod" in answer.stderr


def test_roles_of_claims(make_gateway, gateway, keys):
    """The first entry of the list that the claim has counts, whatever the order in the claim."""
    listing = make_gateway(roles="staff=reader, writer, a=reader, b=writer ,k=v=operator")
    for claim, role in (("staff", "reader"), ("reader", None), ("writer", "writer"), (["x", "b"], "writer"),
                        (["b", "a"], "reader"), (["b", "staff"], "reader"), ([], None), ([["a"]], None), ({"a": 1}, None),
                        ("k=v", "operator"), ("k", None), ("a ", None), ("none", None), (1, None), (True, None)):
        answer = ask(listing, request("GET", "/v1/whoami", keys.jwt(claim)))
        assert answer.status == (200 if role else 403), claim
        assert role is None or answer.json()["role"] == role
    assert status(gateway, keys.jwt(["reader"])) == 403


def test_pointer_to_a_claim(make_gateway, keys):
    gateway = make_gateway(role_claim="/a~1b/~0/role")
    assert status(gateway, keys.jwt(None, **{"a/b": {"~": {"role": "reader"}}})) == 200
    for claims in ({"a/b": {"~": "reader"}}, {"a/b": "reader"}, {"/a~1b/~0/role": "reader"}):
        assert status(gateway, keys.jwt("writer", **claims)) == 403
    gateway = make_gateway(role_claim="https://example.com/role")
    assert status(gateway, keys.jwt(None, **{"https://example.com/role": "reader"})) == 200


def test_token_without_an_end(make_gateway, keys):
    assert status(make_gateway(jwt_require_exp="off"), keys.jwt(exp=None)) == 200


def test_leeway(make_gateway, keys):
    gateway = make_gateway(jwt_leeway=0)
    assert status(gateway, keys.jwt(exp=int(time.time()) - 1)) == 401
    assert status(gateway, keys.jwt(nbf=int(time.time()) + 10)) == 401
    gateway = make_gateway(jwt_leeway=60)
    assert status(gateway, keys.jwt(exp=int(time.time()) - 30)) == 200
    assert status(gateway, keys.jwt(nbf=int(time.time()) + 30)) == 200


#
# The file of tokens
#

def test_hash_token(make_gateway):
    """The line that --hash-token prints lets its token in."""
    token = "0123456789abcdefghij-._~+/=="
    answer = call("--hash-token", "reader", "for the tests", input=token + "\n")
    assert answer.returncode == 0
    assert answer.stdout == f"{hashlib.sha256(token.encode()).hexdigest()} reader for the tests\n"
    gateway = make_gateway(token_file=harness.private_file("hashed", answer.stdout))
    assert status(gateway, token) == 200
    assert status(gateway, token + "=") == 401


@pytest.mark.parametrize("text", ["", "\n", "short\n", "with a blank in the middle of it\n", "x" * 1025, "ümlaut" * 5, "=" * 30])
def test_tokens_that_are_not_hashed(text):
    answer = call("--hash-token", "reader", input=text)
    assert answer.returncode in (1, 2) and answer.stdout == "" and "token" in answer.stderr


DIGEST = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("text", [DIGEST, DIGEST[:-1] + " reader", DIGEST + "0 reader", "g" + DIGEST[1:] + " reader",
                                  f"{DIGEST} reader\n{DIGEST.upper()} writer", f"{DIGEST} none", f"{DIGEST} {'x' * 64}", "token reader"])
def test_lines_of_tokens_that_are_refused(text):
    answer = call("--check", "--config=", f"--token_file={listed('faulty-tokens', text)}")
    assert answer.returncode in (1, 2) and "token_file" in answer.stderr
