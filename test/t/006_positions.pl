# The sequence is not behind the table after a crash, on a promoted standby, after a restore
# of the table alone and with triggers disabled, while a dump is made, and on a logical
# replica: each append gets a position above every row that is there.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = PostgreSQL::Test::Utils::tempdir();
use_seed();
my $node = new_store('positions', fsync => 'on', streaming => 1, conf => <<'END');
wal_level = logical
checkpoint_timeout = 1d
autovacuum = off
END

# Lets rows come at positions from one to another, step by step, each of which raises.
my $come = q{
	CREATE FUNCTION come(first bigint, last bigint, step bigint DEFAULT 1) RETURNS void LANGUAGE sql AS $$
		INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data)
		SELECT p, 1, '3', now(), es_uuid7(), 'load-' || p, 'loaded', jsonb_build_object() FROM generate_series(first, last, step) p $$};

sub append_position
{
	my ($at, $database, $stream) = @_;

	return $at->safe_psql($database // 'postgres', q{SELECT position FROM es_append('} . ($stream // 'appended-1') . q{', 'any', 'appended')});
}

sub last_value
{
	my ($at, $database) = @_;

	return $at->safe_psql($database // 'postgres', 'SELECT last_value FROM es_position');
}

# The next append must lie above the last row, and not far above, unless positions above
# were raised over.
sub goes_on
{
	my ($name, $at, $database, $over) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $last = $at->safe_psql($database // 'postgres', 'SELECT max(position) FROM es_events');
	my $position = append_position($at, $database);

	cmp_ok($position, '>', $last, "$name: the append is above every row");
	cmp_ok($position - $last, '<=', 100 + ($over // 0), "$name: and not far above");
	return;
}

#
# Crashes: after raises that write to the WAL, and those that do not, before and after a
# checkpoint, with draws in between.
#
$node->safe_psql('postgres', $come);
my $highest = 0;
foreach my $round (1 .. few_or_many(4, 15))
{
	my $from = last_value($node) + 1 + int(rand(50));

	# every so many rows one raise writes, the others do not
	$node->safe_psql('postgres', "SELECT come($from, $from + " . int(rand(200)) . ')');
	$node->safe_psql('postgres', 'CHECKPOINT') if $round % 2;
	$node->safe_psql('postgres', q{SELECT es_append('appended-2', 'any', 'a') FROM generate_series(1, } . int(rand(40)) . ')');
	$from = last_value($node) + 1;
	$node->safe_psql('postgres', "SELECT come($from, $from + " . int(rand(40)) . ')');

	# what is raised and not committed may be lost, but not below what is
	my $session = $node->background_psql('postgres');
	$session->query_safe("BEGIN; SELECT come($from + 1000, $from + 1100)") if $round % 3 == 0;
	my $before = $node->safe_psql('postgres', 'SELECT max(position) FROM es_events');
	$node->stop('immediate');
	$node->start;
	eval { $session->quit };
	cmp_ok(last_value($node), '>=', $before, "crash $round: the sequence has not gone back");
	goes_on("crash $round", $node, undef, $round % 3 == 0 ? 1200 : 0);
}

#
# Rows that are deleted: the last page of the index is empty, and the last position is free again
#
my $last = append_position($node);
$node->safe_psql('postgres', q{SELECT es_append_batch('deleted-1', 'none', array_fill('a'::text, ARRAY[2000]), array_fill('{}'::jsonb, ARRAY[2000]));
	ALTER TABLE es_events DISABLE TRIGGER ALL});
$node->safe_psql('postgres', "DELETE FROM es_events WHERE position > $last");
$node->safe_psql('postgres', 'VACUUM es_events');
$node->safe_psql('postgres', q{SELECT setval('es_position', 1)});
is(append_position($node), $last + 1, 'after rows at the end were deleted: the append is above those that are there');
$node->safe_psql('postgres', 'SELECT come(9223372036854775807, 9223372036854775807)');
my ($status, $out, $error) = $node->psql('postgres', q{SELECT es_append('a-1', 'any', 'a')});
like($error, qr/position 9223372036854775807 leaves none for appends/, 'the last of all positions leaves none');
$node->safe_psql('postgres', 'DELETE FROM es_events WHERE position = 9223372036854775807');
$node->safe_psql('postgres', 'VACUUM es_events');
goes_on('after it was deleted', $node);
$node->safe_psql('postgres', 'ALTER TABLE es_events ' . join(', ', map { "ENABLE ALWAYS TRIGGER es_events_$_" } qw(complete refuse refuse_row)));

#
# A standby that is promoted, right after a raise
#
my $standby = new_standby($node);
my $from = last_value($node) + 500;
$node->safe_psql('postgres', "SELECT come($from, $from + 20)");
$node->wait_for_catchup($standby);
cmp_ok(last_value($standby), '>=', $from + 20, 'a standby has the raised value');
$standby->promote;
goes_on('a promoted standby', $standby);
$standby->stop;

#
# Dumps: of all while rows come, of the table alone, with its trigger disabled, in parallel
#
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(whole alone disabled again);
my $loader = $node->background_psql('postgres');
$from = last_value($node) + 1000;
$loader->query_safe("BEGIN; SELECT come($from, $from + 5)");
append_position($node);
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$folder/whole", $node->connstr('postgres') ], 'a dump while rows come');
$loader->query_safe('COMMIT');
$loader->quit;
$node->command_ok([ 'pg_restore', '-d', $node->connstr('whole'), "$folder/whole" ], 'it is restored');
goes_on('restored', $node, 'whole');

foreach my $database (qw(alone disabled again))
{
	$node->safe_psql($database, 'CREATE EXTENSION eventstore');
	$node->safe_psql($database, q{SELECT es_create_subscription('s')});
}
$node->command_ok([ 'pg_dump', '-Fc', '-a', '-t', 'es_events', '-f', "$folder/alone", $node->connstr('postgres') ], 'a dump of the table alone');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('alone'), "$folder/alone" ], 'it is restored');
is(last_value($node, 'alone'), $node->safe_psql('alone', 'SELECT max(position) FROM es_events'), 'which raised the sequence');
goes_on('the table alone', $node, 'alone');
$node->command_ok([ 'pg_restore', '--disable-triggers', '-d', $node->connstr('disabled'), "$folder/alone" ], 'it is restored with triggers disabled');
is(last_value($node, 'disabled'), 1, 'which left the sequence');
goes_on('triggers disabled', $node, 'disabled');
wait_until('a consumer has read all',
	sub { $node->safe_psql('disabled', q{SELECT es_ack('s', max(token)) FROM es_poll('s', max_count => 1000000) HAVING count(*) > 0}) eq '' });
append_position($node, 'disabled', 'new-1');
is($node->safe_psql('disabled', q{SELECT count(*) FROM es_poll('s')}), 1, 'and gets the next one');

# A restore into a log that has gone on sets the sequence back to what it was in the dump.
$node->safe_psql('again', 'SELECT ' . join(', ', map { "es_append('again-1', 'any', 'a')" } 1 .. 10));
my $was = last_value($node, 'again');
$node->safe_psql('again', "SELECT setval('es_position', 3)");
is(append_position($node, 'again'), $was + 1, 'a sequence that is set back is raised');

#
# A logical replica: rows come by the apply worker, and rewrites, too
#
my $subscriber = new_store('subscriber', fsync => 'off', conf => 'wal_level = logical');
my $entries = q{SELECT string_agg(format('%s %s %s', tag, position, type), ', ' ORDER BY tag, position) FROM es_tags};
$node->safe_psql('postgres', q{SELECT es_append('tagged-1', 'any', 'before', tags => '{copied,both}')});
$node->safe_psql('postgres', 'CREATE PUBLICATION p FOR TABLE es_events');
$subscriber->safe_psql('postgres', q{CREATE SUBSCRIPTION s CONNECTION '} . $node->connstr . q{ dbname=postgres' PUBLICATION p});
$subscriber->wait_for_subscription_sync($node, 's');
is($subscriber->safe_psql('postgres', q{SELECT last_value = (SELECT max(position) FROM es_events) FROM es_position}), 't', 'the copy raised the sequence');
append_position($node, undef, 'later-1');
$node->safe_psql('postgres', q{SELECT es_append('later-1', 'any', 'a') FROM generate_series(1, 200)});
$node->safe_psql('postgres', q{SELECT es_append('tagged-1', 'any', 'after', tags => '{applied,both}')});
$node->wait_for_catchup('s');
like($subscriber->safe_psql('postgres', $entries), qr/^applied \d+ after, both \d+ before, both \d+ after, copied \d+ before$/, 'rows bring the entries of their tags');
is($subscriber->safe_psql('postgres', $entries), $node->safe_psql('postgres', $entries), 'as they are on the publisher');
is($subscriber->safe_psql('postgres', q{SELECT count(*) FROM es_query('[{"tags": ["both"]}]')}), '2', 'and a query finds them');
is($subscriber->safe_psql('postgres', q{SELECT es_stream_version('later-1')}), 201, 'events were applied');
is($subscriber->safe_psql('postgres', q{SELECT last_value >= (SELECT max(position) FROM es_events) FROM es_position}), 't', 'each of which raised the sequence');
$node->safe_psql('postgres', q{SELECT es_rewrite(id, '{"rewritten": true}') FROM es_last_event('later-1')});
$node->wait_for_catchup('s');
is($subscriber->safe_psql('postgres', q{SELECT data FROM es_last_event('later-1')}), '{"rewritten": true}', 'a rewrite was applied');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION s');
$subscriber->safe_psql('postgres', 'SELECT es_promote()');
goes_on('a replica that became a store of its own', $subscriber);
$subscriber->stop;

holds_horizon_at_end($node, 'at the end');
$node->stop;
done_testing();
