"""Negative controls: an oracle that never finds anything proves nothing.

TAMPERS change what the oracle is given, of a round in which nothing was wrong, so
that exactly one promise is broken. BROKEN are databases in which something is
really broken: the clients find a function of their own in the schema `broken`
before ours, and the oracle must find out.
"""
import random

TAMPERS = []
BROKEN = []


class Impossible(Exception):
    """There is nothing in the round to tamper with."""


def tamper(number, words):
    def add(function):
        TAMPERS.append((number, words, function))
        return function
    return add


def one(candidates):
    candidates = list(candidates)
    if not candidates:
        raise Impossible
    return random.choice(candidates)


def once_ok(e, *kinds):
    """Units with one attempt, which was acknowledged."""
    return [u for u in e.units.values() if u.kind in kinds and u.end == "commit" and len(u.attempts) == 1 and u.is_ok()]


def replace(e, event, **more):
    new = event._replace(**more)
    for events in (e.log, e.by_mark[event.mark], e.streams[event.stream]):
        events[events.index(event)] = new


@tamper(1, "data of an event is another")
def changed(e):
    event = one(event for event in e.log if event.stream.startswith("order-"))
    replace(e, event, data=event.data.replace(event.mark, event.mark + "!"))


@tamper(1, "an event is there twice")
def doubled(e):
    unit = one(u for u in once_ok(e, "one") if u.calls[0]["stream"].startswith("order-"))
    event = e.by_mark[unit.calls[0]["events"][0]["mark"]][0]
    e.by_mark[event.mark].append(event)


@tamper(2, "what was acknowledged had been refused")
def was_refused(e):
    attempt = one(once_ok(e, "one", "new")).attempts[0]
    attempt.result, attempt.sqlstate, attempt.values = "refused", "57014", None


@tamper(2, "an event that nobody has sent")
def sent_by_nobody(e):
    unit = one(u for u in once_ok(e, "new"))
    del e.units[unit.name]


@tamper(3, "an unknown one had one event more")
def had_more(e):
    unit = one(u for u in once_ok(e, "batch"))
    unit.attempts[0].result, unit.attempts[0].values = "unknown", None
    unit.calls[0]["events"].append({"mark": "lost"})


@tamper(4, "two events of an import have each other's version")
def exchanged(e):
    unit, first, second = one((u, a, b) for u in once_ok(e, "import") for a in u.calls[0]["events"] for b in u.calls[0]["events"]
                              if a is not b and a["stream"] == b["stream"] and a["type"] == b["type"])
    first, second = e.by_mark[first["mark"]][0], e.by_mark[second["mark"]][0]
    replace(e, first, version=second.version)
    replace(e, second, version=first.version)


@tamper(5, "an event came with one more")
def came_with_more(e):
    event = one(event for event in e.log if "of" in event.value)
    name, count = event.value["of"].rsplit(" ", 1)
    event.value["of"] = f"{name} {int(count) + 1}"


@tamper(6, "another version was expected")
def expected_other(e):
    call = one(c for u in once_ok(e, "one", "batch") for c in u.calls if c["expected"] not in ("any", "none"))
    call["expected"] = str(int(call["expected"]) + 1)


@tamper(7, "the second result is another")
def other_result(e):
    value = one(u.attempts[-1].values[0] for u in e.units.values() if len(u.attempts) > 1 and u.attempts[-1].result == "ok"
                and u.attempts[-1].values and u.attempts[-1].values[0])
    value[1] += 1


@tamper(7, "a retry of what is stored was refused")
def refused_retry(e):
    unit = one(u for u in e.units.values() if len(u.attempts) == 2 and all(a.result == "ok" for a in u.attempts))
    unit.attempts[1].result, unit.attempts[1].sqlstate, unit.attempts[1].values = "refused", "ES001", None


@tamper(8, "a reader has not seen one")
def not_seen(e):
    got = one(call.answer["got"] for call in e.calls["read"] if call.answer["result"] == "ok" and len(call.answer["got"]) > 1)
    del got[0]


@tamper(9, "an event was delivered to nobody")
def not_delivered(e):
    entry = one(entry for _, _, entry in e.handled if entry["subscription"] == "all" and entry["events"])
    missed = entry["events"][0][0]
    for _, _, entry in e.handled:
        if entry["subscription"] == "all":
            entry["events"] = [event for event in entry["events"] if event[0] != missed]


@tamper(9, "a stream was delivered in another order")
def disordered(e):
    by_stream = {}
    for event in e.log:
        by_stream.setdefault(event.stream, []).append(event.position)
    last = one(p[-1] for p in by_stream.values() if len(p) > 5)
    for place, (t, client, entry) in enumerate(e.handled):
        if entry["subscription"] == "all" and any(event[0] == last for event in entry["events"]):
            e.handled[place] = (t - 10**6, client, entry)


