-- The type es_expected_version: text and binary form, casts, comparison.
CREATE EXTENSION eventstore;

SELECT v::es_expected_version FROM (VALUES ('any'), ('none'), ('exists'), ('0'), ('7'), ('9223372036854775807')) t(v);
SELECT 5::es_expected_version, 5::bigint::es_expected_version, 0::es_expected_version;
SELECT 'none'::es_expected_version = 0::es_expected_version AS none_is_0,
       'any'::es_expected_version = 'exists' AS any_is_exists,
       'any'::es_expected_version <> 'exists' AS any_is_not_exists,
       3::es_expected_version = '3' AS text_is_number,
       '3'::text = 3::es_expected_version AS number_is_text;
SELECT NULL::es_expected_version IS NULL AS null_stays_null;

-- The binary form is an int8.
SELECT v, es_expected_version_send(v::es_expected_version)
  FROM (VALUES ('any'), ('none'), ('exists'), ('258')) t(v);
CREATE TEMP TABLE binary_form (v es_expected_version);
INSERT INTO binary_form VALUES ('any'), ('none'), ('exists'), (42);
\copy binary_form TO 'results/es_expected_version.bin' (FORMAT binary)
CREATE TEMP TABLE binary_back (v es_expected_version);
\copy binary_back FROM 'results/es_expected_version.bin' (FORMAT binary)
SELECT v FROM binary_back;
-- A negative number that is no word of ours.
CREATE TEMP TABLE numbers (v bigint);
INSERT INTO numbers VALUES (-3);
\copy numbers TO 'results/es_expected_version.bin' (FORMAT binary)
\copy binary_back FROM 'results/es_expected_version.bin' (FORMAT binary)

-- What is no expected version; -1 means "no stream" elsewhere, so no number
-- below 0 is taken.
SELECT ''::es_expected_version;
SELECT 'Any'::es_expected_version;
SELECT '1.5'::es_expected_version;
SELECT '3 4'::es_expected_version;
SELECT '-1'::es_expected_version;
SELECT (-1)::es_expected_version;
SELECT (-1)::bigint::es_expected_version;
SELECT '9223372036854775808'::es_expected_version;


-- Every integer type and every text type is cast, in calls as well; numeric is not, as
-- it is not for a bigint.
SELECT 5::smallint::es_expected_version, '5'::text::es_expected_version, 'any'::varchar::es_expected_version,
       'none'::name::es_expected_version, 'exists'::char(9)::es_expected_version, '7'::bpchar::es_expected_version;
SELECT (-1)::smallint::es_expected_version;
SELECT 'x'::text::es_expected_version;
SELECT '-1'::varchar::es_expected_version;
SELECT ''::char(3)::es_expected_version;
SELECT 'nothing'::name::es_expected_version;
SELECT 'any'::es_expected_version::text, 7::es_expected_version::text;
SELECT 5::numeric::es_expected_version;
SELECT 5.5::float8::es_expected_version;

-- No call is ambiguous: literals, typed and untyped parameters, in each function that
-- takes an expected version.
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb_build_array(command)';
CREATE PROCEDURE each_way(expected text, type text) LANGUAGE plpgsql AS $$
DECLARE
	sql text;
	result text := '';
	said text;
BEGIN
	FOREACH sql IN ARRAY ARRAY[
		'SELECT version FROM es_append($2, $1, ''appended'')',
		'SELECT version FROM es_append($2, $1, ''appended'', $3::jsonb)',
		'SELECT version FROM es_append_batch($2, $1, $4::jsonb)',
		'SELECT version FROM es_append_batch($2, $1, ARRAY[''a''], ARRAY[$3]::jsonb[])',
		'SELECT version FROM es_append_batch($2, $1, ''[{"type": "a"}]'')',
		'SELECT version FROM es_append_batch($2, $1, ''{a}'', ''{"{}"}'')',
		'SELECT version FROM es_append_batch(stream => $2, expected => $1, events => $4::jsonb)',
		'SELECT version FROM es_execute($2, ''decide'', ''{"type": "a"}'', ''es_merge'', NULL, $1)',
		'SELECT version FROM es_execute($2, ''decide'', ''{"type": "a"}'', ''es_merge'', expected => $1)']
	LOOP
		EXECUTE format('PREPARE p (%s, text, text, text) AS %s', type, sql);
		BEGIN
			EXECUTE format('EXECUTE p (%L, %L, %L, %L)', expected, 's-' || type, '{}', '[{"type": "a"}]') INTO said;
		EXCEPTION WHEN OTHERS THEN
			said := SQLSTATE;
		END;
		result := concat_ws(' ', result, said);
		DEALLOCATE p;
		IF expected ~ '^\d' THEN
			expected := expected::int + 1;
		END IF;
	END LOOP;
	RAISE NOTICE '% %:%', type, expected, result;
