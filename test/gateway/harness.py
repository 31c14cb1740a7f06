"""What the tests of the gateway stand on: databases, gateways, tokens, and HTTP as bytes.

The program test/gateway/run makes the private server and its roles, and says in the environment where everything is.
Processes of the gateway run as the unprivileged user of the server. They listen on a loopback port that the system
chooses, and end with the test that started them.
"""
import base64
import functools
import hashlib
import hmac
import itertools
import json
import os
import pwd
import queue
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time

import psycopg
import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

import description

PRIVATE = os.environ.get("PRIVATE_DIR", "")
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")     # where several files are run side by side
SCRATCH = PRIVATE and os.path.join(PRIVATE, "gateway" + WORKER)
PROGRAM = os.environ.get("GATEWAY_PROGRAM", "")
USER = os.environ.get("GATEWAY_USER", "")
TOP = os.environ.get("GATEWAY_TOP", "")
SEED = int(os.environ.get("SEED", "1"))
LONG = bool(os.environ.get("LONG"))
PATIENCE = 60
ROLES = ("reader", "writer", "appender", "operator", "retention", "nobody")
ALARMS = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:|Segmentation|buffer overflow detected")
numbers = itertools.count(1)


def few_or_many(few, many):
    """How many rounds, in the short and in the long form."""
    return many if LONG else few


