# A transaction in which es_poll delivered, and that wrote nothing else, does not
# wait for the disk; every other does.
#
# The server's only synchronous standby does not exist: a transaction that waits at its
# commit does so until it is cancelled.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreProjections;
use EventStoreSubscriptions;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store(
	'commit',
	extension => 0,
	conf      => q{
synchronous_standby_names = 'nobody'
wal_level = replica
max_wal_senders = 2
});

# What does not ask.
sub local_sql
{
	return $node->safe_psql('postgres', "SET synchronous_commit = local;\n$_[0]");
}

sub outcome
{
	return commit_outcome($node, $_[0]);
}

# The subscription as it is at first: 20 events of its category are to be delivered.
sub begin
{
	local_sql(q{
		SELECT es_drop_subscription(name) FROM es_subscriptions;
		SELECT es_create_subscription('mails', 'account', lease => '1 hour');
		TRUNCATE elsewhere});
	return;
}

local_sql(q{
	CREATE EXTENSION eventstore;
	CREATE TABLE elsewhere (n int);
	SELECT es_append('account-' || i % 4, 'any', 'x') FROM generate_series(1, 20) AS i});

my $poll = q{SELECT count(*) FROM es_poll('mails', 'ann', 5)};
my $token = q{SELECT max(token) AS token FROM es_poll('mails', 'ann', 5) \gset};

is(outcome(q{INSERT INTO elsewhere VALUES (1)}), 'waits', 'others wait here');
is(outcome('SELECT 1'), '1', 'a transaction that writes nothing does not wait');

