-- Subscriptions of a role that is no superuser: which roles may poll, settle, move
-- and drop them, whose rights events are read with, and that nothing that is named
-- like ours leads astray.
SET client_min_messages = warning;
SELECT plan(58);

CREATE ROLE es_test_owner;
CREATE ROLE es_test_member IN ROLE es_test_owner;
CREATE ROLE es_test_stranger;
CREATE ROLE es_test_reader;
SELECT es_append_batch('account-1', 'none', '{opened,deposited,closed}', '{"{}","{}","{}"}');
SELECT es_append_batch('order-1', 'none', '{placed,paid}', '{"{}","{}"}');

--
-- What the owner needs: EXECUTE, and SELECT on es_events
--
GRANT EXECUTE ON FUNCTION es_create_subscription, es_drop_subscription, es_seek, es_poll, es_ack, es_nack, es_retry, es_discard
    TO es_test_owner, es_test_stranger, es_test_reader;
SET ROLE es_test_owner;
SELECT lives_ok($$ SELECT es_create_subscription('s', lease => '1 h') $$, 'a role that may call it creates a subscription');
SELECT throws_ok($$ SELECT * FROM es_poll('s') $$, '42501', NULL, 'but cannot poll without the right to read events');
RESET ROLE;
GRANT SELECT ON es_events TO es_test_owner;
SELECT is((SELECT owner::text FROM es_subscriptions), 'es_test_owner', 'which it owns');
SET ROLE es_test_owner;
SELECT is((SELECT count(*) FROM es_poll('s', 'me')), 5::bigint, 'with it the owner polls');
SELECT throws_ok('SELECT * FROM es_partitions', '42501', NULL, 'the owner does not see the table of partitions');
SELECT throws_ok('SELECT * FROM es_subscriptions', '42501', NULL, 'nor that of subscriptions');
SELECT throws_ok('SELECT * FROM es_subscription_status', '42501', NULL, 'nor the status');
SELECT throws_ok($$ UPDATE es_partitions SET token = 0 $$, '42501', NULL, 'nor writes them');
RESET ROLE;
GRANT SELECT ON es_subscription_status TO es_test_reader;
GRANT pg_read_all_stats TO es_test_reader;
SET ROLE es_test_reader;
SELECT is((SELECT consumer || ' ' || in_flight FROM es_subscription_status), 'me 5', 'SELECT on the status shows all of it to a reader of all statistics');
RESET ROLE;
REVOKE SELECT ON es_subscription_status FROM es_test_reader;
REVOKE pg_read_all_stats FROM es_test_reader;

