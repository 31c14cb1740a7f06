-- What an operator does with projections, subscriptions and messages of other roles,
-- what their owners see, and that neither gets the rights of the other.
-- Not in one transaction: a rebuild needs one of its own.
SET client_min_messages = error;
SELECT plan(46);

CREATE ROLE es_test_owner;
CREATE ROLE es_test_operator;
CREATE ROLE es_test_reader;
CREATE ROLE es_test_receiver;
CREATE ROLE es_test_half;
CREATE SCHEMA es_test AUTHORIZATION es_test_owner;
GRANT USAGE ON SCHEMA es_test TO PUBLIC;
SELECT es_grant('es_test_owner', 'operator'), es_grant('es_test_operator', 'operator'), es_grant('es_test_reader', 'reader'),
    es_grant('es_test_receiver', 'writer'), es_grant('es_test_half', 'reader');
-- an owner that is no operator
SELECT es_revoke('es_test_owner', 'operator'), es_grant('es_test_owner', 'reader');
GRANT EXECUTE ON FUNCTION es_create_projection, es_retry, es_discard, es_resume_projection TO es_test_owner;
-- SELECT on everything is not what makes an operator
GRANT pg_read_all_data TO es_test_half;

CREATE TABLE es_test.broken (yes boolean);
INSERT INTO es_test.broken VALUES (true);
GRANT SELECT ON es_test.broken TO PUBLIC;
SET ROLE es_test_owner;
CREATE TABLE es_test.seen (position bigint PRIMARY KEY, who text);
CREATE FUNCTION es_test.note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT yes FROM es_test.broken) THEN
        RAISE 'secret of the owner';
    END IF;
    INSERT INTO seen VALUES (event.position, current_user);
END $$;
SET search_path = es_test, public;
SELECT es_create_projection('parks', 'es_test.note(es_recorded_event)', tables => '{seen}', start_position => 0, on_failure => 'park', max_attempts => 1);
SELECT es_create_subscription('s', start_position => 0);
RESET search_path;
RESET ROLE;
SELECT es_append('account-1', 'none', 'opened');
SELECT es_run_projections();
SELECT es_nack('s', token, position, 'no', 'park') FROM es_poll('s');
CREATE FUNCTION es_test.receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT yes FROM es_test.broken) THEN
        RAISE 'secret of the receiver';
    END IF;
    RETURN ROW('e', NULL, 'by ' || current_user, NULL, 'message-1', NULL, NULL)::es_ack_event;
