-- Every public function and every argument of it with a value of every kind. The calls
-- are made from the catalog, so that a new function is covered by itself: each argument in
-- turn gets each value of its type's list, the others are as in a plain call.
--
-- What is wrong: an error that is none of those that are meant (an internal one, a
-- constraint of an internal table, a failed look-up), an error of ours without DETAIL, and a
-- call that says nothing. Where nothing is the right answer it is listed below.
SET client_min_messages = error;
CREATE EXTENSION eventstore;

--
-- What a plain call finds
--
CREATE FUNCTION decide_tagged(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT '[{"type": "a", "tags": ["t"]}]'::jsonb $$;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT '[{"type": "a"}]'::jsonb $$;
\i test/clients/handlers.sql
CREATE MATERIALIZED VIEW a_matview AS SELECT count(*) FROM es_events;
CREATE ROLE es_arguments_role;
SELECT count(es_append('a-' || n % 2, 'any', 'a', '{"k": 1}', id => md5(n::text)::uuid)) FROM generate_series(1, 6) AS n;
SELECT es_define_event_type('defined', attributes => '{"k": "n"}');
SELECT es_define_upcaster('defined', 1, 'up');
SELECT es_create_subscription('s');
SELECT es_set_retention('a', max_count => 100);
SELECT es_set_slots('{[0,1024)}');
SELECT version FROM es_append('archived-1', 'any', 'a');
SELECT archived FROM es_archive_stream('archived-1');
SELECT es_create_projection('p', handler => 'handle', tables => '{read_model}');
SELECT es_create_projection('parks', handler => 'handle_fails', on_failure => 'park', max_attempts => 1);
SELECT es_run_projections('parks');
SELECT es_skip_event('parks', 6);
SELECT es_receive('t', 'g', 'failed', 'receive_fails', max_retries => 0);
SELECT es_receive('t', 'g', 'stored', 'receive');
SELECT DISTINCT token > 0 AS delivered FROM es_poll('s', 'c', 3);

--
-- The plain call of each function
--
CREATE TABLE functions AS
SELECT p.oid, p.proname::text AS name, p.prokind, p.proretset, p.prorettype, p.proargtypes::oid[] AS types,
       p.proargnames, p.pronargdefaults, p.pronargs
  FROM pg_depend AS d
  JOIN pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'eventstore'
  JOIN pg_proc AS p ON p.oid = d.objid
 WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e';

-- What is not called here, and why.
CREATE TABLE not_called (name text PRIMARY KEY, why text);
INSERT INTO not_called
SELECT p.name, 'a trigger function' FROM functions AS p WHERE p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype);
INSERT INTO not_called
SELECT p.name, 'takes or returns what SQL has not' FROM functions AS p
 WHERE (p.types && '{internal,cstring}'::regtype[]::oid[] OR p.prorettype IN ('internal'::regtype, 'cstring'::regtype))
ON CONFLICT DO NOTHING;
INSERT INTO not_called
SELECT p.name, 'makes a type, whose own test it is in' FROM functions AS p WHERE p.name ~ '^es_(expected_version|function|role|categories|definitions)_' ON CONFLICT DO NOTHING;
INSERT INTO not_called
SELECT p.name, 'a part of es_health, for its owner alone' FROM functions AS p WHERE p.name ~ '^es_health_';
INSERT INTO not_called VALUES
    ('es_source_positions', 'a part of es_health and of runs of projections, for its owner alone'),
    ('es_work', 'commits, which no block can undo'),
    ('es_start_worker', 'starts a process, which no block can undo'),
    ('es_closed', 'does nothing but fail'),
    ('es_stats_reset', 'has no argument'), ('es_reindex_tags', 'has no argument'), ('es_reset', 'has no argument');

