# Killing processes of a server, and its postmaster, while others are at work.
#
# Sessions are known by their application_name; workers are "worker".
package EventStoreKills;

use strict;
use warnings;

use Exporter qw(import);
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

use EventStoreTest;

our @EXPORT = qw(pids_of one_of kill_process crash signal_one wait_for_restart kill_postmaster);

# Server processes of this name.
sub pids_of
{
	my ($node, $name) = @_;

	return split /\n/, $node->safe_psql('postgres',
		$name eq 'worker'
		? q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker'}
		: "SELECT pid FROM pg_stat_activity WHERE application_name = '$name'");
}

# One of those that are there, or will be in a moment.  meanwhile: called while there is
# none.
sub one_of
{
	my ($node, $name, $meanwhile) = @_;
	my @pids;

	wait_until("there is a $name", sub {
			$meanwhile->() if $meanwhile;
			@pids = pids_of($node, $name);
		}, 0.02);
	return $pids[ int rand @pids ];
}

sub kill_process
{
	my ($pid) = @_;

	return kill 'KILL', $pid;
}

# kill -9 makes the postmaster end all other processes, and recover.  Returns false if the
# process has ended by itself.
sub crash
{
	my ($node, $name, $meanwhile) = @_;
	my $offset = -s $node->logfile;
	my $killed = kill_process(one_of($node, $name, $meanwhile));

	wait_for_restart($node, $offset) if $killed;
	return $killed;
}

# pg_terminate_backend or pg_cancel_backend
sub signal_one
{
	my ($node, $function, $name) = @_;
	my $pid = one_of($node, $name);

	return $node->safe_psql('postgres', "SELECT $function($pid)") eq 't';
}

# After kill -9 of a process of the server: it starts again by itself.  since:
# pg_postmaster_start_time() does not change, so this is asked of the log.
sub wait_for_restart
{
	my ($node, $offset) = @_;

	wait_until('the server starts again', sub {
			slurp_file($node->logfile, $offset) =~ /all server processes terminated; reinitializing.*database system is ready/s });
	return;
}

# kill -9 of the postmaster, and another start.  Its children notice when they are
# idle; busy ones are killed.
sub kill_postmaster
{
	my ($node) = @_;
	my @children = split /\n/, $node->safe_psql('postgres',
		'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()');
	my $end = time() + 0.5;

	$node->kill9;
	sleep 0.02 while time() < $end && grep { kill 0, $_ } @children;
	kill 'KILL', @children;
	wait_until('the children of the postmaster end', sub { !grep { kill 0, $_ } @children }, 0.02);
	$node->start;
	return;
}

1;
