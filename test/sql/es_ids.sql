-- Ids: version 7 ascends, digests are what other implementations compute.
CREATE EXTENSION eventstore;

SELECT count(DISTINCT id), bool_and(id > before) AS ascend, bool_and(substr(id::text, 15, 1) = '7') AS version_7,
       bool_and(substr(id::text, 20, 1) IN ('8', '9', 'a', 'b')) AS variant
  FROM (SELECT id, lag(id, 1, '00000000-0000-0000-0000-000000000000') OVER (ORDER BY n) AS before
          FROM (SELECT n, es_uuid7() AS id FROM generate_series(1, 20000) n OFFSET 0) i) j;
-- Its first 48 bits are the time in milliseconds; 20,000 at once ran ahead by less than a second.
SELECT abs(('x' || lpad(replace(substr(es_uuid7()::text, 1, 13), '-', ''), 16, '0'))::bit(64)::bigint
           - extract(epoch FROM clock_timestamp()) * 1000) < 1000 AS now;

-- Vectors.
SELECT es_digest_string('{"location": "gardens", "employee_name": "Markus", "employee_action": "ate grapes"}',
                        '{location, employee_name, employee_action}') AS string \gset
SELECT :'string', md5(:'string')::uuid, es_uuid5('6ba7b812-9dad-11d1-80b4-00c04fd430c8', :'string');
SELECT s, es_uuid5('6ba7b812-9dad-11d1-80b4-00c04fd430c8', s)
  FROM (VALUES (es_digest_string('{"person_id": 5, "phone_number": "555-1234"}', '{person_id, phone_number}')),
               (es_digest_string('{"c": 3, "b": 2, "a": 1}', '{a, b, c}')),
               (es_digest_string('{"name": "Zoë", "n": 1}', '{name, n}'))) v(s);
-- RFC 9562's own vector of version 5: www.example.com in the DNS namespace.
SELECT es_uuid5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'www.example.com');
SELECT es_uuid5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', '');

-- es_digest is es_uuid5 of the type and the string.
SELECT es_digest('ate', '{"who": "Markus"}', '{who}') = es_uuid5('6ba7b812-9dad-11d1-80b4-00c04fd430c8', 'ate:who=Markus') AS documented,
       es_digest('ate', '{"who": "Markus"}', '{who}');
-- Keys in another order are another key.
SELECT es_digest_string('{"a": 1, "b": 2}', '{b, a}');
-- Numbers and booleans as text.
SELECT es_digest_string('{"a": 1.50, "b": true, "c": -0.0, "d": 1e3, "e": ""}', '{a, b, c, d, e}');

-- Two keys that would make one string do not collide.
SELECT es_digest_string('{"location": "x:employee_name=y", "employee_name": "z"}', '{location, employee_name}') AS one,
       es_digest_string('{"location": "x", "employee_name": "y:employee_name=z"}', '{location, employee_name}') AS two;
SELECT es_digest_string('{"a\\": "b"}', ARRAY['a\']), es_digest_string('{"a": "\\=b"}', '{a}'), es_digest_string('{"a=": ":"}', '{a=}');
SELECT es_digest('t', '{"a": "1"}', '{a}') <> es_digest('u', '{"a": "1"}', '{a}') AS type_counts,
       es_digest('t:a=1', '{"a": "1"}', '{a}') <> es_digest('t', '{"a": "1:a=1"}', '{a}') AS type_is_escaped;

-- Storing the same twice stores one event.
SELECT version FROM es_append('person-5', 'any', 'called', '{"n": 1}', id => es_digest('called', '{"n": 1}', '{n}'));
SELECT version FROM es_append('person-5', 'any', 'called', '{"n": 1}', id => es_digest('called', '{"n": 1}', '{n}'));
SELECT es_stream_version('person-5');

-- What is refused.
SELECT es_digest_string('{"a": 1}', '{a, b}');
SELECT es_digest('t', '{"a": null}', '{a}');
SELECT es_digest_string('{"a": {"b": 1}}', '{a}');
SELECT es_digest_string('{"a": [1]}', '{a}');
SELECT es_digest_string('[1]', '{a}');
SELECT es_digest_string('1', '{a}');
SELECT es_digest_string('{"a": 1}', '{}');
SELECT es_digest_string('{"a": 1}', '{a, NULL}');
SELECT es_digest_string('{"a": 1, "b": 2}', '{a, b, a}');
SELECT es_digest(NULL, '{"a": 1}', '{a}'), es_digest_string(NULL, '{a}'), es_uuid5(NULL, 'x');

DROP EXTENSION eventstore;