@tamper(10, "a checkpoint was lower")
def fallen(e):
    row = one(row for call in e.calls["look"][-5:] + [c for c in e.calls["look"] if c.entry["what"] == "checkpoints"][-3:]
              if call.entry["what"] == "checkpoints" and call.answer["result"] == "ok" for row in call.answer["rows"] if row[1] > 1)
    row[1] = 1


@tamper(11, "a read model was another")
def other_model(e):
    content = one(call.answer["rows"][0][1] for call in e.calls["look"] if call.entry["what"] == "chain"
                  and call.answer["result"] == "ok" and call.answer["rows"][0][1])
    content[0][3] = "x"


@tamper(12, "a rebuild gave another")
def other_rebuild(e):
    after = e.final["rebuilt"]["totals"][1]
    after[0][1][0][1] += 1


@tamper(13, "an event was acknowledged with two tokens")
def two_tokens(e):
    call = one(call for call in e.calls["ack"] if call.answer["result"] == "ok" and call.entry["events"])
    e.calls["ack"].append(call._replace(entry=dict(call.entry, token=call.entry["token"] + 1)))


@tamper(13, "two had a partition at once")
def two_owners(e):
    quiet = []
    for call in e.calls["poll"]:
        if call.answer["result"] == "ok" and call.answer.get("token"):
            said = min((c.sent for kind in ("poll", "ack", "nack") for c in e.calls[kind]
                        if c.client == call.client and c.sent > call.sent), default=0)
            if said - call.answered > 0.0001 and not e.crashed_between(call.sent, said):
                quiet.append((call, said))
    call, said = one(quiet)
    middle = (call.answered + min(said, call.sent + 0.5)) / 2
    if middle <= call.answered:
        raise Impossible
    e.calls["poll"].append(call._replace(client="nobody", sent=middle, answered=middle))


@tamper(14, "a decision was made on another state")
def other_state(e):
    event = one(event for event in e.log if event.value.get("saw") and event.stream.startswith("dec-"))
    event.value["saw"] = dict(event.value["saw"], sum=10**9)


#
# Broken databases
#

def broken(number, words):
    def add(function):
        BROKEN.append((number, words, function()))
        return function
    return add


APPEND = """CREATE FUNCTION broken.es_append(stream text, expected es_expected_version, type text, data jsonb DEFAULT '{{}}',
    metadata jsonb DEFAULT NULL, id uuid DEFAULT NULL, occurred_at timestamptz DEFAULT NULL,
    OUT version bigint, OUT "position" bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE failure text; place record;
BEGIN {0} END $$;"""
BATCH = """CREATE FUNCTION broken.es_append_batch(stream text, expected es_expected_version, events jsonb,
    OUT version bigint, OUT "position" bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE half jsonb;
BEGIN {0} END $$;"""
ORIGINAL = """SELECT a.version, a.position INTO version, position
    FROM public.es_append(stream, expected, type, data, metadata, id, occurred_at) AS a;"""
ORIGINAL_BATCH = """SELECT a.version, a.position INTO version, position FROM public.es_append_batch(stream, expected, events) AS a;"""
# A transaction of its own, which stays whatever becomes of the first one.
APART = "'host=' || current_setting('unix_socket_directories') || ' port=' || current_setting('port') || ' user=postgres dbname=store'"


POLL = """CREATE FUNCTION broken.es_poll(
    subscription text, consumer text DEFAULT NULL, max_count int DEFAULT 100, wait interval DEFAULT '0', after_token bigint DEFAULT NULL,
    OUT token bigint, OUT partition int, OUT attempt int,
    OUT "position" bigint, OUT version bigint, OUT recorded_at timestamptz, OUT occurred_at timestamptz,
    OUT id uuid, OUT stream text, OUT type text, OUT data jsonb, OUT metadata jsonb)
    RETURNS SETOF record LANGUAGE plpgsql AS $$
#variable_conflict use_variable
BEGIN {0} RETURN QUERY SELECT p.* FROM public.es_poll(subscription, consumer, max_count, '0', after_token) AS p {1}; END $$;"""


@broken(1, "es_append changes what it stores")
def broken_data():
    return APPEND.format("IF random() < 0.5 THEN data := data || '{\"x\": 0}'; END IF;" + ORIGINAL)


@broken(1, "es_append says that it has stored, and has not")
def broken_store():
    return APPEND.format("BEGIN " + ORIGINAL + """ IF random() < 0.2 THEN RAISE EXCEPTION SQLSTATE 'XX999'; END IF;
        EXCEPTION WHEN SQLSTATE 'XX999' THEN NULL; END;""")


@broken(2, "es_append stores what it refuses")
def broken_refusal():
    return "CREATE EXTENSION dblink;" + APPEND.format("BEGIN " + ORIGINAL + f""" EXCEPTION WHEN SQLSTATE 'ES001' THEN
        PERFORM * FROM dblink({APART}, format('SELECT version FROM public.es_append(%L, ''any'', %L, %L, NULL, %L)',
            stream, type, data, id)) AS t (version bigint);
        RAISE; END;""")


