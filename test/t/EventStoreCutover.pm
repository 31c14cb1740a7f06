# Moves a store to another server by examples/cutover/cutover, as doc/operate/cutover.md says, while clients
# append and consume; and back again.
#
# The clients are those of EventStoreRouted, as a role that is no superuser.  One consumer notes the events of
# a subscription in a table of the store, in the transaction of its acknowledgement.  Another one reads by
# position and keeps its position itself.  In the end each acknowledged event is stored once, and each consumer
# has got every event once, in the order of positions.
package EventStoreCutover;

use strict;
use warnings;

use Exporter qw(import);
use File::Copy qw(copy);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use EventStoreRouted;
use EventStoreTest;

our @EXPORT = qw($cutover_conf new_cutover start_clients appends_go_on cutover_step finish_clients has_everything_once);

our $cutover_conf = "wal_level = logical\nmax_wal_senders = 10\nmax_replication_slots = 10\n";

my $writers = 2;
my $program = "$FindBin::RealBin/" . ($FindBin::RealBin =~ /versions/ ? '../../..' : '../..') . '/examples/cutover/cutover';
my $setup = <<'END';
SELECT es_grant('app', 'writer'), es_grant('app', 'reader');
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO app;
CREATE SCHEMA shop;
CREATE TABLE shop.handled (ordinal bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, position bigint, id uuid, stream text, version bigint);
CREATE TABLE shop.left_behind (n int);
CREATE TABLE shop.counted (stream text PRIMARY KEY, events bigint);
CREATE TABLE shop.listed (position bigint PRIMARY KEY);
GRANT ALL ON SCHEMA shop TO app;
GRANT ALL ON shop.handled TO app;
CREATE POLICY no_secrets ON es_events FOR SELECT USING (stream NOT LIKE 'secret-%');
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE INDEX by_time ON es_events (recorded_at);
CREATE FUNCTION shop.on_message(text) RETURNS es_ack_event LANGUAGE sql AS
	$$ SELECT ROW($1::jsonb ->> 'id', NULL, 'paid', NULL, 'payment-1', 'any', NULL)::es_ack_event $$;
SELECT es_define_event_type('e', description => 'something happened');
SELECT es_create_projection('counted', mode => 'sync', tables => '{shop.counted}', query => $$
	INSERT INTO shop.counted SELECT stream, count(*) FROM new_events GROUP BY stream
	    ON CONFLICT (stream) DO UPDATE SET events = counted.events + excluded.events $$);
SELECT es_create_projection('listed', tables => '{shop.listed}', query => 'INSERT INTO shop.listed SELECT position FROM new_events');
SET ROLE app;
SELECT es_create_subscription('all', partitions => 3);
RESET ROLE;
SELECT es_append('gone-1', 'none', 'e') FROM generate_series(1, 1);
SELECT es_append_batch('kept-1', 'none', '[{"type": "e"}, {"type": "e", "tags": ["t:1"]}, {"type": "e"}]');
SELECT es_append('secret-1', 'none', 'e');
SELECT es_delete_stream('gone-1', 1);
SELECT es_set_retention('sensor', max_count => 4);
SELECT es_define_event_type('joined', personal => '{name}');
SELECT es_append('person-' || i, 'none', 'joined', '{"name": "Ann"}') FROM generate_series(1, 2) i;
SELECT count(*) FROM es_erase_subject('2');
END

# A store on one server, an empty database on another one, and the script's settings for both.
sub new_cutover
{
	my ($name, $old, $new, %settings) = @_;
	my %self = (name => $name, old => $old, new => $new, conf => "$routed_folder/$name.conf");

	$_->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE DATABASE shop') foreach $old, $new;
	$old->safe_psql('shop', 'CREATE EXTENSION eventstore; SET client_min_messages = error;' . $setup);
	append_to_file($self{conf}, sprintf(<<'END', map { $_->connstr('shop') } $old, $new, $old, $new));
OLD="%s"
NEW="%s"
OLD_FROM_NEW="%s"
NEW_FROM_OLD="%s"
EXCEPT="shop.left_behind"
PATIENCE=60
END
	append_to_file($self{conf}, "$_=\"$settings{$_}\"\n") foreach sort keys %settings;
	return \%self;
}

sub app_connection
{
	return $_[0]->connstr('shop') . ' user=app';
}

