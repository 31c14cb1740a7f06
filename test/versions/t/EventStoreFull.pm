# A store with something of everything, in the database postgres: what is in it, as one
# value, and whether it goes on after it was moved to another server.
package EventStoreFull;

use strict;
use warnings;

use Exporter qw(import);
use FindBin;
use lib "$FindBin::RealBin/../../t";

use EventStoreProjections;
use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(old_servers cannot_move upgrade fill state_of is_full has_index goes_on ends);

# Older servers with the extension: version and folder.
sub old_servers
{
	return map { [ split /=/ ] } split / /, $ENV{OLD_SERVERS} // '';
}

# Whether PostgreSQL itself cannot move a table from one to the other, which is
# skipped then: the later server is of a minor release before that of the earlier one.
sub cannot_move
{
	my ($old, $new, $name) = @_;
	my $dump = '';

	$old->safe_psql('postgres', 'CREATE TABLE anything (a int)');
	IPC::Run::run([ 'pg_dump', '-t', 'anything', $old->connstr('postgres') ], '>', \$dump)
	  or die 'pg_dump does not work';
	my ($status, undef, $error) = $new->psql('postgres', $dump, on_error_stop => 1);
	$_->safe_psql('postgres', 'DROP TABLE IF EXISTS anything') foreach $old, $new;
	return 0 if $status == 0;
	diag("skipped: $name: PostgreSQL cannot do it between these minor releases: $error");
	SKIP:
	{
		skip("$name: not between these minor releases", 1);
	}
	return 1;
}

# pg_upgrade; both servers are stopped.  Options: --copy, --link ...
sub upgrade
{
	my ($old, $new, $name, @options) = @_;

	# it writes where it is called
	chdir PostgreSQL::Test::Utils::tempdir() or die "chdir: $!";
	return $new->command_ok(
		[
			'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir,
			'-b', $old->config_data('--bindir'), '-B', $new->config_data('--bindir'),
			'-s', $new->host, '-p', $old->port, '-P', $new->port, @options
		],
		"$name: pg_upgrade @options");
}

#
# Filling it
#