--
-- Others: members may, strangers not
--
CREATE FUNCTION pg_temp.token() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT token FROM public.es_partitions';
GRANT SELECT ON es_events TO es_test_stranger;
SET ROLE es_test_stranger;
SELECT throws_ok($$ SELECT * FROM es_poll('s') $$, '42501', NULL, 'a stranger does not poll');
SELECT throws_ok($$ SELECT * FROM es_poll('s', 'me', wait => '1 h') $$, '42501', NULL, 'nor waits');
SELECT throws_ok($$ SELECT * FROM es_poll('s', 'me', after_token => pg_temp.token()) $$, '42501', NULL, 'nor polls ahead, with its token');
SELECT throws_ok($$ SELECT es_ack('s', pg_temp.token()) $$, '42501', NULL, 'nor acknowledges');
SELECT throws_ok($$ SELECT es_ack('s', 1025) $$, '42501', NULL, 'also not in a partition that is not there');
SELECT throws_ok($$ SELECT es_nack('s', pg_temp.token(), 1, 'no') $$, '42501', NULL, 'nor settles');
SELECT throws_ok($$ SELECT es_seek('s', 0) $$, '42501', NULL, 'nor moves it');
SELECT throws_ok($$ SELECT es_drop_subscription('s') $$, '42501', NULL, 'nor drops it');
SELECT throws_ok($$ SELECT es_create_subscription('s') $$, '42710', NULL, 'nor makes another of the name');
RESET ROLE;
SET ROLE es_test_member;
SELECT is((SELECT count(*) FROM es_poll('s', 'me', 4)), 2::bigint, 'a member polls, and gets half after the loss');
SELECT is(es_nack('s', pg_temp.token(), 1, 'no', 'park'), 'park', 'and settles');
SELECT is(es_ack('s', pg_temp.token()), 2::bigint, 'and acknowledges');
RESET ROLE;
CREATE FUNCTION pg_temp.failure() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT min(id) FROM public.es_failures';
SET ROLE es_test_stranger;
SELECT throws_ok($$ SELECT es_retry(pg_temp.failure()) $$, '42501', NULL, 'a stranger does not retry');
SELECT throws_ok($$ SELECT es_discard(pg_temp.failure()) $$, '42501', NULL, 'nor discard');
SELECT throws_ok($$ SELECT * FROM es_failures(subscription => 's') $$, '42501', NULL, 'nor see failures');
RESET ROLE;
SET ROLE es_test_member;
SELECT is(es_retry(pg_temp.failure()), 2::bigint, 'a member retries');
SELECT is((SELECT string_agg(position::text, ' ') FROM es_poll('s')), '1', 'what is delivered then');
SELECT lives_ok($$ SELECT es_discard(pg_temp.failure()) $$, 'the member discards');
SELECT lives_ok($$ SELECT es_seek('s', 0) $$, 'and moves it');
RESET ROLE;
SELECT is((SELECT count(*) FROM es_poll('s', 'admin')), 5::bigint, 'a superuser may all of it');
SELECT is(es_ack('s', pg_temp.token()), 5::bigint, 'acknowledges');
SELECT lives_ok($$ SELECT es_seek('s', 0) $$, 'and seeks');
SET ROLE es_test_member;
SELECT is(current_user::text, 'es_test_member', 'after a call the current user is the same');
SELECT lives_ok($$ SELECT es_drop_subscription('s') $$, 'a member drops it');
RESET ROLE;

-- NOINHERIT: the member does not have the rights until it sets the role.
CREATE ROLE es_test_noinherit NOINHERIT IN ROLE es_test_owner;
GRANT EXECUTE ON FUNCTION es_poll TO es_test_noinherit;
SET ROLE es_test_owner;
SELECT es_create_subscription('s', category => 'account', lease => '1 h');
RESET ROLE;
SET SESSION AUTHORIZATION es_test_noinherit;
SELECT throws_ok($$ SELECT * FROM es_poll('s') $$, '42501', NULL, 'a member that does not inherit does not poll');
SET ROLE es_test_owner;
SELECT is((SELECT count(*) FROM es_poll('s', 'me')), 3::bigint, 'until it becomes the owner');
RESET SESSION AUTHORIZATION;

--
-- Events are read with the owner's rights and row security, whoever polls
--
SELECT es_seek('s', 0);
REVOKE SELECT ON es_events FROM es_test_owner;
SELECT throws_ok($$ SELECT * FROM es_poll('s', 'me') $$, '42501', NULL, 'an owner that may not read any more gets nothing, also if a superuser polls');
GRANT SELECT ON es_events TO es_test_owner;
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON es_events FOR SELECT TO es_test_owner USING (type <> 'deposited');
SELECT is((SELECT string_agg(position::text, ' ') FROM es_poll('s', 'me')), '1 3', 'row security holds for the owner, also if a superuser polls');
SELECT throws_ok($$ SELECT es_nack('s', pg_temp.token(), 2, 'no') $$, '22023', NULL, 'what the owner cannot see was not delivered');
SELECT is(es_nack('s', pg_temp.token(), 1, 'no', 'skip'), 'skip', 'the rest is settled');
SELECT is(es_nack('s', pg_temp.token(), 3, 'no', 'skip'), 'skip', 'all of it');
SELECT is((SELECT position FROM es_partitions), 5::bigint, 'and the partition is free');
SELECT es_seek('s', 0);
SET ROLE es_test_member;
SELECT is((SELECT string_agg(position::text, ' ') FROM es_poll('s', 'me')), '1 3', 'and if a member polls');
SELECT is(es_ack('s', pg_temp.token()), 5::bigint, 'the checkpoint moves over what the owner cannot see');
RESET ROLE;
-- A policy's function sees the owner, and cannot become the caller.
CREATE SCHEMA es_test AUTHORIZATION es_test_owner;
SET ROLE es_test_owner;
CREATE FUNCTION es_test.spy() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_user <> 'es_test_owner' THEN
        RAISE EXCEPTION 'read as %', current_user USING ERRCODE = 'XX999';
    END IF;
    RETURN true;
