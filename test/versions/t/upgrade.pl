# pg_upgrade of a server with a store full of everything: it is the same afterwards,
# and goes on.  The library is loaded at the start of both servers, and has workers
# while pg_upgrade runs: none of them may do anything.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreFull;
use EventStoreProjections;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "shared_preload_libraries = 'eventstore'\n";

# Of the same settings; 18 has checksums unless it is told otherwise.
sub new_server
{
	my ($name, @params) = @_;

	return new_store($name, fsync => 'off', extension => 0, conf => $conf, initdb => ['--data-checksums'], @params);
}

sub workers_are
{
	my ($node, $databases) = @_;

	$node->append_conf('postgresql.conf', "eventstore.databases = '$databases'");
	return;
}

sub moves
{
	my ($version, $server, $mode) = @_;
	my $name = "from $version, $mode";
	my $old = new_server("old $version $mode" =~ s/\W+/_/gr, server => $server);
	my $new = new_server("new $version $mode" =~ s/\W+/_/gr);
	my ($state, $purses, $consumer);

	return if cannot_move($old, $new, $name);
	$old->safe_psql('postgres', 'CREATE EXTENSION eventstore');
	fill($old);
	is_full($old, "$name, before");
	is_query($old, 'SHOW server_version_num', $old->safe_psql('postgres', "SELECT '$version' || right(current_setting('server_version_num'), 4)"),
		"$name: it is a server $version");
	$state = state_of($old, next_xids => 1);
	$consumer = $old->safe_psql('postgres', q{SELECT quote_literal(es_incarnation()) || ', ' || max(position) FROM es_events});
	$_->stop foreach $old, $new;
	workers_are($_, 'postgres') foreach $old, $new;
	upgrade($old, $new, $name, $mode, '--check');
	upgrade($old, $new, $name, $mode);

	workers_are($new, '');
	$new->start;
	is(state_of($new, next_xids => 1), $state, "$name: everything is as it was");
	is_full($new, "$name, after");
	has_index($new, $name);
	cmp_ok($new->safe_psql('postgres', 'SHOW server_version_num'), '>=', ($version + 1) * 10000, "$name: by a later server");
	workers_are($new, 'postgres');
	$new->restart;
	ok($new->poll_query_until('postgres', q{SELECT position = es_horizon() FROM es_projections WHERE name = 'copied'}),
		"$name: workers go on by themselves");
	is_query($new, "SELECT es_position_valid($consumer)", 't', "$name: what was read before is still what the log has");
	goes_on($new, $name);
	is_query($new, q{SELECT string_agg(number || ' ' || reason, ', ' ORDER BY number) FROM es_incarnations}, '1 created, 2 copied',
		"$name: it is in another incarnation");
	is_query($new, "SELECT es_position_valid($consumer)", 't', "$name: what was read before stays so");
	$new->stop;
	workers_are($new, '');
	$new->start;
	ends($new, $name);
	$new->stop;
	return;
}

# Without preload: pg_upgrade starts no worker for a projection that is behind, and the
# first append to the new server does.
sub moves_without_preload
{
	my ($version, $server) = @_;
	my $name = "from $version, without preload";
	my @plain = (conf => "eventstore.autostart_workers = 2\nlog_min_messages = debug1\n");
	my $old = new_server("old $version plain" =~ s/\W+/_/gr, server => $server, @plain);
	my $new = new_server("new $version plain" =~ s/\W+/_/gr, @plain);
	my $behind = 'SELECT (SELECT count(*) FROM handled), (SELECT count(*) FROM es_events)';
	my $started = qr/registering background worker "eventstore worker"/;

	return if cannot_move($old, $new, $name);
	$old->safe_psql('postgres', $_) foreach 'CREATE EXTENSION eventstore', 'CREATE TABLE handled (position bigint)', q{
		SET eventstore.autostart_workers = 0;
		SELECT es_create_projection('p', query => 'INSERT INTO handled SELECT position FROM new_events');
		SELECT es_append('a-1', 'any', 'x')};
	$_->stop foreach $old, $new;
	upgrade($old, $new, $name, '--copy', '--retain');
	my @logs = glob $new->data_dir . '/pg_upgrade_output.d/*/log/pg_upgrade_server.log';
	is(scalar(@logs), 1, "$name: the servers have said what they did");
	unlike(join('', map { slurp_file($_) } @logs), $started, "$name: no worker was started meanwhile");
	$new->start;
	is_query($new, $behind, '0|1', "$name: the projection is still behind");
	$new->safe_psql('postgres', q{SELECT es_append('a-1', 'any', 'x')});
	ok($new->poll_query_until('postgres', $behind, '2|2'), "$name: the first append's worker handles all");
	like(slurp_file($new->logfile), $started, "$name: it was started by itself");
	$new->stop;
	return;
}

plan skip_all => 'there is no older server' unless old_servers();
my $links = 0;
foreach my $old (old_servers())
{
	my ($version, $server) = @$old;

	moves($version, $server, '--copy');
	moves($version, $server, '--link') unless $links++;
	moves_without_preload($version, $server);
}
done_testing();
