"""Negative controls: an oracle that never finds anything proves nothing.

TAMPERS change what the oracle is given, of a round in which nothing was wrong, so
that exactly one promise is broken. Each says what it may be done to; what has been
that once stays it, so that the round goes on until each has something. BROKEN are
databases in which something is really broken: the clients find a function of their
own in the schema `broken` before ours, and the oracle must find out. Whether such a
function does wrong is decided by what it is given, mostly the last digit of an
event's mark, so that clients.Certain meets it.
"""
import bisect
import collections

TAMPERS = []
BROKEN = []

Tamper = collections.namedtuple("Tamper", "number words material function")
Broken = collections.namedtuple("Broken", "number words sql overtaken")


def tamper(number, words, material):
    """The material yields what of the evidence may be tampered with; the function is given one of it."""
    def add(function):
        TAMPERS.append(Tamper(number, words, material, function))
        return function
    return add


def replace(e, event, **more):
    new = event._replace(**more)
    for events in (e.log, e.by_mark[event.mark], e.streams[event.stream]):
        events[events.index(event)] = new


#
# Appends
#

def once_ok(*kinds):
    """Units with one attempt, which was acknowledged; none of them can be attempted again but the last of a client."""
    return lambda e: (u for u in e.units.values() if u.kind in kinds and u.end == "commit" and len(u.attempts) == 1 and u.is_ok())


def of_orders(e):
    return (event for event in e.log if event.stream.startswith("order-"))


@tamper(1, "data of an event is another", of_orders)
def changed(e, event):
    replace(e, event, data=event.data.replace(event.mark, event.mark + "!"))


@tamper(1, "an event is there twice", of_orders)
def doubled(e, event):
    e.by_mark[event.mark].append(event)


@tamper(2, "what was acknowledged had been refused", once_ok("one", "new"))
def was_refused(e, unit):
    attempt = unit.attempts[0]
    attempt.result, attempt.sqlstate, attempt.values = "refused", "57014", None


@tamper(2, "an event that nobody has sent", once_ok("new"))
def sent_by_nobody(e, unit):
    del e.units[unit.name]


@tamper(3, "an unknown one had one event more", once_ok("batch"))
def had_more(e, unit):
    unit.attempts[0].result, unit.attempts[0].values = "unknown", None
    unit.calls[0]["events"].append({"mark": "lost"})


def pairs_of_imports(e):
    """Two events of a stream and a type, between which no checkpoint was seen."""
    seen = [call.answer["rows"][0][0] for kind in ("look", "rebuild") for call in e.calls[kind]
            if call.entry["what"] == "totals" and call.answer["result"] == "ok"]
    for unit in once_ok("import")(e):
        events = sorted(e.by_mark[event["mark"]][0] for event in unit.calls[0]["events"])
        for place, first in enumerate(events):
            for second in events[place + 1:]:
                if (first.stream, first.type) == (second.stream, second.type) and max(seen, default=0) >= second.position \
                        and not any(first.position <= position < second.position for position in seen):
                    yield first, second


@tamper(4, "two events of an import have each other's version", pairs_of_imports)
def exchanged(e, pair):
    first, second = pair
    replace(e, first, version=second.version)
    replace(e, second, version=first.version)


@tamper(5, "an event came with one more", lambda e: (event for event in e.log if "of" in event.value))
def came_with_more(e, event):
    name, count = event.value["of"].rsplit(" ", 1)
    event.value["of"] = f"{name} {int(count) + 1}"


@tamper(6, "another version was expected",
        lambda e: (call for u in once_ok("one", "batch")(e) for call in u.calls if call["expected"] not in ("any", "none")))
def expected_other(e, call):
    call["expected"] = str(int(call["expected"]) + 1)


def both_ok(e):
    """Units that were acknowledged twice."""
    return (u for u in e.units.values() if len(u.attempts) == 2 and all(a.result == "ok" and a.values[0] for a in u.attempts))


@tamper(7, "the second result is another", both_ok)
def other_result(e, unit):
    unit.attempts[1].values[0][1] += 1


@tamper(7, "a retry of what is stored was refused", both_ok)
def refused_retry(e, unit):
    unit.attempts[1].result, unit.attempts[1].sqlstate, unit.attempts[1].values = "refused", "ES001", None


#
# Readers and consumers
#

def reads(e):
    return (call for call in e.calls["read"] if call.answer["result"] == "ok")


@tamper(8, "a reader has not seen one", lambda e: (call.answer["got"] for call in reads(e) if len(call.answer["got"]) > 1))
def not_seen(e, got):
    del got[0]


