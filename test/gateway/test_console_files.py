"""The console's files: headers, tags, compression, and that nothing else is served."""
import gzip
import os
import re

import pytest

import harness
from harness import ask, request

SCRIPT = b"console.log(1);\n" * 200
FILES = {"index.html": b"<!doctype html><title>t</title>", "assets/index-B3xY_9aZ.js": SCRIPT, "assets/style-0123abcd.css": b"a{}",
         "assets/plain.js": b"1", "favicon.svg": b"<svg/>", ".secret": b"secret",
         "assets/index-B3xY_9aZ.js.gz": b"not this", "deep/er/er/file.txt": b"deep"}


@pytest.fixture(scope="module")
def folder():
    path = os.path.join(harness.SCRATCH, "console-files")
    for name, content in FILES.items():
        os.makedirs(os.path.dirname(os.path.join(path, name)), exist_ok=True)
        with open(os.path.join(path, name), "wb") as file:
            file.write(content)
    os.symlink("/etc/passwd", os.path.join(path, "link.txt"))
    os.symlink("/etc", os.path.join(path, "etc"))
    os.mkfifo(os.path.join(path, "pipe"))
    harness.private_file("console-outside.txt", "outside")
    return path


@pytest.fixture(scope="module")
def served(database, keys, folder):
    gateway = harness.Gateway(database, keys, console_dir=folder)
    gateway.start()
    yield gateway
    gateway.stop()


def get(gateway, path, *headers, method="GET"):
    return ask(gateway, request(method, path, None, headers), method)


def test_page(served):
    for path in ("/", "/index.html"):
        answer = get(served, path)
        assert answer.status == 200 and answer.body == FILES["index.html"]
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'" and policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'" and policy["base-uri"] == "'none'" and policy["connect-src"] == "'self'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
    head = get(served, "/", method="HEAD")
    assert head.status == 200 and head.headers["content-length"] == str(len(FILES["index.html"]))


def test_hashed_names_are_kept(served):
    for name in ("assets/index-B3xY_9aZ.js", "assets/style-0123abcd.css"):
        answer = get(served, "/" + name)
        assert answer.body == FILES[name] and "immutable" in answer.headers["cache-control"]
    for name in ("assets/plain.js", "favicon.svg"):
        assert get(served, "/" + name).headers["cache-control"] == "no-cache"


def test_compression(served):
    path = "/assets/index-B3xY_9aZ.js"
    plain, packed = get(served, path), get(served, path, ("Accept-Encoding", "br, gzip"))
    assert plain.body == SCRIPT and "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip" and gzip.decompress(packed.body) == SCRIPT
    assert len(packed.body) < len(SCRIPT) / 10
    assert plain.headers["etag"] != packed.headers["etag"]
    assert "accept-encoding" in plain.headers["vary"].lower() and "accept-encoding" in packed.headers["vary"].lower()
    assert "content-encoding" not in get(served, path, ("Accept-Encoding", "gzip;q=0")).headers
    assert "content-encoding" not in get(served, "/favicon.svg", ("Accept-Encoding", "gzip")).headers


def test_tags(served):
    etag = get(served, "/").headers["etag"]
    assert re.fullmatch(r'"[0-9a-z]{32}"', etag)
    for tags in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = get(served, "/", ("If-None-Match", tags))
        assert answer.status == 304 and answer.body == b"" and answer.headers["etag"] == etag
        assert "content-security-policy" in answer.headers
    assert get(served, "/", ("If-None-Match", '"x"')).status == 200


@pytest.mark.parametrize("path", [
    "/.secret", "/link.txt", "/etc/passwd", "/pipe", "/assets", "/assets/", "/../console-outside.txt",
    "/%2e%2e/console-outside.txt", "/..%2fconsole-outside.txt", "/assets/../../console-outside.txt", "/assets/../index.html",
    "/./index.html", "//index.html", "/index.html/", "/INDEX.HTML", "/index.html%00", "/index.html%00.js", "/console-files/index.html",
    "/assets/index-B3xY_9aZ.js.gz", "/etc", "/..", "/...", "/\\..\\console-outside.txt", "/%"])
def test_nothing_else_is_served(served, path):
    answer = get(served, path)
    assert answer is None or answer.status in (400, 404, 301), path
    assert answer is None or answer.headers["content-type"] == "application/problem+json"


def test_deep_folders(served):
    assert get(served, "/deep/er/er/file.txt").body == b"deep"


def test_other_methods(served):
    answer = ask(served, request("POST", "/index.html", body=b""))
    assert answer.status == 405 and answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_no_console(make_gateway):
    for folder in ("", "/no/such/folder"):
        gateway = make_gateway(console_dir=folder)
        assert get(gateway, "/").status == 404
        assert get(gateway, "/healthz").status == 200


def test_file_that_is_replaced(make_gateway, folder):
    """What was read at the start is served until the end."""
    gateway = make_gateway(console_dir=folder)
    path = os.path.join(folder, "favicon.svg")
    with open(path, "wb") as file:
        file.write(b"changed")
    try:
        assert get(gateway, "/favicon.svg").body == FILES["favicon.svg"]
    finally:
        with open(path, "wb") as file:
            file.write(FILES["favicon.svg"])
