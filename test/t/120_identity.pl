# Which incarnation a copy of the store is in, and which positions stay valid, after each way
# of copying it: dumps, a template, a promotion, recovery to a point in time; and where nothing
# was copied. A consumer of the original that is ahead of the copy must be told in each copy, one
# that is not ahead must not.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_store('primary', streaming => 1);
my $target = new_store('target', fsync => 'off', extension => 0);

sub one
{
	my ($node, $database, $sql) = @_;

	return $node->safe_psql($database, $sql);
}

sub append
{
	my ($node, $database, $count) = @_;

	one($node, $database, "SELECT es_append('a-' || n % 3, 'any', 'x') FROM generate_series(1, $count) AS n");
	return;
}

# What a consumer keeps that has read everything there is.
sub consumer
{
	my ($node, $database) = @_;

	return join ', ', map { "'$_'" } split /\|/, one($node, $database, 'SELECT es_incarnation(), max(position) FROM es_events');
}

sub is_valid
{
	my ($node, $database, $consumer, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(one($node, $database, "SELECT es_position_valid($consumer)"), $expected, $name);
}

sub incarnations
{
	my ($node, $database) = @_;

	return one($node, $database, q{SELECT string_agg(number || ' ' || reason, ', ' ORDER BY number) FROM es_incarnations});
}

# In a copy, before and after appends: $level is a consumer of the original that was as far as
# the copy, $ahead one that went on.
sub is_copy
{
	my ($node, $database, $level, $ahead, $reason, $name) = @_;
	my $before = incarnations($node, $database);
	my $store = one($node, $database, 'SELECT es_store_id()');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $when ('before an append', 'after one', 'in a new session')
	{
		append($node, $database, 40) if $when eq 'after one';
		is_valid($node, $database, $level, 't', "$name: $when: one that was not ahead goes on");
		is_valid($node, $database, $ahead, 'f', "$name: $when: one that was ahead is told");
	}
	is(incarnations($node, $database), $before . ', ' . (1 + ($before =~ tr/,//) + 1) . " $reason", "$name: it is another incarnation");
	is(one($node, $database, 'SELECT es_store_id()'), $store, "$name: of the same store");
	is_valid($node, $database, consumer($node, $database), 't', "$name: one that reads there goes on");
	append($node, $database, 3);
	is(one($node, $database, 'SELECT count(*) FROM es_incarnation_entries'), 2 + ($before =~ tr/,//),
		"$name: later sessions write no entry");
	return;
}

#
# Nothing is copied
#
my $new = one($primary, 'postgres', 'SELECT es_store_id(), es_incarnation()');
append($primary, 'postgres', 5);
is(one($primary, 'postgres', 'SELECT es_store_id(), es_incarnation()'), $new, 'a new store has its id before the first append');
my $early = consumer($primary, 'postgres');
$primary->restart;
append($primary, 'postgres', 5);
$primary->stop('immediate');
$primary->start;
append($primary, 'postgres', 5);
one($primary, 'postgres', q{CREATE DATABASE renamed TEMPLATE template0});
one($primary, 'renamed', 'CREATE EXTENSION eventstore');
isnt(one($primary, 'renamed', 'SELECT es_store_id()'), (split /\|/, $new)[0], 'another database has another store');
append($primary, 'renamed', 2);
my $renamed = consumer($primary, 'renamed');
one($primary, 'postgres', 'ALTER DATABASE renamed RENAME TO named');
append($primary, 'named', 2);
is(incarnations($primary, 'named'), '1 created', 'a database that is renamed is in the same incarnation');
is_valid($primary, 'named', $renamed, 't', 'and positions stay valid');
is_valid($primary, 'named', $early, 'f', 'but not those of another store');
is(incarnations($primary, 'postgres'), '1 created', 'a restart and a crash begin no incarnation');
is_valid($primary, 'postgres', $early, 't', 'and positions stay valid');
one($primary, 'template1', 'CREATE EXTENSION eventstore');
one($primary, 'postgres', "CREATE DATABASE $_") foreach qw(first second);
my @stores = map { one($primary, $_, 'SELECT es_store_id()') } qw(first second);
isnt($stores[0], $stores[1], 'two databases of one template, to which nothing was appended, are two stores');
append($primary, $_, 2) foreach qw(first second);
is_valid($primary, 'second', consumer($primary, 'first'), 'f', 'of which none knows the positions of the other');
is(incarnations($primary, $_) . one($primary, $_, 'SELECT es_store_id()'), "1 created" . shift @stores, "$_ was created")
  foreach qw(first second);

#
# Dumps: the original goes on
#
my $level = consumer($primary, 'postgres');
dump_database($primary, 'postgres', 'plain', '-Fp');
dump_database($primary, 'postgres', 'clean.plain', '-Fp', '--clean', '--if-exists');
dump_database($primary, 'postgres', 'custom', '-Fc');
dump_database($primary, 'postgres', 'directory', '-Fd', '-j', '2');
append($primary, 'postgres', 20);
my $ahead = consumer($primary, 'postgres');
foreach my $how (
	[ 'plain', 'plain' ],
	[ 'custom', 'custom' ],
	[ 'single', 'custom', '--single-transaction' ],
	[ 'jobs', 'directory', '-j', '2' ])
{
	my ($name, $file, @options) = @$how;

	one($target, 'postgres', "CREATE DATABASE $name");
	restore_database($target, $name, $file, @options);
	is_copy($target, $name, $level, $ahead, 'restored', "restored, $name");
}

# es_finish_restore begins the incarnation at once
one($target, 'postgres', 'CREATE DATABASE finished');
restore_database($target, 'finished', 'custom');
one($target, 'finished', 'SELECT count(*) FROM es_finish_restore()');
is(incarnations($target, 'finished'), '1 created, 2 restored', 'a restore that is finished: before an append');
append($target, 'finished', 40);
is(incarnations($target, 'finished'), '1 created, 2 restored', 'a restore that is finished: after one');
is_valid($target, 'finished', $level, 't', 'a restore that is finished: one that was not ahead goes on');
is_valid($target, 'finished', $ahead, 'f', 'a restore that is finished: one that was ahead is told');

# Only the data, into a store that was prepared, and where a consumer waits already
one($target, 'postgres', 'CREATE DATABASE parts');
one($target, 'parts', q{CREATE EXTENSION eventstore; SELECT es_create_subscription('s'); SELECT count(*) FROM es_poll('s'); SELECT es_drop_subscription('s')});
restore_database($target, 'parts', 'custom', '--data-only');
is_copy($target, 'parts', $level, $ahead, 'restored', 'restored, data only');

# Over a copy of a template that has the extension
one($target, 'template1', 'CREATE EXTENSION eventstore');
one($target, 'postgres', 'CREATE DATABASE templated');
restore_database($target, 'templated', 'custom', '--data-only');
is_copy($target, 'templated', $level, $ahead, 'restored', 'restored, over a template');

# Into the same database again, of which the first incarnation has been told another reason
$level = consumer($target, 'custom');
dump_database($target, 'custom', 'again.clean.plain', '-Fp', '--clean', '--if-exists');
append($target, 'custom', 20);
$ahead = consumer($target, 'custom');
my ($code, undef, $error) = $target->psql('custom', "SET eventstore.allow_drop = off;\n" . slurp_file(dump_file('again.clean.plain')), on_error_stop => 1);
like($error, qr/ERROR: .*the log has events, and would be dropped with them/, 'a dump with --clean does not drop a log that has events');
is_valid($target, 'custom', $ahead, 't', 'so nothing has happened');
restore_database($target, 'custom', 'again.clean.plain');
is_copy($target, 'custom', $level, $ahead, 'restored', 'restored, into the same database');

# The events alone
one($target, 'postgres', 'CREATE DATABASE alone TEMPLATE template1');
restore_database($target, 'alone', 'custom', '--data-only', '-t', 'es_events');
is_valid($target, 'alone', $level, 'f', 'events alone: no incarnation is known');
my $alone = consumer($target, 'alone');
append($target, 'alone', 2);
is_valid($target, 'alone', $alone, 't', 'events alone: one that has read them there goes on');
is(incarnations($target, 'alone'), '1 created', 'events alone: a store of their own');

#
# A template
#
$level = consumer($target, 'jobs');
one($target, 'postgres', 'CREATE DATABASE copied TEMPLATE jobs');
append($target, 'jobs', 20);
$ahead = consumer($target, 'jobs');
is_copy($target, 'copied', $level, $ahead, 'copied', 'a copy by TEMPLATE');
is_valid($target, 'jobs', $ahead, 't', 'its original goes on');
is(incarnations($target, 'jobs'), '1 created, 2 restored', 'in the same incarnation');
is_valid($target, 'jobs', consumer($target, 'copied'), 'f', 'and does not know those of the copy');

#
# Two transactions begin an incarnation side by side; the first one is rolled back
#
one($target, 'postgres', 'CREATE DATABASE beside TEMPLATE jobs');
my @sessions = map { $target->background_psql('beside') } 1 .. 3;
foreach my $nr (0 .. 2)
{
	$sessions[$nr]->query_safe('BEGIN');
	$sessions[$nr]->query_safe("SET lock_timeout = '10s'");
	$sessions[$nr]->query_safe("SELECT es_append('beside-$nr', 'none', 'x')");
}
$sessions[0]->query_safe('ROLLBACK');
$sessions[$_]->query_safe('COMMIT') foreach 2, 1;
$_->quit foreach @sessions;
is(one($target, 'beside', q{SELECT count(*), count(DISTINCT position) FROM es_incarnation_entries WHERE number = 3}), '2|1',
	'begun side by side: nobody waits, and the positions are the same');
is(incarnations($target, 'beside'), '1 created, 2 restored, 3 copied', 'begun side by side: one incarnation');
is(one($target, 'beside', q{SELECT bool_and(es_position_valid(id, (SELECT max(position) FROM es_events))) FROM es_incarnation_entries WHERE number = 3}),
	't', 'begun side by side: each id is good');
is_valid($target, 'beside', $ahead, 't', 'begun side by side: what was there before is valid');

#
# A promoted standby; the primary has gone on without it
#
my $standby = new_standby($primary);
append($primary, 'postgres', 5);
$primary->wait_for_catchup($standby);
$level = consumer($standby, 'postgres');
is_valid($standby, 'postgres', $level, 't', 'a standby answers');
is_valid($standby, 'postgres', "$1, " . ($2 + 100), 't', 'a standby that is behind does not deny what it may not have yet')
  if $level =~ /^(.*), '(\d+)'$/;
is(one($standby, 'postgres', 'SELECT es_store_id(), es_incarnation()'), $new, 'and knows who it is');
my $reader = $standby->background_psql('postgres');
is($reader->query_safe("SELECT es_position_valid($level)"), 't', 'a session on the standby');
one($standby, 'postgres', q{ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()});
ok($standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver'), 'it receives no more');
append($primary, 'postgres', 40);
$ahead = consumer($primary, 'postgres');
$standby->promote;
is($reader->query_safe("SELECT es_position_valid($ahead)"), 'f', 'promoted: a session from before is told');
$reader->query_safe(q{SELECT es_append('reader-1', 'none', 'x')});
is(incarnations($standby, 'postgres'), '1 created, 2 promoted', 'promoted: a session from before begins the incarnation');
$reader->quit;
append($standby, 'postgres', 60);
foreach my $when ('', ', in a new session')
{
	is_valid($standby, 'postgres', $level, 't', "promoted: one that was not ahead goes on$when");
	is_valid($standby, 'postgres', $ahead, 'f', "promoted: one that was ahead is told$when");
}
is(one($standby, 'postgres', 'SELECT count(*) FROM es_incarnation_entries'), '2', 'promoted: one entry');
is(incarnations($standby, 'named'), '1 created', 'promoted: a store that nothing was appended to is still in its own');
is_copy($standby, 'first', consumer($standby, 'first'), "'" . one($standby, 'first', 'SELECT es_incarnation()') . "', 1000", 'promoted', 'promoted, another database');
is_valid($primary, 'postgres', $ahead, 't', 'the old primary knows its own');
is_valid($primary, 'postgres', consumer($standby, 'postgres'), 'f', 'and nothing of the new one');
$standby->stop;

#
# Recovery to a point in time
#
my $archived = PostgreSQL::Test::Cluster->new('archived');
$archived->init(has_archiving => 1, allows_streaming => 1, extra => [ '--no-locale', '-E', 'UTF8' ]);
$archived->append_conf('postgresql.conf', "eventstore.autostart_workers = 0\nfsync = off");
$archived->start;
one($archived, 'postgres', 'CREATE EXTENSION eventstore');
append($archived, 'postgres', 5);
$archived->backup('pitr');
append($archived, 'postgres', 5);
$level = consumer($archived, 'postgres');
my $point = one($archived, 'postgres', q{SELECT pg_create_restore_point('here')});
append($archived, 'postgres', 30);
$ahead = consumer($archived, 'postgres');
one($archived, 'postgres', 'SELECT pg_switch_wal()');
ok($archived->poll_query_until('postgres', "SELECT last_archived_wal >= pg_walfile_name('$point') FROM pg_stat_archiver"), 'it is archived');
my $recovered = PostgreSQL::Test::Cluster->new('recovered');
$recovered->init_from_backup($archived, 'pitr', has_restoring => 1, standby => 0);
$recovered->append_conf('postgresql.conf', "recovery_target_name = 'here'\nrecovery_target_action = 'promote'\narchive_mode = off");
$recovered->start;
ok($recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), 'it has recovered');
is_copy($recovered, 'postgres', $level, $ahead, 'promoted', 'point-in-time recovery');

# The same backup as it is, without recovery.signal: the limit that the documents name.
my $blind = PostgreSQL::Test::Cluster->new('blind');
$blind->init_from_backup($archived, 'pitr');
$blind->append_conf('postgresql.conf', 'archive_mode = off');
$blind->start;
append($blind, 'postgres', 60);
is(incarnations($blind, 'postgres'), '1 created', 'a backup that is started as it is cannot be told');

$_->stop foreach $recovered, $blind, $archived, $primary, $target;
done_testing();
