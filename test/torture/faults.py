"""Faults. Each is a function that is given the round and a generator of random
choices, and does its harm once; what it returns says whether it was done. Those
that end processes of the server by force are kills.

Some are done by the clients themselves, all the time: connections that are cut
after COMMIT was sent, statement timeouts, rollbacks, transactions that are left
prepared (clients.py).
"""
import os
import subprocess
import time

import psycopg

import clients
import servers

KILLS = {}
HARMS = {}
OPENED = []


def kill(name):
    def add(function):
        KILLS[name] = function
        return function
    return add


def harm(name):
    def add(function):
        HARMS[name] = function
        return function
    return add


#
# Kills
#

def kill_one(round, dice, *words):
    """kill -9 of a process of the server, which makes it start all of them anew."""
    found = round.server.processes(*words)
    if not found:
        return False
    victim = dice.choice(sorted(found, key=lambda process: process[1]))[0]
    began = time.monotonic()
    there = servers.stat(victim)
    if not there or there[1] != round.server.pid() or not servers.kill(victim):
        return False
    wait_for_reaper(victim, there[2])
    # It may have ended by itself a moment before.
    if not round.server.logged(f"(PID {victim}) was terminated by signal 9"):
        return False
    round.server.wait_up()
    round.crashes.append((began, time.monotonic()))
    return True


def wait_for_reaper(victim, started):
    """Others are served until the postmaster has seen the death of its child."""
    end = time.monotonic() + servers.PATIENCE
    while (now := servers.stat(victim)) and now[2] == started:
        if time.monotonic() > end:
            raise RuntimeError(f"the postmaster does not see the death of {victim}")
        time.sleep(0.005)


@kill("kill -9 of a backend")
def kill_backend(round, dice):
    return kill_one(round, dice, f"postgres {servers.DATABASE} ")


@kill("kill -9 of a worker")
def kill_worker(round, dice):
    return kill_one(round, dice, "eventstore worker")


@kill("kill -9 of another process of the server")
def kill_other(round, dice):
    return kill_one(round, dice, "eventstore launcher", "checkpointer", "walwriter", "background writer", "autovacuum")


def down_and_up(round, stop, *how):
    """Takes the server down, and starts it again."""
    began = time.monotonic()
    stop(*how)
    round.server.start(round.environment)
    round.crashes.append((began, time.monotonic()))
    return True


@kill("kill -9 of the postmaster")
def kill_postmaster(round, dice):
    return down_and_up(round, round.server.kill_postmaster)


@kill("immediate stop")
def immediate_stop(round, dice):
    return down_and_up(round, round.server.stop, "immediate")


#
# Less than that
#

@harm("fast stop")
def fast_stop(round, dice):
    return down_and_up(round, round.server.stop, "fast")


def signal_backends(function):
    def do(round, dice):
        busy = round.server.query("""SELECT pid FROM pg_stat_activity
            WHERE application_name LIKE 'client %' AND state <> 'idle' ORDER BY application_name""")
        victims = [pid for (pid,) in dice.sample(busy, min(3, len(busy)))]
        return round.server.value(f"SELECT count(*) FROM unnest(%s::int[]) AS pid WHERE {function}(pid)", (victims,)) > 0
    return do


harm("cancel of statements")(signal_backends("pg_cancel_backend"))
harm("pg_terminate_backend of clients")(signal_backends("pg_terminate_backend"))