# By default the map is what the script changes, with this command.
sub start_clients
{
	my ($self, $connection) = @_;

	if (!$connection)
	{
		my $hook = "$routed_folder/clients";

		append_to_file($hook, "#!/bin/sh\ncp $routed_folder/map.\$1 $routed_folder/map.hook && mv $routed_folder/map.hook $routed_folder/map\n");
		chmod 0755, $hook;
		foreach my $which (qw(old new))
		{
			write_routes([ 0, 1024, app_connection($self->{$which}) ]);
			copy("$routed_folder/map", "$routed_folder/map.$which");
		}
		copy("$routed_folder/map.old", "$routed_folder/map.pause");
		append_to_file($self->{conf}, "CLIENTS=$hook\n");
	}
	write_routes([ 0, 1024, $connection // app_connection($self->{old}) ]);
	my %slot = map { ; "w$_->[0]-$_->[1]" => 0 } map { my $w = $_; map { [ $w, $_ ] } 1 .. 12 } 1 .. $writers;
	foreach my $number (1 .. $writers)
	{
		start_child(sub { write_routed($number, %slot) });
	}
	start_child(\&handle);
	start_child(\&follow);
	return;
}

# The consumer of a subscription, in the transaction of its acknowledgement.
sub handle
{
	until (is_to_stop('consumers'))
	{
		my ($done, $out, $err) = run_psql(routed(0), q{
			WITH delivered AS MATERIALIZED (SELECT * FROM es_poll('all', 'c', 50)),
			     handled AS (INSERT INTO shop.handled (position, id, stream, version)
			                 SELECT position, id, stream, version FROM delivered ORDER BY partition, position)
			SELECT es_ack('all', token) FROM (SELECT DISTINCT token FROM delivered) AS tokens});

		append_to_file("$routed_folder/handle.err", $err) if $err ne '';
		usleep($done && $out ne '' ? 1_000 : 30_000);
	}
	return;
}

# The consumer that keeps its own position, and asks whether it is valid.
sub follow
{
	my ($position, $incarnation) = (0, undef);

	until (is_to_stop('consumers'))
	{
		my $known = defined $incarnation ? "'$incarnation'" : 'NULL';
		my ($done, $out, $err) = run_psql(routed(0), qq{
			SELECT es_position_valid($known, $position), es_incarnation(), position, id FROM (SELECT) AS one LEFT JOIN es_read($position, 50) ON true});

		foreach my $line ($done ? split(/\n/, $out) : ())
		{
			my ($valid, $of, $at, $id) = split /\|/, $line;

			die "position $position is not valid" if $valid ne 't';
			next unless $at;
			append_to_file("$routed_folder/followed", "$at $id\n");
			($position, $incarnation) = ($at, $of);
		}
		usleep(30_000) unless $done;
	}
	return;
}

sub appends_go_on
{
	my ($what, $count) = @_;
	my $known = () = acknowledged($writers);

	wait_until($what, sub { scalar(acknowledged($writers)) >= $known + $count });
	return pass($what);
}

# Runs a step of the script; returns what it prints.
sub cutover_step
{
	my ($self, $step, $expected) = @_;
	my $out = '';
	my $done = IPC::Run::run([ $program, $step, $self->{conf} ], '<', '/dev/null', '>', \$out, '2>&1', IPC::Run::timeout(180));

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($done ? 'done' : 'failed', $expected // 'done', "$self->{name}: $step") or do { diag($out); die "cannot go on" };
	note($out);
	return $out;
}

sub finish_clients
{
	my ($server) = @_;

	stop_clients('writers');
	wait_until('all appends are answered', sub { my $n = () = acknowledged($writers); usleep(500_000); $n == (() = acknowledged($writers)) });
	ok($server->poll_query_until('shop', q{SELECT bool_and(greatest(position, reached) >= es_horizon() AND leased_until IS NULL) FROM es_partitions}), 'all is delivered');
	my $last = $server->safe_psql('shop', 'SELECT max(position) FROM es_events');
	wait_until('all is read', sub { my @lines = lines_of('followed'); @lines && (split / /, $lines[-1])[0] >= $last });
	stop_clients('consumers');
	await_children();
	return;
}

# What must be true of the server that is the store in the end.
sub has_everything_once
{
	my ($self, $server) = @_;
	my $name = $self->{name};
	my %stored = map { $_ => 1 } split /\n/, $server->safe_psql('shop', q{SELECT id || ' ' || stream || ' ' || version FROM es_events WHERE stream LIKE 'w%'});
	my @acknowledged = acknowledged($writers);

	note("$name: " . scalar(@acknowledged) . ' appends');
	is(join('', lines_of('errors')), '', "$name: no client has failed");
	is(join("\n", grep { !$stored{$_} } @acknowledged), '', "$name: every acknowledged event is stored");
	is(scalar(keys %stored), scalar(@acknowledged), "$name: and no other one");
	is($server->safe_psql('shop', q{SELECT string_agg(stream || ' ' || versions, ', ') FROM (
			SELECT stream, string_agg(version::text, ',' ORDER BY position) AS versions, count(*) AS n FROM es_events WHERE stream LIKE 'w%' GROUP BY stream) AS s
			 WHERE versions <> (SELECT string_agg(v::text, ',' ORDER BY v) FROM generate_series(1, n) AS v)}), '', "$name: versions are 1 to n");
	is($server->safe_psql('shop', q{SELECT count(*) || ' ' || count(DISTINCT position) FROM shop.handled}),
		$server->safe_psql('shop', q{SELECT count(*) || ' ' || count(*) FROM es_events WHERE stream NOT LIKE 'secret-%'}), "$name: the subscription has delivered each event once");
	is($server->safe_psql('shop', q{SELECT count(*) FROM (SELECT version, lag(version, 1, 0::bigint) OVER (PARTITION BY stream ORDER BY ordinal) AS before FROM shop.handled WHERE stream LIKE 'w%') AS h WHERE version <> before + 1}),
		'0', "$name: in the order of each stream");
	is(join("\n", lines_of('followed')), $server->safe_psql('shop', q{SELECT string_agg(position || ' ' || id, E'\n' ORDER BY position) FROM es_events WHERE stream NOT LIKE 'secret-%'}),
		"$name: the consumer with its own position has read each event once, in order");
	ok($server->poll_query_until('shop', q{SELECT es_wait('listed', es_horizon(), '1s')}), "$name: the async projection goes on");
	# a worker may have seen the event of the setup that is removed at once
	is($server->safe_psql('shop', q{SELECT (SELECT count(*) FROM shop.listed WHERE position NOT IN (SELECT position FROM es_removed_ids)) - count(*) FROM es_events}),
		'0', "$name: it has each event once");
	is($server->safe_psql('shop', q{SELECT mode || ' ' || ((SELECT sum(events) FROM shop.counted WHERE stream NOT LIKE 'gone-%') - (SELECT count(*) FROM es_events WHERE stream NOT LIKE 'gone-%')) FROM es_projections WHERE name = 'counted'}),
		'sync 0', "$name: so has the sync one, which is sync again");
	is($server->safe_psql('shop', q{SET ROLE app; SELECT count(*) FROM es_events WHERE stream LIKE 'secret-%'}), '0', "$name: row security is there");
	is($server->safe_psql('shop', q{SELECT count(*) FROM pg_class WHERE relname = 'by_time'}), '1', "$name: an index of the administrator, too");
	is($server->safe_psql('shop', q{SELECT description FROM es_event_types WHERE type = 'e'}), 'something happened', "$name: types are");
	is($server->safe_psql('shop', q{SELECT string_agg(coalesce(data->>'name', metadata::text), ', ' ORDER BY stream) FROM es_read_category('person')}),
		'Ann, {"$personal": {"2": "erased"}}', "$name: personal attributes are, but for those of a person who was erased");
	is($server->safe_psql('shop', q{SELECT string_agg(stream, ',') FROM es_query('[{"tags": ["t:1"]}]')}), 'kept-1', "$name: tags are");
	is($server->safe_psql('shop', q{SELECT max_count FROM es_retention}), '4', "$name: rules of retention are");
	is($server->safe_psql('shop', q{SELECT count(*) FROM es_inbox}), $self->{messages}, "$name: messages of the inbox are") if defined $self->{messages};
	$server->safe_psql('shop', q{SELECT es_append('last-1', 'none', 'e'); SELECT es_delete_stream('last-1', 1)});
	is($server->safe_psql('shop', q{SELECT count(*) FROM es_removals}), '2', "$name: a removal gets a number of its own");
	return;
}

1;
