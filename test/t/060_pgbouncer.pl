# Subscriptions behind pgbouncer with pool_mode = transaction, where a statement
# may go to another server process than the one before it: nothing of a delivery
# is bound to a session.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my ($program) = grep { -x $_ } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';

plan skip_all => 'there is no pgbouncer here' unless defined $program;

my $patience = 60;    # seconds to wait for what is to come
my $clients = "$FindBin::RealBin/../clients";
my $examples = "$FindBin::RealBin/../../examples";
my $folder = PostgreSQL::Test::Utils::tempdir_short();
my $pool = "host=$folder port=6432 dbname=postgres";
my $node = new_store(
	'pool',
	fsync   => 'off',
	workers => 2);
my $bouncer = start_bouncer();

#
# What the tests share
#

# The pool has two server processes; another one, "wide", has five.
sub start_bouncer
{
	my $user = $node->safe_psql('postgres', 'SELECT current_user');
	my $run;

	append_to_file("$folder/users", qq{"$user" ""\n});
	append_to_file("$folder/ini", qq{
[databases]
postgres = host=@{[ $node->host ]} port=@{[ $node->port ]}
wide = host=@{[ $node->host ]} port=@{[ $node->port ]} dbname=postgres pool_size=5
[pgbouncer]
unix_socket_dir = $folder
listen_port = 6432
auth_type = trust
auth_file = $folder/users
pool_mode = transaction
default_pool_size = 2
server_round_robin = 1
});
	$run = IPC::Run::start([ $program, "$folder/ini" ],
		'<', '/dev/null', '>', "$folder/out", '2>', "$folder/log");
	foreach (1 .. $patience * 10)
	{
		last if $node->psql('postgres', 'SELECT 1', connstr => $pool) == 0;
		sleep 0.1;
	}
	return $run;
}

sub stop_bouncer
{
	$bouncer->kill_kill if defined $bouncer;
	undef $bouncer;
	return;
}

# Also when the test dies.
END
{
	local $? = $?;

	stop_bouncer();
}

# A client of the pool.
sub client
{
	return $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-d', $pool ]);
}

# A client that holds a transaction open keeps one of the server processes, so
# that all others get the other one.
my @holders = (client(), client());

$holders[0]->query_safe('BEGIN');

sub hop
{
	@holders = reverse @holders;
	$holders[0]->query_safe('BEGIN');
	$holders[1]->query_safe('COMMIT');
	return;
}

# Calls es_poll in the other server process than the call before.
sub poll
{
	my ($client, $arguments) = @_;
	my %delivery = (positions => [], attempts => []);

	hop();
	foreach my $row (split /\n/, $client->query_safe("SELECT pg_backend_pid(), token, position, attempt FROM es_poll($arguments)"))
	{
		my ($backend, $token, $position, $attempt) = split /\|/, $row;

		@delivery{ 'backend', 'token' } = ($backend, $token);
		push @{ $delivery{positions} }, $position;
		push @{ $delivery{attempts} }, $attempt;
	}
	return \%delivery;
}

# Calls another function in the other server process than the call before: the
# process, or the error's code.
sub call
{
	my ($client, $function) = @_;

	hop();
	return $1 if $client->query("SELECT pg_backend_pid(), $function") =~ /^(\d+)\|/;
	$client->{stderr} = '';
	return $client->query_safe('\echo :SQLSTATE');
}

# Starts a statement, and does not wait for its end.
sub start
{
	my ($client, $sql) = @_;

	$client->query_until(qr/started\n/, "\\echo started\n$sql;\n");
	return;
}

