"""The shell and the JavaScript of the documents of the gateway: each block runs in order, and prints what the document shows.

A block of JSON shows a part: members that are not shown may be there. Times, ids that the database makes and figures
that depend on the moment are compared by their form. "# 412" behind a request is its status; without it any below 400
will do. "(needs ...)" in the first line of a block says why its output is not compared."""
import json
import os
import re
import shutil
import subprocess

import pytest

import harness

DOCUMENTS = ("doc/reference/http.md", "doc/guide/gateway.md")
BLOCK = re.compile(r"^```(sql|bash|js|json|text)( \([^\n]*\))?\n(.*?)^```$", re.M | re.S)
# Members whose values are those of one run.
OF_THE_MOMENT = re.compile(r"_at$|_by$|^(role|now|since|database|token|lag_seconds|lease_left|events_per_second|workers|recent_events)$")
IDS = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[57][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b")
# The requests of the documents, with their statuses noted.
SHELL = r"""
set -u
es() {
    local status
    exec 3>&1
    status=$(curl -sS --max-time 60 -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -X "$1" "${@:3}" \
        -o /dev/fd/3 -w '%{http_code}' "$URL$2")
    echo "$status" >>"$STATUSES"
}
"""


def same(shown, got, name=""):
    """Whether what is shown is a part of what came."""
    if OF_THE_MOMENT.search(name):
        return isinstance(got, type(shown)) or isinstance(shown, (int, float)) and isinstance(got, (int, float))
    if isinstance(shown, dict):
        return isinstance(got, dict) and all(key in got and same(part, got[key], key) for key, part in shown.items())
    if isinstance(shown, list):
        return isinstance(got, list) and len(shown) == len(got) and all(map(same, shown, got))
    if isinstance(shown, str):
        return isinstance(got, str) and IDS.sub("ID", shown) == IDS.sub("ID", got)
    return type(shown) is type(got) and shown == got


def blocks(path):
    """Each block that runs: (line, language, text, [what is shown])"""
    with open(os.path.join(harness.TOP, path)) as file:
        text = file.read()
    found, last = [], None
    for match in BLOCK.finditer(text):
        language, reason, content = match.groups()
        if language in ("sql", "bash", "js"):
            last = [text.count("\n", 0, match.start()) + 1, language, content, None]
            if not reason:
                found.append(last)
        elif last and text[:match.start()].rstrip().endswith("```"):
            last[3] = None if reason else (language, content)
    return found


def compare(shown, output):
    language, content = shown
    if language == "json":
        assert same(json.loads(content), json.loads(output)), f"{output} is not what is shown: {content}"
    else:
        def form(text):
            return IDS.sub("ID", re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "TIME", text)).strip()
        assert form(content) == form(output)


@pytest.fixture
def example(make_database, make_gateway, keys):
    """A gateway whose token names a role that may do everything."""
    database = make_database()
    database.query("SELECT es_grant('writer', kind) FROM unnest('{reader,writer,operator,retention}'::text[]) kind")
    database.query(f"ALTER DATABASE {database.name} SET gateway.inbox_handlers = '{{\"payments/shop\": \"account.on_payment\"}}'")
    return database, make_gateway(on=database), keys.jwt("writer")


@pytest.mark.parametrize("path", DOCUMENTS)
def test_document(example, path, tmp_path):
    database, gateway, token = example
    statuses = tmp_path / "statuses"
    environment = {**os.environ, "URL": gateway.url.rstrip("/"), "TOKEN": token, "STATUSES": str(statuses)}
    ran = 0
    for line, language, text, shown in blocks(path):
        if language == "sql":
            if "eventstore-gateway" not in text:         # a role that the tests do not have
                database.query(text)
            continue
        if text.startswith("es()"):
            continue
        statuses.write_text("")
        if language == "js" and not shutil.which("node"):
            continue
        command = ["bash", "-c", SHELL + text] if language == "bash" else ["node", "--input-type=module", "-e", text]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        where = f"{path} line {line}: {done.stdout} {done.stderr}"
        assert done.returncode == 0 and not done.stderr, where
        got = statuses.read_text().split()
        expected = re.search(r"# (\d{3})(?:, or (\d{3}))?$", text.rstrip())
        assert all(status < "400" for status in got[:-1]), where
        if got:
            assert got[-1] in expected.groups() if expected else got[-1] < "400", where
        else:
            assert expected is None, where
        if shown:
            compare(shown, done.stdout)
        ran += 1
    assert ran > 10


@pytest.mark.parametrize("shown, got, equal", [
    ({"a": 1}, {"a": 1, "b": 2}, True), ({"a": 1}, {"a": 2}, False), ({"a": 1}, {}, False), ([1], [1, 2], False),
    ({"recorded_at": "2026"}, {"recorded_at": "2027"}, True), ({"recorded_at": "2026"}, {"recorded_at": None}, False),
    ([{"id": "01a22688-5eed-7cf9-9b92-3c88dc33e42a"}], [{"id": "01a22688-5eed-7cfa-80f7-416d5ddade48"}], True),
    ([{"id": "01a22688-5eed-7cf9-9b92-3c88dc33e42a"}], [{"id": "x"}], False), (1, True, False), (1, "1", False)])
def test_comparison(shown, got, equal):
    assert same(shown, got) is equal
