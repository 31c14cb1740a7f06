# Calls that wait for a lock on the log, in sessions of their own, and clients of pgbench
# beside them, whose latencies are measured.
package EventStoreWaits;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use EventStoreTest;

our @EXPORT = qw(start_call end_call call_waits_for start_clients end_clients import_of
  $append $client_limit);

# What each client appends, and its lock_timeout in milliseconds: if it queued behind a call
# that waits, it would fail.
our $append = "SELECT es_append('client-' || :client_id, 'any', 'x');\n";
our $client_limit = 3000;

my $folder = PostgreSQL::Test::Utils::tempdir();
my $files = 0;

sub new_file
{
	my ($text) = @_;
	my $file = "$folder/" . ++$files;

	append_to_file($file, $text);
	return $file;
}

# A call in a session of its own, which is named so in pg_stat_activity.
sub start_call
{
	my ($node, $sql) = @_;
	my $file = new_file("SET application_name = 'call';\n\\set VERBOSITY verbose\n$sql;\n");

	return { file => $file, began => time(), run => start_psql($node, $file, $file) };
}

# How it ends: its errors, and seconds.
sub end_call
{
	my ($call) = @_;

	finish_psql($call->{run});
	return (slurp_file("$call->{file}.err"), time() - $call->{began});
}

# Until it waits for the process; 0: for a prepared transaction.
sub call_waits_for
{
	my ($node, $pid) = @_;

	wait_until('the call waits', sub {
		$node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity
			WHERE application_name = 'call' AND $pid = ANY (pg_blocking_pids(pid))") ne '0'
	});
	return;
}

# Runs a script of pgbench in so many clients for some seconds.
sub start_clients
{
	my ($node, $script, $clients, $seconds) = @_;
	my $file = new_file($script);

	local $ENV{PGOPTIONS} = "-c lock_timeout=$client_limit";
	my $run = IPC::Run::start(
		[
			'pgbench', '-n', '-c', $clients, '-j', 1, '-T', $seconds, '-f', $file, '-l',
			"--log-prefix=$file.log", $node->connstr('postgres')
		],
		'<', '/dev/null', '>', "$file.out", '2>', "$file.err",
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return { file => $file, run => $run };
}

# What their transactions took, in milliseconds, in ascending order.
sub end_clients
{
	my ($clients) = @_;
	my @times;

	ok(finish_psql($clients->{run}), 'no client has failed') or diag(slurp_file("$clients->{file}.err"));
	foreach my $log (glob "$clients->{file}.log*")
	{
		push @times, map { (split / /)[2] / 1000 } split /\n/, slurp_file($log);
	}
	return sort { $a <=> $b } @times;
}

my $imports = 0;

# An import into so many new streams.
sub import_of
{
	my ($streams) = @_;

	$imports++;
	return "INSERT INTO es_import (stream, type) SELECT 'import$imports-' || i, 'x' FROM generate_series(1, $streams) i";
}

1;
