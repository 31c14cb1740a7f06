# No worker starts by itself where nothing may be written: on a standby, and while
# pg_upgrade has the server. Afterwards the next append starts one.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $append = q{SELECT es_append('a-1', 'any', 'x')};
my $handled = 'SELECT (SELECT count(*) FROM handled) = (SELECT count(*) FROM es_events)';
my $conf = "eventstore.autostart_workers = 2\nlog_min_messages = debug1\n";
my $node = new_store('primary', fsync => 'off', streaming => 1, conf => $conf);

# How often a worker was registered since an offset of the server's log.
sub registered
{
	my ($server, $offset) = @_;

	return scalar(grep { /registering background worker "eventstore worker"/ } split /\n/, slurp_file($server->logfile, $offset));
}

# Waits until the worker has left.
sub is_alone
{
	my ($server, $name) = @_;

	becomes_true($server, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'eventstore worker'}, $name);
	return;
}

sub goes_on
{
	my ($server, $name, $offset) = @_;

	$offset //= -s $server->logfile;
	sql($server, $append);
	becomes_true($server, $handled, "$name: the next append's worker handles all");
	cmp_ok(registered($server, $offset), '>', 0, "$name: it was started by itself");
	return;
}

sql($node, 'CREATE TABLE handled (position bigint)',
	q{SELECT es_create_projection('p', query => 'INSERT INTO handled SELECT position FROM new_events')});
goes_on($node, 'an ordinary server', 0);
is_alone($node, 'an idle worker leaves');

#
# A standby
#

my $standby = new_standby($node);

# Behind: the primary's workers must not handle it, and the standby's caller waits for it.
sql($node, 'SET eventstore.autostart_workers = 0', $append);
$node->wait_for_catchup($standby);
{
	my $offset = -s $standby->logfile;

	is(sql($standby, q{SELECT es_wait('p', max(position), '500ms') FROM es_events}), 'f', 'a standby: a projection that is behind stays so');
	like(($standby->psql('postgres', $append))[2], qr/read-only transaction|during recovery/, 'a standby: appends are refused');
	is(registered($standby, $offset), 0, 'a standby: no worker is started');
	$node->stop;
	$standby->promote;
	sleep 0.5;
	is(registered($standby, $offset), 0, 'a promotion starts none that somebody waited for');
	is(sql($standby, $handled), 'f', 'so that it is still behind');
	goes_on($standby, 'promoted');
}
$standby->stop;

#
# As pg_upgrade starts it
#

sub start_with
{
	my (@options) = @_;

	PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o', "@options", 'start');
	return;
}

start_with('-b');
{
	my $offset = -s $node->logfile;

	sql($node, $append);
	sql($node, q{SELECT es_pause_projection('p')}, q{SELECT es_resume_projection('p')});
	is(sql($node, q{SELECT es_wait('p', max(position), '500ms') FROM es_events}), 'f', 'pg_upgrade: a projection that is behind stays so');
	is(registered($node, $offset), 0, 'pg_upgrade: no worker is started, by an append, a projection, or a caller that waits');
	is(sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventstore worker'}), '0', 'pg_upgrade: none is there');
}
PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, 'stop');
$node->start;
goes_on($node, 'after pg_upgrade');
$node->stop;
done_testing();