-- The values of a plain call, by name; by type where the name is not here. A name with its
-- function comes before one without, and is given although there is a default.
CREATE TABLE plain (name text PRIMARY KEY, value text);
INSERT INTO plain VALUES
    ('stream', '''a-1'''), ('expected', '''any'''), ('type', '''a'''), ('category', '''a'''), ('name', '''p'''),
    ('projection', '''p'''), ('subscription', '''s'''), ('reducer', '''es_merge'''), ('decider', '''decide'''),
    ('upcaster', '''up'''), ('command', '''{}'''), ('events', '''[{"type": "a"}]'''), ('types', '''{a}'''),
    ('data', '''{"k": 1}'''), ('keys', '''{k}'''), ('position', '1'), ('from_version', '1'), ('partitions', '4'),
    ('namespace', '''6ba7b810-9dad-11d1-80b4-00c04fd430c8'''), ('topic', '''t'''), ('group_id', '''g'''), ('payload', '''x'''),
    ('id', 'md5(''1'')::uuid'), ('attribute', '''k'''), ('schema', '''handlers'''), ('reason', '''why'''), ('kind', '''reader'''),
    ('es_query.query', '''[{"types": ["a"]}]'''), ('es_matching_positions.query', '''[{"types": ["a"]}]'''), ('positions', '''{1}'''), ('given', '''[{"type": "a"}]'''), ('es_decide.query', '''[{"tags": ["t"]}]'''), ('es_decide.decider', '''decide_tagged'''), ('es_append_if.query', '''[{"tags": ["t"]}]'''), ('es_append_if.events', '''[{"type": "a", "tags": ["t"]}]'''), ('role', '''es_arguments_role'''), ('state', '''{}'''),
    ('slots', '''{[0,1024)}'''), ('event', '(SELECT e FROM es_read() AS e LIMIT 1)'), ('metadata', '''{}'''), ('token', '(SELECT max(token) FROM es_partitions WHERE subscription = ''s'')'),
    ('failure_id', '(SELECT min(id) FROM es_failures)'), ('call', '''es_stream_version(stream)'''), ('arguments', '''\x00000003612d31'''),
    ('es_append.id', 'md5(''new'')::uuid'), ('es_append_batch.data', '''{"{}"}'''), ('es_append_batch.metadata', 'NULL'),
    ('es_append_batch.ids', 'NULL'), ('es_create_projection.name', '''new'''), ('es_create_projection.handler', '''handle'''),
    ('es_create_subscription.name', '''new'''), ('es_receive.handler', '''receive'''), ('es_define_upcaster.type', '''b'''),
    ('es_drop_event_type.type', '''defined'''), ('es_describe_event_type.type', '''defined'''),
    ('es_unskip_event.projection', '''parks'''), ('es_unskip_event.position', '6'),
    ('es_recorded_event.event', '(SELECT e FROM es_events AS e LIMIT 1)'), ('es_retry.failure_id', '(SELECT min(id) FROM es_failures WHERE projection = ''parks'')'),
    ('es_drop_subscription.name', '''s'''), ('es_alter_subscription.name', '''s'''), ('es_rename_subscription.name', '''s'''), ('new_name', '''renamed'''), ('es_poll.consumer', '''c'''), ('es_wait.position', '0'), ('es_wait.timeout', '''0'''), ('es_inbox.entity_id', 'NULL'),
    ('subject', '''17'''), ('value', '''x'''), ('es_define_personal_attributes.type', '''defined'''), ('es_define_personal_attributes.attributes', '''{k}'''),
    ('es_load_archived.stream', '''archived-1'''), ('es_failures.stream', 'NULL'), ('es_failures.type', 'NULL'), ('es_failures.projection', 'NULL'),
    ('es_failures.subscription', 'NULL'), ('es_failures.topic', 'NULL'), ('es_failures.group_id', 'NULL');

CREATE FUNCTION plain_value(function text, argument text, type oid) RETURNS text STABLE LANGUAGE sql
RETURN coalesce((SELECT value FROM plain WHERE name = function || '.' || argument),
                (SELECT value FROM plain WHERE name = argument),
                CASE type::regtype::text
                    WHEN 'bigint' THEN '1' WHEN 'boolean' THEN 'true' WHEN 'jsonb' THEN '''{}''' WHEN 'text' THEN '''a'''
                    WHEN 'uuid' THEN 'md5(''1'')::uuid' WHEN 'interval' THEN '''1 s''' WHEN 'timestamp with time zone' THEN '''2026-01-01Z'''
                    WHEN 'es_expected_version' THEN '1' ELSE 'NULL' END);

