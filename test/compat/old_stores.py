"""The stores that the test of the importers moves, as their own clients or documents make them."""
import base64
import datetime
import json
import os
import subprocess
import uuid

from psycopg.types.json import Jsonb

from import_store import MANY, Session, Store, check, node_folder


class MessageDb(Store):
    name = "message-db"
    raw = """SELECT global_position AS position, position + 1 AS version, time AT TIME ZONE 'UTC' AS recorded_at,
                    stream_name AS stream, type, coalesce(data, 'null') AS data,
                    CASE WHEN jsonb_typeof(metadata) = 'string' THEN jsonb_build_object('metadata', metadata) ELSE metadata END
                        AS metadata, id FROM message_store.messages"""
    late = "SELECT message_store.write_message(gen_random_uuid()::varchar, 'late-1', 'Late', '{\"n\": 1}')"
    consumer_name = "account:position-reports"
    consumer_category = "account"
    damages = {
        "events": "DELETE FROM message_store.messages WHERE global_position = 100",
        "ids": "UPDATE message_store.messages SET id = gen_random_uuid() WHERE global_position = 100",
        "streams": "UPDATE message_store.messages SET stream_name = 'x-1' WHERE global_position = 100",
        "types": "UPDATE message_store.messages SET type = 'X' WHERE global_position = 100",
        "data": "UPDATE message_store.messages SET data = '{}' WHERE global_position = 100",
        "metadata": "UPDATE message_store.messages SET metadata = '{\"x\": 1}' WHERE global_position = 100",
        "times": "UPDATE message_store.messages SET time = time + '1 us' WHERE global_position = 100",
        "versions": "UPDATE message_store.messages SET global_position = -global_position WHERE global_position = 1000",
        "folds": "UPDATE message_store.messages SET data = '{}' WHERE global_position = 100",
    }

    def events(self):
        return 50000 if MANY else 5000

    def make(self):
        result = subprocess.run(
            ["bash", f"{node_folder}/node_modules/@eventide/message-db/database/install.sh"],
            env={**os.environ, "DATABASE_NAME": "message_db_original"}, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(result.stdout + result.stderr)
        self.session.connection.close()
        for statement in f"DROP DATABASE {self.database}", f"ALTER DATABASE message_db_original RENAME TO {self.database}":
            subprocess.run(["psql", "-X", "-q", "-c", statement], check=True)
        self.session = Session(self.database)
        self.session.rows(f"ALTER DATABASE {self.database} SET search_path = message_store, public")
        self.session = Session(self.database)
        self.session.rows("""SELECT message_store.write_message(
            gen_random_uuid()::varchar, CASE i % 3 WHEN 0 THEN 'account-' WHEN 1 THEN 'account:command-' ELSE 'é' || 'o-' END
                || (i / 3) % 40, 'Type' || i % 4, jsonb_build_object('n', i, 'text', 'a "b" \\ é'),
            CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '"a text"'
                ELSE jsonb_build_object('correlationStreamName', 'order-' || i, 'causationMessageGlobalPosition', i) END)
            FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))
        # what a rollback leaves, and messages without data
        self.session.rows("BEGIN; SELECT message_store.write_message(gen_random_uuid()::varchar, 'a-1', 'A', '{}'); ROLLBACK")
        self.session.rows("SELECT message_store.write_message(gen_random_uuid()::varchar, 'empty-1', 'A', NULL)")
        self.count += 1

    def write(self, session, number):
        session.rows("SELECT message_store.write_message(gen_random_uuid()::varchar, %s, 'Written', %s)",
                     [f"account-{number % 7}", Jsonb({"n": number})])

    def processed(self):
        """As a consumer of Eventide records its position, once in a number of messages."""
        position = self.session.value("SELECT global_position FROM message_store.messages "
                                      "WHERE message_store.category(stream_name) = 'account' ORDER BY 1 OFFSET 500 LIMIT 1")
        for p in 1, position:
            self.session.rows("SELECT message_store.write_message(gen_random_uuid()::varchar, 'account:position-reports', "
                              "'Recorded', %s)", [Jsonb({"position": p})])
        return [row[0] for row in self.session.rows(
            "SELECT global_position FROM message_store.messages WHERE message_store.category(stream_name) = 'account' "
            "AND global_position <= %s", [position])]


    def after(self):
        """Clients of message-db go on with the extension that has its interface."""
        old = self.session.rows("SELECT id, stream_name, position, global_position FROM message_store.messages ORDER BY 4")
        self.session.rows("ALTER SCHEMA message_store RENAME TO old_messages; CREATE EXTENSION eventstore_message_db")
        new = self.session.rows("SELECT id, stream_name, position, global_position FROM message_store.messages ORDER BY 4")
        check("message-db: its clients see the same messages", new[:len(old)] == old and old, len(old), len(new))
        last = max(row[2] for row in old if row[1] == "account-1")
        position = self.session.value("SELECT message_store.write_message(gen_random_uuid()::varchar, 'account-1', 'Written', "
                                      "'{}', NULL, %s)", [last])
        check("message-db: and go on at the same version", position == last + 1, last, position)


class Emmett(Store):
    name = "emmett"
    variables = ("partition=emt:default",)
    raw = """SELECT global_position AS position, stream_position AS version, created AS recorded_at, stream_id AS stream,
                    message_type AS type, message_data AS data, message_metadata AS metadata, message_id::uuid AS id
               FROM emt_messages"""
    late = """SELECT * FROM emt_append_to_stream(ARRAY[gen_random_uuid()::text], ARRAY['{"n": 1}'::jsonb], ARRAY['{"user": "x"}'::jsonb],
              ARRAY['1'], ARRAY['Late'], ARRAY['E'], 'late-' || gen_random_uuid(), 'late', NULL, 'emt:default')"""
    consumer_name = "carts"
    damages = {"data": "UPDATE emt_messages SET message_data = '{}' WHERE global_position = 100"}

    def node(self, *arguments):
        info = self.session.connection.info
        url = f"postgresql://{info.user}@localhost/{self.database}?host={info.host}&port={info.port}"
        return ["node", f"{node_folder}/emmett_store.mjs", url, *arguments]

    def events(self):
        return 20000 if MANY else 4000

    def make(self):
        subprocess.run(self.node("make"), check=True, capture_output=True)
        subprocess.run(self.node("fill", "20", str(self.count // 20), "20"), check=True, capture_output=True)
        check("emmett: its client has written", self.session.value("SELECT count(*) FROM emt_messages") == self.count)
        self.writers = {}

    def write(self, session, number):
        if session not in self.writers:
            self.writers[session] = subprocess.Popen(self.node("write"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process = self.writers[session]
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        answer = process.stdout.readline().strip()
        if answer != f"ok {number}":
            raise RuntimeError(answer)

    def processed(self):
        result = subprocess.run(self.node("consume", "carts", "137"), check=True, capture_output=True, text=True)
        positions = [int(position) for position in result.stdout.split()]
        check("emmett: its consumer has a checkpoint", len(positions) == 137 and int(self.session.value(
            "SELECT last_processed_checkpoint FROM emt_processors WHERE processor_id = 'carts'")) == positions[-1], positions[-3:])
        # what comes before the last one in emmett's order, also what its client has left out
        return [row[0] for row in self.session.rows(
            "SELECT m.global_position FROM emt_messages AS m, emt_messages AS last WHERE last.global_position = %s "
            "AND (m.transaction_id, m.global_position) <= (last.transaction_id, last.global_position)", [positions[-1]])]


class Marten(Store):
    name = "marten"
    variables = ("schema=marten",)
    tables = """
        CREATE SCHEMA marten;
        CREATE TABLE marten.mt_streams (id uuid NOT NULL PRIMARY KEY, type varchar, version bigint,
            timestamp timestamptz NOT NULL DEFAULT now(), snapshot jsonb, snapshot_version integer,
            created timestamptz NOT NULL DEFAULT now(), tenant_id varchar DEFAULT '*DEFAULT*', is_archived boolean DEFAULT false);
        CREATE SEQUENCE marten.mt_events_sequence;
        CREATE TABLE marten.mt_events (seq_id bigint NOT NULL PRIMARY KEY, id uuid NOT NULL,
            stream_id uuid REFERENCES marten.mt_streams ON DELETE CASCADE, version bigint NOT NULL, data jsonb NOT NULL,
            type varchar(500) NOT NULL, timestamp timestamptz NOT NULL DEFAULT now(), tenant_id varchar DEFAULT '*DEFAULT*',
            mt_dotnet_type varchar, correlation_id varchar, causation_id varchar, headers jsonb, is_archived boolean DEFAULT false);
        CREATE UNIQUE INDEX ON marten.mt_events (stream_id, version);
        CREATE TABLE marten.mt_event_progression (name varchar NOT NULL PRIMARY KEY, last_seq_id bigint,
            last_updated timestamptz DEFAULT transaction_timestamp());
        -- appends one event
        CREATE FUNCTION marten.append(stream uuid, kind text, event text, content jsonb, seq bigint) RETURNS void LANGUAGE sql AS $$
            INSERT INTO marten.mt_streams (id, type, version) VALUES (stream, kind, 1)
                ON CONFLICT (id) DO UPDATE SET version = mt_streams.version + 1;
            INSERT INTO marten.mt_events (seq_id, id, stream_id, version, data, type, mt_dotnet_type, correlation_id, causation_id,
                headers) SELECT seq, gen_random_uuid(), stream, s.version, content, event, 'Bank.Event, Bank', 'c' || seq,
                CASE WHEN seq % 2 = 0 THEN 'b' || seq END, CASE WHEN seq % 3 = 0 THEN jsonb_build_object('user', 'u' || seq) END
                FROM marten.mt_streams AS s WHERE s.id = stream $$"""
    raw = """SELECT seq_id AS position, e.version, e.timestamp AS recorded_at, coalesce(s.type, 'stream') || '-' ||
                    CASE e.tenant_id WHEN 'acme' THEN 'acme/' ELSE '' END || s.id AS stream,
                    e.type::text, data, (SELECT jsonb_object_agg(key, value) FROM (
                        SELECT * FROM jsonb_each(headers) UNION ALL SELECT 'correlation_id', to_jsonb(correlation_id)
                        UNION ALL SELECT 'causation_id', to_jsonb(causation_id) WHERE causation_id IS NOT NULL
                        UNION ALL SELECT 'tenant_id', to_jsonb(e.tenant_id) WHERE e.tenant_id = 'acme') AS m) AS metadata, e.id
               FROM marten.mt_events AS e JOIN marten.mt_streams AS s ON s.id = e.stream_id WHERE e.type <> 'tombstone'"""
    late = "SELECT marten.append(gen_random_uuid(), 'late', 'late', '{\"n\": 1}', nextval('marten.mt_events_sequence'))"
    consumer_name = "Trips:All"
    damages = {"metadata": "UPDATE marten.mt_events SET headers = '{\"x\": 1}' WHERE seq_id = 100"}

    def fill(self):
        self.session.rows("""SELECT marten.append(md5('s' || i % 60)::uuid, CASE WHEN i % 60 > 3 THEN 'trip' END, 'moved',
            jsonb_build_object('n', i), nextval('marten.mt_events_sequence')) FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))
        # another tenant, archived streams, a gap and a tombstone
        self.session.rows("""UPDATE marten.mt_events SET tenant_id = 'acme' WHERE stream_id = md5('s11')::uuid;
            UPDATE marten.mt_streams SET tenant_id = 'acme' WHERE id = md5('s11')::uuid;
            UPDATE marten.mt_streams SET is_archived = true WHERE id = md5('s9')::uuid;
            UPDATE marten.mt_events SET is_archived = true WHERE stream_id = md5('s9')::uuid;
            SELECT nextval('marten.mt_events_sequence');
            SELECT marten.append(gen_random_uuid(), 'mt', 'tombstone', '{}', nextval('marten.mt_events_sequence'));
            ALTER DATABASE old_marten SET old_store.stale_threshold = '300ms'""")

    def write(self, session, number):
        session.rows("SELECT marten.append(md5(%s)::uuid, 'trip', 'moved', %s, nextval('marten.mt_events_sequence'))",
                     [f"w{number % 7}", Jsonb({"n": number})])

    def processed(self):
        self.session.rows("INSERT INTO marten.mt_event_progression (name, last_seq_id) "
                          "VALUES ('HighWaterMark', 1900), ('Trips:All', 1500)")
        return [row[0] for row in self.session.rows("SELECT seq_id FROM marten.mt_events WHERE seq_id <= 1500")]


