# The archive in copies of the store: it is dumped, or left out of a dump, and is there on a
# standby and in its own tablespace.  What is restored is a store that works, and whose health
# says the same as before.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('primary', streaming => 1, conf => "allow_in_place_tablespaces = on\n");
my $id   = '00000000-0000-0000-0000-000000000001';

create_database($node, 'source', 'public');
$node->safe_psql('source', qq{
	CREATE EXTENSION eventstore;
	CREATE FUNCTION counted(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS \$\$ SELECT to_jsonb(state::int + 1) \$\$;
	SELECT es_append('order-1', 'none', 'placed', id => '$id', tags => '{customer:1}');
	SELECT count(es_append('order-' || 1 + i % 4, 'any', 'paid', '{"n": 1}', '{"by": "x"}', tags => ARRAY['order:' || i % 4], body => '\\x01')) FROM generate_series(1, 40) i;
	SELECT es_archive_stream('order-1'), es_archive_stream('order-2');
	SELECT es_append('order-2', 'any', 'returned')});

# All that is archived, but for next_xid, which is null.
my $archive = q{SELECT * FROM es_archived_events ORDER BY position};
my $log     = q{SELECT position, version, recorded_at, id, stream, type, data, metadata, tags, body FROM es_events ORDER BY position};
my $health  = q{SELECT problem, object FROM es_health ORDER BY 1, 2};

sub of_source
{
	my ($query) = @_;

	return $node->safe_psql('source', $query);
}

sub error_in
{
	my ($database, $query) = @_;

	return ($node->psql($database, $query, on_error_stop => 0))[2];
}

# What is true of every copy.
sub works
{
	my ($database, $name) = @_;

	is($node->safe_psql($database, $log), of_source($log), "$name: the log is the same");
	is($node->safe_psql($database, $health), of_source($health), "$name: its health is the same");
	like(error_in($database, q{SELECT es_state('order-1', 'counted', initial => '0')}), qr/stream "order-1" is archived/, "$name: no fold without the archived events");
	is($node->safe_psql($database, qq{SELECT version FROM es_append('order-1', 'none', 'placed', id => '$id', tags => '{customer:1}')}),
		'1', "$name: a retry of an archived event is known");
	is($node->safe_psql($database, q{SELECT version FROM es_append('order-2', 'any', 'paid') }), '13', "$name: versions go on");
	is($node->safe_psql($database, q{SELECT archived FROM es_archive_stream('order-4')}), '10', "$name: another stream is archived");
	is($node->safe_psql($database, q{SELECT es_unarchive_stream('order-4')}), '10', "$name: and comes back");
	return;
}

#
# With the archive
#
foreach my $form ([ 'whole', '-Fc' ], [ 'plain', '-Fp' ], [ 'inserts', '-Fp', '--inserts' ], [ 'extension', '-Fc', '--extension=eventstore' ])
{
	my ($database, @options) = @$form;
	my $file = "$database." . ($options[0] eq '-Fp' ? 'plain' : 'archive');

	create_database($node, $database, 'public');
	dump_database($node, 'source', $file, @options);
	restore_database($node, $database, $file);
	$node->safe_psql($database, 'SELECT count(*) FROM es_finish_restore()');
	isnt($node->safe_psql($database, $archive), '', "$database: something is archived");
	is($node->safe_psql($database, $archive), of_source($archive), "$database: the archive is the same");
	works($database, $database);
	is($node->safe_psql($database, q{SELECT es_unarchive_stream('order-1')}), '11', "$database: archived events come back");
	is($node->safe_psql($database, q{SELECT state FROM es_state('order-1', 'counted', initial => '0')}), '11', "$database: and are folded");
	is($node->safe_psql($database, 'SELECT es_horizon() = max(position) FROM es_events'), 't', "$database: the horizon is at the end");
	is($node->safe_psql($database, q{SELECT count(*) FROM es_read() WHERE stream = 'order-1'}), '12', "$database: readers from the beginning get them");
}

#
# Without it
#
foreach my $form ([ 'less', '-Fc' ], [ 'less_plain', '-Fp' ])
{
	my ($database, @options) = @$form;
	my $file = "$database." . ($options[0] eq '-Fp' ? 'plain' : 'archive');

	create_database($node, $database, 'public');
	dump_database($node, 'source', $file, @options, '--exclude-table-data=es_archived_events');
	restore_database($node, $database, $file);
	$node->safe_psql($database, 'SELECT count(*) FROM es_finish_restore()');
	is($node->safe_psql($database, $archive), '', "$database: nothing is archived");
	is($node->safe_psql($database, q{SELECT count(*) FROM es_load_archived('order-1')}), '0', "$database: nor read");
	works($database, $database);
	is($node->safe_psql($database, q{SELECT es_unarchive_stream('order-1')}), '0', "$database: nothing comes back");
	is($node->safe_psql($database, q{SELECT removed FROM es_delete_stream('order-1', 'any')}), '1', "$database: the stream is deleted");
}

#
# A tablespace of its own, and a standby
#
$node->safe_psql('source', 'SET allow_in_place_tablespaces = on; CREATE TABLESPACE cold LOCATION \'\'');
$node->safe_psql('source', "ALTER $_ SET TABLESPACE cold")
  foreach 'TABLE es_archived_events', 'INDEX es_archived_events_pkey', 'INDEX es_archived_events_stream_version_key', 'INDEX es_archived_events_tags_idx';
is(of_source(q{SELECT count(*) FROM pg_class WHERE relname ~ '^es_archived_events' AND reltablespace <> 0}), '4', 'the archive has its own tablespace');
is(of_source(q{SELECT archived FROM es_archive_stream('order-3')}), '10', 'a stream is archived there');
is(of_source(q{SELECT es_unarchive_stream('order-3')}), '10', 'and comes back');
is(of_source(q{SELECT version FROM es_load_archived('order-1', 10, 1)}), '11', 'the archive is read there');

my $standby = new_standby($node);

of_source(q{SELECT es_archive_stream('order-4')});
$node->wait_for_catchup($standby);
is($standby->safe_psql('source', q{SELECT count(*) FROM es_load_archived('order-4')}), '10', 'a standby has what is archived');
is($standby->safe_psql('source', $archive), of_source($archive), 'all of it');
is($standby->safe_psql('source', q{SELECT count(*) FROM es_load('order-4')}), '1', 'and the log without it');
like(($standby->psql('source', q{SELECT es_archive_stream('order-2')}))[2], qr/cannot execute es_archive_stream\(\) (in a read-only transaction|during recovery)/, 'nothing is archived there');
$standby->promote;
is($standby->safe_psql('source', q{SELECT es_unarchive_stream('order-4')}), '10', 'after its promotion the events come back');

$node->stop('immediate');
$node->start;
is(of_source(q{SELECT count(*) FROM es_load_archived('order-4')}), '10', 'what is archived is there after a crash');

done_testing();
