# Writers of every kind on a publisher, and readers of a logical replica: whoever reads there in the order of positions,
# by a query, as a subscription or as a projection, gets each event once and in order, while connections are cut and
# the replica crashes. Events are removed, rewritten, compacted and archived meanwhile, and the replica comes to the
# same rows, entries of tags and answers to queries by tags. A reader that does without the horizon must be caught.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use EventStoreWriters;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use_seed();
my $folder = PostgreSQL::Test::Utils::tempdir();
my $publisher = new_store('publisher', fsync => 'off', streaming => 1, workers => 1, conf => "wal_level = logical\ndeadlock_timeout = 50ms");
my $replica = new_store('replica', fsync => 'off', workers => 1, conf => <<'END');
wal_level = logical
wal_retrieve_retry_interval = 100ms
restart_after_crash = on
END
my $seconds = few_or_many(4, 20);

create_writers($publisher);
$publisher->safe_psql('postgres', q{SELECT es_set_retention('other', max_count => 20)});
$publisher->safe_psql('postgres', q{CREATE PUBLICATION p FOR TABLE es_events, es_published_horizon, es_incarnation_entries, es_removals, es_removed_ids, es_rewrites, es_archived_events});

# What a reader gets in one transaction, and whether it must be caught.
my %readers = (
	read     => { sql => 'SELECT position FROM es_read(last, 100)' },
	category => { sql => q{SELECT position FROM es_read_category('stress', last, 100)}, log => q{WHERE es_category(stream) = 'stress'} },
	bounded  => { sql => 'SELECT position FROM es_events WHERE position > last AND position <= (SELECT es_horizon()) ORDER BY position LIMIT 100' },
	polling  => {
		read => q{SELECT array_agg(e.position), max(e.token) FROM es_poll('polling', max_count => 100) AS e INTO chunk, token;
			IF chunk IS NOT NULL THEN PERFORM es_ack('polling', token); END IF;} },
	without  => { control => 1, sql => 'SELECT position FROM es_events WHERE position > last ORDER BY position LIMIT 100' });

foreach my $name (sort keys %readers)
{
	my $read = $readers{$name}{read} // "SELECT array_agg(position) FROM ($readers{$name}{sql}) AS e INTO chunk;";

	$replica->safe_psql('postgres', <<"END");
CREATE TABLE seen_$name (ordinal bigint GENERATED ALWAYS AS IDENTITY, position bigint);
CREATE PROCEDURE tail_$name() LANGUAGE plpgsql AS \$\$
DECLARE
	last bigint := (SELECT coalesce(max(position), 0) FROM seen_$name);
	chunk bigint[];
	token bigint;
	stopping bool := false;
BEGIN
	LOOP
		stopping := EXISTS (SELECT FROM writers_are_done);
		COMMIT;
		$read
		last := coalesce(chunk[array_upper(chunk, 1)], last);
		INSERT INTO seen_$name (position) SELECT * FROM unnest(chunk);
		COMMIT;
		EXIT WHEN stopping AND chunk IS NULL;
		IF chunk IS NULL THEN PERFORM pg_sleep(0.001); END IF;
	END LOOP;
END \$\$;
END
	append_to_file("$folder/$name.sql", "CALL tail_$name();\n");
}
$replica->safe_psql('postgres', q{
	CREATE TABLE writers_are_done ();
	CREATE TABLE handled (ordinal bigint GENERATED ALWAYS AS IDENTITY, position bigint);
	SELECT es_create_projection('handled', query => 'INSERT INTO handled (position) SELECT position FROM new_events ORDER BY position');
	SELECT es_create_subscription('polling')});

#
# From an initial copy on, beside writers
#
write_events($publisher, 1, quick => 4);
$replica->safe_psql('postgres', q{CREATE SUBSCRIPTION s CONNECTION '} . $publisher->connstr . q{ dbname=postgres' PUBLICATION p});
start_readers();
write_events($publisher, $seconds, quick => 4, slow => 6);
cut_connections() foreach 1 .. 3;
write_events($publisher, $seconds, quick => 3, slow => 4, change => 3);
finish_readers('beside writers');

#
# A crash of the replica, and of the publisher
#
start_readers();
write_events($publisher, 1, quick => 4);
$replica->stop('immediate');
$_->{psql}->finish foreach values %readers;
write_events($publisher, 1, quick => 4, change => 4);
$replica->start;
start_readers();
$publisher->stop('immediate');
$publisher->start;
write_events($publisher, 1, quick => 4, slow => 4);
finish_readers('after crashes of both');