class Commanded(Store):
    name = "commanded"
    variables = ("schema=elixir",)
    tables = """
        CREATE SCHEMA elixir;
        CREATE TABLE elixir.streams (stream_id bigserial PRIMARY KEY, stream_uuid text NOT NULL UNIQUE,
            stream_version bigint DEFAULT 0 NOT NULL, created_at timestamptz DEFAULT now() NOT NULL, deleted_at timestamptz);
        INSERT INTO elixir.streams VALUES (0, '$all', 0);
        CREATE TABLE elixir.events (event_id uuid PRIMARY KEY, event_type text NOT NULL, causation_id uuid, correlation_id uuid,
            data bytea NOT NULL, metadata bytea, created_at timestamptz DEFAULT now() NOT NULL);
        CREATE TABLE elixir.stream_events (event_id uuid NOT NULL REFERENCES elixir.events,
            stream_id bigint NOT NULL REFERENCES elixir.streams, stream_version bigint NOT NULL,
            original_stream_id bigint REFERENCES elixir.streams, original_stream_version bigint, PRIMARY KEY (event_id, stream_id));
        CREATE UNIQUE INDEX ON elixir.stream_events (stream_id, stream_version);
        CREATE TABLE elixir.subscriptions (subscription_id bigserial PRIMARY KEY, stream_uuid text NOT NULL,
            subscription_name text NOT NULL, last_seen bigint, created_at timestamptz DEFAULT now() NOT NULL);
        -- appends one event; the row of $all is updated last
        CREATE FUNCTION elixir.append(stream text, event text, content bytea) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            own elixir.streams;
            whole bigint;
            id uuid := gen_random_uuid();
        BEGIN
            INSERT INTO elixir.streams (stream_uuid, stream_version) VALUES (stream, 1)
                ON CONFLICT (stream_uuid) DO UPDATE SET stream_version = streams.stream_version + 1 RETURNING * INTO own;
            INSERT INTO elixir.events VALUES (id, event, CASE WHEN own.stream_version % 2 = 0 THEN id END, id, content,
                convert_to('{"user": "' || own.stream_version || '"}', 'UTF8'), clock_timestamp());
            INSERT INTO elixir.stream_events VALUES (id, own.stream_id, own.stream_version, own.stream_id, own.stream_version);
            UPDATE elixir.streams SET stream_version = stream_version + 1 WHERE stream_id = 0 RETURNING stream_version INTO whole;
            INSERT INTO elixir.stream_events VALUES (id, 0, whole, own.stream_id, own.stream_version);
        END $$"""
    raw = """SELECT a.stream_version AS position, a.original_stream_version AS version, e.created_at AS recorded_at,
                    stream_uuid AS stream, event_type AS type,
                    CASE WHEN event_type = 'Term' THEN '{}' ELSE convert_from(data, 'UTF8')::jsonb END AS data,
                    jsonb_strip_nulls(jsonb_build_object('user', original_stream_version::text, 'correlation_id', correlation_id,
                        'causation_id', causation_id)) AS metadata, event_id AS id
               FROM elixir.stream_events AS a JOIN elixir.events AS e USING (event_id)
               JOIN elixir.streams AS s ON s.stream_id = a.original_stream_id WHERE a.stream_id = 0"""
    consumer_name = "mails"
    damages = {"bodies": "UPDATE elixir.events SET data = '\\x8301' WHERE event_type = 'Term'"}

    def fill(self):
        self.session.rows("""SELECT elixir.append('account-' || i % 50, 'Elixir.Bank.Moved',
            convert_to(jsonb_build_object('n', i, 'text', 'é')::text, 'UTF8')) FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))
        # a link, a stream that was deleted softly, and data that are no JSON
        self.session.rows("""INSERT INTO elixir.streams (stream_uuid, stream_version) VALUES ('linked', 1);
            INSERT INTO elixir.stream_events SELECT event_id, currval('elixir.streams_stream_id_seq'), 1, original_stream_id,
                original_stream_version FROM elixir.stream_events WHERE stream_id = 0 AND stream_version = 7;
            UPDATE elixir.streams SET deleted_at = now() WHERE stream_uuid = 'account-3';
            SELECT elixir.append('account-1', 'Term', '\\x8368')""")
        self.count += 1

    def write(self, session, number):
        session.rows("SELECT elixir.append(%s, 'Elixir.Bank.Moved', convert_to(%s, 'UTF8'))",
                     [f"account-{number % 7}", json.dumps({"n": number})])

    def processed(self):
        check("commanded: bytes that are no JSON are the body", self.session.value(
            "SELECT body FROM es.es_events WHERE type = 'Term'") == b"\x83\x68")
        self.session.rows("INSERT INTO elixir.subscriptions (stream_uuid, subscription_name, last_seen) "
                          "VALUES ('$all', 'mails', 1500), ('account-1', 'single', 3)")
        return list(range(1, 1501))


class RailsEventStore(Store):
    name = "rails-event-store"
    tables = """
        CREATE TABLE event_store_events (id bigserial PRIMARY KEY, event_id uuid NOT NULL UNIQUE, event_type varchar NOT NULL,
            metadata jsonb, data jsonb NOT NULL, created_at timestamp(6) NOT NULL, valid_at timestamp(6));
        CREATE TABLE event_store_events_in_streams (id bigserial PRIMARY KEY, stream varchar NOT NULL, position integer,
            event_id uuid NOT NULL, created_at timestamp(6) NOT NULL);
        CREATE UNIQUE INDEX ON event_store_events_in_streams (stream, position);
        CREATE UNIQUE INDEX ON event_store_events_in_streams (stream, event_id);
        CREATE FUNCTION append(stream text, "position" int, event text, content jsonb) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            event_id uuid := gen_random_uuid();
        BEGIN
            INSERT INTO event_store_events (event_id, event_type, metadata, data, created_at, valid_at)
                VALUES (event_id, event, jsonb_build_object('correlation_id', event_id), content,
                    clock_timestamp() AT TIME ZONE 'UTC', CASE WHEN content->>'n' LIKE '%7' THEN timestamp '2020-01-01' END);
            IF stream IS NOT NULL THEN
                INSERT INTO event_store_events_in_streams (stream, position, event_id, created_at)
                    VALUES (stream, position, event_id, now());
            END IF;
            INSERT INTO event_store_events_in_streams (stream, position, event_id, created_at)
                SELECT '$by_type_' || event, NULL, event_id, now() WHERE stream IS NOT NULL;
        END $$"""
    # versions are numbers of their own here, as positions may be missing
    raw = """SELECT id AS position, row_number() OVER (PARTITION BY stream ORDER BY id) AS version, recorded_at, stream, type, data,
                    metadata, event_id AS id FROM (
                SELECT e.id, created_at AT TIME ZONE 'UTC' AS recorded_at, coalesce(
                        (SELECT replace(stream, 'Order$', 'Order-') FROM event_store_events_in_streams AS s
                          WHERE s.event_id = e.event_id AND stream NOT LIKE '$%'), 'nowhere') AS stream,
                       event_type::text AS type, data, metadata, event_id FROM event_store_events AS e) AS events"""
    variables = ("unlinked=nowhere",)
    late = "SELECT append('late-' || gen_random_uuid(), 0, 'Late', '{\"n\": 1}')"
    damages = {"times": "UPDATE event_store_events SET valid_at = '2021-01-01' WHERE id = 100"}

    def fill(self):
        self.session.rows("""SELECT append(CASE WHEN i % 50 = 0 THEN NULL WHEN i % 3 = 0 THEN 'cart' ELSE 'Order$' || i % 50 END,
            CASE WHEN i % 3 = 0 THEN NULL ELSE i / 50 END, 'OrderPlaced', jsonb_build_object('n', i, 'text', 'é "x"'))
            FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))
        # every event of :any, without a stream, or after a gap that i % 3 leaves, has another version
        self.renumbered = None

    def write(self, session, number):
        session.rows("SELECT append(%s, NULL, 'Written', %s)", [f"w-{number % 7}", Jsonb({"n": number})])


