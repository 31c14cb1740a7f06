"""Servers that are killed: each has a folder of data, copied from one that was
made once, and listens on a Unix socket in the scratch folder alone.

What must come is waited for up to PATIENCE: a slow machine is no fault, and a
server that hangs is one.

Server programs run as the unprivileged user that test/tools/private.sh has
chosen; this process may be root.
"""
import os
import pwd
import shutil
import signal
import subprocess
import time

import psycopg

SCRATCH = os.environ.get("PRIVATE_DIR", "")
BIN = os.environ.get("PRIVATE_BIN", "")
USER = os.environ.get("TORTURE_USER", "")
DATABASE = "store"
OTHER = "other"
PATIENCE = 300

SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{socket}'
port = {port}
shared_preload_libraries = 'eventstore'
eventstore.databases = 'store'
eventstore.snapshot_every = 20
eventstore.poll_interval = 200ms
max_prepared_transactions = 50
max_connections = 60
shared_buffers = 16MB
min_wal_size = 2MB
max_wal_size = 16MB
checkpoint_timeout = 30s
deadlock_timeout = 50ms
restart_after_crash = on
# Processes are killed here, not the machine: what was written stays.
fsync = off
hot_standby_feedback = on
max_standby_streaming_delay = -1
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 100ms
wal_keep_size = 256MB
log_line_prefix = '%m [%p] %b %a '
log_error_verbosity = verbose
"""


def run(*command, check=True, environment=(), timeout=PATIENCE + 60):
    """Runs a program of the server as the unprivileged user."""
    if os.getuid() == 0:
        user = pwd.getpwnam(USER)
        command = ("setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--init-groups",
                   "--inh-caps=-all", "--", "env", f"HOME={SCRATCH}/home", *environment, *command)
    else:
        command = ("env", *environment, *command)
    done = subprocess.run(command, cwd=SCRATCH, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"{command[-4:]} failed: {done.stdout}")
    return done


def give(path):
    """Lets the unprivileged user have a folder."""
    if os.getuid() == 0:
        user = pwd.getpwnam(USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def stat(pid):
    """State, parent and time of start of a process, as /proc has it; None if there is none. Numbers are used again:
    with the time of its start it is known whether it is the same process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return fields[0], int(fields[1]), fields[19]
    except (OSError, IndexError):
        return None


def children(pid):
    """Processes of a postmaster, with what they say they are."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and stat(name)[1] == pid:
                with open(f"/proc/{name}/cmdline") as file:
                    found.append((int(name), file.read().replace("\0", " ").strip()))
        except (OSError, TypeError):
            continue                          # it has ended
    return found


def alive(pid, started):
    """Whether a process is there; one that has ended and waits for its parent is not."""
    now = stat(pid)
    return now is not None and now[0] not in "ZX" and now[2] == started


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


class Server:
    def __init__(self, name, port=5432):
        self.name = name
        self.port = port
        self.data = f"{SCRATCH}/{name}"
        self.log = f"{SCRATCH}/{name}.log"
        self.socket = os.path.dirname(self.data)

    def make(self):
        """A new cluster."""
        run(f"{BIN}/initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale",
            "--no-sync", "--wal-segsize=1")
        self.configure()

    def copy_of(self, other):
        """A copy of a stopped server, or of a folder that was one."""
        shutil.rmtree(self.data, ignore_errors=True)
        run("cp", "-a", "--reflink=auto", other.data, self.data)
        self.configure()

    def configure(self, *lines):
        self.lines = lines
        with open(f"{self.data}/torture.conf", "w") as file:
            file.write(SETTINGS.format(socket=self.socket, port=self.port) + "\n".join(lines) + "\n")
        os.chmod(f"{self.data}/torture.conf", 0o644)
        with open(f"{self.data}/postgresql.conf") as file:
            included = "torture.conf" in file.read()
        if not included:
            with open(f"{self.data}/postgresql.conf", "a") as file:
                file.write("include 'torture.conf'\n")

    def follow(self, other, name="standby"):
        """Is a standby of the other from its next start on."""
        with open(f"{self.data}/standby.signal", "w"):
            pass
        give(f"{self.data}/standby.signal")
        self.configure(f"primary_conninfo = 'host={other.socket} port={other.port} user=postgres application_name={name}'")

    def start(self, environment=()):
        """Starts it; waits for what an earlier postmaster has left to go."""
        end = time.monotonic() + PATIENCE
        while True:
            done = run(f"{BIN}/pg_ctl", "start", "-D", self.data, "-l", self.log, "-w", "-t", str(PATIENCE), "-s", check=False,
                       environment=environment)
            if done.returncode == 0:
                break
            if time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not start: {self.tail()}")
            time.sleep(0.05)
        self.wait_up()

    def stop(self, mode="fast"):
        run(f"{BIN}/pg_ctl", "stop", "-D", self.data, "-m", mode, "-w", "-t", str(PATIENCE), "-s")

    def promote(self):
        run(f"{BIN}/pg_ctl", "promote", "-D", self.data, "-w", "-t", str(PATIENCE), "-s")

    def pid(self):
        """Its postmaster, if that runs: one that was killed leaves its file, and somebody else may have its number by now."""
        try:
            with open(f"{self.data}/postmaster.pid") as file:
                pid = int(file.readline())
            with open(f"/proc/{pid}/cmdline") as file:
                return pid if self.data in file.read().split("\0") else None
        except (OSError, ValueError):
            return None

    def processes(self, *words):
        """Its processes whose titles have one of the words."""
        pid = self.pid()
        return [(p, title) for p, title in (children(pid) if pid else []) if any(w in title for w in words)]

    def kill_postmaster(self):
        """kill -9, and waits for the orphans to notice."""
        pid = self.pid()
        processes = [(p, now[2]) for p in (pid, *(p for p, _ in children(pid))) if (now := stat(p))]
        kill(pid)
        end = time.monotonic() + 30
        while time.monotonic() < end and any(alive(*process) for process in processes):
            time.sleep(0.01)
        for process in processes:
            if alive(*process):
                kill(process[0])

    def connect(self, database=DATABASE, timeout=60, statement_timeout=f"{PATIENCE}s"):
        return psycopg.connect(host=self.socket, port=self.port, user="postgres", dbname=database, autocommit=True,
                               connect_timeout=timeout, application_name="controller",
                               options=f"-c statement_timeout={statement_timeout}")

    def query(self, sql, parameters=None, database=DATABASE, **more):
        with self.connect(database, **more) as connection:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else None

    def value(self, sql, parameters=None, database=DATABASE):
        return self.query(sql, parameters, database)[0][0]

    def wait_up(self):
        """Until it takes connections."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise RuntimeError(f"{self.name} does not come up: {self.tail()}")
                time.sleep(0.01)

    def wait_for(self, sql, patience=PATIENCE):
        """Until a query is true."""
        end = time.monotonic() + patience
        while True:
            try:
                if self.value(sql):
                    return True
            except psycopg.OperationalError:
                pass
            if time.monotonic() > end:
                raise RuntimeError(f"not true in {patience} s: {sql}")
            time.sleep(0.02)

    def is_up(self):
        if not self.pid():
            return False
        try:
            self.connect("postgres").close()
            return True
        except psycopg.OperationalError:
            return False

    def logged(self, *words):
        """Lines of its log that have one of the words."""
        with open(self.log, errors="replace") as file:
            return [line.strip() for line in file if any(word in line for word in words)]

    def tail(self):
        try:
            return "\n".join(self.logged("")[-20:])
        except OSError:
            return ""
