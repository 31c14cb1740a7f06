"""The console in Debian's chromium, by playwright-core and axe-core from npm.

browser/console.test.mjs has the tests; each of them is one here. They run once and in their order, since each stands
on what those before it have left in the database.
"""
import glob
import json
import os
import re
import shutil
import subprocess

import pytest

import harness

HERE = os.path.join(harness.TOP, "test/gateway/browser")
CONSOLE = os.path.join(harness.PRIVATE, "console")


def names():
    with open(os.path.join(HERE, "console.test.mjs")) as file:
        text = file.read()
    found = re.findall(r"^\t?test\((['`])(.*?)\1", text, re.MULTILINE)
    return [name for _, template in found
            for name in ([template.replace("${mode}", mode) for mode in ("light", "dark", "phone")]
                         if "${mode}" in template else [template])]


@pytest.fixture(scope="module")
def packages():
    """A folder with the tests and their packages."""
    for program in ("node", "npm", "chromium"):
        if not shutil.which(program):
            pytest.skip(f"there is no {program}")
    if not os.path.exists(os.path.join(CONSOLE, "index.html")):
        pytest.skip("the console is not built (make console)")
    return harness.npm_folder(HERE, "browser")


@pytest.fixture(scope="module")
def store(packages):
    database = harness.Database("console").make()
    subprocess.run([f"{os.environ['PRIVATE_BIN']}/psql", "-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-U", "postgres",
                    "-d", database.name, "-f", os.path.join(HERE, "sample.sql")], check=True)
    return database


@pytest.fixture(scope="module")
def environment(packages, store, keys):
    """What browser.mjs needs, and a gateway that serves the console."""
    gateway = harness.Gateway(store, keys, console_dir=CONSOLE).start()
    anonymous = harness.Gateway(store, keys, console_dir=CONSOLE, anonymous_role="visitor").start()
    yield {**os.environ, "CONSOLE_URL": gateway.url, "CONSOLE_ANONYMOUS_URL": anonymous.url, "CONSOLE_TOKENS": json.dumps(keys.static), "PGDATABASE": store.name,
           "MANY_EVENTS": str(harness.few_or_many(100_000, 1_000_000))}
    gateway.stop()
    anonymous.stop()


@pytest.fixture(scope="module")
def results(packages, environment):
    """The outcome of each test by its name: None, or what went wrong."""
    done = subprocess.run(["node", "--test-reporter=tap", "console.test.mjs"], cwd=packages, env=environment,
                          capture_output=True, text=True, timeout=600)
    for line in done.stdout.splitlines():
        if line.startswith("# #"):
            print(line[2:])
    parts = re.split(r"^(not ok|ok) \d+ - (.*)$", done.stdout, flags=re.MULTILINE)
    found = {}
    for outcome, name, rest in zip(parts[1::3], parts[2::3], parts[3::3]):
        name = re.sub(r"\\(.)", r"\1", name)
        found[name] = None if outcome == "ok" else rest
        milliseconds = re.search(r"duration_ms: ([\d.]+)", rest)
        print(f"# {float(milliseconds[1]) / 1000 if milliseconds else 0:6.1f} s  {name}")
    if not found:
        found[""] = done.stdout[-2000:] + done.stderr[-2000:]
    return found


@pytest.mark.parametrize("name", names())
def test_console(results, name):
    assert "" not in results, results[""]
    assert name in results, f"it did not run; others: {list(results)}"
    assert results[name] is None, results[name]


if os.environ.get("PICTURES"):
    def test_pictures(packages, environment, results):
        """Takes the pictures of doc/guide/console.md."""
        subprocess.run(["node", "pictures.mjs", os.path.join(harness.TOP, os.environ["PICTURES"])], cwd=packages,
                       env=environment, check=True, timeout=600)


def test_what_needs_no_browser(packages):
    console = os.path.join(harness.TOP, "gateway/console")
    # a folder means a module from Node.js 22 on
    done = subprocess.run(["node", "--test", *sorted(glob.glob("test/*.test.js", root_dir=console))], cwd=console,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-3000:]
