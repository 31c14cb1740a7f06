"""TLS by files, and that tokens do not pass a network as clear text."""
import datetime
import os
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import harness
from harness import request, until
from test_settings import call


def make_certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime(2020, 1, 1)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1) \
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=36500)) \
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.fixture(scope="module")
def files():
    certificate, key = make_certificate()
    path = harness.private_file("tls-certificate.pem", certificate)
    os.chmod(path, 0o644)
    return path, harness.private_file("tls-key.pem", key)


def secured(make_gateway, files, **settings):
    """A gateway that speaks TLS. The harness would ask it in clear text whether it is ready."""
    gateway = make_gateway(start=False, tls_certificate=files[0], tls_key=files[1], **settings)
    gateway.start(wait=False)
    gateway.url = gateway.urls.get(timeout=harness.PATIENCE)
    assert gateway.url, gateway.text()
    gateway.port = int(gateway.url.rstrip("/").rsplit(":", 1)[1])
    context = ssl.create_default_context(cafile=files[0])
    until(lambda: b" 200 " in spoken(gateway, context, request("GET", "/readyz", None, [("Connection", "close")]))[0], "/readyz")
    return gateway


def spoken(gateway, context, data):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=harness.PATIENCE) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as secured:
            secured.sendall(data)
            answer = b""
            while piece := secured.recv(65536):
                answer += piece
            return answer, secured.version()


def test_tls(make_gateway, keys, files):
    gateway = secured(make_gateway, files)
    assert gateway.url.startswith("https://")
    context = ssl.create_default_context(cafile=files[0])
    close = [("Connection", "close")]
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = context.maximum_version = version
        answer, spoke = spoken(gateway, context, request("GET", "/v1/events?limit=1", keys.static["reader"], close))
        assert answer.startswith(b"HTTP/1.1 200 ") and spoke in ("TLSv1.2", "TLSv1.3")


def test_old_versions_are_not_spoken(make_gateway, files):
    gateway = secured(make_gateway, files)
    context = ssl.create_default_context(cafile=files[0])
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        spoken(gateway, context, request("GET", "/healthz"))


def test_clear_text_at_a_port_of_tls(make_gateway, keys, files):
    gateway = secured(make_gateway, files)
    with harness.Wire(gateway) as wire:
        wire.send(request("GET", "/v1/events", keys.static["reader"]))
        while wire.more():
            pass
        assert b"HTTP/1.1 200" not in wire.buffer
    context = ssl.create_default_context(cafile=files[0])
    assert spoken(gateway, context, request("GET", "/healthz", None, [("Connection", "close")]))[0].startswith(b"HTTP/1.1 200 ")


def test_client_that_does_not_shake_hands(make_gateway, files):
    """A connection that says nothing holds up nobody, and is ended."""
    gateway = secured(make_gateway, files, request_timeout=1, idle_timeout=2)
    with harness.Wire(gateway, timeout=20) as silent:
        context = ssl.create_default_context(cafile=files[0])
        assert spoken(gateway, context, request("GET", "/healthz", None, [("Connection", "close")]))[0].startswith(b"HTTP/1.1 200 ")
        assert silent.closed()


def test_key_that_others_can_read(files):
    path = harness.private_file("tls-open-key.pem", open(files[1], "rb").read())
    os.chmod(path, 0o644)
    answer = call("--config=", "--listen=127.0.0.1:0", f"--tls_certificate={files[0]}", f"--tls_key={path}")
    assert answer.returncode in (1, 2) and "chmod" in answer.stderr


def test_key_of_another_certificate(files):
    path = harness.private_file("tls-other-key.pem", make_certificate()[1])
    answer = call("--config=", "--listen=127.0.0.1:0", f"--tls_certificate={files[0]}", f"--tls_key={path}")
    assert answer.returncode in (1, 2) and answer.stderr


@pytest.mark.parametrize("content", [b"", b"nothing", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_key_that_is_none(files, content):
    path = harness.private_file("tls-no-key.pem", content)
    answer = call("--config=", "--listen=127.0.0.1:0", f"--tls_certificate={files[0]}", f"--tls_key={path}")
    assert answer.returncode in (1, 2) and answer.stderr


def test_event_stream(make_gateway, make_database, files):
    """A connection that was suspended sends again, also what TLS has buffered."""
    database = make_database()
    keys = harness.Keys("tls-stream")
    gateway = secured(lambda **settings: make_gateway(database, keys, **settings), files)
    context = ssl.create_default_context(cafile=files[0])
    plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=harness.PATIENCE)
    with context.wrap_socket(plain, server_hostname="localhost") as stream:
        stream.sendall(request("GET", "/v1/events", keys.static["reader"], [("Accept", "text/event-stream")]))
        received = b""
        for number in range(5):
            database.query("SELECT es_append('tls-1', 'any', 'noted', jsonb_build_object('number', %s::int, 'text', repeat('x', 50000)))",
                           (number,))
            while f'"number": {number}'.encode() not in received or received.count(b"\n\n") < number + 1:
                piece = stream.recv(65536)
                assert piece, received[-1000:]
                received += piece
        assert received.count(b"\nid:") + received.startswith(b"id:") == 5


def test_pipelined_requests(make_gateway, keys, files):
    """Two requests in one record of TLS: the second one has no readiness of the socket of its own."""
    gateway = secured(make_gateway, files)
    context = ssl.create_default_context(cafile=files[0])
    first = request("GET", "/v1/events?limit=1", keys.static["reader"])
    answer, _ = spoken(gateway, context, first + first + request("GET", "/healthz", None, [("Connection", "close")]))
    assert answer.count(b"HTTP/1.1 200 ") == 3