END $$;
SET ROLE es_test_receiver;
SELECT is(es_receive('t', 'g', 'payload', 'es_test.receive(text, jsonb)', max_retries => 0), 'failed', 'a message fails');
RESET ROLE;
CREATE FUNCTION pg_temp.failure(kind text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$
    SELECT min(id) FROM public.es_failures
     WHERE kind = CASE WHEN projection IS NOT NULL THEN 'projection' WHEN subscription IS NOT NULL THEN 'subscription' ELSE 'inbox' END $$;
SELECT is((SELECT count(*) FROM es_failures), 3::bigint, 'there is a failure of each kind');

--
-- What each sees
--
SET ROLE es_test_operator;
SELECT is((SELECT count(*) FROM es_failures()), 3::bigint, 'an operator sees all failures');
SELECT is((SELECT count(*) FROM es_projection_status), 1::bigint, 'and the projections of others');
SELECT is((SELECT count(*) FROM es_subscription_status), 1::bigint, 'and their subscriptions');
SET ROLE es_test_owner;
SELECT is((SELECT string_agg(coalesce(projection, subscription), ' ' ORDER BY id) FROM es_failures()), 'parks s', 'an owner sees the failures of what it owns');
SELECT is((SELECT count(*) FROM es_visible_failures WHERE payload IS NOT NULL), 0::bigint, 'and no message of another role');
SELECT is((SELECT parked FROM es_projection_status), 1::bigint, 'and its projections');
SELECT is((SELECT parked FROM es_subscription_status), 1::bigint, 'and its subscriptions');
SELECT throws_ok('SELECT * FROM es_failures', '42501', NULL, 'but not the table');
SET ROLE es_test_receiver;
SELECT is((SELECT string_agg(topic || payload, ' ') FROM es_failures()), 'tpayload', 'a receiver sees its messages');
SET ROLE es_test_reader;
SELECT is((SELECT count(*) FROM es_failures()), 0::bigint, 'a reader that owns nothing sees no failure');
SELECT is((SELECT count(*) FROM es_projection_status), 0::bigint, 'nor a projection');
SELECT is((SELECT count(*) FROM es_subscription_status), 0::bigint, 'nor a subscription');
CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE 'told %', $1; END $$;
SELECT lives_ok('SELECT * FROM es_failures() WHERE pg_temp.tell(message)', 'a function of a reader is not given rows that it may not see');
SELECT lives_ok('SELECT * FROM es_projection_status WHERE pg_temp.tell(last_error)', 'nor of the status of projections');
SELECT lives_ok('SELECT * FROM es_subscription_status WHERE pg_temp.tell(subscription)', 'nor of subscriptions');

--
-- Who does not act
--
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_discard, es_pause_projection, es_rebuild_projection TO es_test_half;
SET ROLE es_test_half;
SELECT throws_ok($$ SELECT es_seek('s', 0) $$, '42501', 'must be owner of subscription "s"', 'a reader of all data does not seek');
SELECT throws_ok($$ SELECT es_pause_projection('parks') $$, '42501', 'must be owner of projection "parks"', 'nor pauses');
SELECT throws_ok($$ SELECT es_rebuild_projection('parks') $$, '42501', NULL, 'nor rebuilds');
SELECT throws_ok(format('SELECT es_discard(%s)', pg_temp.failure(kind)), '42501', NULL, 'nor discards: ' || kind)
  FROM unnest('{projection,subscription,inbox}'::text[]) kind;
SET ROLE es_test_operator;
SELECT throws_ok($$ SELECT es_poll('s') $$, '42501', NULL, 'an operator does not poll for others');
SELECT throws_ok($$ SELECT es_drop_subscription('s') $$, '42501', NULL, 'nor drops their subscriptions');
SELECT throws_ok($$ SELECT es_alter_subscription('s', lease => '1 s') $$, '42501', NULL, 'nor changes them');
SELECT throws_ok($$ SELECT es_rename_subscription('s', 't') $$, '42501', NULL, 'nor renames them');
SELECT throws_ok($$ SELECT es_rename_projection('parks', 't') $$, '42501', NULL, 'or their projections');
SELECT throws_ok($$ SELECT es_drop_projection('parks') $$, '42501', NULL, 'nor their projections');
SELECT throws_ok($$ SELECT es_alter_projection('parks', batch_size => 1) $$, '42501', NULL, 'nor changes them');

--
-- An operator acts, and the code runs as its owner
--
SELECT is(es_retry(pg_temp.failure('projection')), 0::bigint, 'an operator retries what fails again');
RESET ROLE;
UPDATE es_test.broken SET yes = false;
REVOKE EXECUTE ON FUNCTION es_receive FROM es_test_receiver;
SET ROLE es_test_operator;
SELECT throws_ok($$ SELECT es_retry(pg_temp.failure('inbox')) $$, '42501', 'the receiver of the message may not receive messages any more', 'not for a receiver that may not append any more');
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_receive TO es_test_receiver;
CREATE TABLE appender AS SELECT current_user::text AS who LIMIT 0;
GRANT INSERT ON appender TO PUBLIC;
CREATE FUNCTION note_appender() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.appender VALUES (current_user); RETURN NULL; END $$;
CREATE TRIGGER appender AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION note_appender();
SET ROLE es_test_operator;
SELECT is(es_retry(pg_temp.failure('projection')), 1::bigint, 'an operator retries an event of a projection');
SELECT is(es_retry(pg_temp.failure('subscription')), 1::bigint, 'of a subscription');
SELECT is(es_retry(pg_temp.failure('inbox')), 1::bigint, 'and a message');
RESET ROLE;
SELECT is((SELECT who FROM es_test.seen), 'es_test_owner', 'the handler runs as the owner');
SELECT is((SELECT type FROM es_events WHERE stream = 'message-1'), 'by es_test_receiver', 'the handler of the message as the receiver');
SELECT is((SELECT string_agg(who, ' ') FROM appender), 'es_test_receiver', 'which is the appender, too');
SET ROLE es_test_operator;
SELECT lives_ok($$ SELECT es_discard(pg_temp.failure('subscription')) $$, 'an operator discards');
SELECT lives_ok($$ SELECT es_seek('s', 0) $$, 'moves a subscription');
SELECT lives_ok($$ SELECT es_pause_projection('parks') $$, 'pauses');
SELECT lives_ok($$ SELECT es_resume_projection('parks') $$, 'resumes');
-- pgTAP keeps its plan in temporary tables
SELECT throws_ok($$ SELECT es_rebuild_projection('parks') $$, '55000', 'projection "parks" cannot be rebuilt in this session', 'rebuilds not where its own temporary tables would be found');
RESET ROLE;
\set rebuilt `psql -XAtq -d :'DBNAME' -c "SET client_min_messages = error" -c "SET ROLE es_test_operator" -c "SELECT es_rebuild_projection('parks')"`
SELECT is(:'rebuilt'::text, '2', 'rebuilds in another one');
SELECT is((SELECT string_agg(DISTINCT who, ' ') FROM es_test.seen), 'es_test_owner', 'as the owner');

GRANT SELECT ON appender, es_test.seen TO es_test_operator;
\set dump `pg_dump --role=es_test_operator -d :'DBNAME' 2>&1 >/dev/null`
SELECT is(:'dump'::text, '', 'an operator that may read all other tables dumps the database');

SELECT es_drop_subscription('s'), es_drop_projection('parks');
DROP TRIGGER appender ON es_events;
SELECT * FROM finish();
DROP TABLE appender;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA es_test CASCADE;
DROP FUNCTION note_appender();
DROP OWNED BY es_test_owner, es_test_operator, es_test_reader, es_test_receiver, es_test_half;
DROP ROLE es_test_owner, es_test_operator, es_test_reader, es_test_receiver, es_test_half;
CREATE EXTENSION eventstore;
