# A logical replica skips nothing: its horizon is that of the publisher, whatever the order in which transactions
# commit. It takes no appends until es_promote(), and goes on then.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStorePersonal;
use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use_seed();
my $publisher = new_store('publisher', fsync => 'off', streaming => 1, workers => 1, conf => 'wal_level = logical');
my $replica = new_store('replica', fsync => 'off', streaming => 1, conf => 'wal_level = logical');
my $tables = 'es_events, es_published_horizon, es_incarnation_entries, es_rewrites, es_removals, es_removed_ids, es_archived_events, es_personal_attributes, es_subject_keys, es_erasures';
my $problems = q{SET eventstore.health_delay = 0; SELECT string_agg(problem, ',' ORDER BY problem) FROM es_health WHERE problem LIKE 'replica%'};
my $subscribe = q{CREATE SUBSCRIPTION s CONNECTION '} . $publisher->connstr . q{ dbname=postgres' PUBLICATION p};

sub append
{
	my ($session, $stream) = @_;

	return $session->query_safe("SELECT position FROM es_append('$stream', 'any', 'happened')");
}

sub on_publisher { return $publisher->safe_psql('postgres', $_[0]) }
sub on_replica   { return $replica->safe_psql('postgres', $_[0]) }

# Streams that a reader gets after a position.
sub reads { return on_replica("SELECT string_agg(stream, ',' ORDER BY position) FROM es_read($_[0])") }

sub becomes
{
	my ($sql, $expected, $name) = @_;
	my $value = '';

	eval { wait_until($name, sub { ($value = on_replica($sql)) eq $expected }) };
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($value, $expected, $name);
	return;
}

sub refuses
{
	my ($sql, $error, $name) = @_;
	my ($status, $out, $message) = $replica->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($message, qr/ERROR:  55000: $error/, $name);
	return;
}

#
# Order
#
on_publisher(q{SELECT es_append('first-1', 'any', 'happened', '{"n": 1}', tags => '{a,b}')});
on_publisher("CREATE PUBLICATION p FOR TABLE $tables");
wait_until('the publisher publishes its horizon', sub { on_publisher('SELECT max(position) FROM es_published_horizon') eq '1' });
pass('a log that is published without an append publishes its horizon');
on_replica($subscribe);
$replica->wait_for_subscription_sync($publisher, 's');
becomes(q{SELECT string_agg(stream, ',') FROM es_read()}, 'first-1', 'the replica has the copy');

my $slow = $publisher->background_psql('postgres');
my $quick = $publisher->background_psql('postgres');
$slow->query_safe('BEGIN');
my $held = append($slow, 'slow-1');
append($quick, 'quick-1');
$publisher->wait_for_catchup('s');
is(on_replica(q{SELECT count(*) FROM es_events WHERE stream = 'quick-1'}), '1', 'what was committed arrives');
is(reads(1), '', 'and is not read before what was drawn below');
is(on_replica('SELECT es_horizon()'), $held - 1, 'the horizon is that of the publisher');
is(on_replica($problems), 'replica_waits', 'es_health says that events wait');
$slow->query_safe('COMMIT');
becomes(q{SELECT string_agg(stream, ',' ORDER BY position) FROM es_read(1)}, 'slow-1,quick-1', 'both are read in their order');
is(on_replica($problems), '', 'es_health has no problem any more');
on_replica('ALTER SUBSCRIPTION s DISABLE');
is(on_replica($problems), 'replica_disabled', 'es_health says that the subscription is disabled');
is(on_replica(q{SELECT remedy FROM es_health WHERE problem = 'replica_disabled'}), 'ALTER SUBSCRIPTION s ENABLE', 'and how it is enabled');
on_replica('ALTER SUBSCRIPTION s ENABLE');
$slow->query_safe('BEGIN');
append($slow, 'gone-1');
my $position = append($quick, 'quick-1');
$slow->query_safe('ROLLBACK');
becomes('SELECT es_horizon()', $position, 'a gap of a rollback is passed');

#
# What a replica refuses
#
my $another = qr/cannot .* on a logical replica/;
refuses(q{SELECT es_append('a-1', 'any', 'x')}, $another, 'an append');
refuses(q{SELECT es_append_batch('a-1', 'any', '{x}', '{"{}"}')}, $another, 'a batch');
refuses(q{INSERT INTO es_import (stream, type) VALUES ('a-1', 'x')}, $another, 'an import');
refuses(q{INSERT INTO es_events SELECT position + 1000, version, next_xid, now(), NULL, es_uuid7(), 'b-1', 'x' , '{}' FROM es_events LIMIT 1}, $another, 'a row');
refuses(q{SELECT es_rewrite(id, '{}') FROM es_events LIMIT 1}, $another, 'a rewrite');
refuses(q{SELECT es_delete_stream('first-1', 1)}, $another, 'a removal');
on_replica('ALTER DATABASE postgres SET eventstore.test_mode = on');
refuses(q{SELECT es_reset()}, $another, 'a reset');
on_replica('ALTER DATABASE postgres RESET eventstore.test_mode');
refuses(q{SELECT es_promote()}, 'a logical replica with a subscription cannot be promoted', 'a promotion, while there is a subscription');

