"""The settings: --help, the settings file, the manual page and the documents name the same ones."""
import os
import re
import shutil
import subprocess

import pytest

import harness

CONF = os.path.join(harness.TOP, "gateway/eventstore-gateway.conf")
MANUAL = os.path.join(harness.TOP, "gateway/eventstore-gateway.1")
OPERATE = os.path.join(harness.TOP, "doc/operate/gateway.md")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def call(*arguments, **options):
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(harness.as_user(harness.PROGRAM, *arguments), cwd=harness.SCRATCH, text=True, env=environment,
                          capture_output=True, timeout=harness.PATIENCE, **options)


@pytest.fixture(scope="module")
def program():
    """Settings and defaults as --help prints them."""
    answer = call("--help")
    assert answer.returncode == 0 and answer.stderr == ""
    found = dict(re.findall(r"^  (\w+) = ?(.*)$", answer.stdout, re.M))
    assert len(found) > 30
    return {name: re.sub(r" (ms|s|bytes)$", "", value) for name, value in found.items()}


def test_file(program):
    """The file names each setting once, with its default, behind a comment that explains it."""
    found = re.findall(r"^#(\w+) =[ ]?(.*)$", read(CONF), re.M)
    assert len(found) == len(dict(found)), "a setting stands twice"
    found = dict(found)
    assert set(found) == set(program)
    found.pop("console_dir"), program.get("console_dir")
    assert found == {name: program[name] for name in found}
    for line in read(CONF).splitlines():
        assert len(line) <= 120
        assert re.match(r"#\w+ =|# |#?$", line), line


def test_file_is_accepted(program):
    """Each line holds as it is when its # is gone; only the port must be another one."""
    text = re.sub(r"^#(\w+ =)", r"\1", read(CONF), flags=re.M).replace("listen = 127.0.0.1:8080", "listen = 127.0.0.1:0")
    path = harness.private_file("whole.conf", text + "no_such_setting = 1\n")
    answer = call("--config", path)
    assert answer.returncode != 0
    assert "no_such_setting" in answer.stderr and answer.stderr.count("there is no setting") == 1


def test_manual(program):
    found = re.findall(r"^\.It Cm (\w+)(?: No \((.*)\))?$", read(MANUAL), re.M)
    assert sorted(name for name, _ in found) == sorted(program)
    for name, value in found:
        assert name == "console_dir" or value == program[name], name


def test_manual_is_well_formed():
    if not shutil.which("mandoc"):
        pytest.skip("there is no mandoc")
    answer = subprocess.run(["mandoc", "-Tlint", "-Wstyle", MANUAL], capture_output=True, text=True)
    assert [line for line in answer.stdout.splitlines() if "referenced manual not found" not in line] == []


def test_document(program):
    """What the document calls a setting is one, and no setting is missing from all documents."""
    text = read(OPERATE)
    examples = "\n".join(re.findall(r"```ini\n(.*?)```", text, re.S))
    for name in re.findall(r"^([a-z_]+) = ", examples, re.M):
        assert name in program, name
    for name in ("token_file", "jwt_keys", "roles", "role_claim", "jwt_issuer", "jwt_audience", "cors_origins", "metrics_role"):
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize("arguments,word", [
    (["--no_such_setting=1"], "no_such_setting"), (["--pool_size=0"], "pool_size"), (["--pool_size=many"], "pool_size"),
    (["--pool_size="], "pool_size"), (["--allow_plain_http=maybe"], "allow_plain_http"), (["surplus"], "surplus"),
    (["--pool_size"], "pool_size"), (["--config=/no/such/file"], "/no/such/file"), (["--log_level=loud"], "log_level"),
    (["--listen=nowhere.invalid:1"], "nowhere.invalid"), (["--listen=127.0.0.1:99999"], "99999"),
    (["--tls_key=/dev/null"], "tls_certificate"), (["--listen=0.0.0.0:0"], "allow_plain_http"),
    (["--listen=[::]:0"], "allow_plain_http"), (["--listen=*:0"], "allow_plain_http"),
    (["--cors_origins=https://a.example/"], "cors_origins"), (["--cors_origins=*,https://a.example"], "cors_origins"),
    (["--roles=a=none"], "roles"), (["--roles=a,,b"], "roles"), (["--anonymous_role=none"], "anonymous_role"),
    (["--jwt_keys=/no/such/file"], "/no/such/file"), (["--token_file=/no/such/file"], "/no/such/file"),
    (["--token_file=/"], "not a file")])
def test_settings_that_are_wrong(arguments, word):
    """The program does not start, and says which setting is why."""
    base = [] if any(argument.startswith("--listen") for argument in arguments) else ["--listen=127.0.0.1:0"]
    answer = call(*base, "--config=", "--database=host=/nonexistent", *arguments)
    assert answer.returncode in (1, 2), answer
    assert word in answer.stderr


def test_line_that_is_continued():
    """A list is on one line, and may be long."""
    path = harness.private_file("continued.conf", "roles = reader,\n  writer\n")
    answer = call("--config", path)
    assert answer.returncode == 2 and "line 2" in answer.stderr
    roles = ",".join(f"role_{i}" for i in range(1000))
    path = harness.private_file("long.conf", f"roles = {roles}\nroles = {roles},none\n")
    answer = call("--config", path)
    assert answer.returncode == 2 and '"roles"' in answer.stderr
