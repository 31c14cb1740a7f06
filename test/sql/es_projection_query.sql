-- A query and its batch: parts that write to one table, the pattern of
-- doc/guide/projection.md, and a test that is one transaction.
CREATE EXTENSION eventstore;
CREATE TABLE balance (account text PRIMARY KEY, owner text, amount bigint NOT NULL);
-- What a batch loses: the update does not see the row that the insert has just made.
SELECT es_create_projection('loses', category => 'account', tables => '{balance}', query => $$
    WITH opened AS (INSERT INTO balance SELECT stream, data->>'owner', 0 FROM new_events WHERE type = 'opened')
    UPDATE balance SET amount = balance.amount + n.amount
      FROM (SELECT stream, sum((data->>'amount')::bigint) AS amount FROM new_events WHERE type = 'deposited' GROUP BY stream) AS n
     WHERE account = n.stream $$);
SELECT es_append_batch('account-1', 'none', '[{"type": "opened", "data": {"owner": "Ann"}}, {"type": "deposited", "data": {"amount": 50}}]') IS NOT NULL AS appended;
SELECT es_run_projections();
TABLE balance;
SELECT es_drop_projection('loses');
TRUNCATE balance;

-- Also said of two parts in WITH, not of several tables, nor of what only reads.
CREATE TABLE other (account text);
SELECT es_create_projection('p', query => $$
    WITH a AS (INSERT INTO balance SELECT stream, '', 0 FROM new_events), b AS (DELETE FROM balance) SELECT 1 $$);
SELECT es_drop_projection('p');
SELECT es_create_projection('p', query => $$
    WITH a AS (INSERT INTO balance SELECT stream, '', 0 FROM new_events), b AS (SELECT * FROM balance), c AS (SELECT * FROM balance) INSERT INTO other SELECT account FROM b $$);
SELECT es_drop_projection('p');
SELECT es_create_projection('p', query => 'WITH a AS (SELECT * FROM new_events), b AS (SELECT * FROM a) SELECT count(*) FROM a, b');
SELECT es_drop_projection('p');

-- Each row is written once.
SELECT es_create_projection('balance', category => 'account', tables => '{balance}', query => $$
    INSERT INTO balance
    SELECT stream, max(data->>'owner') FILTER (WHERE type = 'opened'),
           coalesce(sum((data->>'amount')::bigint * CASE type WHEN 'deposited' THEN 1 WHEN 'withdrawn' THEN -1 END), 0)
      FROM new_events GROUP BY stream
        ON CONFLICT (account) DO UPDATE SET owner = coalesce(excluded.owner, balance.owner), amount = balance.amount + excluded.amount $$);
SELECT es_append_batch('account-2', 'none', '[{"type": "opened", "data": {"owner": "Ben"}}, {"type": "deposited", "data": {"amount": 7}}, {"type": "withdrawn", "data": {"amount": 3}}]') IS NOT NULL AS appended;
SELECT es_run_projections();
TABLE balance ORDER BY account;
SELECT es_append('account-2', 3, 'withdrawn', '{"amount": 4}') IS NOT NULL, es_append('account-1', 2, 'deposited', '{"amount": 1}') IS NOT NULL;
SELECT es_run_projections();
TABLE balance ORDER BY account;
-- The same in batches of any size, in the append, and in a rebuild.
SELECT es_alter_projection('balance', batch_size => 1, start_position => NULL);
CREATE TABLE before AS TABLE balance;
SET client_min_messages = warning;
SELECT es_rebuild_projection('balance');
SELECT count(*) FROM (TABLE before EXCEPT TABLE balance) AS d;
SELECT es_alter_projection('balance', mode => 'sync');
SELECT es_append_batch('account-3', 'none', '[{"type": "opened", "data": {"owner": "Cid"}}, {"type": "deposited", "data": {"amount": 7}}]') IS NOT NULL AS appended;
TABLE balance ORDER BY account;
SELECT es_alter_projection('balance', mode => 'async');
SET client_min_messages = notice;

-- A test in one transaction sees its own events in every way, and leaves nothing.
SELECT es_create_subscription('mails', start_position => NULL);
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[{"type": "deposited", "data": {"amount": 5}}]'::jsonb $$;
BEGIN;
SELECT version FROM es_append('account-4', 'none', 'opened', '{"owner": "Dan"}');
SELECT version, position AS deposited FROM es_append('account-4', 1, 'deposited', '{"amount": 50}') \gset
SAVEPOINT before;
SELECT es_append('account-4', 1, 'deposited', '{"amount": 50}');
ROLLBACK TO before;
SELECT es_run_projections('balance');
SELECT owner, amount FROM balance WHERE account = 'account-4';
SELECT es_wait('balance', :deposited, '0');
SELECT stream, type, data FROM es_poll('mails', 'test', 10);
SELECT es_ack('mails', (SELECT max(token) FROM es_partitions)) = :deposited AS acknowledged;
SELECT state FROM es_state('account-4', 'es_merge');
SELECT version FROM es_execute('account-4', 'decide', '{}', 'es_merge');
SELECT count(*) FROM es_read() WHERE stream = 'account-4';
SELECT es_run_projections('balance');
SELECT owner, amount FROM balance WHERE account = 'account-4';
ROLLBACK;
SELECT count(*) FROM es_events WHERE stream = 'account-4';
SELECT count(*) FROM balance WHERE account = 'account-4';
SELECT count(*) FROM es_poll('mails', 'test', 10);
SELECT lag_events FROM es_projection_status;
DROP EXTENSION eventstore CASCADE;
DROP TABLE balance, other, before;
DROP FUNCTION decide;
