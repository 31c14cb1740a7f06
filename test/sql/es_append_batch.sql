-- es_append_batch in both forms.
CREATE EXTENSION eventstore;

SELECT * FROM es_append_batch('order-1', 'none', '[{"type": "placed", "data": {"total": 9}}, {"type": "paid"}]');
SELECT * FROM es_append_batch('order-1', 2,
    '[{"type": "shipped", "data": [1], "metadata": {"by": "ups"}, "id": "00000000-0000-7000-8000-00000000000a", "occurred_at": "2020-01-01T00:00:00Z"},
      {"type": "billed", "data": null, "metadata": null, "id": null, "occurred_at": null}]');
SELECT * FROM es_append_batch('order-2', 'any', ARRAY['a', 'b', 'c'], ARRAY['{}', '1', 'null']::jsonb[]);
SELECT * FROM es_append_batch('order-2', 3, ARRAY['d', 'e'], ARRAY['{"n": 1}', '{"n": 2}']::jsonb[],
    ARRAY['{"m": 1}', NULL]::jsonb[],
    ARRAY['00000000-0000-7000-8000-0000000000d1', '00000000-0000-7000-8000-0000000000d2']::uuid[]);
SELECT position, version, stream, type, data, metadata, occurred_at AT TIME ZONE 'UTC' AS occurred_at FROM es_events ORDER BY position;
-- Ids and times may be null, and metadata as JSON, too: then there is none. Data is null or is left out.
SELECT * FROM es_append_batch('order-7', 'none', ARRAY['a', 'b', 'c'], ARRAY['null', '{}', '[]']::jsonb[],
    ARRAY['null', NULL, '{"m": 1}']::jsonb[],
    ARRAY[NULL, '00000000-0000-7000-8000-000000000071', NULL]::uuid[],
    ARRAY['2020-01-01T00:00:00Z', NULL, '1969-12-31T23:59:59.999999Z']::timestamptz[]);
SELECT * FROM es_append_batch('order-7', 3, '[{"type": "d", "data": null, "metadata": null, "id": null, "occurred_at": null}, {"type": "e"}]');
SELECT * FROM es_append('order-7', 5, 'f', 'null', 'null');
SELECT version, type, data, metadata, occurred_at AT TIME ZONE 'UTC' AS occurred_at, id = '00000000-0000-7000-8000-000000000071' AS given
  FROM es_load('order-7');
-- One moment for all events of a call.
SELECT count(DISTINCT (recorded_at, next_xid)) FROM es_events WHERE stream = 'order-1' AND version > 2;

-- Untyped parameters find the function by their number.
PREPARE json AS SELECT * FROM es_append_batch($1, $2, $3);
EXECUTE json('order-3', 'none', '[{"type": "placed"}]');
PREPARE arrays AS SELECT * FROM es_append_batch($1, $2, $3, $4);
EXECUTE arrays('order-3', '1', '{paid}', '{"{\"n\": 1}"}');

-- An empty batch stores nothing; it is checked all the same.
SELECT * FROM es_append_batch('order-1', 'any', '[]');
SELECT * FROM es_append_batch('order-9', 'none', '{}'::text[], '{}');
SELECT * FROM es_append_batch('order-1', 'none', '[]');

-- Retries: the same batch, a part of it that stands together.
SELECT * FROM es_append_batch('order-4', 'none',
    '[{"type": "a", "id": "00000000-0000-7000-8000-000000000041"}, {"type": "b", "id": "00000000-0000-7000-8000-000000000042"}, {"type": "c", "id": "00000000-0000-7000-8000-000000000043"}]');
SELECT * FROM es_append('order-4', 3, 'd');
SELECT * FROM es_append_batch('order-4', 'none',
    '[{"type": "a", "id": "00000000-0000-7000-8000-000000000041"}, {"type": "b", "id": "00000000-0000-7000-8000-000000000042"}, {"type": "c", "id": "00000000-0000-7000-8000-000000000043"}]');
SELECT * FROM es_append_batch('order-4', 99, ARRAY['b', 'c'], ARRAY['{}', '{}']::jsonb[], NULL,
    '{00000000-0000-7000-8000-000000000042, 00000000-0000-7000-8000-000000000043}');
-- Some events with ids, some without: each has its place.
SELECT * FROM es_append_batch('order-4', 0, '[{"type": "a", "id": "00000000-0000-7000-8000-000000000041"}, {"type": "b"}]');
-- No retry: another order, a gap, a new id among them, too many, another stream.
SELECT es_append_batch('order-4', 'any', ARRAY['b', 'a'], ARRAY['{}', '{}']::jsonb[], NULL,
    '{00000000-0000-7000-8000-000000000042, 00000000-0000-7000-8000-000000000041}');
SELECT es_append_batch('order-4', 'any', ARRAY['a', 'c'], ARRAY['{}', '{}']::jsonb[], NULL,
    '{00000000-0000-7000-8000-000000000041, 00000000-0000-7000-8000-000000000043}');