#
# Projections, subscriptions and workers there
#
on_replica(q{CREATE TABLE handled (position bigint PRIMARY KEY);
	SELECT es_create_projection('p', query => 'INSERT INTO handled SELECT position FROM new_events');
	SELECT es_create_subscription('s')});
refuses(q{SELECT es_alter_projection('p', mode => 'sync')}, $another, 'a sync projection');
on_replica('SELECT es_start_worker()');
append($slow, 'seen-1');
becomes('SELECT (SELECT count(*) FROM handled) = (SELECT count(*) FROM es_events)', 't', 'a projection runs there');
is(on_replica(q{SELECT count(*) FROM es_poll('s')}), on_replica('SELECT count(*) FROM es_events'), 'and a subscription');
is(on_replica('SELECT count(*) FROM es_incarnations'), '1', 'which begins no incarnation');
my $listener = $replica->background_psql('postgres');
$listener->query_safe('LISTEN es_events');
append($slow, 'seen-1');
becomes('SELECT (SELECT count(*) FROM handled) = (SELECT count(*) FROM es_events)', 't', 'a wake-up comes with the horizon');
like($listener->query_safe('SELECT 1'), qr/"es_events"/, 'and listeners are notified');
$listener->quit;

#
# Changes
#
my $entries = q{SELECT string_agg(format('%s %s %s', tag, position, type), ', ' ORDER BY tag, position) FROM es_tags};
on_publisher(q{SELECT es_rewrite(id, '{"n": 2}') FROM es_load('first-1')});
on_publisher(q{SELECT es_append('tagged-1', 'any', 'happened', tags => '{b,c}') FROM generate_series(1, 3)});
$publisher->wait_for_catchup('s');
on_publisher(q{SELECT es_delete_stream('first-1', 1)});
on_publisher(q{SELECT es_truncate_stream('quick-1', 2)});
$publisher->wait_for_catchup('s');
is(on_replica($entries), on_publisher($entries), 'entries of tags follow removals');
is(on_replica('SELECT count(*) FROM es_removals'), '2', 'as do their records');
becomes('SELECT es_horizon()', on_publisher('SELECT es_horizon()'), 'and the horizon');
on_publisher(q{SELECT es_archive_stream('tagged-1')});
$publisher->wait_for_catchup('s');
my $archived = q{SELECT string_agg(version || ' ' || type, ', ' ORDER BY version) FROM es_load_archived('tagged-1')};
like(on_replica($archived), qr/^1 happened, 2 happened, 3 happened/, 'archived events travel');
is(on_replica($archived), on_publisher($archived), 'as they are');
on_publisher(q{SELECT es_unarchive_stream('tagged-1')});
$publisher->wait_for_catchup('s');
my $stream = q{SELECT string_agg(position || ' ' || version || ' ' || type, ', ' ORDER BY version) FROM es_load('tagged-1')};
is(on_replica($stream), on_publisher($stream), 'and come back');
is(on_replica($entries), on_publisher($entries), 'with their tags');

#
# Persons
#
my $persons = q{SELECT string_agg(coalesce(data->>'name', metadata::text), ', ' ORDER BY stream) FROM es_read_category('person')};
on_publisher(q{SELECT es_define_event_type('joined', personal => '{name}')});
on_publisher(q{SELECT es_append('person-' || i, 'none', 'joined', '{"name": "Ann"}') FROM generate_series(1, 2) AS i});
becomes($persons, 'Ann, Ann', 'personal attributes are opened there, with the same key file');
my $idle = $replica->background_psql('postgres');
is($idle->query_safe($persons), 'Ann, Ann', 'by a session that remembers the keys');
refuses(q{SELECT es_erase_subject('1')}, $another, 'an erasure');
refuses('SELECT es_rotate_keys()', $another, 'a rotation of keys');
refuses(q{SELECT es_personal_hash('3', 'x')}, $another, 'a new key');
on_publisher(q{SELECT count(*) FROM es_erase_subject('1')});
$publisher->wait_for_catchup('s');
is($idle->query_safe($persons), '{"$personal": {"1": "erased"}}, Ann', 'and not once the person is erased');
is(on_replica('SELECT subject FROM es_erasures'), '1', 'which is known there');
$idle->quit;

# Without its key file what is applied goes on. A projection stops.
my $key_file = on_replica(q{SELECT current_setting('eventstore.key_file')});
set_key_files($replica, '');
on_replica(q{CREATE TABLE names (name text)});
on_replica(q{SELECT es_create_projection('names', tables => '{names}', on_failure => 'stop', max_attempts => 1, types => '{joined}', start_position => es_horizon(),
	query => $$INSERT INTO names SELECT data->>'name' FROM new_events$$)});
