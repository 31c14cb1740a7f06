# The steps of doc/operate/failover.md: a standby is promoted, a prepared transaction that came
# along is ended, the lost tail is read on the old primary and appended again, and pg_rewind makes
# a standby of it.  Before that, which queries of a standby are cancelled (doc/operate/replica.md).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use File::Copy qw(copy);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_store('primary', streaming => 1, conf => "wal_log_hints = on\nwal_keep_size = 256MB\nautovacuum = off\n");

sql($primary, q{SELECT es_append('order-1', 'none', 'placed')}, q{SELECT es_create_subscription('mails')});
my $standby = new_standby($primary);

sub fails
{
	my ($node, $statement, $error, $name) = @_;
	my (undef, undef, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($err, $error, $name);
}

#
# The standby
#
fails($standby, 'LISTEN es_events', qr/25006: .*cannot execute LISTEN during recovery/, 'a standby has no LISTEN');
fails($standby, q{SELECT es_start_worker()}, qr/55000: /, 'and no worker');
fails($primary, q{SELECT es_create_projection('p', query => 'SELECT 1 FROM new_events'); SELECT es_wait('p', 1000, '0s')},
	qr/22023: /, 'to wait for a position beyond the log is an error');
$primary->wait_for_catchup($standby);
is_query($standby, q{SELECT es_wait('p', 1000, '0s')}, 'f', 'but not on a standby, which may be behind');

sub replays_quickly
{
	my ($feedback) = @_;

	sql($standby, 'ALTER SYSTEM SET max_standby_streaming_delay = 10', "ALTER SYSTEM SET hot_standby_feedback = $feedback",
		'ALTER SYSTEM SET wal_receiver_status_interval = 1', 'SELECT pg_reload_conf()');
	return;
}

# As autovacuum freezes the log, by its settings.
sub freeze
{
	sql($primary, q{SELECT es_append('order-1', 'any', 'paid')}, 'SELECT pg_current_xact_id()');
	$primary->safe_psql('postgres', 'VACUUM (FREEZE) es_events');
	$primary->wait_for_catchup($standby);
	return;
}

# A query of the standby that began before the log was frozen.
replays_quickly('off');
{
	my $err = '';
	my $query = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $standby->connstr('postgres'), '-c', 'SELECT pg_sleep(600) FROM es_events LIMIT 1' ],
		'<', '/dev/null', '>', '/dev/null', '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	becomes_true($standby, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()},
		'a query runs on the standby');
	freeze();
	$query->finish;
	like($err, qr/40001: canceling statement due to conflict with recovery/, 'it is cancelled when the primary has frozen the log');
}
replays_quickly('on');
my $reader = $standby->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $seen = $reader->query_safe('SELECT count(*) FROM es_events');
becomes_true($primary, 'SELECT backend_xmin IS NOT NULL FROM pg_stat_replication', 'with feedback the primary knows of a query');
freeze();
is($reader->query_safe('SELECT count(*) FROM es_events'), $seen, 'which is not cancelled');
$reader->quit;

#
# The primary goes on without it, and is gone
#
my $id = '01a22189-efd9-7a92-9064-128e86b0d8c2';

sql($primary, 'BEGIN', q{SELECT es_append('prepared-1', 'none', 'placed')}, q{PREPARE TRANSACTION 'forgotten'});
my $token = $primary->safe_psql('postgres', q{SELECT max(token) FROM es_poll('mails')});
sql($primary, q{SELECT es_append('order-1', 'any', 'sent')});
$primary->wait_for_catchup($standby);
my $level = $primary->safe_psql('postgres', q{SELECT quote_literal(es_incarnation()) || ', ' || max(position) FROM es_events});
sql($standby, q{ALTER SYSTEM SET primary_conninfo = ''}, 'SELECT pg_reload_conf()');
becomes_true($standby, 'SELECT count(*) = 0 FROM pg_stat_wal_receiver', 'the standby receives no more');
sql($primary, qq{SELECT es_append('order-2', 'none', 'placed', '{"pieces": 3}', id => '$id', occurred_at => '2026-11-28 10:11:12+00')});
my $ahead = $primary->safe_psql('postgres', q{SELECT quote_literal(es_incarnation()) || ', ' || max(position) FROM es_events});
$primary->stop;
$standby->promote;

#
# What hangs, and who is told
#
is($standby->safe_psql('postgres', q{SET eventstore.health_delay = 0; SELECT problem, remedy FROM es_health LIMIT 1}),
	q{transaction_prepared|ROLLBACK PREPARED 'forgotten'}, 'the prepared transaction came along, and es_health has it');
sql($standby, q{SELECT es_append('order-3', 'none', 'placed')});
is_query($standby, 'SELECT es_horizon() < max(position) FROM es_events', 't', 'it holds the horizon');
sql($standby, q{ROLLBACK PREPARED 'forgotten'});
holds_horizon_at_end($standby, 'it is ended');
is_query($standby, "SELECT es_position_valid($level), es_position_valid($ahead)", 't|f', 'a consumer that was ahead is told, no other');
fails($standby, "SELECT es_ack('mails', $token)", qr/ES006: /, 'a token from before is void');

#
# The lost tail
#
my $from = $standby->safe_psql('postgres', q{SELECT max(position) FROM es_incarnations WHERE reason = 'promoted'});
my $again = qq{SELECT version FROM es_append('order-2', 'any', 'placed', '{"pieces": 3}', id => '$id', occurred_at => '2026-11-28 10:11:12+00')};

$primary->start;
is_query($primary, qq{SELECT id, stream, type, data, occurred_at = '2026-11-28 10:11:12+00' FROM es_events WHERE position > $from},
	qq{$id|order-2|placed|{"pieces": 3}|t}, 'the old primary has it, above the position that the new one says');
$primary->stop;
is_query($standby, $again, '1', 'it is appended again');
is_query($standby, $again, '1', 'once, as its id is known');

#
# pg_rewind
#
my $conf = $primary->data_dir . '/postgresql.conf';
my $kept = PostgreSQL::Test::Utils::tempdir() . '/postgresql.conf';

copy($conf, $kept) or die "copy: $!";
# until then pg_rewind sees the timeline from before the promotion
sql($standby, 'CHECKPOINT');
ok( run_log(
		[
			'pg_rewind', '--no-sync', '--target-pgdata', $primary->data_dir,
			'--source-server', $standby->connstr('postgres'), '--write-recovery-conf'
		]),
	'pg_rewind') or die 'nothing was rewound';
copy($kept, $conf) or die "copy: $!";
$primary->start;
sql($standby, q{SELECT es_append('order-1', 'any', 'returned')});
my $log = log_digest($standby, 'postgres');
wait_until('the old primary follows', sub { log_digest($primary, 'postgres') eq $log });
is_query($primary, 'SELECT pg_is_in_recovery()', 't', 'the old primary is a standby');
is_query($primary, q{SELECT string_agg(reason, ' ' ORDER BY number), es_incarnation() = (array_agg(id ORDER BY number))[2] FROM es_incarnations},
	'created promoted|t', 'in the incarnation of the new primary');
is_query($primary, "SELECT es_position_valid($ahead)", 'f', 'it does not know what it had for itself');
holds_versions_dense($standby, 'at the end');
$_->stop foreach $primary, $standby;
done_testing();