def until(condition, what="what was waited for", patience=PATIENCE, pause=0.02):
    """Waits until the condition is true, and returns what it returned."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come in {patience} s")
        time.sleep(pause)


def as_user(*command):
    """The command line that runs a command as the unprivileged user."""
    if os.getuid() != 0:
        return command
    user = pwd.getpwnam(USER)
    return ("setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--init-groups", "--inh-caps=-all",
            "--", *command)


def make_scratch():
    """The folder of this process in the scratch folder."""
    if not os.path.isdir(SCRATCH):
        os.mkdir(SCRATCH, 0o700)
        if os.getuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(SCRATCH, user.pw_uid, user.pw_gid)


@functools.cache
def leaks_are_found():
    """Whether LeakSanitizer works here, which traces the process at its end. Other programs do not mind the variable."""
    return subprocess.run(as_user(PROGRAM, "--version"), env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1"},
                          capture_output=True).returncode == 0


def npm_folder(source, name):
    """A copy of a folder of tests in the scratch folder, with its packages from npm; skips the test if npm has none."""
    folder = os.path.join(SCRATCH, name)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(["npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error",
                           "--fetch-retries=3", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"],
                          cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"npm could not install the packages of {name}: {done.stderr[-300:]}")
    return folder


def private_file(name, content):
    """A file in the scratch folder that the unprivileged user alone can read."""
    path = os.path.join(SCRATCH, name)
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
    os.chmod(path, 0o600)
    if os.getuid() == 0:
        user = pwd.getpwnam(USER)
        os.chown(path, user.pw_uid, user.pw_gid)
    return path


#
# Databases
#

class Database:
    """A database with the extension and grants for the roles of roles.sql."""

    def __init__(self, name, host=None):
        self.name = name if host else f"{name}{WORKER}"
        self.host = host or os.environ["PGHOST"]

    def make(self):
        with psycopg.connect(f"host={self.host} user=postgres dbname=postgres", autocommit=True) as session:
            session.execute(f'CREATE DATABASE "{self.name}"')
        with self.connect() as session:
            session.execute("CREATE EXTENSION eventstore")
            for role, kinds in (("reader", ["reader"]), ("writer", ["writer", "reader"]), ("appender", ["writer"]),
                                ("operator", ["operator"]), ("retention", ["retention", "reader"]),
                                ("visitor", ["reader"])):
                for kind in kinds:
                    session.execute("SELECT es_grant(%s, %s)", (role, kind))
        return self

    def connect(self, user="postgres"):
        return psycopg.connect(f"host={self.host} user={user} dbname={self.name}", autocommit=True)

    def query(self, statement, parameters=None):
        """All rows of a statement, as the superuser."""
        with self.connect() as session:
            cursor = session.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement, parameters=None):
        return self.query(statement, parameters)[0][0]

    def conninfo(self, user="gateway"):
        return f"host={self.host} port=5432 user={user} dbname={self.name}"


class Cluster:
    """A server of a test's own, that can be killed. Its data lie in memory or in the files of a living system, since
    processes are killed here and not the machine: so fsync is off."""

    def __init__(self, name, *lines):
        self.name = name
        self.data = os.path.join(SCRATCH, name)
        self.socket = self.data + ".run"
        self.bin = os.environ["PRIVATE_BIN"]
        self.lines = lines

    def make(self):
        os.mkdir(self.socket)
        if os.getuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(self.socket, user.pw_uid, user.pw_gid)
        self.run(f"{self.bin}/initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale",
                 "--no-sync")
        with open(f"{self.data}/postgresql.conf", "a") as file:
            print("listen_addresses = ''", f"unix_socket_directories = '{self.socket}'", "port = 5432", "fsync = off",
                  "max_connections = 100", "eventstore.autostart_workers = 2", "restart_after_crash = on",
                  "shared_buffers = 32MB", *self.lines, sep="\n", file=file)
        self.start()
        with psycopg.connect(f"host={self.socket} user=postgres dbname=postgres", autocommit=True) as session:
            with open(os.path.join(TOP, "test/gateway/roles.sql")) as file:
                session.execute(file.read())
        return self

    def run(self, *command, check=True):
        done = subprocess.run(as_user(*command), cwd=SCRATCH, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=PATIENCE + 60)
        assert not check or done.returncode == 0, done.stdout

    def start(self):
        self.run(f"{self.bin}/pg_ctl", "start", "-D", self.data, "-l", f"{self.data}.log", "-w", "-t", "60", "-s")

    def stop(self, mode="fast"):
        self.run(f"{self.bin}/pg_ctl", "stop", "-D", self.data, "-m", mode, "-w", "-t", "60", "-s", check=False)

    def postmaster(self):
        with open(f"{self.data}/postmaster.pid") as file:
            return int(file.readline())

    def children(self):
        """Processes of the postmaster, by their ids, with what they say they are."""
        pid, found = self.postmaster(), {}
        for name in os.listdir("/proc"):
            try:
                if name.isdigit():
                    with open(f"/proc/{name}/stat") as file:
                        parent = int(file.read().rsplit(")", 1)[1].split()[1])
                    if parent == pid:
                        with open(f"/proc/{name}/cmdline") as file:
                            found[int(name)] = file.read().replace("\0", " ").strip()
            except (OSError, IndexError):
                continue                       # it has ended
        return found

    def kill_session(self, chance):
        """Kills a session of the gateway, so that the postmaster ends all others and recovers."""
        found = [pid for pid, what in self.children().items() if " gateway " in what]
        if found:
            kill(chance.choice(found))

    def kill(self):
        """Kills the postmaster and every process of it, as if the power failed, and starts it again."""
        postmaster = self.postmaster()
        os.kill(postmaster, signal.SIGSTOP)    # it starts no process that would not be seen
        pids = [postmaster, *self.children()]
        for pid in pids:
            kill(pid)
        until(lambda: not any(os.path.exists(f"/proc/{pid}") and not is_zombie(pid) for pid in pids), "the end")
        # Their process may be a zombie, if nobody waits for it.
        os.remove(f"{self.data}/postmaster.pid")
        os.remove(f"{self.socket}/.s.PGSQL.5432.lock")
        self.start()


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


#
# Tokens
#

def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value):
    """A part of a JWT from an object, or from bytes as they are."""
    return base64url(value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode())


class Keys:
    """Keys of each algorithm, and a token for each role in a file of tokens."""

    def __init__(self, prefix="key"):
        self.secret = secrets.token_hex(32).encode()
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.static = {role: f"token-{role}-{secrets.token_hex(16)}" for role in (*ROLES, "stranger", "absent")}
        self.hs256_file = private_file(f"{prefix}-hs256", self.secret)
        self.rs256_file = private_file(f"{prefix}-rs256.pem", self.public(self.rsa))
        self.es256_file = private_file(f"{prefix}-es256.pem", self.public(self.ec))
        self.list_file = private_file(f"{prefix}-list", f"HS256 - {prefix}-hs256\nRS256 - {prefix}-rs256.pem\n"
                                                        f"ES256 - {prefix}-es256.pem\n")
        lines = (f"{hashlib.sha256(token.encode()).hexdigest()} {role} of the tests\n"
                 for role, token in self.static.items())
        self.token_file = private_file(f"{prefix}-tokens", "# tokens of the tests\n" + "".join(lines))

    @staticmethod
    def public(key):
        return key.public_key().public_bytes(serialization.Encoding.PEM,
                                             serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign(self, algorithm, text):
        """The signature of the algorithm, with the key that is its own."""
        if algorithm == "HS256":
            return hmac.new(self.secret, text, hashlib.sha256).digest()
        if algorithm == "RS256":
            return self.rsa.sign(text, padding.PKCS1v15(), hashes.SHA256())
        if algorithm == "ES256":
            r, s = utils.decode_dss_signature(self.ec.sign(text, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        raise ValueError(algorithm)

    def jwt(self, role="reader", algorithm="HS256", head=None, signature=None, **claims):
        """A JWT whose claim names the role and that is valid for an hour, but for what is given. A claim that is None
        is left out."""
        head = {"alg": algorithm, "typ": "JWT", **(head or {})} if not isinstance(head, bytes) else head
        payload = {"role": role, "exp": int(time.time()) + 3600, **claims}
        text = f"{part(head)}.{part({k: v for k, v in payload.items() if v is not None})}".encode()
        if signature is None:
            signature = self.sign(algorithm, text)
        return f"{text.decode()}.{base64url(signature)}"


#
# The program
#

class Gateway:
    """A process of the gateway, with what it logs."""

    def __init__(self, database, keys, **settings):
        self.database = database
        self.name = f"gateway-{next(numbers)}"
        self.settings = configuration(database, keys, settings)
        self.keys = keys
        self.lines = []
        self.process = None
        self.stopped = True

    def start(self, wait=True):
        path = private_file(f"{self.name}.conf", render(self.settings))
        self.urls = queue.Queue()
        self.log = open(os.path.join(SCRATCH, f"{self.name}.log"), "ab")
        environment = {**os.environ, "LC_ALL": "C.UTF-8",
                       "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:quarantine_size_mb=4", "UBSAN_OPTIONS": "print_stacktrace=1"}
        for name in [name for name in environment if name.startswith("PG")]:
            del environment[name]
        self.process = subprocess.Popen(as_user(PROGRAM, "--config", path), cwd=SCRATCH, env=environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.stopped = False
        self.reader = threading.Thread(target=self.read_log, args=(self.process.stderr,), daemon=True)
        self.reader.start()
        if wait:
            self.url = self.urls.get(timeout=PATIENCE)
            assert self.url, f"the gateway did not start: {self.text()[-2000:]}"
            self.port = int(re.search(r":(\d+)/?$", self.url)[1])
            until(lambda: self.ready(), "/readyz")
        return self

    def read_log(self, pipe):
        for line in pipe:
            self.log.write(line)
            self.log.flush()
            self.lines.append(line)
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("event") == "listening":
                self.urls.put(entry["url"])
        self.urls.put(None)

    def ready(self):
        assert self.process.poll() is None, f"the gateway ended: {self.text()[-2000:]}"
        return requests.get(self.url.rstrip("/") + "/readyz", timeout=PATIENCE).status_code == 200

    def text(self):
        return b"".join(self.lines).decode(errors="replace")

    def entries(self):
        """The lines of the log, as objects."""
        return [json.loads(line) for line in list(self.lines) if line.strip()]

    def memory(self):
        """Resident memory, in bytes."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1]) * 1024

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.stopped = True

    def again(self, gently=False):
        """Ends it, and starts it at the same address."""
        if gently:
            self.stop()
        else:
            self.kill()
        self.settings["listen"] = f"127.0.0.1:{self.port}"
        self.start()

    def stop(self, patience=PATIENCE):
        """Drains it. It must end with 0, and nothing may have been found by a sanitizer."""
        if self.stopped:
            return
        self.stopped = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.log.close()
        self.check()
        assert self.process.returncode == 0, f"the gateway ended with {self.process.returncode}: {self.text()[-3000:]}"

    def check(self):
        found = ALARMS.search(self.text())
        assert not found, self.text()[found.start():found.start() + 4000]

    def alive(self):
        return self.process.poll() is None

    def client(self, role=None, **options):
        return Client(self, role and self.keys.static[role], **options)