#
# What goes on after a promotion
#
$replica->safe_psql('postgres', 'DROP SUBSCRIPTION s; SELECT es_promote()');
create_writers($replica);
start_readers();
write_events($replica, 2, quick => 4, change => 4);
finish_readers('after the promotion', $replica);
$_->stop foreach $replica, $publisher;
done_testing();

sub start_readers
{
	$replica->safe_psql('postgres', 'TRUNCATE writers_are_done');
	$readers{$_}{psql} = start_psql($replica, "$folder/$_.sql", "$folder/$_") foreach sort keys %readers;
	return;
}

# Ends what carries events, on either side, in the middle of it.
sub cut_connections
{
	$publisher->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'});
	sleep 0.3;
	$replica->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%worker' AND datname = 'postgres'});
	sleep 0.3;
	return;
}

# Lets the readers come to their end, and compares what each has got with the log.
sub finish_readers
{
	my ($when, $source) = @_;
	my $last = ($source // $publisher)->safe_psql('postgres', 'SELECT max(position) FROM es_events');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_until('the replica has everything', sub { $replica->safe_psql('postgres', 'SELECT es_horizon()') >= $last });
	wait_until('the projection has everything', sub {
		$replica->safe_psql('postgres', q{SELECT es_wait('handled', es_horizon(), '1s')}) eq 't' });
	$replica->safe_psql('postgres', 'INSERT INTO writers_are_done DEFAULT VALUES');
	foreach my $name (sort keys %readers)
	{
		ok(finish_psql($readers{$name}{psql}), "$when: $name came to its end") or diag(slurp_file("$folder/$name.err"));
	}
	is_as_published($when) unless $source;
	foreach my $name (sort(grep { !$readers{$_}{control} } keys %readers))
	{
		is(faults("seen_$name", $readers{$name}{log} // ''), '0 0 0', "$when: $name got each event once, in order");
	}
	is(faults('handled', ''), '0 0 0', "$when: so did the projection");
	if ($when eq 'beside writers')
	{
		my $missed = $replica->safe_psql('postgres', 'SELECT count(*) FROM (SELECT position FROM es_events EXCEPT SELECT position FROM seen_without) AS x');

		note("without the horizon: $missed missed");
		cmp_ok($missed, '>', 0, 'a reader without the horizon misses events');
	}
	return;
}

# How many positions a reader has got that are not above the one before, how many events of the log it has not got, and
# how many positions it has got that never were an event. Some events were removed since, or before it came to them.
sub faults
{
	my ($seen, $log) = @_;

	return $replica->safe_psql('postgres', qq{
		SELECT (SELECT count(*) FROM (SELECT position, lag(position, 1, 0::bigint) OVER (ORDER BY ordinal) AS before FROM $seen) AS s WHERE position <= before)
		       || ' ' || (SELECT count(*) FROM (SELECT position FROM es_events $log EXCEPT SELECT position FROM $seen) AS missed)
		       || ' ' || (SELECT count(*) FROM (SELECT position FROM $seen EXCEPT SELECT position FROM es_events
		                  EXCEPT SELECT position FROM es_archived_events EXCEPT SELECT position FROM es_removed_ids) AS strange)});
}

# The tables that are published, and what the replica makes of them itself.
sub is_as_published
{
	my ($when) = @_;
	my %same = (
		events => q{SELECT count(*) || ' ' || md5(string_agg(ROW(position, version, recorded_at, id, stream, type, data, metadata, tags, body)::text, '|' ORDER BY position)) FROM es_events},
		map({ $_ => "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM $_ AS t" } qw(es_removals es_removed_ids es_rewrites es_tags)),
		archived => q{SELECT count(*) || ' ' || coalesce(md5(string_agg(ROW(position, version, id, stream, data)::text, '|' ORDER BY position)), '') FROM es_archived_events},
		map({ ("answers by tag s:$_" => qq{SELECT md5(string_agg(position || ' ' || type, ',' ORDER BY position)) FROM es_query('[{"tags": ["s:$_"]}]')}) } 0 .. 19),
		retries => q{SELECT string_agg(id::text, ',' ORDER BY id) FROM es_removed_ids WHERE stream LIKE 'tagged-%'});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @differ = grep { $replica->safe_psql('postgres', $same{$_}) ne $publisher->safe_psql('postgres', $same{$_}) } sort keys %same;
	is("@differ", '', "$when: the replica has the publisher's events, removals, rewrites, archive and tags");
	note("$when: " . join(', ', map { my $n = $replica->safe_psql('postgres', $same{$_}); "$_ " . (split / /, $n)[0] } qw(events es_removals es_removed_ids es_rewrites es_tags archived)));
	return;
}