END $$;
CREATE FUNCTION es_test.escape() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RESET ROLE;
    RETURN true;
END $$;
CREATE FUNCTION es_test.leave() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE left_behind (n int);
    RETURN true;
END $$;
RESET ROLE;
DROP POLICY visible ON es_events;
SELECT es_seek('s', 0);
CREATE POLICY visible ON es_events FOR SELECT TO es_test_owner USING (es_test.spy());
SELECT is((SELECT count(*) FROM es_poll('s', 'me')), 3::bigint, 'a policy''s function runs as the owner');
SELECT lives_ok($$ SELECT es_ack('s', pg_temp.token(), 1) $$, 'in es_ack, too');
ALTER POLICY visible ON es_events USING (es_test.escape());
SELECT throws_ok($$ SELECT * FROM es_poll('s', 'me') $$, '42501', NULL, 'it cannot become the caller');
ALTER POLICY visible ON es_events USING (es_test.leave());
SELECT throws_ok($$ SELECT * FROM es_poll('s', 'me') $$, '42501', NULL, 'nor leave a temporary table behind');
SELECT is(current_user::text, session_user::text, 'afterwards the current user is the same');
DROP POLICY visible ON es_events;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;

--
-- Hostile search_path and objects that are named like ours
--
SELECT es_seek('s', 0);
SET ROLE es_test_member;
CREATE TEMP TABLE es_events (position bigint, stream text);
CREATE TEMP TABLE es_partitions (subscription text, partition int, position bigint);
CREATE TEMP TABLE es_subscriptions (name text, owner name);
CREATE TEMP TABLE es_failures (subscription text, stream text);
CREATE FUNCTION pg_temp.es_category(text) RETURNS text LANGUAGE sql AS $$ SELECT 'wrong' $$;
CREATE FUNCTION pg_temp.es_partition(text, int) RETURNS int LANGUAGE sql AS 'SELECT 77';
CREATE FUNCTION pg_temp.es_partition(text, bigint) RETURNS int LANGUAGE sql AS 'SELECT 77';
CREATE FUNCTION pg_temp.int8gt(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR pg_temp.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_temp.int8gt);
CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'infinity'::timestamptz $$;
SET search_path = pg_temp, public, pg_catalog;
SELECT is((SELECT string_agg(p.position::text, ' ') FROM public.es_poll('s', 'me') p), '1 2 3', 'es_poll finds its own');
SELECT is(public.es_nack('s', pg_temp.token(), 2, 'no', 'park'), 'park', 'es_nack, too');
SELECT is(public.es_ack('s', pg_temp.token()), 5::bigint, 'and es_ack');
SELECT is(public.es_retry(pg_temp.failure()), 2::bigint, 'and es_retry');
SELECT is((SELECT count(*) FROM public.es_poll('s', 'me')), 1::bigint, 'what is due is delivered');
SELECT lives_ok($$ SELECT public.es_seek('s', 0) $$, 'es_seek');
SELECT lives_ok($$ SELECT public.es_drop_subscription('s') $$, 'es_drop_subscription');
SELECT lives_ok($$ SELECT public.es_create_subscription('s') $$, 'es_create_subscription');
SELECT is((SELECT count(*) FROM pg_temp.es_partitions), 0::bigint, 'nothing went into another table of the name');
RESET search_path;
RESET ROLE;
SELECT is((SELECT owner::text FROM public.es_subscriptions), 'es_test_member', 'the creator owns it');

SELECT * FROM finish();
DROP TABLE pg_temp.es_events, pg_temp.es_partitions, pg_temp.es_subscriptions, pg_temp.es_failures;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA es_test CASCADE;
DROP OWNED BY es_test_owner, es_test_member, es_test_stranger, es_test_reader, es_test_noinherit;
DROP ROLE es_test_owner, es_test_member, es_test_stranger, es_test_reader, es_test_noinherit;
CREATE EXTENSION eventstore;
