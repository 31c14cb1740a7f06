-- The type es_expected_version: text and binary form, casts, comparison.
CREATE EXTENSION eventstore;

SELECT v::es_expected_version FROM (VALUES ('any'), ('none'), ('exists'), ('0'), ('7'), ('9223372036854775807')) t(v);
SELECT 5::es_expected_version, 5::bigint::es_expected_version, 0::es_expected_version;
SELECT 'none'::es_expected_version = 0 AS none_is_0,
       'any'::es_expected_version = 'exists' AS any_is_exists,
       'any'::es_expected_version <> 'exists' AS any_is_not_exists,
       3::es_expected_version = '3' AS text_is_number;
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

DROP TABLE binary_form, binary_back, numbers;
DROP EXTENSION eventstore;
