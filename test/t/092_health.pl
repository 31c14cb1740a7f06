# A shop with a database of its own: roles, two projections with a poison event each, a
# webhook, a pool.  Then everything goes wrong at once: a privilege is revoked, a schema
# renamed, a transaction left open, another prepared and forgotten.  Who is on call knows
# nothing of it and types nothing: the statements of es_health alone, each run as the role
# that it names, bring all of it to where it should be.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my ($program) = grep { -x $_ } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';

plan skip_all => 'there is no pgbouncer here' unless defined $program;

my $folder = PostgreSQL::Test::Utils::tempdir_short();
my $node = new_store(
	'health',
	fsync     => 'off',
	workers   => 2,
	extension => 0,
	conf      => "eventstore.max_retry_pause = 100ms\neventstore.poll_interval = 50ms\neventstore.health_delay = 1s\n");
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
my $bouncer = start_bouncer();

# The pool of the shop's programs, which have two server processes at most.
sub start_bouncer
{
	my $run;

	append_to_file("$folder/users", qq{"app" ""\n});
	append_to_file("$folder/ini", qq{
[databases]
shop = host=@{[ $node->host ]} port=@{[ $node->port ]} dbname=postgres
[pgbouncer]
unix_socket_dir = $folder
listen_port = 6432
auth_type = trust
auth_file = $folder/users
pool_mode = transaction
default_pool_size = 2
});
	$run = IPC::Run::start([ $program, "$folder/ini" ],
		'<', '/dev/null', '>', "$folder/out", '2>', "$folder/log");
	return $run;
}

END
{
	local $? = $?;

	$bouncer->kill_kill if defined $bouncer;
}

# A statement of a role; its result, and its errors.
sub as
{
	my ($role, $sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $role ], on_error_stop => 0);

	return $out // '', $err // '';
}

# A statement of a program of the shop, through the pool.
sub app
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql, connstr => "host=$folder port=6432 dbname=shop user=app");
}

#
# The shop, as its first week has it
#

$node->safe_psql('postgres', q{
	CREATE ROLE shop LOGIN;
	CREATE ROLE app LOGIN;
	CREATE ROLE oncall LOGIN;
	CREATE SCHEMA es;
	CREATE EXTENSION eventstore SCHEMA es;
	SELECT es.es_grant('shop', 'operator'), es.es_grant('app', 'writer'), es.es_grant('oncall', 'operator');
	ALTER DATABASE postgres SET search_path = shop, es, public;
	CREATE SCHEMA shop AUTHORIZATION shop;
	GRANT USAGE ON SCHEMA shop TO app});
