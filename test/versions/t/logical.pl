# Logical replicas of another major version, in either direction: readers there skip nothing beside writers, and the
# replica takes over while writers wait. Appends and consumers go on.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreFull;
use EventStoreTest;
use EventStoreWriters;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# Not streaming => 1: the later server's test library writes settings for it that an older server has not.
my $conf = "wal_level = logical\nmax_wal_senders = 8\nmax_replication_slots = 8\ndeadlock_timeout = 50ms\n";
my $tables = 'es_events, es_published_horizon, es_incarnation_entries, es_rewrites, es_removals, es_removed_ids, es_archived_events, es_personal_attributes, es_subject_keys, es_erasures';

# What the projection has handled, and what it is to have, in their order.
my $handled = q{SELECT md5(string_agg(position::text, ',' ORDER BY ordinal)) FROM handled};
my $events = q{SELECT md5(string_agg(position::text, ',' ORDER BY position)) FROM es_events};

sub takes_over
{
	my ($name, $from, $to) = @_;
	my ($publisher, $replica) = map { new_store("$_->[0] $name" =~ s/\W+/_/gr, fsync => 'off', workers => 1, conf => $conf, @{ $_->[1] }) }
	  [ publisher => $from ], [ replica => $to ];

	create_writers($publisher);
	write_events($publisher, 1, quick => 4);
	$publisher->safe_psql('postgres', "CREATE PUBLICATION p FOR TABLE $tables");
	$replica->safe_psql('postgres', q{
		CREATE TABLE handled (ordinal bigint GENERATED ALWAYS AS IDENTITY, position bigint);
		SELECT es_create_projection('handled', query => 'INSERT INTO handled (position) SELECT position FROM new_events ORDER BY position');
		CREATE SUBSCRIPTION s CONNECTION '} . $publisher->connstr . q{ dbname=postgres' PUBLICATION p});
	write_events($publisher, 3, quick => 4, slow => 4);

	# the writers wait from here
	my $begin = time;
	my $consumer = $publisher->safe_psql('postgres', q{SELECT format('%L, %s', es_incarnation(), max(position)) FROM es_events});
	my $last = $publisher->safe_psql('postgres', 'SELECT max(position) FROM es_events');

	wait_until("$name: the replica has everything", sub { $replica->safe_psql('postgres', 'SELECT es_horizon()') >= $last }, 0.01);
	$replica->safe_psql('postgres', 'DROP SUBSCRIPTION s');
	is($replica->safe_psql('postgres', 'SELECT "position" FROM es_promote()'), $last, "$name: the replica is promoted");
	cmp_ok($replica->safe_psql('postgres', q{SELECT position FROM es_append('after-1', 'none', 'happened')}), '>', $last, "$name: it takes appends");
	note(sprintf '%s: %.2f s without an append', $name, time - $begin);

	is($replica->safe_psql('postgres', "SELECT es_position_valid($consumer)"), 't', "$name: positions of consumers are valid");
	is($replica->safe_psql('postgres', "$events WHERE position <= $last"), $publisher->safe_psql('postgres', $events), "$name: it has the events");
	ok($replica->poll_query_until('postgres', q{SELECT es_wait('handled', es_horizon(), '1s')}), "$name: the projection goes on");
	is($replica->safe_psql('postgres', $handled), $replica->safe_psql('postgres', $events), "$name: it got each event once, in order");
	create_writers($replica);
	write_events($replica, 1, quick => 4);
	holds_horizon_at_end($replica, $name);
	holds_versions_dense($replica, $name);
	$_->stop foreach $replica, $publisher;
	return;
}

use_seed();
foreach my $old (old_servers())
{
	my ($version, $server) = @$old;

	takes_over("from $version", [ server => $server ], []);
	takes_over("to $version", [], [ server => $server ]);
}
done_testing();
