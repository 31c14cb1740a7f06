# A store under load is split by the steps of doc/operate/scale.md: a standby is promoted, and each
# half has half of the slots from then on.  In the long form each half is split again.
#
# Writers know the version of each of their streams, and which store has a slot from a map that is
# changed while they run.  Consumers note what they get.  In the end every event whose append was
# acknowledged is stored once, in the store that has its slot by then, at its version, and was
# delivered once, in the order of its stream.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreRouted;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $writers = 3;
my $step    = few_or_many(40, 200);

my $first = new_store('first', streaming => 1, conf => "max_wal_senders = 10\nwal_keep_size = 256MB\nautovacuum = off\n");
sql($first, q{SELECT es_set_slots('{[0,1024)}')}, q{SELECT es_create_subscription('all', partitions => 4)});

# Which store has which slots: [first slot, slot behind the last one, server].
my @map = ([ 0, 1024, $first ]);
my %slot = slots_of_streams($first, $writers);

sub write_map
{
	write_routes(map { [ $_->[0], $_->[1], $_->[2]->connstr('postgres') ] } @map);
	return;
}

# Waits until so many more appends are acknowledged of streams in these slots.
sub await_appends
{
	my ($name, $from, $to, $count) = @_;
	my $known = () = grep { my $s = (split / /)[1]; $slot{$s} >= $from && $slot{$s} < $to } acknowledged($writers);

	wait_until($name, sub { scalar(grep { my $s = (split / /)[1]; $slot{$s} >= $from && $slot{$s} < $to } acknowledged($writers)) >= $known + $count });
	return;
}

sub make_standby
{
	my ($server, $name) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);

	$server->backup("for_$name");
	$standby->init_from_backup($server, "for_$name", has_streaming => 1);
	$standby->start;
	return $standby;
}

# The steps of the document: the upper half of the slots of a store goes to a standby of it.
sub split_store
{
	my ($entry, $name) = @_;
	my ($from, $to, $server) = @$entry;
	my $middle  = ($from + $to) / 2;
	my $standby = make_standby($server, $name);

	# 1. the store gives the slots up
	is($server->safe_psql('postgres', "SELECT es_set_slots('{[$from,$middle)}')"), $middle - $from, "$name: the store has half of its slots");
	my $last = $server->safe_psql('postgres', "SELECT max(position) FROM es_events WHERE es_partition(stream, 1024) BETWEEN $middle AND $to - 1");

	# 2. the standby has all that was written under them
	$server->wait_for_catchup($standby, 'replay', $server->lsn('insert'));
	is($standby->safe_psql('postgres', "SELECT max(position) FROM es_events WHERE es_partition(stream, 1024) BETWEEN $middle AND $to - 1"), $last, "$name: the standby has the last event");

	# 3. it is promoted, and gets them; what the store delivers is not delivered here
	$standby->promote;
	ok($standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), "$name: it is promoted");
	is($standby->safe_psql('postgres', "SELECT es_slots()"), "{[$from,$middle)}", "$name: until then it has those of the store");
	$standby->safe_psql('postgres', "BEGIN; SELECT es_seek('all', max(position)) FROM es_events; SELECT es_set_slots('{[$middle,$to)}'); COMMIT");
	cmp_ok($standby->safe_psql('postgres', "SELECT count(*) FROM es_events"), '>', 0, "$name: there are events that would be delivered twice");

	# 4. writers get the new map
	@map = (grep({ $_ != $entry } @map), [ $from, $middle, $server ], [ $middle, $to, $standby ]);
	write_map();

	# 5. consumers go on when the store has delivered what came before
	ok($server->poll_query_until('postgres', "SELECT bool_and(greatest(position, reached) >= $last) FROM es_partitions WHERE subscription = 'all'"), "$name: the store has delivered all");
	start_child(sub { consume($name, $standby->connstr('postgres')) });
	await_appends("$name: the lower half goes on", $from, $middle, $step / 4);
	await_appends("$name: the upper half goes on", $middle, $to, $step / 4);
	return;
}

