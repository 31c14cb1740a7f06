# An import that has to lock the log gets through beside appenders that never leave a moment
# free, and none of them waits for long.  It ends an autovacuum of the log.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use EventStoreWaits;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_store('busy', fsync => 'off', conf => "deadlock_timeout = 300ms\nautovacuum = off\n");

#
# Beside busy appenders
#

my @busy = (
	[ 'quick appends', 3, $append ],
	[ 'appends that stay open for 20 ms', 3, "BEGIN;\n$append\\sleep 20 ms\nCOMMIT;\n" ],
	[ 'appends that stay open for 300 ms', 7, "BEGIN;\n$append\\sleep 300 ms\nCOMMIT;\n" ]);

foreach (@busy)
{
	my ($what, $time, $script) = @$_;
	my $clients = start_clients($node, $script, 8, $time);
	my @seconds;

	sleep 0.3;
	foreach (1 .. 2)
	{
		my ($errors, $seconds) = end_call(start_call($node, import_of(1500)));

		unlike($errors, qr/ERROR/, "$what: an import");
		push @seconds, $seconds;
	}
	ok($clients->{run}->pumpable, "$what: they are there all the time");
	my @times = end_clients($clients);
	diag(sprintf '%s: %d by 8 clients, median %.0f ms, longest %.0f ms; imports of %s s', $what,
		scalar @times, median(@times), $times[-1], join ', ', map { sprintf '%.2f', $_ } @seconds);
	cmp_ok($times[-1], '<', $client_limit, "$what: none waits for long");
}
holds_versions_dense($node, 'at the end');
holds_horizon_at_end($node, 'at the end');

#
# An autovacuum of the log goes, as it does for a request in the queue.
#

sql($node, q{ALTER TABLE es_events SET (autovacuum_vacuum_insert_threshold = 1, autovacuum_vacuum_insert_scale_factor = 0,
	autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
	ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET autovacuum_naptime = 1; SELECT pg_reload_conf()});
sql($node, import_of(900));
wait_until('an autovacuum', sub { sql($node, q{SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 'es_events'::regclass}) ne '0' });
unlike((end_call(start_call($node, import_of(1500))))[0], qr/ERROR/, 'an import beside an autovacuum');
like(slurp_file($node->logfile), qr/canceling autovacuum task\n.*CONTEXT:.*\n?.*automatic vacuum of table "postgres\.public\.es_events"/, 'has ended it');
$node->stop;
done_testing();