# [what it is, script, what becomes of it]
foreach my $case (
	[ 'a delivery', "$poll;", 5 ],
	[ 'a delivery after a wait', q{SELECT count(*) FROM es_poll('mails', 'ann', 5, '10s');}, 5 ],
	[ 'in BEGIN and COMMIT', "BEGIN; $poll; COMMIT;", 5 ],
	[ 'to one without a name', q{SELECT count(*) FROM es_poll('mails', max_count => 7);}, 7 ],
	[ 'in a function', "DO \$\$ BEGIN PERFORM es_poll('mails', 'ann', 5); END \$\$;", '' ],
	[ 'two deliveries, of which the first expires', "BEGIN; $poll; SELECT count(*) FROM es_poll('mails', 'ann', 5); COMMIT;", "5\n2" ],
	[ 'polling ahead', "BEGIN; $token
		SELECT count(*) FROM es_poll('mails', 'ann', 5, after_token => :token); COMMIT;", 5 ],
	[ 'polling ahead in another transaction', "$token
		SELECT count(*) FROM es_poll('mails', 'ann', 5, after_token => :token);", 5 ],
	[ 'many in one session', "$poll;\n" x 3, "5\n2\n1" ],
	[ 'a row lock before it', "BEGIN; SELECT FROM es_subscriptions FOR UPDATE; $poll; COMMIT;", 'waits' ],
	[ 'an INSERT before it', "BEGIN; INSERT INTO elsewhere VALUES (1); $poll; COMMIT;", 'waits' ],
	[ 'an INSERT after it', "BEGIN; $poll; INSERT INTO elsewhere VALUES (1); COMMIT;", 'waits' ],
	[ 'an INSERT between two', "BEGIN; $poll; INSERT INTO elsewhere VALUES (1); $poll; COMMIT;", 'waits' ],
	[ 'an INSERT of what it delivers', q{INSERT INTO elsewhere SELECT version FROM es_poll('mails', 'ann', 5);}, 'waits' ],
	[ 'an append before it', "BEGIN; SELECT es_append('other-1', 'any', 'x'); $poll; COMMIT;", 'waits' ],
	[ 'an append after it', "BEGIN; $poll; SELECT es_append('other-1', 'any', 'x'); COMMIT;", 'waits' ],
	[ 'an ack', "$token\nSELECT es_ack('mails', :token);", 'waits' ],
	[ 'an ack in the same transaction', "BEGIN; $token\nSELECT es_ack('mails', :token); COMMIT;", 'waits' ],
	[ 'an ack in the same transaction, and a poll after it',
		"BEGIN; $token\nSELECT es_ack('mails', :token); $poll; COMMIT;", 'waits' ],
	[ 'an ack of some of it', "$token\nSELECT es_ack('mails', :token, (SELECT min(position) FROM es_events));", 'waits' ],
	[ 'a nack', "$token\nSELECT es_nack('mails', :token, (SELECT min(position) FROM es_events), 'no', 'skip');", 'waits' ],
	[ 'a message in the write-ahead log after it',
		"BEGIN; $poll; SELECT pg_logical_emit_message(true, 'test', 'x'); COMMIT;", 'waits' ],
	[ 'a sequence after it', "BEGIN; $poll; SELECT setval('es_position', nextval('es_position')); COMMIT;", 'waits' ],
	[ 'an INSERT in a subtransaction before it',
		"BEGIN; SAVEPOINT a; INSERT INTO elsewhere VALUES (1); RELEASE a; $poll; COMMIT;", 'waits' ],
	[ 'an INSERT in a subtransaction after it',
		"BEGIN; $poll; SAVEPOINT a; INSERT INTO elsewhere VALUES (1); RELEASE a; COMMIT;", 'waits' ],
	[ 'in a subtransaction after an INSERT',
		"BEGIN; INSERT INTO elsewhere VALUES (1); SAVEPOINT a; $poll; RELEASE a; COMMIT;", 'waits' ],
	[ 'in a subtransaction before an INSERT',
		"BEGIN; SAVEPOINT a; $poll; RELEASE a; INSERT INTO elsewhere VALUES (1); COMMIT;", 'waits' ],
	[ 'in a subtransaction that is rolled back, after an INSERT',
		"BEGIN; INSERT INTO elsewhere VALUES (1); SAVEPOINT a; $poll; ROLLBACK TO a; COMMIT;", 'waits' ],
	[ 'in a subtransaction that is rolled back, before an INSERT',
		"BEGIN; SAVEPOINT a; $poll; ROLLBACK TO a; INSERT INTO elsewhere VALUES (1); COMMIT;", 'waits' ],
	[ 'a table that is made', "BEGIN; $poll; CREATE TABLE made (); DROP TABLE made; COMMIT;", 'waits' ],
	[ 'a table that is made before it', "BEGIN; CREATE TEMPORARY TABLE made ON COMMIT DROP AS SELECT 1; $poll; COMMIT;", 'waits' ])
{
	my ($name, $script, $expected) = @$case;
	my $said;

	begin();
	$said = outcome($script);
	$said =~ s/^\(.*\)\n//mg if $said ne 'waits';
	is($said, $expected, $name);
}

# A token that the next delivery would get again, if a crash took this one back
begin();
local_sql(q{UPDATE es_partitions SET token = (extract(epoch FROM now() - '2000-01-01') + 3600)::bigint * 1000000 * 1024});
is(outcome("$poll;"), 'waits', 'a delivery while the clock is behind the last token');

# A checkpoint that is moved
begin();
local_sql(q{SELECT es_drop_subscription('mails');
	SELECT es_create_subscription('mails', 'nothing')});
is(outcome("$poll;"), 'waits', 'a poll that moves a checkpoint');
is(local_sql(q{SELECT p.position = max(e.position) FROM es_partitions AS p, es_events AS e GROUP BY p.position}),
	't', 'and has moved it');
is(outcome("$poll;"), '0', 'one that has nothing to move');
local_sql(q{SELECT es_append('other-1', 'any', 'x')});
is(outcome(q{SELECT count(*) FROM es_poll('mails', wait => '200ms')}), 'waits', 'one that has waited, and moves it then');
local_sql(q{SELECT es_append('other-1', 'any', 'x')});
is(outcome("BEGIN; $poll; COMMIT;"), 'waits', 'in BEGIN and COMMIT');

# A parked stream
begin();
local_sql("$token\nSELECT es_nack('mails', :token, (SELECT min(position) FROM es_events), 'no', 'park');
	SELECT es_retry(min(id)) FROM es_failures WHERE message IS NOT NULL");
is(outcome("$token\nSELECT es_ack('mails', :token)"), 'waits', 'the rest of what was delivered before is acknowledged');
is(outcome("$poll;"), 1, 'a delivery from es_failures');

# An event whose lease expired too often is parked: is the checkpoint after it durable?
begin();
local_sql(q{UPDATE es_subscriptions SET max_attempts = 1; SELECT count(*) FROM es_poll('mails', 'ann', 1)});
is(outcome("$poll;"), 'waits', 'a delivery that parks what has expired, and moves the checkpoint');
is(local_sql('SELECT count(*) FROM es_failures'), '1', 'and has parked it');

# Rolled back; nothing is left of it for the next transaction.
begin();
is(outcome("BEGIN; $poll; ROLLBACK; INSERT INTO elsewhere VALUES (1);"), 'waits', 'after a poll that is rolled back');
begin();
is(outcome("BEGIN; $poll; COMMIT; INSERT INTO elsewhere VALUES (1);"), 'waits', 'after a poll that is committed');
begin();
is(outcome("\\set ON_ERROR_STOP 0\nBEGIN; $poll; SELECT 1/0; COMMIT; INSERT INTO elsewhere VALUES (1);"), 'waits', 'after an error');
begin();
is(outcome("BEGIN; SAVEPOINT a; $poll; ROLLBACK TO a; ROLLBACK; SELECT count(*) FROM es_poll('mails', 'ann', 4);"),
	"5\n4", 'after one in a savepoint that is rolled back, a delivery');
begin();
is(outcome("BEGIN; SAVEPOINT a; $poll; ROLLBACK TO a; COMMIT; INSERT INTO elsewhere VALUES (1);"), 'waits',
	'after one in a savepoint that is rolled back, an INSERT');

# Prepared: that is written to disk.
begin();
is(outcome("BEGIN; $poll; PREPARE TRANSACTION 'p';"), 'waits', 'PREPARE TRANSACTION after a poll');
is(outcome("COMMIT PREPARED 'p';"), 'waits', 'and COMMIT PREPARED');
is(local_sql(q{SELECT consumer FROM es_partitions}), 'ann', 'which has delivered');
begin();
is(outcome("BEGIN; $poll; PREPARE TRANSACTION 'p'; INSERT INTO elsewhere VALUES (1);"), 'waits', 'what comes after PREPARE TRANSACTION');
local_sql("ROLLBACK PREPARED 'p'");

# The session's own setting
foreach my $setting (qw(on off local remote_write remote_apply))
{
	begin();
	is(outcome("SET synchronous_commit = $setting; $poll; SHOW synchronous_commit;
		BEGIN; SELECT count(*) FROM es_poll('mails', 'ann', 1); SHOW synchronous_commit; COMMIT; SHOW synchronous_commit;
		BEGIN; SELECT count(*) FROM es_poll('mails', 'ann', 1); ROLLBACK; SHOW synchronous_commit;"),
		"5\n$setting\n1\n$setting\n$setting\n1\n$setting", "synchronous_commit = $setting stays");
}
begin();
is(outcome("BEGIN; SET LOCAL synchronous_commit = local; $poll; COMMIT; SHOW synchronous_commit;"), "5\non",
	'SET LOCAL ends with the transaction');
begin();
is(outcome("BEGIN; $poll; SET synchronous_commit = remote_write; COMMIT; SHOW synchronous_commit;"), "5\nremote_write",
	'SET in the transaction of a delivery');
begin();
is(outcome("BEGIN; SET synchronous_commit = remote_write; $poll; ROLLBACK; SHOW synchronous_commit;"), "5\non",
	'SET that is rolled back');
is($node->safe_psql('postgres', "SELECT setting, source, reset_val FROM pg_settings WHERE name = 'synchronous_commit'"),
	'on|default|on', 'and in another session');

$node->stop;
done_testing();