def configuration(database, keys, settings):
    """The settings of a gateway: those of the tests, and then those of one test."""
    return {
        "database": database.conninfo(),
        "listen": "127.0.0.1:0",
        "jwt_keys": keys.list_file,
        "token_file": keys.token_file,
        "jwt_leeway": 1,
        **settings,
    }


def render(settings):
    return "".join(f"{name} = {value}\n" for name, value in settings.items() if value is not None)


#
# HTTP
#

class Client:
    """HTTP by requests, in the name of a role. Each answer is held against gateway/openapi.json."""

    def __init__(self, gateway, token=None):
        self.gateway = gateway
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Accept-Encoding"] = "identity"
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def __call__(self, method, path, expect=None, **options):
        options.setdefault("timeout", PATIENCE)
        options.setdefault("allow_redirects", False)
        answer = self.session.request(method, self.gateway.url.rstrip("/") + path, **options)
        description.check(method, path, answer, not options.get("stream"))
        if expect is not None:
            assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text[:1000]}"
        return answer

    def get(self, path, expect=200, **options):
        return self("GET", path, expect, **options)

    def head(self, path, expect=200, **options):
        return self("HEAD", path, expect, **options)

    def post(self, path, body=None, expect=None, **options):
        return self("POST", path, expect, **({"json": body} if body is not None else {}), **options)

    def delete(self, path, expect=None, **options):
        return self("DELETE", path, expect, **options)