my ($out, $err) = as('shop', q{
	CREATE TABLE stock (article text PRIMARY KEY, amount int);
	CREATE TABLE mail (position bigint PRIMARY KEY, receiver text NOT NULL);
	CREATE TABLE payment (id text PRIMARY KEY, amount int NOT NULL CHECK (amount > 0));
	GRANT SELECT, INSERT ON payment TO app;
	CREATE FUNCTION book(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO stock AS s VALUES (event.data->>'article', (event.data->>'amount')::int)
		    ON CONFLICT (article) DO UPDATE SET amount = s.amount + excluded.amount;
	END $$;
	CREATE FUNCTION write_mail(event es_recorded_event) RETURNS void LANGUAGE sql
		AS $$ INSERT INTO mail VALUES (event.position, event.data->>'receiver') $$;
	CREATE FUNCTION on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
	DECLARE
		p jsonb := payload;
	BEGIN
		INSERT INTO payment VALUES (p->>'id', (p->>'amount')::int);
		RETURN ROW(p->>'id', NULL, 'paid', NULL, 'payment-' || (p->>'id'), 'none', NULL)::es_ack_event;
	END $$;
	SELECT es_create_projection('stock', 'book', tables => '{stock}', category => 'stock', max_attempts => 2),
	       es_create_projection('mail', 'write_mail', tables => '{mail}', category => 'order', max_attempts => 2, on_failure => 'park'),
	       es_create_projection('articles', query => 'DELETE FROM stock WHERE amount = 0 AND article IN (SELECT data->>''article'' FROM new_events)', category => 'stock')});
is($err, '', 'the shop is made');
wait_until('the pool', sub { $node->psql('postgres', 'SELECT 1', connstr => "host=$folder port=6432 dbname=shop user=app") == 0 });

sub deliver
{
	my ($article, $amount) = @_;

	return app("SELECT position FROM es_append('stock-$article', 'any', 'delivered', jsonb_build_object('article', '$article', 'amount', '$amount'))");
}

sub order
{
	my ($number, $receiver) = @_;

	return app("SELECT position FROM es_append('order-$number', 'any', 'placed', jsonb_build_object('receiver', $receiver))");
}

# What the program of the shop says first in each transaction.
my $before = 'SELECT';

sub pay
{
	my ($id, $amount) = @_;

	return app(qq{BEGIN; $before; SELECT es_receive('payments', 'web', '{"id": "$id", "amount": $amount}', 'on_payment', max_retries => 0, message_id => '$id'); COMMIT});
}

deliver('pen', 10);
order(1, q{'ann'});
is(pay('p1', 5), 'acknowledged', 'a payment');
becomes_true($node, 'SELECT bool_and(lag_events = 0) FROM es_projection_status', 'all goes well');
is((as('oncall', 'SELECT * FROM es_health'))[0], '', 'and nothing needs a human');

#
# Everything goes wrong
#

deliver('pen', 'ten');                 # the poison of the one that stops
deliver('pen', 20);
order(2, 'NULL');                      # the poison of the one that parks
order(2, q{'bob'});
order(3, q{'cid'});
is(pay('p2', -1), 'failed', 'a payment that is no payment');
$node->safe_psql('postgres', 'REVOKE INSERT ON shop.payment FROM app; REVOKE INSERT ON shop.stock FROM shop');
is(pay('p3', 7), 'failed', 'a payment while a privilege is missing');
deliver('ink', 3);
ok($node->poll_query_until('postgres', q{SELECT sum(parked) > 0 AND bool_or(state = 'failed') FROM es_projection_status}),
	'projections have stopped and parked');

my $left_open = $node->background_psql('postgres', extra_params => [ '-d', "host=$folder port=6432 dbname=shop user=app" ]);

$left_open->query_safe(q{BEGIN; SELECT es_append('order-4', 'any', 'placed', '{"receiver": "left"}')});
as('app', q{BEGIN; SELECT es_append('order-5', 'any', 'placed', '{"receiver": "prepared"}'); PREPARE TRANSACTION 'forgotten'});
$node->safe_psql('postgres', q{ALTER SCHEMA shop RENAME TO "The Shop"; ALTER DATABASE postgres SET search_path = "The Shop", es, public});
order(6, q{'dan'});
deliver('cup', 1);
sleep 1.2;                             # eventstore.health_delay

#
# Who is on call
#

my @typed;
my @seen;

foreach my $step (1 .. 100)
{
	my ($first, $error) = as('oncall', q{SELECT problem, coalesce(remedy_by, 'oncall'), remedy FROM es.es_health LIMIT 1});
	my ($problem, $role, $remedy) = split /\|/, $first, 3;

	is($error, '', 'es_health answers') if $error ne '';
	if (!defined $remedy)
	{
		# It must stay so: what waits tries again within 100 ms.
		last if $step > 1 && $seen[-1] eq 'nothing';
		push @seen, 'nothing';
		sleep 0.5;
		next;
	}
	push @seen, $problem;
	push @typed, "$problem: $role: $remedy";
	($out, $error) = as($role, $remedy);
	unlike($error, qr/ERROR/, "$problem, mended by $role: " . substr($remedy, 0, 60));
	sleep 0.1;
}
is($seen[-1], 'nothing', 'nothing needs a human any more') or diag(join "\n", @typed);
foreach my $problem (qw(horizon_held transaction_prepared code_missing right_missing projection_failed event_parked message_failed))
{
	is(scalar(grep { $_ eq $problem } @seen) > 0, 1, "$problem was among it");
}

#
# All is as it should be
#

becomes_true($node, q{SELECT bool_and(state = 'running' AND lag_events = 0 AND parked = 0 AND horizon_held_since IS NULL) FROM es_projection_status},
	'all projections run, and are at the end');
is_query($node, q{SELECT string_agg(article || ' ' || amount, ', ' ORDER BY article) FROM stock},
	'cup 1, ink 3, pen 30', 'every delivery is booked but the one that was skipped');
is_query($node, q{SELECT s.projection, e.type, e.data->>'amount' FROM es_skipped_events s JOIN es_events e USING (position)},
	'stock|delivered|ten', 'which is noted');
is_query($node, q{SELECT string_agg(receiver, ', ' ORDER BY position) FROM mail}, 'ann, bob, cid, dan', 'every mail is written but the one that was discarded');
is_query($node, q{SELECT string_agg(id || ' ' || amount, ', ' ORDER BY id) FROM payment}, 'p1 5, p3 7', 'every payment is booked but the one that is none');
is_query($node, q{SELECT string_agg(stream, ', ' ORDER BY stream) FROM es_events WHERE type = 'paid'}, 'payment-p1, payment-p3', 'and is an event');
is_query($node, q{SELECT count(*) FROM es_events WHERE stream IN ('order-4', 'order-5')}, '0', 'what was left open is gone');

# The pool goes on. From 18 on it keeps the search_path that its sessions began with.
order(7, q{'eve'});
$before = 'SET LOCAL search_path = "The Shop", es, public';
is(pay('p4', 1), 'acknowledged', 'the programs of the shop go on');
becomes_true($node, q{SELECT string_agg(receiver, ', ' ORDER BY position) = 'ann, bob, cid, dan, eve' FROM mail}, 'and so do the projections');
$left_open->{run}->kill_kill;
$bouncer->kill_kill;
undef $bouncer;
$node->stop;
done_testing();