CREATE TABLE arguments AS
SELECT f.oid, f.name AS function, a.nr, coalesce(f.proargnames[a.nr], '') AS argument, a.type,
       format('%s::%s', plain_value(f.name, coalesce(f.proargnames[a.nr], ''), a.type), a.type::regtype) AS value,
       a.nr > f.pronargs - f.pronargdefaults AND NOT EXISTS (SELECT FROM plain AS p WHERE p.name = f.name || '.' || f.proargnames[a.nr]) AS has_default
  FROM functions AS f, unnest(f.types) WITH ORDINALITY AS a (type, nr)
 WHERE NOT EXISTS (SELECT FROM not_called AS n WHERE n.name = f.name);

--
-- The values
--
CREATE TABLE hostile (type text, label text, value text);
INSERT INTO hostile
SELECT t, v.label, v.value
  FROM (VALUES ('text'), ('es_function'), ('es_categories')) AS t (t),
       (VALUES ('empty', ''''''), ('blank', ''' '''), ('quotes', '''a''''b"c'''), ('format', '''%s%n%d%1$s%'''), ('newline', 'E''a\nb\tc'''),
               ('control', 'E''\x01\x7f'''), ('backslash', '''\u0000\xff\'''), ('injection', '''x''''); DROP TABLE es_events; --'''),
               ('reserved', '''es_x'''), ('reserved stream', '''es_x-1'''), ('dash', '''-'''), ('leading dash', '''-1'''), ('letters', '''ÄÖ…𝄞'''),
               ('number', '''1'''), ('negative', '''-1'''), ('json', '''{"a": 1}'''), ('array', '''{a,b}'''), ('unknown', '''nothing'''),
               ('255 bytes', 'repeat(''x'', 255)'), ('256 bytes', 'repeat(''x'', 256)'), ('2049 bytes', 'repeat(''x'', 2049)'),
               ('long', 'repeat(''x'', 3000000)')) AS v (label, value);