@tamper(8, "a reader has not come to the end", reads)
def not_to_the_end(e, call):
    e.calls["read"].remove(max((c for c in reads(e) if c.client == call.client), key=lambda call: call.answered))


def handled_of(subscription):
    return lambda e: (entry for _, _, entry in e.handled if entry["subscription"] == subscription and entry["events"])


@tamper(9, "an event was delivered to nobody", handled_of("all"))
def not_delivered(e, entry):
    missed = entry["events"][0][0]
    for _, _, entry in e.handled:
        if entry["subscription"] == "all":
            entry["events"] = [event for event in entry["events"] if event[0] != missed]


@tamper(9, "a subscription had no delivery", handled_of("typed"))
def nothing_delivered(e, entry):
    e.handled = [(t, client, entry) for t, client, entry in e.handled if entry["subscription"] != "typed"]


@tamper(9, "a later event of a stream was delivered first",
        lambda e: ((entry, event) for entry in handled_of("all")(e) for event in entry["events"] if event[3] > 1))
def disordered(e, delivered):
    entry, event = delivered
    e.handled.append((0, "nobody", dict(entry, events=[event])))


def looks(e, what):
    return (call for call in e.calls["look"] if call.entry["what"] == what and call.answer["result"] == "ok")


def later_checkpoints(e):
    """Rows of looks at a checkpoint that was above 0 before."""
    above = {}
    for call in sorted(looks(e, "checkpoints"), key=lambda call: call.sent):
        for row in call.answer["rows"]:
            if above.get(row[0], call.answered) <= call.sent:
                yield row
            if row[1] > 0:
                above[row[0]] = min(call.answered, above.get(row[0], call.answered))


@tamper(10, "a checkpoint was lower", later_checkpoints)
def fallen(e, row):
    row[1] = 0


@tamper(11, "a read model was another", lambda e: (call.answer["rows"][0][1] for call in looks(e, "chain") if call.answer["rows"][0][1]))
def other_model(e, content):
    content[0][3] = "x"


@tamper(12, "a rebuild gave another", lambda e: e.log)
def other_rebuild(e, event):
    """In the end all are rebuilt."""
    after = e.final["rebuilt"]["totals"][1]
    after[0][1][0][1] += 1


@tamper(13, "an event was acknowledged with two tokens",
        lambda e: (call for call in e.calls["ack"] if call.answer["result"] == "ok" and call.entry["events"]))
def two_tokens(e, call):
    e.calls["ack"].append(call._replace(entry=dict(call.entry, token=call.entry["token"] + 1)))


def held(e):
    """Deliveries, and a time at which their consumer still had them."""
    spoken = e.spoken()
    for call in e.calls["poll"]:
        if call.answer["result"] == "ok" and call.answer.get("token"):
            said = bisect.bisect_right(spoken[call.client], call.sent)
            if said < len(spoken[call.client]):
                middle = (call.answered + min(spoken[call.client][said], call.sent + 0.5)) / 2
                if middle > call.answered:
                    yield call, middle


@tamper(13, "two had a partition at once", held)
def two_owners(e, delivered):
    call, middle = delivered
    e.calls["poll"].append(call._replace(client="nobody", sent=middle, answered=middle))


@tamper(14, "a decision was made on another state",
        lambda e: (event for event in e.log if event.value.get("saw") and event.stream.startswith("dec-")))
def other_state(e, event):
    event.value["saw"] = dict(event.value["saw"], sum=10**9)


def sent_otherwise(result, *what):
    return lambda e: (call for call, _ in e.otherwise() if call.answer["result"] == result and call.entry["what"] in what)


@tamper(15, "what was another append was told the first result", sent_otherwise("refused", "data", "type", "stranger"))
def told_first_result(e, call):
    call.answer.clear()
    call.answer.update(result="ok", value=[1, 1])


@tamper(15, "a retry with fewer ids was told another result", sent_otherwise("ok", "fewer"))
def told_other_result(e, call):
    call.answer["value"][0] += 1


@tamper(15, "what was refused had been stored", sent_otherwise("refused", "stranger"))
def stranger_stored(e, call):
    e.by_mark[call.entry["marks"][0]] = [e.log[0]]


#
# Broken databases
#

def broken(number, words, overtaken=False):
    """overtaken: a transaction commits after readers have gone past its event."""
    def add(function):
        BROKEN.append(Broken(number, words, function(), overtaken))
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
    return APPEND.format("IF data->>'mark' ~ '[13579]$' THEN data := data || '{\"x\": 0}'; END IF;" + ORIGINAL)