SELECT es_append_batch('order-4', 'any', ARRAY['c', 'x'], ARRAY['{}', '{}']::jsonb[], NULL,
    '{00000000-0000-7000-8000-000000000043, 00000000-0000-7000-8000-000000000049}');
SELECT es_append_batch('order-4', 'any', ARRAY['x', 'c'], ARRAY['{}', '{}']::jsonb[], NULL,
    '{00000000-0000-7000-8000-000000000049, 00000000-0000-7000-8000-000000000043}');
SELECT es_append_batch('order-4', 'any', '[{"type": "c", "id": "00000000-0000-7000-8000-000000000043"}, {"type": "d"}, {"type": "e"}]');
SELECT es_append_batch('order-4', 'any', '[{"type": "z"}, {"type": "a", "id": "00000000-0000-7000-8000-000000000041"}]');
SELECT es_append_batch('order-5', 'any', '[{"type": "x"}, {"type": "a", "id": "00000000-0000-7000-8000-000000000041"}]');
-- One id twice.
SELECT es_append_batch('order-5', 'any', ARRAY['a', 'b'], ARRAY['{}', '{}']::jsonb[], NULL,
    '{00000000-0000-7000-8000-000000000051, 00000000-0000-7000-8000-000000000051}');
SELECT es_stream_version('order-4'), es_stream_version('order-5');

-- What is refused, with nothing stored.
SELECT es_append_batch('order-6', 1, '[{"type": "a"}]');
SELECT es_append_batch('order-6', 'any', NULL);
SELECT es_append_batch('order-6', 'any', '{"type": "a"}');
SELECT es_append_batch('order-6', 'any', '"a"');
SELECT es_append_batch('order-6', 'any', '[{"type": "a"}, 1]');
SELECT es_append_batch('order-6', 'any', '[[{"type": "a"}]]');
SELECT es_append_batch('order-6', 'any', '[{"type": "a"}, {"data": {}}]');
SELECT es_append_batch('order-6', 'any', '[{"type": null}]');
SELECT es_append_batch('order-6', 'any', '[{"type": 5}]');
SELECT es_append_batch('order-6', 'any', '[{"type": ""}]');
SELECT es_append_batch('order-6', 'any', '[{"type": "a"}, {"type": "b", "stream": "x"}]');
SELECT es_append_batch('order-6', 'any', '[{"type": "a", "metadata": [1]}]');
SELECT es_append_batch('order-6', 'any', '[{"type": "a", "id": "no uuid"}]');
SELECT es_append_batch('order-6', 'any', '[{"type": "a", "id": 5}]');
SELECT es_append_batch('order-6', 'any', '[{"type": "a", "occurred_at": "never again"}]');
-- The time is ISO 8601 with an offset, whatever the session's settings are.
SET datestyle = 'SQL, DMY';
SET timezone = 'Pacific/Kiritimati';
SELECT es_append_batch('times-1', 'any', jsonb_agg(jsonb_build_object('type', 'a', 'data', given, 'occurred_at', given) ORDER BY row_number))
  FROM unnest('{2026-01-31T20:00:00Z, 2026-01-31T20:00Z, 2026-01-31T20:00:00.5+01:00, 2026-01-31T20:00:00.1234567-0330,
                2026-01-31T20:00:00+14, 2024-02-29T23:59:60Z, 0001-01-01T00:00:00Z, 9999-12-31T23:59:59.999999Z}'::text[])
       WITH ORDINALITY AS t (given, row_number);
SELECT data, to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS utc FROM es_load('times-1');
DO $$
DECLARE
    given text;
BEGIN
    FOREACH given IN ARRAY '{yesterday, infinity, -infinity, now, epoch, 02/03/2024, 2026-01-31, "2026-01-31T20:00:00",
            "2026-01-31 20:00:00Z", 20260131T200000Z, 2026-01-31T20:00:00 UTC, "2026-01-31T20:00:00 +01:00", 2026-01-31T20:00:00Europe/Bern,
            2026-01-31T20Z, 2026-1-31T20:00:00Z, 2026-01-31T20:00:00.Z, 2026-01-31T20:00:00+1, 2026-01-31T20:00:00+01:0, 12026-01-31T20:00:00Z,
            2026-01-31T20:00:00z, 2026-01-31t20:00:00Z, "", "2026-01-31T20:00:00Z ", 2026-01-31T20:00:00ZZ, 2026-W05-6T20:00:00Z,
            2026-02-30T20:00:00Z, 2026-13-01T00:00:00Z, 2026-01-31T25:00:00Z, 2026-01-31T20:00:00+99:00, 0000-01-01T00:00:00Z}'::text[] LOOP
        BEGIN
            PERFORM es_append_batch('times-0', 'any', jsonb_build_array(jsonb_build_object('type', 'a', 'occurred_at', given)));
            RAISE WARNING '% was taken', given;
        EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow OR SQLSTATE '22009' THEN
            RAISE NOTICE '%: %', given, SQLSTATE;
        END;
    END LOOP;