END $$;
\set VERBOSITY terse
DO $$
DECLARE
	type text;
BEGIN
	FOREACH type IN ARRAY '{smallint,integer,bigint,text,varchar,"varchar(20)",char(20),name,es_expected_version,unknown}'::text[] LOOP
		CALL each_way('0', type);
	END LOOP;
	FOREACH type IN ARRAY '{text,varchar,char(20),name,es_expected_version,unknown}'::text[] LOOP
		CALL each_way('any', type);
		CALL each_way('9', type);
	END LOOP;
END $$;
CALL each_way('0', 'numeric');
\set VERBOSITY default
SELECT version FROM es_append('literal-1', 0, 'a');
SELECT version FROM es_append('literal-1', '1', 'a');
SELECT version FROM es_append('literal-1', 2::smallint, 'a');
SELECT version FROM es_append('literal-1', 3::bigint, 'a');
SELECT version FROM es_append('literal-1', '4'::text, 'a');
SELECT version FROM es_append('literal-1', (SELECT max(version) FROM es_load('literal-1')), 'a');
SELECT version FROM es_append('literal-1', CASE WHEN true THEN 'any' ELSE 'none' END, 'a');
SELECT version FROM es_append_batch('literal-1', 7, '[{"type": "a"}]');
SELECT version FROM es_append_batch('literal-1', '8', '{a}', '{"{}"}');
SELECT version FROM es_append_batch('literal-1', '9'::varchar, ARRAY['a'], ARRAY['{}'::jsonb]);
SELECT version FROM es_append('literal-1', 10.0, 'a');
SELECT version FROM es_append('literal-1', NULL, 'a');
SELECT version FROM es_append('literal-1', NULL::text, 'a');

-- Comparison and order: distinct, grouped, sorted, hashed, indexed.
CREATE TEMP TABLE expected (v es_expected_version);
INSERT INTO expected VALUES ('7'), ('any'), ('10'), ('none'), ('exists'), ('any'), ('0'), (NULL), ('7');
SELECT v, count(*) FROM expected GROUP BY v ORDER BY v;
SELECT count(DISTINCT v) FROM expected;
SELECT DISTINCT v FROM expected ORDER BY v DESC;
SET enable_sort = off;
SELECT count(*) FROM (SELECT DISTINCT v FROM expected) AS d;
SET enable_sort = on;
SET enable_hashagg = off;
SELECT count(*) FROM (SELECT DISTINCT v FROM expected) AS d;
RESET enable_hashagg;
SELECT v FROM expected WHERE v = ANY ('{any,7}') ORDER BY v;
SELECT v FROM expected WHERE v = ANY (ARRAY[7, 10]::es_expected_version[]) ORDER BY v;
SELECT v FROM expected WHERE v IN ('none', '10') ORDER BY v;
SELECT count(*) FROM expected WHERE v IS DISTINCT FROM 'any';
SELECT count(*) FROM expected AS a JOIN expected AS b ON a.v OPERATOR(*=) b.v;
SELECT count(*) FROM expected AS a JOIN expected AS b USING (v);
SELECT array_agg(v ORDER BY v) = '{exists,any,any,none,none,7,7,10,NULL}' FROM expected;
CREATE UNIQUE INDEX ON expected (v) WHERE v *> 'none' AND v *<> '7';
INSERT INTO expected VALUES ('10');
CREATE INDEX ON expected USING hash (v);
SELECT a *< b, a *<= b, a *= b, a *<> b, a *>= b, a *> b
  FROM (VALUES ('any'::es_expected_version, '0'::es_expected_version), ('8', '8'), ('9', '10'), ('10', '9')) AS t (a, b);

-- What is a mistake without the extension stays one: text is not compared with a number.
SELECT '{"n": 5}'::jsonb->>'n' = 5;
SELECT 'x'::text <> 5::smallint;
SELECT 'x'::varchar = 5::bigint;
SELECT 'x'::name = 5;
SELECT 'x'::bpchar IN (5, 6);

DROP TABLE expected;
DROP PROCEDURE each_way;
DROP TABLE binary_form, binary_back, numbers;
DROP FUNCTION decide;
DROP EXTENSION eventstore;