@broken(1, "es_append says that it has stored, and has not")
def broken_store():
    return APPEND.format("BEGIN " + ORIGINAL + """ IF data->>'mark' ~ '[37]$' THEN RAISE EXCEPTION SQLSTATE 'XX999'; END IF;
        EXCEPTION WHEN SQLSTATE 'XX999' THEN NULL; END;""")


@broken(2, "es_append stores what it refuses")
def broken_refusal():
    return "CREATE EXTENSION dblink;" + APPEND.format("BEGIN " + ORIGINAL + f""" EXCEPTION WHEN SQLSTATE 'ES001' THEN
        PERFORM * FROM dblink({APART}, format('SELECT version FROM public.es_append(%L, ''any'', %L, %L, NULL, %L)',
            stream, type, data, id)) AS t (version bigint);
        RAISE; END;""")


@broken(3, "es_append_batch stores half of it first")
def broken_half():
    return "CREATE EXTENSION dblink;" + BATCH.format(f"""IF jsonb_array_length(events) > 1 AND events->0->'data'->>'mark' ~ '[02468]$'
            AND NOT EXISTS (SELECT FROM public.es_events AS e WHERE e.data->'mark' = events->0->'data'->'mark') THEN
        PERFORM * FROM dblink({APART}, format('SELECT version FROM public.es_append_batch(%L, ''any'', %L)',
            stream, jsonb_build_array(events->0))) AS t (version bigint);
        PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); END IF;""" + ORIGINAL_BATCH)


@broken(4, "es_append leaves a version out")
def broken_version():
    return APPEND.format("""
        version := public.es_stream_version(stream) + 1 + (data->>'mark' ~ '7$')::int;
        position := nextval('public.es_position');
        INSERT INTO public.es_events VALUES (position, version, '1', clock_timestamp(), occurred_at, coalesce(id, gen_random_uuid()),
            stream, type, data, metadata);""")


@broken(5, "es_append_batch forgets the last event")
def broken_batch():
    return BATCH.format("IF jsonb_array_length(events) > 1 AND events->-1->'data'->>'mark' ~ '[02468]$' THEN events := events - -1; END IF;" + ORIGINAL_BATCH)


@broken(6, "es_append takes any version")
def broken_expected():
    return APPEND.format("expected := 'any';" + ORIGINAL)


@broken(7, "es_append returns the last version to a retry")
def broken_retry():
    return APPEND.format("""SELECT e.version, e.position INTO place FROM public.es_events AS e WHERE e.id = es_append.id;
        IF FOUND THEN version := place.version + 1; position := place.position; ELSE """ + ORIGINAL + " END IF;")


@broken(8, "es_horizon is the last position", overtaken=True)
def broken_horizon():
    return """
        CREATE FUNCTION broken.es_horizon() RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT max(position) FROM public.es_events);
        CREATE FUNCTION broken.es_read(after_position bigint DEFAULT 0, max_count bigint DEFAULT NULL)
        RETURNS SETOF es_recorded_event LANGUAGE sql STABLE AS 'SELECT e::es_recorded_event FROM public.es_events AS e WHERE position > after_position ORDER BY position LIMIT max_count';"""


@broken(9, "es_poll forgets an event")
def broken_poll():
    return POLL.format("", "WHERE p.data->>'mark' !~ '[37]$'")


@broken(10, "es_ack takes the checkpoint back")
def broken_checkpoint():
    return """CREATE FUNCTION broken.es_ack(subscription text, token bigint, upto_position bigint DEFAULT NULL) RETURNS bigint
        LANGUAGE plpgsql AS $$
        #variable_conflict use_variable
        DECLARE result bigint;
        BEGIN
            result := public.es_ack(subscription, token, upto_position);
            IF token % 5 = 0 THEN
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


@broken(15, "es_append_batch asks for an id alone")
def broken_retry_of_batch():
    return BATCH.format("""SELECT e.version - n.place + jsonb_array_length(events), e.position INTO version, position
          FROM jsonb_array_elements(events) WITH ORDINALITY AS n (event, place)
          JOIN public.es_events AS e ON e.id = (n.event->>'id')::uuid LIMIT 1;
        IF NOT FOUND THEN """ + ORIGINAL_BATCH + " END IF;")


@broken(15, "es_append asks for an id alone")
def broken_retry_of_one():
    return APPEND.format("""SELECT e.version, e.position INTO place FROM public.es_events AS e WHERE e.id = es_append.id;
        IF FOUND THEN version := place.version; position := place.position; ELSE """ + ORIGINAL + " END IF;")