INSERT INTO hostile VALUES
    ('es_function', 'half a signature', '''es_merge('''), ('es_function', 'dots', '''a.b.c.d'''), ('es_function', 'dot', '''.'''),
    ('es_function', 'oid 0', '0::oid'), ('es_function', 'no oid', '4294967295::oid'), ('es_function', 'no regproc', '4294967295::regproc'),
    ('es_function', 'aggregate', '''count(*)'''), ('es_function', 'procedure', '''es_work(boolean)'''), ('es_function', 'wrong signature', '''lower(text)'''),
    ('es_function', 'any', '''jsonb_typeof'''), ('es_function', 'itself', '''es_append'''), ('es_function', 'unknown type', '''es_merge(nothing, x)'''),
    ('es_function', 'unknown schema', '''nothing.es_merge'''), ('es_function', 'number', '''99999999999'''), ('es_function', 'quote', '''"'''),
    ('es_categories', 'none', '''{}'''), ('es_categories', 'null element', '''{a,NULL}'''), ('es_categories', 'twice', '''{a,b,a}'''),
    ('es_categories', 'several', '''{a,nothing,""}'''), ('es_categories', 'half an array', '''{a'''), ('es_categories', 'matrix', '''{{a},{b}}'''),
    ('es_categories', 'array of text', 'ARRAY[''a'', ''b'']'), ('es_categories', 'array of varchar', 'ARRAY[''a'']::varchar[]'),
    ('es_categories', 'as many', '(SELECT array_agg(n::text) FROM generate_series(1, 64) AS n)'),
    ('es_categories', 'too many', '(SELECT array_agg(n::text) FROM generate_series(1, 65) AS n)'), ('es_categories', 'wrong type', '1'),
    ('int4multirange', 'none', '''{}'''), ('int4multirange', 'some', '''{[0,1),[1023,1024)}'''), ('int4multirange', 'beyond', '''{[0,1025)}'''),
    ('int4multirange', 'negative', '''{[-1,1)}'''), ('int4multirange', 'without an end', '''{[3,)}'''), ('int4multirange', 'all numbers', '''{(,)}'''),
    ('int4multirange', 'half of it', '''{[0,1'''), ('int4multirange', 'greatest', '''{[2147483646,2147483647)}'''), ('int4multirange', 'wrong type', '1'),
    ('bigint', 'zero', '0'), ('bigint', 'one', '1'), ('bigint', 'negative', '-1'), ('bigint', 'least', '(-9223372036854775808)'),
    ('bigint', 'greatest', '9223372036854775807'), ('bigint', 'greatest - 1', '9223372036854775806'), ('bigint', 'above int', '2147483648'),
    ('bigint', 'below int', '(-2147483649)'), ('bigint', 'a million and one', '1000001'), ('bigint', 'wrong type', '1.5::numeric'),
    ('bytea', 'empty', ''''''), ('bytea', 'bytes', '''\x00ff'''), ('bytea', 'no bytes', '''\xg'''), ('bytea', 'long', 'convert_to(repeat(''x'', 1000000), ''UTF8'')'),
    ('bytea', 'wrong type', '1'),
    ('boolean', 'false', 'false'), ('boolean', 'true', 'true'), ('boolean', 'wrong type', '1'),
    ('uuid', 'nil', '''00000000-0000-0000-0000-000000000000'''), ('uuid', 'max', '''ffffffff-ffff-ffff-ffff-ffffffffffff'''),
    ('uuid', 'unknown', 'md5(''unknown'')::uuid'), ('uuid', 'of another stream', 'md5(''2'')::uuid'), ('uuid', 'empty', ''''''), ('uuid', 'wrong type', '1'),
    ('timestamp with time zone', 'infinity', '''infinity'''), ('timestamp with time zone', '-infinity', '''-infinity'''),
    ('timestamp with time zone', 'first', '''4713-01-01 BC'''), ('timestamp with time zone', 'last', '''294276-12-31'''),
    ('timestamp with time zone', 'epoch', '''1970-01-01Z'''), ('timestamp with time zone', 'no time', '''x'''),
    ('interval', 'zero', '''0'''), ('interval', 'negative', '''-1 s'''), ('interval', 'least', '''1 us'''), ('interval', 'greatest', '''178000000 years'''),
    ('interval', 'most negative', '''-178000000 years'''), ('interval', 'mixed', '''1 mon -30 days'''), ('interval', 'wrong type', '1'),
    ('es_expected_version', 'none', '''none'''), ('es_expected_version', 'exists', '''exists'''), ('es_expected_version', 'zero', '0'),
    ('es_expected_version', 'negative', '-1'), ('es_expected_version', 'greatest', '9223372036854775807'), ('es_expected_version', 'other', '99'),
    ('es_expected_version', 'beyond', '''9223372036854775808'''), ('es_expected_version', 'unknown', '''x'''), ('es_expected_version', 'empty', ''''''),
    ('es_expected_version', 'wrong type', '1.5::numeric'),
    ('regclass', 'oid 0', '0::oid'), ('regclass', 'no oid', '4294967295::oid'), ('regclass', 'catalog', '''pg_class'''), ('regclass', 'the log', '''es_events'''),
    ('regclass', 'index', '''es_events_pkey'''), ('regclass', 'view', '''es_import'''), ('regclass', 'matview', '''a_matview'''),
    ('regclass', 'sequence', '''es_position'''), ('regclass', 'unknown', '''nothing'''), ('regclass', 'own table', '''es_failures'''),
    ('regnamespace', 'oid 0', '0::oid'), ('regnamespace', 'no oid', '4294967295::oid'), ('regnamespace', 'catalog', '''pg_catalog'''),
    ('regnamespace', 'toast', '''pg_toast'''), ('regnamespace', 'unknown', '''nothing'''),
    ('regrole', 'oid 0', '0::oid'), ('regrole', 'no oid', '4294967295::oid'), ('regrole', 'superuser', 'current_user::text::regrole'), ('regrole', 'unknown', '''nobody_at_all'''),
    ('es_recorded_event', 'nulls', 'ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::es_recorded_event'),
    ('es_recorded_event', 'odd', 'ROW(-1, -1, ''infinity'', ''-infinity'', NULL, '''', ''defined'', ''[]'', ''{"schema_version": "x"}'', ''{b,a,NULL}'', '''')::es_recorded_event'),
    ('es_recorded_event', 'wrong row', 'ROW(1)'), ('es_recorded_event', 'wrong type', '1'),
    ('es_events', 'row', '(SELECT e FROM es_events AS e LIMIT 1)'), ('es_events', 'wrong row', 'ROW(1)');
