-- Definitions of personal attributes: es_define_event_type with personal and subject,
-- es_define_personal_attributes, and what is refused, whichever is defined first.
CREATE EXTENSION eventstore;
\set SHOW_CONTEXT never
CREATE VIEW defined AS SELECT type, category, subject, attributes FROM es_personal_attributes ORDER BY type, category, subject;

--
-- What is refused
--
SELECT es_define_event_type('t', subject => 'customer');
SELECT es_define_event_type('t', personal => '{name}', subject => '');
SELECT es_define_event_type('t', personal => '{name}', subject => 'name');
SELECT es_define_event_type('t', personal => '{""}');
SELECT es_define_event_type('t', personal => '{NULL}');
SELECT es_define_event_type('t', personal => '{{name},{mail}}');
SELECT es_define_event_type('t', personal => '{name,name}');
SELECT es_define_event_type('t', composite_key => '{name}', personal => '{name}');
SELECT es_define_personal_attributes('t', '{name}');
SELECT es_define_personal_attributes('t', NULL);
SELECT es_define_personal_attributes(NULL, '{name}');
SELECT es_define_personal_attributes('', '{name}');
SELECT es_define_personal_attributes('t', '{name}', category => 'a-1');
BEGIN READ ONLY;
SELECT es_define_personal_attributes('t', '{name}');
ROLLBACK;
SELECT count(*) FROM es_event_types;
SELECT * FROM defined;

--
-- Defined, changed, given up
--
SELECT es_define_event_type('sent', attributes => '{"sender": "string", "n": "integer"}', personal => '{from}', subject => 'sender');
SELECT es_define_personal_attributes('sent', '{to}', 'recipient');
SELECT es_define_personal_attributes('sent', '{note}');
SELECT * FROM defined;
-- About two persons, or named by what is personal itself.
SELECT es_define_personal_attributes('sent', '{from}', 'recipient');
SELECT es_define_personal_attributes('sent', '{from}');
SELECT es_define_personal_attributes('sent', '{x}', 'from');
SELECT es_define_personal_attributes('sent', '{sender}', 'recipient');
SELECT es_define_personal_attributes('sent', '{recipient}', 'sender');
-- A type that is defined for one category only.
SELECT es_define_personal_attributes('sent', '{name}', category => 'a');
SELECT es_define_event_type('sent', category => 'a', personal => '{name}');
SELECT es_define_personal_attributes('sent', '{mail}', 'who', 'a');
SELECT * FROM defined;
-- What holds for a category is described: its own definition, or that for all.
SELECT category, personal FROM es_describe_event_type('sent');
SELECT category, personal FROM es_describe_event_type('sent', 'a');
SELECT category, personal FROM es_describe_event_type('sent', 'b');
-- As an old program does, which would store plaintext.
SELECT es_define_event_type('sent');
SELECT es_define_event_type('sent', category => 'b');
SELECT es_drop_event_type('sent');
SELECT es_drop_event_type('sent', 'a');
-- The same subject: attributes are replaced.
SELECT es_define_event_type('sent', personal => '{from,address}', subject => 'sender');
SELECT * FROM defined WHERE category IS NULL;
-- One subject's are given up, then all.
SELECT es_define_personal_attributes('sent', '{}', 'recipient');
SELECT personal FROM es_describe_event_type('sent');
SELECT es_define_event_type('sent', personal => '{}', subject => 'sender');
SELECT * FROM defined WHERE category IS NULL;
SELECT es_define_event_type('sent');
SELECT es_define_event_type('sent', personal => '{}');
SELECT personal IS NULL AS none FROM es_describe_event_type('sent');
SELECT personal FROM es_describe_event_type('sent', 'a');
SELECT es_define_event_type('sent');
SELECT es_drop_event_type('sent');
SELECT es_define_event_type('sent', category => 'a', personal => '{}');
SELECT es_define_personal_attributes('sent', '{}', 'who', 'a');
SELECT * FROM defined;
SELECT es_drop_event_type('sent', 'a');
SELECT es_drop_event_type('sent');
-- What was given up can be about somebody else, or a subject.
SELECT es_define_event_type('sent', personal => '{to}', subject => 'from');
SELECT es_define_event_type('sent', composite_key => '{note}', personal => '{to}', subject => 'from');
SELECT es_define_event_type('sent', personal => '{}');
SELECT es_drop_event_type('sent');

--
-- Composite keys and indexes, in both orders
--
SELECT es_define_event_type('k', composite_key => '{a,b}');
SELECT es_define_event_type('k', composite_key => '{a,b}', personal => '{b}');
SELECT es_define_personal_attributes('k', '{c,a}');
SELECT es_define_event_type('k', composite_key => '{a,b}', personal => '{c}', subject => 'a');
SELECT es_define_event_type('k', composite_key => '{c}', personal => '{c}', subject => 'a');
SELECT es_define_event_type('k', composite_key => '{c}', personal => '{}');
SELECT es_define_event_type('k', composite_key => '{c}', category => 'a', personal => '{}');
SELECT composite_key FROM es_event_types;
SELECT es_define_event_type('k', personal => '{}');
SELECT es_define_event_type('k', composite_key => '{c}');
SELECT es_index_attribute('i', 'name') AS index \gset
SELECT es_define_event_type('i', personal => '{mail,name}');
SELECT es_define_event_type('i', personal => '{mail}');
SELECT es_define_personal_attributes('i', '{name}', 'who');
SELECT es_index_attribute('i', 'mail');
DROP INDEX :"index";
SELECT es_define_personal_attributes('i', '{name}', 'who');
SELECT es_index_attribute('i', 'name');
-- Also of what is personal in one category.
SELECT es_define_event_type('i', category => 'a', personal => '{city}');
SELECT es_index_attribute('i', 'city');
SELECT es_index_attribute('i', 'who') IS NOT NULL AS indexed;

--
-- In one transaction, rolled back, and seen at once
--
BEGIN;
SELECT es_define_event_type('r', personal => '{name}');
SELECT es_append('r-1', 'any', 'r', '{"name": "Ann"}');
SELECT data, metadata->'$personal' ? '1' AS sealed FROM es_events;
ROLLBACK;
SELECT es_append('r-1', 'any', 'r', '{"name": "Ann"}') IS NOT NULL AS appended;
SELECT data, metadata FROM es_events;
SELECT count(*) FROM es_subject_keys;

-- Who may define: an operator.
CREATE ROLE regress_es_operator;
CREATE ROLE regress_es_writer;
SELECT es_grant('regress_es_operator', 'operator'), es_grant('regress_es_writer', 'writer');
SET ROLE regress_es_writer;
SELECT es_define_personal_attributes('i', '{street}', 'who');
RESET ROLE;
GRANT SELECT ON defined TO regress_es_operator;
SET ROLE regress_es_operator;
SELECT es_define_personal_attributes('i', '{street}', 'who');
SELECT * FROM defined;
RESET ROLE;
SELECT es_revoke('regress_es_operator', 'operator'), es_revoke('regress_es_writer', 'writer');

DROP VIEW defined;
DROP EXTENSION eventstore;
DROP ROLE regress_es_operator, regress_es_writer;