# Events out of order, with gaps: rolled back, and of transactions that were prepared.
my $events = <<'END';
CREATE PROCEDURE append_some(first int, last int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN first .. last LOOP
		PERFORM es_append('order-' || i % 17, 'any', 'noted', jsonb_build_object('n', i));
		IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END $$;
CALL append_some(1, 600);
BEGIN; SELECT es_append('order-1', 'any', 'paid', '{"n": 1}'); PREPARE TRANSACTION 'kept';
BEGIN; SELECT es_append('order-2', 'any', 'paid', '{"n": 1}'); PREPARE TRANSACTION 'lost';
SELECT es_append('order-3', 'any', 'paid', '{"n": 1}');
COMMIT PREPARED 'kept';
ROLLBACK PREPARED 'lost';
INSERT INTO es_import (stream, type, data, occurred_at)
SELECT 'import-' || i % 40, 'noted', jsonb_build_object('n', i), to_timestamp(i) FROM generate_series(1, 400) AS i;
SELECT es_append('large-1', 'any', 'attached', to_jsonb(string_agg(md5(i::text), ''))) FROM generate_series(1, 5000) AS i;
SELECT es_append(E'stra\u00dfe-\U0001F600', 'any', E'\u00fcbermittelt', '[1e400, null]', '{"a": {"b": []}}', NULL, '4713-01-01 00:00:00 BC');
SELECT es_append('tagged-' || i % 3, 'any', 'noted', jsonb_build_object('n', i), tags => ARRAY['t:' || i % 2, 'all']) FROM generate_series(1, 20) AS i;
END

# What is known outside: the results of appends that will be repeated.
my $repeated = q{
	SELECT * FROM es_append('retry-1', 'none', 'asked', '{"n": 1}', NULL, '11111111-2222-8333-8444-555555555555');
	SELECT * FROM es_append_batch('retry-2', 'none',
		'[{"type": "asked", "id": "21111111-2222-8333-8444-555555555555"},
		  {"type": "answered", "id": "22111111-2222-8333-8444-555555555555"}]');
	SELECT * FROM es_append('person-1', 'any', 'moved', '{"person": 1, "date": "2026-01-31", "city": "Bern"}')};

my $types = <<'END';
SELECT es_define_event_type('moved', required => '{city}', composite_key => '{person, date}', attributes => '{"date": "date"}');
SELECT es_append('person-' || i, 'any', 'moved', jsonb_build_object('person', i, 'date', '2026-01-01', 'city', 'Rome'))
  FROM generate_series(1, 20) AS i;
CREATE FUNCTION moved_from_1(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data || '{"country": "CH"}' $$;
SELECT es_index_attribute('moved', 'city');
SELECT es_index_type('moved');
SELECT es_define_event_type('moved', required => '{to}', category => 'parcel', schema_version => 2);
SELECT es_define_upcaster('moved', 1, 'moved_from_1', category => 'parcel');
SELECT es_rewrite(id, '{"person": 7, "date": "2026-01-01", "city": "removed"}', '{"why": "asked for"}')
  FROM es_events WHERE stream = 'person-7' AND version = 1;
END

# Persons of whom one was erased.
my $persons = <<'END';
SELECT es_define_event_type('joined', personal => '{name}'), es_define_personal_attributes('joined', '{by_name}', 'by');
SELECT es_append('member-' || i, 'none', 'joined', jsonb_build_object('name', 'Ann ' || i, 'by', 1, 'by_name', 'Ben', 'plan', 'gold')) FROM generate_series(1, 5) AS i;
SELECT count(*) FROM es_erase_subject('3', 'asked for');
END

my $purses = <<'END';
CREATE SCHEMA purse;
CREATE FUNCTION purse.apply_put(state jsonb, data jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql
RETURN jsonb_build_object('sum', coalesce((state->>'sum')::bigint, 0) + (data->>'amount')::bigint);
CREATE FUNCTION purse.put(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
RETURN jsonb_build_array(jsonb_build_object('type', 'put', 'data', command || jsonb_build_object('saw', state->'sum')));
SELECT es_reducer('purse');
DO $$
BEGIN
	FOR i IN 1 .. 900 LOOP
		PERFORM es_execute('purse-' || i % 3, 'purse.put'::regproc, jsonb_build_object('amount', i), 'purse.es_reduce'::regproc);
	END LOOP;
END $$;
END

# Streams that were deleted and appended to again, closed, truncated, compacted, archived, and
# archived for a while; a rule that has removed events, and one that has nothing to remove.
# It comes before the projections, whose read models are compared with what the log has.
my $removals = <<'END';
CREATE FUNCTION life_sum(state jsonb, event es_recorded_event) RETURNS jsonb IMMUTABLE LANGUAGE sql
RETURN jsonb_build_object('n', coalesce((state->>'n')::bigint, 0) + 1, 'k', coalesce((state->>'k')::bigint, 0) + coalesce(((event).data->>'k')::bigint, 0));
SELECT es_append_batch('life-' || i, 'none', (SELECT jsonb_agg(jsonb_build_object('type', 'lived', 'data', jsonb_build_object('k', k),
	'id', md5(i || ' ' || k)::uuid)) FROM generate_series(1, 10) AS k)) FROM unnest('{again,closed,truncated,compacted,archived,back}'::text[]) AS i;
SELECT es_append('life-archived', 'any', 'lived', '{"k": 11}', tags => '{kept:1}', body => '\x00ff', id => md5('archived 11')::uuid);
SELECT es_snapshot('life-again', 'life_sum');
SELECT es_delete_stream('life-again', 10, metadata => '{"why": "asked for"}'), es_append('life-again', 11, 'lived', '{"k": 1}');
SELECT es_delete_stream('life-closed', 'any', tombstone => true);
SELECT es_truncate_stream('life-truncated', 8);
SELECT es_compact_stream('life-compacted', 'life_sum'), es_append('life-compacted', 'any', 'lived', '{"k": 100}');
SELECT es_archive_stream('life-archived'), es_archive_stream('life-back'), es_unarchive_stream('life-back');
SELECT es_append_batch('sensor-' || i % 3, 'any', array_fill('measured'::text, ARRAY[20]), array_fill('{}'::jsonb, ARRAY[20])) FROM generate_series(1, 9) AS i;
SELECT es_set_retention('sensor', max_count => 15), es_set_retention('life', max_age => '100 years');
SELECT es_run_retention('sensor');
END

# by_handler: sync; by_query: sync, and paused; copied: behind; by_type: has parked
# events; by_category: failed; totals: refreshes.
sub fill_projections
{
	my ($node) = @_;

	create_read_models($node);
	$node->safe_psql('postgres', <<'END');
CREATE TABLE mended ();
ALTER FUNCTION by_category RENAME TO by_category_mended;
ALTER FUNCTION by_type.on_paid RENAME TO on_paid_mended;
CREATE FUNCTION refuse_poison(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF event.data ? 'poison' AND NOT EXISTS (SELECT FROM mended) THEN
		RAISE EXCEPTION 'poison';
	END IF;
END $$;
CREATE FUNCTION by_category(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM by_category_mended(event);
	PERFORM refuse_poison(event);
END $$;
CREATE FUNCTION by_type.on_paid(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM by_type.on_paid_mended(event);
	PERFORM refuse_poison(event);
END $$;
CREATE MATERIALIZED VIEW totals AS SELECT stream, count(*) AS n FROM es_events GROUP BY stream;
CREATE UNIQUE INDEX ON totals (stream);
END
	create_projections($node, q{mode => 'sync'}, 'postgres', 'by_handler', 'by_query');
	create_projections($node, 'batch_size => 30', 'postgres', 'copied');
	create_projections($node, q{max_attempts => 1, on_failure => 'park'}, 'postgres', 'by_type');
	create_projections($node, 'max_attempts => 1', 'postgres', 'by_category');
	$node->safe_psql('postgres', q{SELECT es_create_projection('totals', refresh => 'totals', min_interval => '0')});
	return;
}

# Once half of the events are there
sub get_into_trouble
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{
		SELECT es_append('account-1', 'any', 'paid', '{"n": 1, "poison": 1}');
		SELECT es_append('account-1', 'any', 'paid', '{"n": 2}');
		SELECT es_pause_projection('by_query')});
	$node->safe_psql('postgres', q{SELECT es_run_projections(name) FROM unnest('{by_type,by_category,totals}'::text[]) AS name});
	$node->safe_psql('postgres', q{SELECT es_run_projections('copied', 5)});
	return;
}

# "all": handled in part, in flight of a consumer that knows its token, parked and to be
# retried; "done": nothing is left; "expired": in flight of a consumer that has died.
my $subscriptions = <<'END';
CREATE TABLE got (subscription text, position bigint, token bigint);
CREATE FUNCTION take(subscription text, consumer text, max_count int, after bigint DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
	WITH delivered AS (
		INSERT INTO got SELECT subscription, position, token FROM es_poll(subscription, consumer, max_count, after_token => after) RETURNING *)
	SELECT max(token) FROM delivered $$;
CREATE FUNCTION take_all() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name_ text;
	token_ bigint;
BEGIN
	FOR name_ IN SELECT name FROM es_subscriptions LOOP
		LOOP
			token_ := take(name_, CASE name_ WHEN 'expired' THEN 'ben' END, 500);
			EXIT WHEN token_ IS NULL;
			PERFORM es_ack(name_, token_);
		END LOOP;
	END LOOP;
END $$;
SELECT es_create_subscription('all', partitions => 3, lease => '1 day');
SELECT es_ack('all', take('all', NULL, 200)) FROM generate_series(1, 5);
DO $$
DECLARE
	token_ bigint := take('all', 'ann', 50);
	failed bigint[] := (SELECT array_agg(position ORDER BY position) FROM got WHERE token = token_);
BEGIN
	PERFORM es_nack('all', token_, failed[1], 'no', 'park'), es_nack('all', token_, failed[2], 'later', 'retry');
	DELETE FROM got AS g WHERE token = token_ AND g.position IN (SELECT f.position FROM es_failures AS f WHERE f.subscription = 'all');
	PERFORM es_ack('all', token_, failed[20]);
END $$;
SELECT es_create_subscription('done');
SELECT es_ack('done', take('done', NULL, 100000));
SELECT es_create_subscription('tagged', query => '[{"tags": ["t:1", "all"]}]');
SELECT es_create_subscription('expired', 'order', lease => '1 ms');
SELECT count(*) FROM es_poll('expired', 'ben', 70);
END

my $inbox = <<'END';
CREATE FUNCTION on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
	SELECT p->>'id', (p->>'at')::timestamptz, 'paid', 'v1', 'payment-' || (p->>'id'), NULL, '{payment}'::text[] FROM (SELECT payload::jsonb AS p) AS message $$;
SELECT es_receive('payments', 'shop', jsonb_build_object('id', i, 'at', '2026-01-01', 'n', i)::text, 'on_payment(text, jsonb)')
  FROM generate_series(1, 50) AS i;
SELECT es_receive('payments', 'shop', 'not JSON', 'on_payment(text, jsonb)', max_retries => 0);
END

sub fill
{
	my ($node) = @_;
	my $appenders;

	$node->safe_psql('postgres', $removals);
	fill_projections($node);
	$appenders = start_appenders($node, clients => 3, seconds => 3, rate => 120);
	$node->safe_psql('postgres', $_) foreach $events, $types, $persons, $purses, $inbox;
	$node->safe_psql('postgres', "CREATE TABLE first_result (result text); INSERT INTO first_result VALUES (\$\$"
		  . $node->safe_psql('postgres', $repeated) . '$$)');
	$appenders->finish;
	get_into_trouble($node);
	$node->safe_psql('postgres', $subscriptions);
	$appenders = start_appenders($node, clients => 3, seconds => 1, rate => 100);
	$appenders->finish;
	$node->safe_psql('postgres', 'CALL append_some(601, 700)');
	$node->safe_psql('postgres', q{SELECT es_define_upcaster('moved', 1, 'moved_from_1(jsonb)')});
	return;
}

#
# What is in it
#

# Every row of every table, as text; of a store that was restored (next_xids => 0) what a
# dump has.
sub state_of
{
	my ($node, %params) = @_;
	my $row = $params{next_xids} ? 't::text' : q{(to_jsonb(t) - 'next_xid')::text};
	# not in a dump: a cache, a view that is refreshed, and the mark of the instance
	my $left_out = $params{next_xids} ? '' : ', es_snapshots, totals, es_identity';
	my @tables = split /\n/, $node->safe_psql('postgres', qq{
		SELECT c.oid::regclass FROM pg_class AS c
		 WHERE relkind IN ('r', 'm') AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
		   AND c.oid <> ALL ('{es_notified$left_out}'::regclass[]) ORDER BY c.oid::regclass::text COLLATE "C"});

	return $node->safe_psql('postgres', join ";\n", q{SET timezone = 'UTC'},
		(map { qq{SELECT '$_', count(*), md5(string_agg($row, E'\\n' ORDER BY $row COLLATE "C")) FROM $_ AS t} } @tables),
		q{SELECT schemaname, sequencename, last_value FROM pg_sequences WHERE sequencename <> 'es_snapshots_id_seq' ORDER BY 1, 2},
		q{SELECT tgname, tgenabled, tgtype, tgnewtable FROM pg_trigger
		   WHERE tgrelid = 'es_events'::regclass AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY tgname});
}

# It has what the tests are about, so that they do not pass for want of it.
sub is_full
{
	my ($node, $name) = @_;

	is_query($node, q{
		SELECT (SELECT count(*) > 4000 FROM es_events),
		       (SELECT count(DISTINCT es_category(stream)) >= 9 FROM es_events),
		       (SELECT max(position) - count(*) > 200 FROM es_events),
		       (SELECT count(*) FROM es_snapshots WHERE stream LIKE 'purse-%'),
		       (SELECT count(*) FROM es_inbox),
		       (SELECT string_agg(DISTINCT coalesce(projection, subscription, topic), ' ' ORDER BY coalesce(projection, subscription, topic)) FROM es_failures)},
		't|t|t|3|50|all by_type payments', "$name: events, gaps, snapshots, messages and failures");
	is_query($node, q{
		SELECT (SELECT string_agg(DISTINCT action, ' ' ORDER BY action) FROM es_removals), (SELECT count(*) FROM es_removed_ids),
		       (SELECT count(*) FROM es_archived_events), (SELECT count(*) FROM es_retention)},
		'archive compact delete tombstone truncate unarchive|182|11|2', "$name: removals of all kinds");
	is_query($node, q{SELECT name, mode, state, lag_events > 0, parked > 0 FROM es_projection_status ORDER BY name},
		"by_category|async|failed|t|f\nby_handler|sync|running|f|f\nby_query|sync|paused|t|f\n"
		  . "by_type|async|running|t|t\ncopied|async|running|t|f\ntotals|async|running|t|f",
		"$name: projections of all kinds");
	is_query($node, q{
			SELECT subscription, count(*), bool_and(lag_events > 0), max(consumer), sum(in_flight) > 0, sum(parked) > 0
			  FROM es_subscription_status GROUP BY 1 ORDER BY 1},
		"all|3|t|ann|t|t\ndone|1|t||f|f\nexpired|1|t|ben|t|f\ntagged|1|t||f|f", "$name: subscriptions of all kinds");
	return;
}

#
# Whether it goes on
#

# Nothing is in doubt, also while others have transaction ids and positions.
sub is_readable
{
	my ($node, $name) = @_;
	my $last = $node->safe_psql('postgres', 'SELECT max(position) FROM es_events');
	my $idle = $node->background_psql('postgres');
	my $append = $node->background_psql('postgres');

	holds_versions_dense($node, $name);
	holds_horizon_at_end($node, $name);
	is_query($node, 'SELECT count(*) FROM es_events WHERE next_xid > pg_snapshot_xmax(pg_current_snapshot())',
		'0', "$name: no next_xid is above the next transaction id");
	$idle->query_safe('BEGIN');
	$idle->query_safe('SELECT pg_current_xact_id()');
	holds_horizon_at_end($node, "$name, while somebody has a transaction id");
	$append->query_safe('BEGIN');
	$append->query_safe(q{SELECT es_append('slow-1', 'any', 'began')});
	is_query($node, 'SELECT es_horizon()', $last, "$name: the horizon is there while somebody appends");
	$node->safe_psql('postgres', q{SELECT es_append('quick-1', 'any', 'done')});
	is_query($node, 'SELECT es_horizon()', $last, "$name: it waits for that append");
	$append->query_safe('COMMIT');
	holds_horizon_at_end($node, "$name, when the append is done");
	$idle->query_safe('COMMIT');
	$_->quit foreach $idle, $append;
	return;
}

sub appends_go_on
{
	my ($node, $name) = @_;

	is_query($node, $repeated, $node->safe_psql('postgres', 'TABLE first_result'), "$name: repeated appends give their first results");
	is_query($node, q{
			SELECT a.version - b.version, a.position > b.last FROM (SELECT es_stream_version('order-1') AS version, max(position) AS last FROM es_events) AS b,
				LATERAL es_append('order-1', b.version, 'paid', '{"n": 1}') AS a},
		'1|t', "$name: the next append has the next version, and a higher position");
	like(($node->psql('postgres', q{SELECT es_append('order-1', 1, 'paid')}, extra_params => [ '-v', 'VERBOSITY=verbose' ]))[2],
		qr/ERROR:  ES001:/, "$name: a stale version is refused");
	return;
}

sub has_index
{
	my ($node, $name) = @_;

	is_query($node, q{
			SELECT count(*), bool_and(indisvalid AND indisready) FROM pg_index
			 WHERE indrelid = 'es_events'::regclass AND pg_get_indexdef(indexrelid) LIKE '%city%'}, '1|t', "$name: the index of an attribute");
	return;
}

sub types_go_on
{
	my ($node, $name) = @_;

	like(($node->psql('postgres', q{SELECT es_append('person-1', 'any', 'moved', '{"person": 1, "date": "2026-02-30"}')},
				extra_params => [ '-v', 'VERBOSITY=verbose' ]))[2],
		qr/ERROR:  ES004:/, "$name: an event that is not as its type is refused");
	is_query($node, q{SELECT data, metadata->>'why' FROM es_load('person-7', 0, 1)},
		'{"city": "removed", "date": "2026-01-01", "person": 7, "country": "CH"}|asked for', "$name: rewritten data, upcast");
	is_query($node, q{
			SELECT count(*) FROM generate_series(0, 2) AS i, es_state('purse-' || i, 'purse.es_reduce'::regproc) AS s
			 WHERE (s.state->>'sum')::bigint = (SELECT sum((data->>'amount')::bigint) FROM es_events WHERE stream = 'purse-' || i)},
		'3', "$name: states are the sums of their events");
	is_query($node, q{
			SELECT count(es_execute('purse-1', 'purse.put'::regproc, '{"amount": 1}', 'purse.es_reduce'::regproc)) FROM generate_series(1, 3)},
		'3', "$name: commands are decided");
	is_query($node, q{
			SELECT count(*) FROM (SELECT (data->>'saw')::bigint AS saw,
				sum((data->>'amount')::bigint) OVER (PARTITION BY stream ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS sum
				  FROM es_events WHERE es_category(stream) = 'purse') AS e WHERE saw IS DISTINCT FROM sum},
		'0', "$name: each on the state before it");
	return;
}

sub persons_go_on
{
	my ($node, $name) = @_;

	is_query($node, q{SELECT stream, data->>'name', data->>'by_name', metadata FROM es_read_category('member')},
		join("\n", 'member-1|Ann 1|Ben|', 'member-2|Ann 2|Ben|', 'member-3||Ben|{"$personal": {"3": "erased"}}', 'member-4|Ann 4|Ben|', 'member-5|Ann 5|Ben|'),
		"$name: personal attributes are opened, but for those of a person who was erased");
	is_query($node, q{SELECT version FROM es_append('member-4', 1, 'joined', '{"name": "Ann 4"}')}, '2', "$name: others are stored");
	like(($node->psql('postgres', q{SELECT es_append('member-3', 'any', 'joined', '{"name": "Ann 3"}')}, extra_params => [ '-v', 'VERBOSITY=verbose' ]))[2],
		qr/ERROR:  ES008:/, "$name: and none of a person who was erased");
	is_query($node, 'SELECT subject, reason FROM es_erasures', '3|asked for', "$name: the erasure is known");
	return;
}

sub removals_go_on
{
	my ($node, $name) = @_;

	is_query($node, q{
			SELECT version, position = (SELECT position FROM es_removed_ids WHERE id = md5('truncated 7')::uuid)
			  FROM es_append('life-truncated', 6, 'lived', '{"k": 7}', id => md5('truncated 7')::uuid)},
		'7|t', "$name: a retry of a removed append has its first result");
	like(($node->psql('postgres', q{SELECT es_append('life-closed', 'any', 'lived')}, extra_params => [ '-v', 'VERBOSITY=verbose' ]))[2],
		qr/ERROR:  ES003:/, "$name: a tombstone closes its stream");
	is_query($node, q{
			SELECT stream, version, state FROM unnest('{life-again,life-compacted,life-back}'::text[]) AS stream, es_state(stream, 'life_sum')},
		qq{life-again|12|{"k": 1, "n": 1}\nlife-compacted|11|{"k": 155, "n": 11}\nlife-back|11|{"k": 55, "n": 10}}, "$name: states after removals");
	is_query($node, q{
			SELECT count(*), sum((data->>'k')::int), count(body), count(tags) FROM es_load_archived('life-archived')}, '11|66|1|1', "$name: the archive is read");
	is_query($node, q{
			SELECT es_unarchive_stream('life-archived'), (SELECT es_archive_stream('life-back') IS NOT NULL),
				(SELECT array_agg(version) FROM es_append_batch('sensor-1', 'any', array_fill('measured'::text, ARRAY[20]), array_fill('{}'::jsonb, ARRAY[20])))},
		'11|t|{80}', "$name: streams come back, are archived, and rules go on");
	catch_up($node);
	$node->safe_psql('postgres', 'SELECT take_all()');
	is_query($node, q{SELECT streams, events FROM es_run_retention('sensor')}, '1|20', "$name: a rule removes what all have read");
	is_query($node, q{SELECT version, type FROM es_load('life-archived') WHERE body IS NOT NULL}, '11|lived', "$name: what came back is as it was");
	return;
}

# Each event takes effect once.
sub projections_go_on
{
	my ($node, $name) = @_;

	equals_fold($node, "$name: at once");
	$node->safe_psql('postgres', q{
		SELECT es_append_batch('account-' || i, 'any', array_fill('paid'::text, ARRAY[30]), array_fill('{"n": 3}'::jsonb, ARRAY[30]))
		  FROM generate_series(1, 10) AS i;
		INSERT INTO mended DEFAULT VALUES;
		SELECT es_resume_projection(name) FROM unnest('{by_category,by_query}'::text[]) AS name});
	catch_up($node);
	$node->safe_psql('postgres', q{SELECT es_retry(id) FROM es_failures WHERE projection = 'by_type' AND sqlstate IS NOT NULL});
	catch_up($node);
	ok($node->poll_query_until('postgres',
			q{SELECT count(*) = 6 AND bool_and(state = 'running' AND lag_events = 0 AND parked = 0) FROM es_projection_status}),
		"$name: all run, and nothing is left");
	equals_fold($node, "$name: caught up");
	is_query($node, 'SELECT count(*) FROM (TABLE totals EXCEPT ALL SELECT stream, count(*) FROM es_events GROUP BY stream) AS d',
		'0', "$name: the view is refreshed");
	$node->safe_psql('postgres', q{SELECT es_rebuild_projection('by_query')});
	equals_fold($node, "$name: rebuilt");
	return;
}

sub subscriptions_go_on
{
	my ($node, $name) = @_;

	# the store is in another incarnation: a token from before is void, and what came with it comes again
	like(($node->psql('postgres', q{SELECT es_ack('all', max(p.token)) FROM got, es_partitions AS p WHERE p.consumer = 'ann'
			AND p.subscription = 'all' AND got.subscription = 'all' AND got.token = p.token}, extra_params => [ '-v', 'VERBOSITY=verbose' ]))[2],
		qr/ERROR:  ES006: .*\nDETAIL:  It is from before the store was restored, promoted or copied/, "$name: a token from before is void");
	$node->safe_psql('postgres', q{DELETE FROM got USING es_partitions AS p WHERE p.consumer = 'ann' AND p.subscription = 'all'
		AND got.subscription = 'all' AND got.token = ANY (p.tokens) AND got.position > p.position});
	$node->safe_psql('postgres', q{SELECT es_retry(min(id)) FROM es_failures WHERE subscription = 'all' AND message IS NOT NULL GROUP BY stream});
	ok($node->poll_query_until('postgres', q{
			SELECT bool_and(lag_events = 0 AND in_flight = 0 AND parked = 0) FROM take_all(), es_subscription_status}),
		"$name: nothing is left to deliver");
	is_query($node, q{
			SELECT s.name, count(*) FROM es_subscriptions AS s CROSS JOIN es_events AS e
			  LEFT JOIN (SELECT subscription, position, count(*) AS n FROM got GROUP BY 1, 2) AS g ON g.subscription = s.name AND g.position = e.position
			 WHERE (s.name <> 'expired' OR es_category(e.stream) = 'order') AND (s.name <> 'tagged' OR 't:1' = ANY (e.tags))
			   AND n IS DISTINCT FROM 1 GROUP BY 1},
		'', "$name: each event was delivered once");
	return;
}

sub inbox_goes_on
{
	my ($node, $name) = @_;

	is_query($node, q{
			SELECT DISTINCT es_receive('payments', 'shop', payload, 'on_payment(text, jsonb)') FROM es_inbox},
		'duplicate', "$name: messages that were received are known");
	is_query($node, q{SELECT es_receive('payments', 'shop', '{"id": 51}', 'on_payment(text, jsonb)')}, 'acknowledged', "$name: others are handled");
	$node->safe_psql('postgres', q{CREATE OR REPLACE FUNCTION on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
		SELECT '52', NULL::timestamptz, 'paid', 'v1', 'payment-52', NULL, NULL::text[] $$});
	is_query($node, q{SELECT es_retry(id) FROM es_failures WHERE topic = 'payments'}, '1', "$name: one that failed is tried again");
	return;
}

sub goes_on
{
	my ($node, $name) = @_;

	is_readable($node, $name);
	appends_go_on($node, $name);
	types_go_on($node, $name);
	persons_go_on($node, $name);
	inbox_goes_on($node, $name);
	projections_go_on($node, $name);
	subscriptions_go_on($node, $name);
	removals_go_on($node, $name);
	holds_versions_dense($node, "$name, at the end");
	holds_horizon_at_end($node, "$name, at the end");
	is_query($node, q{SELECT extversion FROM pg_extension WHERE extname = 'eventstore'},
		$node->safe_psql('postgres', q{SELECT default_version FROM pg_available_extensions WHERE name = 'eventstore'}), "$name: the extension's version");
	like(($node->psql('postgres', 'ALTER EXTENSION eventstore UPDATE'))[2], qr/version ".*" of extension "eventstore" is already installed/,
		"$name: ALTER EXTENSION");
	return;
}

# The extension can be dropped, with everything that it made.
sub ends
{
	my ($node, $name) = @_;

	$node->safe_psql('postgres', 'DROP EXTENSION eventstore CASCADE');
	is_query($node, q{SELECT count(*) FROM pg_class WHERE relname LIKE 'es\_%'}, '0', "$name: it can be dropped");
	return;
}

1;
