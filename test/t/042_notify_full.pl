# The server's queue of notifications is full: appends go on where workers notify, as
# do projections, and all of it is notified when there is room again.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_store('primary', fsync => 'off', workers => 2);

# Before version 17 the queue takes 8 GB.
plan skip_all => 'this server has no max_notify_queue_pages'
  if $node->safe_psql('postgres', q{SELECT count(*) FROM pg_settings WHERE name = 'max_notify_queue_pages'}) eq '0';
$node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64');
$node->restart;

my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;

sub append_as
{
	my ($notify) = @_;
	my ($result, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY sqlstate\nSET eventstore.notify = $notify; SELECT position FROM es_append('account-1', 'any', 'happened')");

	return $result == 0 ? $out : $err;
}

sub is_soon
{
	my ($sql, $name) = @_;
	my $value;

	for (1 .. $patience)
	{
		$value = $node->safe_psql('postgres', $sql);
		last if $value eq 't';
		sleep 0.1;
	}
	is($value, 't', $name);
	return;
}

$node->safe_psql('postgres', q{
	CREATE TABLE handled (position bigint);
	SELECT es_create_projection('p', query => 'INSERT INTO handled SELECT position FROM new_events')});
like(append_as('auto'), qr/^\d+$/, 'an append');
is_soon('SELECT position = 1 FROM es_notified', 'of which a worker has notified');

my $listener = $node->background_psql('postgres');
my $idle     = $node->background_psql('postgres');

$listener->query_safe('LISTEN es_events');
$idle->query_safe('LISTEN other; BEGIN; SELECT 1');
my ($result, $out, $err);
foreach my $length (7000, 100, 1)
{
	do
	{
		($result, $out, $err) = $node->psql('postgres',
			"\\set VERBOSITY sqlstate\nSELECT pg_notify('other', repeat('x', $length) || i) FROM generate_series(1, 5) i");
	} while ($result == 0);
}
like($err, qr/54000/, 'the queue is full');

my @refused = grep { !/^\d+$/ } map { sleep 0.1; append_as('auto') } 1 .. 30;
is("@refused", '', 'appends go on where a worker notifies');
like(append_as('commit'), qr/54000/, 'one that notifies by itself is refused');
is_soon(q{SELECT count(*) = 31 FROM handled}, 'projections go on');
is($node->safe_psql('postgres', 'SELECT count(*) = 31 FROM es_events'), 't', 'nothing of the refused one is there');
like(slurp_file($node->logfile), qr/too many notifications/, "the worker's error is in the log");
is($node->safe_psql('postgres', 'SELECT position FROM es_notified'), '1', 'what is new is not notified');

$idle->query_safe('COMMIT');
$idle->quit;
is_soon('SELECT position = (SELECT max(position) FROM es_events) FROM es_notified', 'then it is');
my $heard = $listener->query('SELECT 1');
like($heard . $listener->{stdout}, qr/1/, 'the listener lives');
$listener->quit;
$node->stop;
done_testing();