write_map();
start_child(sub { consume('first', $first->connstr('postgres')) });
foreach my $number (1 .. $writers)
{
	start_child(sub { write_routed($number, %slot) });
}
await_appends('the store has events', 0, 1024, $step);
split_store($map[0], 'second');
if (few_or_many(0, 1))
{
	my @halves = @map;

	split_store($halves[0], 'third');
	split_store($halves[1], 'fourth');
}

stop_clients('writers');
wait_until('all appends are answered', sub { my $n = acknowledged($writers); usleep(1_000_000); $n == acknowledged($writers) });
foreach my $entry (@map)
{
	ok($entry->[2]->poll_query_until('postgres', q{SELECT bool_and(greatest(position, reached) >= es_horizon() AND leased_until IS NULL) FROM es_partitions WHERE subscription = 'all'}), 'all is delivered');
}
stop_clients('consumers');
await_children();

#
# What must be true
#
is(join('', lines_of('errors')), '', 'no writer and no consumer has failed');
cmp_ok(scalar(lines_of('refused')), '>', 0, 'appends were refused on the way');

my @appended = acknowledged($writers);
my (%stored, %delivered, %at, @late);
foreach my $entry (@map)
{
	my ($from, $to, $server) = @$entry;

	$stored{$_}++ foreach split /\n/, $server->safe_psql('postgres',
		"SELECT id || ' ' || stream || ' ' || version FROM es_events WHERE es_partition(stream, 1024) >= $from AND es_partition(stream, 1024) < $to");
	holds_versions_dense($server, 'postgres');
}
note(scalar(@appended) . ' appends, ' . scalar(@map) . ' stores');
is(join("\n", grep { ($stored{$_} // 0) != 1 } @appended), '', 'every acknowledged event is stored once, in the store that has its slot');
is(scalar(keys %stored), scalar(@appended), 'and no other event is');
foreach my $line (lines_of('delivered'))
{
	my ($id, $stream, $version) = split / /, $line;

	$delivered{"$id $stream $version"}++;
	push @late, $line if $version != ($at{$stream} // 0) + 1;
	$at{$stream} = $version;
}
is(join("\n", grep { ($delivered{$_} // 0) != 1 } @appended), '', 'every one was delivered once');
is(scalar(keys %delivered), scalar(@appended), 'and no other event');
is(join("\n", @late), '', 'in the order of its stream');
my $together = 0;

# A crash in the middle of a removal leaves all streams or none.
{
	my ($from, $to, $server) = @{ $map[0] };
	my $all = $server->safe_psql('postgres', 'SELECT count(*) FROM es_events');
	my $call = $server->background_psql('postgres');

	$call->query_safe('BEGIN; SELECT * FROM es_remove_foreign_streams()');
	cmp_ok($call->query_safe('SELECT count(*) FROM es_events'), '<', $all, 'streams of the other store are removed');
	$server->stop('immediate');
	$server->start;
	is($server->safe_psql('postgres', 'SELECT count(*) FROM es_events'), $all, 'and are there again after a crash before the commit');
	is($server->safe_psql('postgres', 'SELECT count(*) FROM es_removals'), '0', 'as if nothing had been done');
}
foreach my $entry (@map)
{
	is($entry->[2]->safe_psql('postgres', 'SELECT es_slots()'), "{[$entry->[0],$entry->[1])}", 'the slots are those of the map');
	is($entry->[2]->safe_psql('postgres', 'SELECT held_by, more FROM es_remove_foreign_streams()'), '|f', 'nothing holds the streams of other stores');
	$together += $entry->[2]->safe_psql('postgres', 'SELECT count(*) FROM es_events');
	$entry->[2]->stop;
}
is($together, scalar(@appended), 'without them the stores have each event once together');
done_testing();