class Eventsourcing(Store):
    name = "eventsourcing"
    variables = ("application=bank",)
    tables = """
        CREATE TABLE bank_events (originator_id uuid NOT NULL, originator_version bigint NOT NULL, topic text, state bytea,
            notification_id bigserial, PRIMARY KEY (originator_id, originator_version)) WITH (autovacuum_enabled = false);
        CREATE UNIQUE INDEX bank_events_notification_id_idx ON bank_events (notification_id);
        CREATE TABLE reports_tracking (application_name text, notification_id bigint, PRIMARY KEY (application_name, notification_id));
        CREATE FUNCTION record(originator uuid, event text, n bigint) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            LOCK TABLE bank_events IN EXCLUSIVE MODE;
            INSERT INTO bank_events SELECT originator, coalesce(max(originator_version), 0) + 1, event,
                convert_to('{"timestamp": {"_type_": "datetime_iso", "_data_": "2026-01-01T12:00:00.' || lpad((n % 1000000)::text, 6, '0')
                    || '+00:00"}, "n": ' || n || ', "class_version": 2}', 'UTF8') FROM bank_events WHERE originator_id = originator;
        END $$"""
    raw = """SELECT notification_id AS position, originator_version AS version, coalesce((state->'timestamp'->>'_data_')::timestamptz,
                    '1970-01-01Z') AS recorded_at, 'Account-' || originator_id AS stream, topic AS type, coalesce(state, '{}') AS data, NULL::jsonb AS metadata,
                    es.es_uuid5('6ba7b812-9dad-11d1-80b4-00c04fd430c8', 'bank_events/' || originator_id || '/' || originator_version)
                    AS id FROM (SELECT notification_id, originator_version, originator_id, topic,
                        CASE WHEN topic NOT LIKE '%Sealed' THEN convert_from(state, 'UTF8')::jsonb END AS state FROM bank_events) AS events"""
    consumer_name = "reports"
    damages = {"types": "UPDATE bank_events SET topic = 'x:Account.X' WHERE notification_id = 100"}

    def fill(self):
        self.session.rows("""SELECT record(md5('a' || i % 40)::uuid,
            'bank.model:Account.' || CASE WHEN i <= 40 THEN 'Opened' ELSE 'Deposited' END, i) FROM generate_series(1, :count) AS i""".replace(":count", str(self.count)))

        # a state that is compressed
        self.session.rows("SELECT record(md5('a1')::uuid, 'bank.model:Account.Sealed', 0); "
                          "UPDATE bank_events SET state = '\\x789c01ff' WHERE topic LIKE '%Sealed'")
        self.count += 1

    def write(self, session, number):
        session.rows("SELECT record(md5(%s)::uuid, 'bank.model:Account.Deposited', %s)", [f"w{number % 7}", number])

    def processed(self):
        check("eventsourcing: bytes that are no JSON are the body", self.session.value(
            "SELECT body FROM es.es_events WHERE type LIKE '%Sealed'") == b"\x78\x9c\x01\xff")
        self.session.rows("INSERT INTO reports_tracking SELECT 'bank', i FROM generate_series(1, 1200) AS i; "
                          "INSERT INTO reports_tracking VALUES ('other', 2000)")
        return list(range(1, 1201))