INSERT INTO hostile
SELECT 'jsonb', v.label, v.value
  FROM (VALUES ('null', '''null'''), ('object', '''{}'''), ('array', '''[]'''), ('array of null', '''[null]'''), ('array of array', '''[[]]'''),
               ('array of object', '''[{}]'''), ('number', '''1'''), ('text', '''"%s%n"'''), ('true', '''true'''), ('huge number', '''1e100000'''),
               ('empty names', '''{"": {"": ""}}'''), ('null type', '''[{"type": null}]'''), ('number type', '''[{"type": 1}]'''),
               ('empty type', '''[{"type": ""}]'''), ('long type', '(''[{"type": "'' || repeat(''x'', 256) || ''"}]'')::jsonb'),
               ('unknown attribute', '''[{"type": "a", "what": 1}]'''), ('wrong id', '''[{"type": "a", "id": "x"}]'''), ('number id', '''[{"type": "a", "id": 1}]'''),
               ('array metadata', '''[{"type": "a", "metadata": []}]'''), ('wrong time', '''[{"type": "a", "occurred_at": "x"}]'''),
               ('number time', '''[{"type": "a", "occurred_at": 1}]'''), ('odd schema version', '''{"schema_version": -1.5}'''),
               ('huge schema version', '''{"schema_version": 99999999999}'''), ('odd command id', '''{"command_id": "x"}'''), ('kinds', '''{"k": "n", "x": "what"}'''),
               ('deep', '(repeat(''['', 2000) || repeat('']'', 2000))::jsonb'), ('long', 'to_jsonb(repeat(''x'', 1000000))'),
               ('no json', '''{'''), ('wrong type', '1')) AS v (label, value);
-- Of arrays the same for every type of element.
INSERT INTO hostile
SELECT t.type, v.label, replace(replace(v.value, 'ELEMENT', t.element), 'TYPE', t.type)
  FROM (SELECT DISTINCT a.type::regtype::text, e.typelem::regtype::text,
               CASE e.typelem::regtype::text WHEN 'jsonb' THEN '''{}''::jsonb' WHEN 'uuid' THEN 'md5(''x'')::uuid' WHEN 'regclass' THEN '''read_model''::regclass'
                    WHEN 'timestamp with time zone' THEN '''2026-01-01Z''::timestamptz' WHEN 'bytea' THEN '''x''::bytea' WHEN 'bigint' THEN '7::bigint' ELSE '''x''::text' END
          FROM arguments AS a JOIN pg_type AS e ON e.oid = a.type
         WHERE e.typcategory = 'A') AS t (type, of, element),
       (VALUES ('empty', '''{}'''), ('null element', '''{NULL}'''), ('one', 'ARRAY[ELEMENT]'), ('twice', 'ARRAY[ELEMENT, ELEMENT]'),
               ('two dimensions', 'ARRAY[ARRAY[ELEMENT], ARRAY[ELEMENT]]'), ('bounds', 'array_fill(ELEMENT, ARRAY[1], ARRAY[-5])'),
               ('a null among them', 'ARRAY[ELEMENT, NULL]'), ('many', 'array_fill(ELEMENT, ARRAY[20000])'), ('no array', '''x'''), ('wrong type', '1')) AS v (label, value);