class Answer:
    """An answer as it came."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:500]!r}"


class Wire:
    """A connection on which a test writes bytes, and reads answers."""

    def __init__(self, gateway, timeout=PATIENCE):
        self.socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Closes it with a reset, as a process that dies does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())
        return self

    def more(self):
        """Reads more; False at the end."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return False
        self.buffer += data
        return bool(data)

    def until(self, mark):
        while mark not in self.buffer:
            if not self.more():
                raise EOFError(self.buffer[:2000])
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def exactly(self, count):
        while len(self.buffer) < count:
            if not self.more():
                raise EOFError(self.buffer[:2000])
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def head(self):
        """Status and headers of an answer. A header that comes twice is joined by a comma."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.[01] (\d{3})( [^\r\n]*)?", lines[0])
        assert match, lines[0]
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return int(match[1]), headers

    def answer(self, method="GET"):
        """One whole answer; interim answers are passed over."""
        status, headers = self.head()
        while status == 100:
            status, headers = self.head()
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = b"".join(self.chunks())
        elif "content-length" in headers:
            body = self.exactly(int(headers["content-length"]))
        else:
            while self.more():
                pass
            body, self.buffer = self.buffer, b""
        return Answer(status, headers, body)

    def chunks(self):
        while True:
            size = int(self.until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                while self.until(b"\r\n"):
                    pass
                return
            yield self.exactly(size)
            assert self.exactly(2) == b"\r\n"

    def closed(self):
        """Whether nothing but the end of the connection comes."""
        if self.buffer:
            return False
        try:
            return not self.more()
        except TimeoutError:
            return False


def ask(gateway, data, method="GET", timeout=PATIENCE):
    """The answer to a request, given as bytes; None where the connection ended without one."""
    with Wire(gateway, timeout) as wire:
        try:
            wire.send(data)
        except ConnectionError:
            pass                               # refused before all of it was written
        try:
            return wire.answer(method)
        except EOFError as end:
            assert not end.args or not end.args[0].strip() or end.args[0].startswith(b"HTTP/1."), end
            return None


def request(method, target, token=None, headers=(), body=None, version="HTTP/1.1"):
    """The bytes of a request. Targets and headers are written as they are."""
    lines = [f"{method} {target} {version}".encode("latin-1") if isinstance(target, str)
             else method.encode() + b" " + target + b" " + version.encode()]
    names = {name.lower() for name, _ in headers}
    if "host" not in names:
        lines.append(b"Host: localhost")
    if token:
        lines.append(f"Authorization: Bearer {token}".encode())
    for name, value in headers:
        lines.append(name.encode("latin-1") + b": " + (value if isinstance(value, bytes) else value.encode("latin-1")))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


class EventStream:
    """A client of an event stream, by the standard's rules (HTML, 9.2.6)."""

    def __init__(self, gateway, path="/v1/events", token=None, last_event_id=None, timeout=PATIENCE, headers=()):
        self.wire = Wire(gateway, timeout)
        extra = [("Accept", "text/event-stream"), *headers]
        if last_event_id is not None:
            extra.append(("Last-Event-ID", str(last_event_id)))
        self.wire.send(request("GET", path, token, extra))
        self.status, self.headers = self.wire.head()
        self.retry = None
        self.last_event_id = last_event_id
        self.comments = 0
        self.text = b""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            self.source = self.wire.chunks()
        else:
            self.source = self.plain()

    def plain(self):
        while self.wire.buffer or self.wire.more():
            data, self.wire.buffer = self.wire.buffer, b""
            yield data

    def close(self):
        self.wire.close()

    def __iter__(self):
        """Events as (type, data, id); ends with the stream."""
        kind, data = "message", []
        for piece in self.source:
            self.text += piece
            *lines, self.text = self.text.split(b"\n")
            for line in lines:
                line = line.rstrip(b"\r").decode()
                name, _, value = line.partition(":")
                value = value[1:] if value.startswith(" ") else value
                if line == "":
                    if data:
                        yield kind, "\n".join(data), self.last_event_id
                    kind, data = "message", []
                elif name == "":
                    self.comments += 1
                elif name == "event":
                    kind = value
                elif name == "data":
                    data.append(value)
                elif name == "id":
                    self.last_event_id = value
                elif name == "retry":
                    self.retry = int(value)
