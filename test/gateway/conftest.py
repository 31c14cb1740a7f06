"""Fixtures of the tests of the gateway, and their counts. See harness.py, and test/gateway/run, which calls this."""
import collections
import os
import random

import pytest

import harness

durations = collections.defaultdict(float)
counts = collections.Counter()


def pytest_collection_modifyitems(items):
    if not harness.SCRATCH:
        pytest.exit("Call test/gateway/run, which makes the server.", 2)
    harness.make_scratch()


def pytest_make_parametrize_id(val, argname):
    """Long values and those made by chance are no names."""
    if isinstance(val, (str, bytes)) and (len(val) > 60 or not val.isascii()):
        return argname
    return None


def pytest_runtest_logreport(report):
    durations[os.path.basename(report.fspath)] += report.duration
    if report.failed:
        counts["failed"] += 1
        if report.when != "call":
            counts["elsewhere"] += report.when == "teardown"
    elif report.skipped:
        counts["skipped"] += 1
    elif report.when == "call":
        counts["passed"] += 1


def pytest_sessionfinish(session):
    if harness.WORKER:
        return                                 # the process that has started it counts
    with open(os.environ["GATEWAY_COUNTS"], "w") as file:
        print(counts["passed"], counts["failed"], counts["skipped"], file=file)


def pytest_terminal_summary(terminalreporter):
    for name, seconds in sorted(durations.items(), key=lambda entry: -entry[1]):
        terminalreporter.write_line(f"# {name.removesuffix('.py')}: {seconds:.1f} s")


@pytest.fixture(scope="session")
def keys():
    return harness.Keys()


@pytest.fixture(scope="session")
def database():
    """The database of most tests, which is not empty for the second one."""
    return harness.Database("store").make()


@pytest.fixture(scope="session")
def gateway(database, keys):
    """The gateway of most tests. A test that stops or changes it makes one of its own by make_gateway."""
    gateway = harness.Gateway(database, keys)
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.fixture(autouse=True)
def gateway_is_alive(request):
    """No test may end a gateway that others use."""
    yield
    if "gateway" in request.fixturenames:
        gateway = request.getfixturevalue("gateway")
        gateway.check()
        assert gateway.alive(), gateway.text()[-3000:]


@pytest.fixture
def make_database():
    """Makes an empty database."""
    def make():
        return harness.Database(f"store_{next(harness.numbers)}").make()
    return make


@pytest.fixture
def make_gateway(database, keys):
    """Starts a gateway with settings of its own."""
    made = []

    def make(on=None, with_keys=None, start=True, **settings):
        gateway = harness.Gateway(on or database, with_keys or keys, **settings)
        made.append(gateway)
        return gateway.start() if start else gateway
    yield make
    for gateway in made:
        gateway.stop()


@pytest.fixture(scope="session")
def reader(gateway):
    return gateway.client("reader")


@pytest.fixture(scope="session")
def writer(gateway):
    return gateway.client("writer")


@pytest.fixture(scope="session")
def operator(gateway):
    return gateway.client("operator")


@pytest.fixture(scope="session")
def retention(gateway):
    return gateway.client("retention")


@pytest.fixture(scope="session")
def nobody(gateway):
    return gateway.client("nobody")


@pytest.fixture(scope="session")
def anonymous(gateway):
    return gateway.client()


@pytest.fixture
def stream():
    """The name of a stream that no other test has."""
    return f"stream-{next(harness.numbers)}"


@pytest.fixture
def chance(request):
    """Random choices that SEED repeats."""
    return random.Random(f"{harness.SEED} {request.node.name}")
