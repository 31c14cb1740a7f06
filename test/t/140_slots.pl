# The slots of a store in its copies: on a standby and where that is promoted, in dumps of each
# form, and on a logical subscriber.  A copy refuses what its original refuses, and has the events
# of streams that are of another store by now.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('primary', streaming => 1, conf => "wal_level = logical\n");

create_database($node, 'source', 'public');
# s-1 has slot 709, s-2 has slot 115
$node->safe_psql('source', q{
	CREATE EXTENSION eventstore;
	SELECT es_append('s-1', 'none', 'a'), es_append('s-2', 'none', 'a');
	SELECT es_set_slots('{[0,10),[512,1024)}')});
my $log = q{SELECT position, version, recorded_at, id, stream, type, data FROM es_events ORDER BY position};

sub error_in
{
	my ($server, $database, $query) = @_;

	return ($server->psql($database, "\\set VERBOSITY verbose\n$query", on_error_stop => 0))[2];
}

# What is true of every copy.
sub refuses
{
	my ($server, $database, $name) = @_;

	is($server->safe_psql($database, 'SELECT es_slots()'), '{[0,10),[512,1024)}', "$name: the slots are the same");
	like(error_in($server, $database, q{SELECT es_append('s-2', 'any', 'b')}), qr/ERROR:  ES009: .*"s-2".*\nDETAIL:  Its slot is 115\./, "$name: an append");
	like(error_in($server, $database, q{SET session_replication_role = replica; INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data)
		VALUES (100, 2, '3', now(), gen_random_uuid(), 's-2', 'b', '{}')}), qr/ERROR:  ES009/, "$name: a row, in a session that replicates");
	is($server->safe_psql($database, q{SELECT version FROM es_append('s-1', 'any', 'b')}), '2', "$name: its own streams go on");
	is($server->safe_psql($database, q{SELECT es_set_slots(NULL)}), '1024', "$name: the slots can be changed");
	is($server->safe_psql($database, q{SELECT version FROM es_append('s-2', 'any', 'b')}), '2', "$name: so that another stream goes on");
	is($server->safe_psql($database, q{SELECT count(*) FROM es_health WHERE problem IN ('append_refused', 'guard_missing')}), '0', "$name: nothing is wrong");
	return;
}

#
# A standby
#
my $standby = new_standby($node);
$node->safe_psql('source', q{SELECT es_set_slots('{[512,1024)}')});
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('source', 'SELECT es_slots()'), '{[512,1024)}', 'standby: a change arrives');
like(error_in($standby, 'source', q{SELECT es_set_slots(NULL)}), qr/ERROR:  25006/, 'standby: it cannot be changed there');
$node->safe_psql('source', q{SELECT es_set_slots('{[0,10),[512,1024)}')});
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
$standby->promote;
refuses($standby, 'source', 'promoted');

#
# Dumps
#
foreach my $form ([ 'custom', '-Fc' ], [ 'plain', '-Fp' ], [ 'side', '-Fd' ])
{
	my ($database, @options) = @$form;
	my $file = "$database." . ($options[0] eq '-Fp' ? 'plain' : 'archive');

	create_database($node, $database, 'public');
	dump_database($node, 'source', $file, @options);
	restore_database($node, $database, $file, $database eq 'side' ? ('-j 2') : ());
	$node->safe_psql($database, 'SELECT count(*) FROM es_finish_restore()');
	is($node->safe_psql($database, $log), $node->safe_psql('source', $log), "$database: the log is the same, with the other stream");
	refuses($node, $database, $database);
}

# Slots that were set once, and are not any more
$node->safe_psql('source', 'SELECT es_set_slots(NULL)');
create_database($node, 'unset', 'public');
dump_database($node, 'source', 'unset.archive', '-Fc');
restore_database($node, 'unset', 'unset.archive');
is($node->safe_psql('unset', 'SELECT es_slots() IS NULL'), 't', 'unset: there are none');
is($node->safe_psql('unset', q{SELECT count(*) FROM pg_trigger WHERE tgname = 'es_events_accept'}), '0', 'unset: and no trigger');

#
# A logical subscriber does not have them; one that has refuses what is of another store
#
create_database($node, 'subscriber', 'public');
$node->safe_psql('source', q{CREATE PUBLICATION events FOR TABLE es_events; SELECT pg_create_logical_replication_slot('events', 'pgoutput')});
$node->safe_psql('subscriber', qq{CREATE EXTENSION eventstore;
	CREATE SUBSCRIPTION events CONNECTION '@{[ $node->connstr ]} dbname=source' PUBLICATION events WITH (create_slot = false, slot_name = 'events', copy_data = false)});
$node->safe_psql('source', q{SELECT es_append('s-1', 'any', 'c'), es_append('s-2', 'any', 'c')});
ok($node->poll_query_until('subscriber', q{SELECT count(*) = 2 FROM es_events}), 'subscriber: rows arrive');
is($node->safe_psql('subscriber', 'SELECT es_slots() IS NULL'), 't', 'subscriber: there are none');
$node->safe_psql('subscriber', q{SELECT es_set_slots('{[512,1024)}')});
my $offset = -s $node->logfile;
$node->safe_psql('source', q{SELECT es_append('s-2', 'any', 'd')});
ok($node->poll_query_until('subscriber', q{SELECT apply_error_count > 0 FROM pg_stat_subscription_stats}), 'subscriber: a row of another store is refused');
like(slurp_file($node->logfile, $offset), qr/ERROR:  stream "s-2" is not of this store/, 'subscriber: and the log says so');
$node->safe_psql('subscriber', 'SELECT es_set_slots(NULL)');
ok($node->poll_query_until('subscriber', q{SELECT count(*) = 3 FROM es_events}), 'subscriber: and comes when it is not');
$node->safe_psql('subscriber', 'DROP SUBSCRIPTION events');

$standby->stop;
$node->stop;
done_testing();