@harm("pg_terminate_backend of a worker")
def terminate_worker(round, dice):
    victims = [pid for (pid,) in round.server.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker'")]
    return round.server.value("SELECT count(*) FROM unnest(%s::int[]) AS pid WHERE pg_terminate_backend(pid)", (victims,)) > 0


@harm("kill -9 of a client")
def kill_client(round, dice):
    return round.kill_client(dice)


@harm("checkpoint")
def checkpoint(round, dice):
    round.server.query("CHECKPOINT")
    return True


def idle(round, dice, database, *statements):
    """A transaction that is left open for some seconds, or until a crash."""
    connection = round.server.connect(database)
    for statement in ("BEGIN", *statements):
        connection.execute(statement)
    OPENED.append((time.monotonic() + dice.uniform(0.5, 3), connection))
    return True


@harm("idle transaction with an id")
def idle_here(round, dice):
    return idle(round, dice, servers.DATABASE, "SELECT pg_current_xact_id()")


@harm("idle transaction with a snapshot")
def idle_snapshot(round, dice):
    return idle(round, dice, servers.DATABASE, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT es_horizon()")


@harm("idle transaction in another database")
def idle_there(round, dice):
    return idle(round, dice, servers.OTHER, "SELECT pg_current_xact_id()")


def end_prepared(round, seconds):
    """Commits or rolls back what was first seen here so long ago, left by clients; the server's clock may have jumped."""
    now = time.monotonic()
    for (gid,) in round.server.query("SELECT gid FROM pg_prepared_xacts"):
        if now - round.prepared.setdefault(gid, now) < seconds:
            continue
        verb = round.dice(gid).choice(["COMMIT", "ROLLBACK"])
        try:
            round.server.query(f"{verb} PREPARED '{gid}'")
        except psycopg.Error:
            continue                          # its client has come back to it
        round.resolved[gid] = verb
        round.counts["prepared transaction that was left"] += 1


def end_idle(now=None):
    """Ends those whose time has come; all, when no time is given."""
    for item in list(OPENED):
        if now is None or item[0] < now:
            OPENED.remove(item)
            try:
                item[1].execute("ROLLBACK")
            except psycopg.Error:
                pass
            item[1].close()


@harm("VACUUM FREEZE")
def vacuum_freeze(round, dice):
    round.server.query("VACUUM (FREEZE, ANALYZE) es_events, es_partitions, es_projections, es_snapshots, chain",
                       statement_timeout=round.limit)
    return True


@harm("REINDEX CONCURRENTLY")
def reindex(round, dice):
    index = dice.choice(["es_events_pkey", "es_events_id_key", "es_events_stream_version_key",
                         "es_events_category_position_idx", "es_partitions_pkey"])
    round.server.query(f"REINDEX INDEX CONCURRENTLY {index}", statement_timeout=round.limit)
    return True


@harm("ALTER EXTENSION UPDATE")
def update(round, dice):
    """There, or back."""
    now = round.server.value("SELECT extversion FROM pg_extension WHERE extname = 'eventstore'")
    base = round.version
    round.server.query(f"ALTER EXTENSION eventstore UPDATE TO '{base + '.1' if now == base else base}'",
                       statement_timeout=round.limit)
    return True


@harm("projection made async or sync")
def change_mode(round, dice):
    mode = round.server.value("SELECT mode FROM es_projections WHERE name = 'live'")
    with round.server.connect(statement_timeout=round.limit) as connection:
        connection.execute("SELECT es_alter_projection('live', mode => 'async')")
        time.sleep(dice.uniform(0, 0.1))
        connection.execute("SELECT es_alter_projection('live', mode => 'sync')")
    return mode == "sync"


#
# The disk
#

class Unavailable(Exception):
    """This machine does not allow it."""


class Disk:
    """A small disk in memory, mounted in the scratch folder."""

    def __init__(self, name, size):
        self.path = f"{servers.SCRATCH}/{name}"
        self.size = size
        os.makedirs(self.path, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}M,mode=0700", "torture", self.path],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Unavailable(done.stdout.strip())
        servers.give(self.path)

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}M", self.path], check=True)

    def free(self):
        there = os.statvfs(self.path)
        return there.f_bavail * there.f_frsize

    def fill(self):
        """Takes what is left."""
        with open(f"{self.path}/filler", "wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 8192):
                    pass
            except OSError:
                pass

    def clear(self):
        os.unlink(f"{self.path}/filler")

    def remove(self):
        subprocess.run(["umount", "-l", self.path], check=False)