END $$;
RESET datestyle;
RESET timezone;
SELECT es_append('order-6', 'any', 'a', occurred_at => 'infinity');
SELECT es_append_batch('order-6', 'any', ARRAY['a', 'b'], ARRAY['{}', '{}']::jsonb[], occurred_at => ARRAY[now(), '-infinity']);
-- Ids that are none.
SELECT es_append('order-6', 'any', 'a', id => '00000000-0000-0000-0000-000000000000');
SELECT es_append('order-6', 'any', 'a', id => 'ffffffff-ffff-ffff-ffff-ffffffffffff');
SELECT es_append_batch('order-6', 'any', '[{"type": "a"}, {"type": "a", "id": "00000000-0000-0000-0000-000000000000"}]');
SELECT es_append_batch('order-6', 'any', ARRAY['a'], ARRAY['{}']::jsonb[], NULL, ARRAY['ffffffff-ffff-ffff-ffff-ffffffffffff']::uuid[]);
SELECT version FROM es_append('order-8', 'none', 'a', id => '00000000-0000-0000-0000-000000000001');
-- Names of the store's own.
SELECT es_append('es_order-1', 'any', 'a');
SELECT es_append('order-6', 'any', 'es_a');
SELECT es_append('es_', 'any', 'a');
SELECT es_append_batch('es_order-1', 'any', '[]');
SELECT es_append_batch('order-6', 'any', '[{"type": "a"}, {"type": "es_stream_deleted"}]');
SELECT es_append_batch('order-6', 'any', ARRAY['es_' || repeat(E'\u00e4', 120)], ARRAY['{}']::jsonb[]);
SELECT a.version, b.version FROM es_append('es-1', 'none', 'es') a, es_append('ES_1', 'none', 'ES_x') b;
SELECT es_append_batch('order-6', 'any', '[{"type": "a", "occurred_at": 5}]');
SELECT es_append_batch('', 'any', '[]');
SELECT es_append_batch(NULL, 'any', '[]');
SELECT es_append_batch('order-6', NULL, '[]');
SELECT es_append_batch('order-6', 'any', NULL, '{}');
SELECT es_append_batch('order-6', 'any', ARRAY['a'], NULL);
SELECT es_append_batch('order-6', 'any', ARRAY['a', 'b'], ARRAY['{}']::jsonb[]);
SELECT es_append_batch('order-6', 'any', ARRAY['a'], ARRAY['{}']::jsonb[], ARRAY['{}', '{}']::jsonb[]);
SELECT es_append_batch('order-6', 'any', ARRAY['a'], ARRAY['{}']::jsonb[], NULL, '{}');
SELECT es_append_batch('order-6', 'any', ARRAY['a', NULL], ARRAY['{}', '{}']::jsonb[]);
SELECT es_append_batch('order-6', 'any', ARRAY['a', 'b'], ARRAY['{}', NULL]::jsonb[]);
SELECT es_append_batch('order-6', 'any', ARRAY[['a'], ['b']], ARRAY['{}', '{}']::jsonb[]);
SELECT es_append_batch('order-6', 'any', ARRAY['a', repeat('b', 256)], ARRAY['{}', '{}']::jsonb[]);
SELECT es_append_batch('order-6', 'any', ARRAY['a'], ARRAY['{}']::jsonb[], ARRAY['[]']::jsonb[]);
SELECT es_append_batch('order-6', 'any', array_fill('a'::text, ARRAY[1000001]), array_fill('{}'::jsonb, ARRAY[1000001]));
SELECT es_stream_version('order-6');

-- 150 events of 12 kB come back as they went in (seeds D6), and 5,000 small ones.
SELECT version FROM es_append_batch('large-1', 'none',
    (SELECT jsonb_agg(jsonb_build_object('type', 'page', 'data', jsonb_build_object('n', n, 'text', t)) ORDER BY n)
       FROM generate_series(1, 150) n, LATERAL (SELECT string_agg(md5(n || '/' || i), '') FROM generate_series(1, 375) i) x(t)));
SELECT count(*), bool_and(version = (data ->> 'n')::int) AS in_order,
       bool_and(length(data ->> 'text') = 12000 AND data ->> 'text' LIKE md5(version || '/1') || '%') AS whole
  FROM es_load('large-1');
SELECT version FROM es_append_batch('large-2', 'none',
    array_fill('n'::text, ARRAY[5000]), (SELECT array_agg(to_jsonb(n) ORDER BY n) FROM generate_series(1, 5000) n));
SELECT count(*), bool_and(version = data::text::int) AS in_order, count(DISTINCT id) AS ids,
       bool_and(id > lag) AS ids_ascend
  FROM (SELECT *, lag(id, 1, '00000000-0000-0000-0000-000000000000') OVER (ORDER BY version) FROM es_load('large-2')) e;

-- Seeds F: 1 to 8, then 9 and 10 together.
SELECT sum((es_append('eight-1', n - 1, 'n')).version) FROM generate_series(1, 8) n;
SELECT version FROM es_append_batch('eight-1', 8, '[{"type": "n"}, {"type": "n"}]');
SELECT array_agg(version) FROM es_load('eight-1');

DROP EXTENSION eventstore;