INSERT INTO hostile
SELECT 'text[]', v.label, v.value
  FROM (VALUES ('empty text', 'ARRAY['''']'), ('long text', 'ARRAY[repeat(''x'', 100000)]'), ('hostile text', 'ARRAY[''a''''b"c%s%n'', E''\n'', ''\'', ''es_x'']')) AS v (label, value);
INSERT INTO hostile
SELECT 'regclass[]', v.label, v.value
  FROM (VALUES ('no oid', 'ARRAY[4294967295::oid::regclass]'), ('oid 0', 'ARRAY[0::oid::regclass]'), ('log', '''{es_events}'''), ('catalog', '''{pg_class}''')) AS v (label, value);
INSERT INTO hostile SELECT DISTINCT a.type::regtype::text, 'sql null', format('NULL::%s', a.type::regtype) FROM arguments AS a;

-- A type that has no list would be tested with null alone.
SELECT DISTINCT a.function, a.argument, a.type::regtype AS "type without values"
  FROM arguments AS a
 WHERE NOT EXISTS (SELECT FROM hostile AS h WHERE h.type = a.type::regtype::text AND h.label <> 'sql null');

--
-- The calls
--
CREATE TABLE said (function text, argument text, label text, sqlstate text, message text, detail text, hint text,
                   is_constraint text, answer text, call text, has_default boolean);

-- Makes a call, and undoes it. The answer: null for null, a row of nulls, and no row; an
-- empty text of a function that returns void.
CREATE PROCEDURE ask(function text, argument text, label text, call text, has_default boolean) LANGUAGE plpgsql AS $$
DECLARE
	answer text;
	detail text := '';
	hint text := '';
	is_constraint text := '';
BEGIN
	EXECUTE format('SELECT string_agg(left(r::text, 60), '' '') FROM (SELECT * FROM %s LIMIT 3) AS r WHERE r::text !~ ''^\(,*\)$''', call) INTO answer;
	RAISE SQLSTATE 'ES999';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, is_constraint = CONSTRAINT_NAME;
	INSERT INTO said VALUES (function, argument, label, SQLSTATE, SQLERRM, detail, hint, is_constraint, answer, call, has_default);
END $$;

DO $$
DECLARE
	c record;
	previous text := '';
BEGIN
	FOR c IN
		SELECT f.name AS function, '' AS argument, 'plain' AS label, false AS has_default,
		       format('%s(%s)', f.oid::regproc, (SELECT string_agg(format('%I => %s', a.argument, a.value), ', ' ORDER BY a.nr)
		                                           FROM arguments AS a WHERE a.oid = f.oid AND NOT a.has_default)) AS call
		  FROM functions AS f WHERE NOT EXISTS (SELECT FROM not_called AS n WHERE n.name = f.name)
		UNION ALL
		SELECT a.function, a.argument, h.label, a.has_default,
		       format('%s(%s)', a.oid::regproc, (SELECT string_agg(format('%I => %s', b.argument, CASE b.nr WHEN a.nr THEN h.value ELSE b.value END), ', ' ORDER BY b.nr)
		                                           FROM arguments AS b WHERE b.oid = a.oid AND (NOT b.has_default OR b.nr = a.nr)))
		  FROM arguments AS a JOIN hostile AS h ON h.type = a.type::regtype::text
		 ORDER BY 1, 2, 3
	LOOP
		IF c.function <> previous THEN
			COMMIT;
			previous := c.function;
		END IF;
		CALL ask(c.function, c.argument, c.label, c.call, c.has_default);
	END LOOP;
END $$;

--
-- What is wrong with it
--

-- A function without arguments that finds nothing, since no counters are kept here, and nobody
-- holds the horizon.
SELECT function, sqlstate, message, call FROM said
 WHERE label = 'plain' AND (sqlstate <> 'ES999' OR answer IS NULL) AND function NOT IN ('es_stats', 'es_inbox_stats', 'es_horizon_holders', 'es_finish_restore', 'es_promote', 'es_slots', 'es_projection_lag', 'es_subscription_lag');

-- Every argument was called with null and with other values.
SELECT a.function, a.argument FROM arguments AS a
 WHERE (SELECT count(DISTINCT label) FILTER (WHERE s.label <> 'sql null') < 2 OR count(*) FILTER (WHERE s.label = 'sql null') < 1
          FROM said AS s WHERE s.function = a.function AND s.argument = a.argument);

-- Errors that are not meant. Those of the server are where an argument is read as its type,
-- where a function's name is, in a projection's query, and behind es_inbox and es_failures.
CREATE TABLE meant (sqlstate text, type text);
INSERT INTO meant
SELECT sqlstate, '%' FROM unnest('{ES999,ES001,ES002,ES004,ES006,ES007,22004,22023,22003,2202E,42602,42704,42883}'::text[]) AS sqlstate;
INSERT INTO meant VALUES
    ('42P13', 'es_function'), ('22P02', 'es_function'), ('22P02', 'es_categories'), ('42P07', 'regclass[]'), ('42601', 'es_function'), ('42622', 'es_function'), ('42601', 'text'), ('42P01', 'regclass%'),
    ('42809', 'regclass%'), ('3F000', 'regnamespace'), ('0LP01', 'regrole'), ('22P02', 'uuid'), ('22P02', 'jsonb'), ('22P02', 'es_expected_version'),
    ('22P02', '%[]'), ('22P02', 'int4multirange'), ('22007', 'timestamp%'), ('22008', 'timestamp%'), ('22008', 'interval'), ('2201W', 'bigint'), ('2201X', 'bigint'),
    ('42846', 'es_events'), ('42846', 'es_recorded_event'), ('22007', 'jsonb'), ('54000', '%[]');
SELECT s.function, s.argument, s.sqlstate, left(s.message, 100) AS message, string_agg(s.label, ', ') AS labels
  FROM said AS s LEFT JOIN arguments AS a USING (function, argument)
 WHERE s.function <> 'es_promote' AND NOT EXISTS (SELECT FROM meant AS m WHERE m.sqlstate = s.sqlstate AND coalesce(a.type::regtype::text, '') LIKE m.type)
    OR (s.sqlstate = '42601' AND a.type = 'text'::regtype AND s.argument <> 'query')
    OR (s.sqlstate = '42883' AND a.type <> 'es_function'::regtype AND s.label NOT IN ('wrong type', 'wrong row'))
    OR s.message ~* 'cache lookup|unexpected|could not (open|find)' OR s.is_constraint <> ''
 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4;

-- Errors of ours have a DETAIL; those without one are the server's.
SELECT s.sqlstate, left(s.message, 70) AS message, count(*) > 0 AS "has no detail"
  FROM said AS s
 WHERE s.sqlstate NOT IN ('ES999', '42883') AND coalesce(s.detail, '') = ''
   AND s.message !~ '^(syntax error|invalid input syntax for type|timestamp out of range|unterminated|value .* is out of range|cannot cast type|malformed|column .* is of type)'
 GROUP BY 1, 2 ORDER BY 1, 2;

-- Calls that say nothing: a null, or no row. Here is where that is right; whatever else
-- does so is an argument that is not checked.
CREATE TABLE nothing (function text, argument text, labels text, why text);
INSERT INTO nothing VALUES
    ('es_(by_index|by_version|kept_after|category|channel|checksum|digest|digest_string|partition|uuid5)', '.*', 'sql null', 'of null comes null, as of an operator'),
    ('es_attribute', 'data|attribute', '.*', 'there is no such attribute'),
    ('es_upcast_(data|metadata)', 'data|metadata', 'sql null', 'null is what it was given'),
    ('es_(stats|inbox_stats)', '', 'plain', 'nothing is counted without shared memory'),
    ('es_horizon_holders', '', 'plain', 'nobody holds the horizon'),
    ('es_finish_restore', '.*', '.*', 'there is no restore to finish'),
    ('es_load|es_load_backward|es_read_category|es_history', 'stream|category', '.*', 'there is no such stream or category'),
    ('es_failures|es_inbox', 'projection|stream|type|subscription|topic|group_id|entity_id|event_type', '.*', 'nothing has it'),
    ('es_failures|es_inbox', 'max_count', 'zero', 'none were asked for'),
    ('es_failures|es_inbox', 'skip', '.*', 'there are no more'),
    ('es_load|es_load_backward|es_read|es_read_category', 'max_count', 'below int|least|negative|zero', 'none were asked for'),
    ('es_query', 'max_count', 'zero', 'none were asked for'),
    ('es_by_query', 'position|positions', 'sql null', 'of null comes null'),
    ('es_query', 'before_position', 'one', 'it is before the beginning'),
    ('es_load_archived', '.*', '.*', 'there is no such stream, or nothing of it is archived'),
    ('es_load', 'after_version', 'a million and one|above int|greatest.*', 'it is beyond the end'),
    ('es_read|es_read_category', 'after_position', 'a million and one|above int|greatest.*', 'it is beyond the end'),
    ('es_load_backward', 'before_version', 'below int|least|negative|one|zero', 'it is before the beginning'),
    ('es_read_category', 'types', '.*', 'no event is of these types'),
    ('es_event|es_last_event', 'id|stream|type', '.*', 'there is no such event'),
    ('es_(recorded_event|upcast)', 'event', 'sql null|nulls', 'null is what it was given'),
    ('es_poll', 'consumer', '.*', 'another consumer has what is there');
SELECT s.function, s.argument, string_agg(s.label, ', ' ORDER BY s.label) AS "says nothing"
  FROM said AS s
 WHERE s.sqlstate = 'ES999' AND s.answer IS NULL
   AND NOT EXISTS (SELECT FROM nothing AS n
                    WHERE s.function ~ ('^(' || n.function || ')$') AND s.argument ~ ('^(' || n.argument || ')$') AND s.label ~ ('^(' || n.labels || ')$'))
 GROUP BY 1, 2 ORDER BY 1, 2;
SELECT n.* FROM nothing AS n
 WHERE NOT EXISTS (SELECT FROM said AS s
                    WHERE s.sqlstate = 'ES999' AND s.answer IS NULL
                      AND s.function ~ ('^(' || n.function || ')$') AND s.argument ~ ('^(' || n.argument || ')$') AND s.label ~ ('^(' || n.labels || ')$'));

-- A null that is not the default is refused, by the same error everywhere, or it has its
-- meaning. The reads of a stream or category that is null are above.
SELECT s.function, s.argument, s.sqlstate, s.answer IS NOT NULL AS answers
  FROM said AS s
 WHERE s.label = 'sql null' AND s.sqlstate <> '22004' AND NOT s.has_default AND s.answer IS NOT NULL
 ORDER BY 1, 2;

-- What is stored of a text is the text.
CREATE FUNCTION stores(value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	event es_recorded_event;
BEGIN
	PERFORM es_append(value, 'any', 'a', jsonb_build_object(value, value), jsonb_build_object(value, value));
	event := es_last_event(value);
	IF (event.stream, event.data->>value, event.metadata->>value) IS DISTINCT FROM (value, value, value) THEN
		RETURN 'another stream';
	END IF;
	IF octet_length(value) <= 255 THEN
		PERFORM es_append('t-1', 'any', value);
		IF (es_last_event('t-1', value)).type IS DISTINCT FROM value THEN
			RETURN 'another type';
		END IF;
	END IF;
	RETURN 'stored';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE TABLE stored (label text, result text);
DO $$
DECLARE
	h record;
	result text;
BEGIN
	FOR h IN SELECT label, value FROM hostile WHERE type = 'text' AND label <> 'sql null' LOOP
		EXECUTE format('SELECT stores(%s)', h.value) INTO result;
		INSERT INTO stored VALUES (h.label, result);
	END LOOP;
END $$;
SELECT result, string_agg(label, ', ' ORDER BY label) AS labels FROM stored GROUP BY 1 ORDER BY 1;

DROP FUNCTION stores, plain_value;
DROP TABLE functions, not_called, plain, arguments, hostile, said, meant, nothing, stored, read_model;
DROP MATERIALIZED VIEW a_matview;
DROP PROCEDURE ask;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA handlers CASCADE;
DROP FUNCTION decide, decide_tagged, up;
DROP ROLE es_arguments_role;