sub append
{
	my ($category, $count, $streams) = @_;

	$node->safe_psql('postgres', "
		INSERT INTO es_import (stream, type)
		SELECT '$category-' || n % $streams, 'x' FROM generate_series(1, $count) AS n");
	return split /\n/, $node->safe_psql('postgres', "SELECT position FROM es_read_category('$category')");
}

#
# One client, whose statements go to one server process and the other by turns
#

{
	my $client = client();
	my @positions = append('one', 8, 2);
	my (@rest, %attempt, $first, $ahead, $again, $backend);
	my $end = time() + $patience;

	like(call($client, q{es_create_subscription('one', category => 'one')}), qr/^\d+$/, 'create');
	is(call($client, q{es_create_subscription('one')}), '42710', 'create what is there');

	$first = poll($client, q{'one', consumer => 'me', max_count => 2});
	is("@{ $first->{positions} }", "@positions[0, 1]", 'poll');
	$ahead = poll($client, "'one', consumer => 'me', after_token => $first->{token}, max_count => 2");
	isnt($ahead->{backend}, $first->{backend}, 'poll ahead, in another server process');
	is("@{ $ahead->{positions} }", "@positions[2, 3]", 'the token is known: what follows comes');
	like(call($client, "es_ack('one', $first->{token})"), qr/^\d+$/, 'ack of the first delivery');
	hop();
	$backend = call($client, "es_nack('one', $ahead->{token}, $positions[2], 'why')");
	like($backend, qr/^\d+$/, 'nack in the second delivery');
	isnt($backend, $ahead->{backend}, 'in another server process than its poll');
	like(call($client, "es_ack('one', $ahead->{token})"), qr/^\d+$/, 'ack of the second delivery');

	# The event that failed comes again, before the others, after or among them.
	while (@rest < @positions - 3 && time() < $end)
	{
		my $delivery = poll($client, q{'one', consumer => 'me', wait => '10s'});

		push @rest, @{ $delivery->{positions} };
		@attempt{ @{ $delivery->{positions} } } = @{ $delivery->{attempts} };
		$backend = call($client, "es_ack('one', $delivery->{token})");
		isnt($backend, $delivery->{backend}, 'ack of the rest, in another server process');
	}
	is(join(' ', sort { $a <=> $b } @rest), "@positions[2, 4 .. 7]", 'the rest comes, and with it what failed');
	is($attempt{ $positions[2] }, 2, 'that as the second attempt');
	is(scalar(@{ poll($client, q{'one', consumer => 'me'})->{positions} }), 0, 'nothing is left');

	call($client, q{es_seek('one', 0)});
	$first = poll($client, q{'one', consumer => 'me'});
	is("@{ $first->{positions} }", "@positions", 'seek');
	$again = poll($client, q{'one', consumer => 'me'});
	isnt($again->{backend}, $first->{backend}, 'poll again, in another server process');
	is("$again->{positions}[0] $again->{attempts}[0]", "$positions[0] 2",
		'the consumer is known by its name: what it has in flight is redelivered');
	is(call($client, "es_ack('one', $first->{token})"), 'ES006', 'the first token is void');
	like(call($client, "es_ack('one', $again->{token})"), qr/^\d+$/, 'ack of the second');
	call($client, "es_seek('one', $positions[-1])");
	$client->quit;
}

# Between transactions a server process of the pool keeps nothing.
$holders[0]->query_safe('COMMIT');
is_query($node, q{
	SELECT count(*) FROM pg_stat_activity AS a JOIN pg_locks AS l USING (pid)
	 WHERE a.backend_type = 'client backend' AND pid <> pg_backend_pid()},
	'0', 'no lock is bound to a session');
is_query($node, q{
	SELECT count(*) FROM pg_stat_activity
	 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()},
	'2', 'the pool had two server processes');

#
# Waiting
#

# More of them than the pool has server processes
{
	my @waiters = map { client() } 1 .. 5;
	my $started = time();
	my (%backend, @rows);

	start($_, q{SELECT pg_backend_pid(), count(*) FROM es_poll('one', wait => '1s')}) foreach @waiters;
	push @rows, $_->query_safe('SELECT 1') foreach @waiters;
	is(scalar(grep { /^\d+\|0\n1$/ } @rows), 5, 'five wait: none is refused');
	cmp_ok(time() - $started, '>', 2.5, 'two at a time');
	%backend = map { /^(\d+)/ ? ($1 => 1) : () } @rows;
	is(scalar(keys %backend), 2, 'in two server processes');
	$_->quit foreach @waiters;
}

# Woken by an append, of which a listener with a connection of its own is notified
{
	my $client = client();
	my $writer = client();
	my $listener = $node->background_psql('postgres');
	my $started = time();
	my $heard = '';

	$listener->query_safe('LISTEN "es_events:one"');
	start($client, q{SELECT count(*) FROM es_poll('one', consumer => 'me', wait => '1min')});
	sleep 0.5;
	$writer->query_safe(q{SELECT es_append('one-1', 'any', 'x')});
	is($client->query_safe('SELECT 1'), "1\n1", 'a call that waits gets what is appended by another client of the pool');
	cmp_ok(time() - $started, '<', 50, 'at once');
	until ($heard =~ /notification "es_events:one"/ || time() > $started + $patience)
	{
		$heard .= $listener->query_safe('SELECT 1');
		sleep 0.05;
	}
	like($heard, qr/notification "es_events:one"/, 'LISTEN beside the pool');
	$_->quit foreach $client, $writer, $listener;
}
$_->quit foreach @holders;

#
# Four real clients. A long poll keeps a server process busy for as long as it
# waits: there must be one left for consumers with events in flight.
#

{
	local %ENV = (%ENV, PGHOST => $folder, PGPORT => 6432, PGDATABASE => 'wide');
	my @positions = append('many', 3000, 30);
	my @consumers;

	$node->safe_psql('postgres', slurp_file("$clients/handled.sql")
		. q{;ALTER TABLE handled ADD backend int DEFAULT pg_backend_pid();
			SELECT es_create_subscription('many', category => 'many', partitions => 4, lease => '1min')});
	foreach my $n (1 .. 4)
	{
		push @consumers, IPC::Run::start([ "$examples/consumer.sh", 'many', "consumer-$n" ],
			'<', '/dev/null', '>', "$folder/consumer-$n.out", '2>', "$folder/consumer-$n.err");
	}
	ok($node->poll_query_until('postgres', q{
			SELECT sum(lag_events) = 0 AND sum(in_flight) = 0 AND NOT EXISTS (SELECT FROM es_failures)
			  FROM es_subscription_status WHERE subscription = 'many'}),
		'four consumers come to the end');
	is_query($node, 'SELECT count(*), count(DISTINCT position) FROM handled', '3000|3000', 'all is handled, nothing twice');
	is_query($node, q{
		SELECT count(*) FROM (SELECT version, row_number() OVER (PARTITION BY stream ORDER BY ordinal) AS place
		                        FROM handled) AS h
		 WHERE version <> place},
		'0', 'the order of each stream is kept');
	is_query($node, q{
		SELECT count(*) > 20, count(*) = (SELECT count(*) FROM handled WHERE fails(position) AND attempt > 1)
		  FROM es_read_category('many') WHERE fails(position)},
		't|t', 'what failed has come again');
	is_query($node, q{
		SELECT count(*), min(backends) > 1
		  FROM (SELECT count(DISTINCT backend) AS backends FROM handled GROUP BY consumer) AS h},
		'4|t', 'each consumer was in several server processes');
	foreach my $consumer (@consumers)
	{
		$consumer->signal('KILL');
		$consumer->finish;
	}
	is(join('', map { slurp_file("$folder/consumer-$_.err") } 1 .. 4) =~ s/^ERROR:  (?:not at the first attempt|subscription "many" already exists)\n//gmr, '',
		'they report no other error');
}

stop_bouncer();
$node->stop;
done_testing();