on_publisher(q{SELECT es_append('person-3', 'none', 'joined', '{"name": "Cid"}')});
on_publisher(q{SELECT es_append('after-1', 'none', 'happened')});
becomes(q{SELECT count(*) FROM es_load('after-1')}, '1', 'a replica without the key file goes on');
is(on_replica(q{SELECT metadata FROM es_load('person-3')}), '{"$personal": {"3": "no key"}}', 'and says what it lacks');
on_replica('SELECT es_run_projections()');
is(on_replica(q{SELECT last_error FROM es_projection_status WHERE name = 'names'}), 'cannot project an event', 'a projection stops at the event');
set_key_files($replica, $key_file);
on_replica(q{SELECT es_resume_projection('names')});
on_replica('SELECT es_run_projections()');
is(on_replica('SELECT * FROM names'), 'Cid', 'and goes on with the file');

#
# Two subscriptions
#
on_publisher('CREATE PUBLICATION events FOR TABLE es_events; CREATE PUBLICATION horizons FOR TABLE es_published_horizon');
{
	my $apart = new_store('apart', fsync => 'off', conf => "wal_level = logical\nwal_retrieve_retry_interval = 100ms");

	$apart->safe_psql('postgres', "CREATE SUBSCRIPTION apart_$_ CONNECTION '" . $publisher->connstr . " dbname=postgres' PUBLICATION $_")
	  foreach qw(events horizons);
	ok(eval { $apart->wait_for_log(qr/one subscription must bring both es_events and es_published_horizon/) }, 'the server\'s log says why two subscriptions do not do');
	is($apart->safe_psql('postgres', 'SELECT es_horizon()'), '0', 'and nothing is read');
	is($apart->safe_psql('postgres', $problems), 'replica_subscription', 'which es_health says, too');
	$apart->safe_psql('postgres', "DROP SUBSCRIPTION apart_$_") foreach qw(events horizons);
	is($apart->safe_psql('postgres', $problems), '', 'and no longer, when there is none');
	$apart->stop;
}

#
# A standby of the replica
#
my $standby = new_standby($replica);
$replica->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT es_horizon()'), on_replica('SELECT es_horizon()'), 'a standby of the replica has its horizon');

#
# Restarts
#
$replica->stop('immediate');
$replica->start;
$slow->query_safe('BEGIN');
append($slow, 'slow-1');
append($quick, 'quick-1');
$publisher->wait_for_catchup('s');
my $before = on_replica('SELECT es_horizon()');
is(on_replica("SELECT count(*) FROM es_read($before)"), '0', 'after a crash of the replica nothing is read above an open append');
$slow->query_safe('COMMIT');
becomes('SELECT es_horizon() = max(position) FROM es_events', 't', 'and all of it afterwards');

#
# Promotion
#
my $kept = on_publisher(q{SELECT format('%L, %s', es_incarnation(), max(position)) FROM es_events});
my $last = on_publisher('SELECT max(position) FROM es_events');
$publisher->wait_for_catchup('s');
on_replica('DROP SUBSCRIPTION s');
refuses(q{SELECT es_append('a-1', 'any', 'x')}, $another, 'an append, before the promotion');
is(on_replica(q{SELECT "position" FROM es_promote()}), $last, 'es_promote() returns the last position');
refuses('SELECT es_promote()', 'the event store is not a logical replica', 'it is done once');
is(on_replica("SELECT es_position_valid($kept)"), 't', 'what a consumer of the publisher has read is valid');
is(on_replica(q{SELECT string_agg(reason, ',' ORDER BY number) FROM es_incarnations}), 'created,promoted', 'an incarnation has begun');
is(on_replica(q{SELECT es_store_id()}), on_publisher(q{SELECT es_store_id()}), 'of the same store');
{
	my $idle = $replica->background_psql('postgres');
	my $open = $replica->background_psql('postgres');

	$open->query_safe('BEGIN');
	cmp_ok(append($open, 'open-1'), '>', $last, 'appends go on above');
	append($idle, 'after-1');
	is(on_replica('SELECT es_horizon()'), $last, 'an open append holds the horizon at the end of what was promoted');
	is($idle->query_safe('SELECT es_horizon()'), $last, 'in every session');
	$open->query_safe('COMMIT');
	is(on_replica('SELECT es_horizon() = max(position) FROM es_events'), 't', 'and no longer');
	$open->quit;
	$idle->quit;
}
on_replica(q{SELECT es_delete_stream('seen-1', 'any')});
is(on_replica(q{SELECT max(id) - (SELECT count(*) FROM es_removals) FROM es_removals}),
	on_publisher(q{SELECT max(id) - count(*) FROM es_removals}), 'a removal gets a number above those that came');
on_replica(q{SELECT es_alter_projection('p', mode => 'sync'); SELECT es_append('after-1', 'any', 'x')});
is(on_replica('SELECT count(*) FROM (SELECT position FROM es_events EXCEPT SELECT position FROM handled) AS x'), '0', 'a projection becomes sync');
$_->quit foreach $slow, $quick;
$_->stop foreach $standby, $replica, $publisher;
done_testing();