@broken(3, "es_append_batch stores half of it first")
def broken_half():
    return "CREATE EXTENSION dblink;" + BATCH.format(f"""IF jsonb_array_length(events) > 1 AND random() < 0.5 THEN
        PERFORM * FROM dblink({APART}, format('SELECT version FROM public.es_append_batch(%L, ''any'', %L)',
            stream, jsonb_build_array(events->0))) AS t (version bigint);
        PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); END IF;""" + ORIGINAL_BATCH)


@broken(4, "es_append leaves a version out")
def broken_version():
    return APPEND.format("""
        version := public.es_stream_version(stream) + 1 + (random() < 0.1)::int;
        position := nextval('public.es_position');
        INSERT INTO public.es_events VALUES (position, version, '1', clock_timestamp(), occurred_at, coalesce(id, gen_random_uuid()),
            stream, type, data, metadata);""")


@broken(5, "es_append_batch forgets the last event")
def broken_batch():
    return BATCH.format("IF jsonb_array_length(events) > 1 AND random() < 0.3 THEN events := events - -1; END IF;" + ORIGINAL_BATCH)


@broken(6, "es_append takes any version")
def broken_expected():
    return APPEND.format("expected := 'any';" + ORIGINAL)


@broken(7, "es_append returns the last version to a retry")
def broken_retry():
    return APPEND.format("""SELECT e.version, e.position INTO place FROM public.es_events AS e WHERE e.id = es_append.id;
        IF FOUND THEN version := place.version + 1; position := place.position; ELSE """ + ORIGINAL + " END IF;")


@broken(8, "es_horizon is the last position")
def broken_horizon():
    return """
        CREATE FUNCTION broken.es_horizon() RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT max(position) FROM public.es_events);
        CREATE FUNCTION broken.es_read(after_position bigint DEFAULT 0, max_count bigint DEFAULT NULL)
        RETURNS SETOF es_recorded_event LANGUAGE sql STABLE AS 'SELECT e::es_recorded_event FROM public.es_events AS e WHERE position > after_position ORDER BY position LIMIT max_count';"""


@broken(9, "es_poll forgets an event")
def broken_poll():
    return POLL.format("", "WHERE p.position % 10 <> 0")


@broken(10, "es_ack takes the checkpoint back")
def broken_checkpoint():
    return """CREATE FUNCTION broken.es_ack(subscription text, token bigint, upto_position bigint DEFAULT NULL) RETURNS bigint
        LANGUAGE plpgsql AS $$
        #variable_conflict use_variable
        DECLARE result bigint;
        BEGIN
            result := public.es_ack(subscription, token, upto_position);
            IF random() < 0.2 THEN
                UPDATE public.es_partitions AS p SET position = greatest(p.position - 30, 0)
                 WHERE p.subscription = es_ack.subscription AND p.position = result;
            END IF;
            RETURN result;
        END $$;"""


@broken(11, "a handler leaves events out")
def broken_handler():
    return """CREATE OR REPLACE FUNCTION public.chain(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            IF event.version % 7 = 0 THEN RETURN; END IF;
            INSERT INTO chain AS c VALUES (event.stream, event.version, 1, md5(event.id::text || event.data::text))
            ON CONFLICT (stream) DO UPDATE SET version = excluded.version, n = c.n + 1, digest = md5(c.digest || excluded.digest);
        END $$;"""


@broken(12, "a rebuild changes a read model")
def broken_rebuild():
    return """CREATE FUNCTION broken.es_rebuild_projection(name text) RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE result bigint;
        BEGIN
            result := public.es_rebuild_projection(name);
            UPDATE public.totals SET n = n + 1 WHERE es_rebuild_projection.name = 'totals';
            RETURN result;
        END $$;"""


@broken(13, "es_poll gives a partition that somebody has")
def broken_lease():
    return POLL.format("""UPDATE public.es_partitions AS p SET leased_until = clock_timestamp() - interval '1 minute'
        WHERE p.subscription = es_poll.subscription AND p.leased_until IS NOT NULL;""", "")


@broken(14, "es_execute decides without the lock")
def broken_decision():
    return """CREATE FUNCTION broken.es_execute(stream text, decider es_function, command jsonb, reducer es_function,
            metadata jsonb DEFAULT NULL, expected es_expected_version DEFAULT 'any',
            OUT version bigint, OUT "position" bigint, OUT state jsonb, OUT events int) LANGUAGE plpgsql AS $$
        #variable_conflict use_variable
        DECLARE decided jsonb;
        BEGIN
            SELECT s.state INTO state FROM public.es_state(stream, reducer) AS s;
            decided := public.dec_decide(state, command);
            PERFORM pg_sleep(0.02);
            SELECT a.version, a.position INTO version, position FROM public.es_append_batch(stream, 'any', decided) AS a;
            SELECT s.state INTO state FROM public.es_state(stream, reducer, at_version => version) AS s;
            events := jsonb_array_length(decided);
        END $$;"""