class KurrentDb(Store):
    """Lines as kurrentdb.mjs writes them, which is tried with events as the client documents them."""

    name = "kurrentdb"
    consumer_name = "mails"

    def make(self):
        # lines of two streams, one truncated, with events of the system, a link and bytes
        self.lines = []
        revisions = {}
        for n in range(1, self.count + 1):
            stream = f"cart-{n % 30}"
            revision = revisions[stream] = revisions.get(stream, 4 if stream == "cart-7" else -1) + 1
            self.lines.append({
                "streamId": stream, "revision": str(revision), "id": str(uuid.uuid4()), "type": "Bytes" if n % 10 == 9 else "Added",
                "created": f"2026-01-01T12:00:{n % 60:02}.{n % 1000:03}Z", "isJson": n % 10 != 9,
                "data": base64.b64encode(bytes([n % 256])).decode() if n % 10 == 9 else {"n": n, "text": 'é "x" \\ \n'},
                "metadata": {"$correlationId": f"c{n}", "user": "u"} if n % 2 else None,
                "position": {"commit": str(n * 2 ** 33), "prepare": str(n * 2 ** 33)}})
        self.renumbered = sum(line["streamId"] == "cart-7" for line in self.lines)
        self.damages = {"data": "UPDATE old_store.lines SET line = jsonb_set(line, '{data}', '{}') WHERE number = 100",
                        "bodies": "UPDATE old_store.lines SET line = jsonb_set(line, '{data}', '\"\"') WHERE number = 109"}

    def install(self):
        super().install()
        if self.session.value("SELECT count(*) FROM old_store.lines") == 0:
            self.load(self.lines)

    def load(self, lines):
        path = f"{node_folder}/events.json"
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        result = self.psql("-c", f"\\copy old_store.lines (line) FROM '{path}' (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')")
        check("kurrentdb: the lines are loaded", result.returncode == 0, result.stderr)

    def old_rows(self):
        rows, versions = [], {}
        for number, line in enumerate(self.lines, 1):
            versions[line["streamId"]] = versions.get(line["streamId"], 0) + 1
            metadata = line["metadata"]
            if metadata:
                metadata = {"correlation_id": metadata["$correlationId"], "user": metadata["user"]}
            rows.append((number, versions[line["streamId"]], datetime.datetime.fromisoformat(line["created"]), line["streamId"],
                         line["type"], line["data"] if line["isJson"] else {}, metadata, uuid.UUID(line["id"])))
        return rows

    @property
    def raw(self):
        return ("SELECT number AS position, line->>'streamId' AS stream, CASE WHEN line->>'isJson' = 'true' THEN line->'data' "
                "ELSE '{}' END AS data FROM old_store.lines")
