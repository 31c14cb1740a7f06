# Writers of every kind, all at once: what an append's transaction can do between
# its append and its end, and transactions that only look as if they appended.
#
# They are scripts of pgbench: quick transactions, slow ones, and a burst of such
# as do not pause at all.  With the slow ones come a process that ends prepared
# transactions, and one that imports into so many streams that it must lock the
# whole log.  Others remove what these have appended; then there is no such import, as it
# and a removal that waits for it can be a deadlock.
package EventStoreWriters;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep);

use EventStoreTest;

our @EXPORT = qw(create_writers write_events);

my $setup = <<'END';
CREATE TABLE elsewhere (n int);
CREATE SEQUENCE conflicts;

CREATE FUNCTION append_exact(stream text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM es_append(stream, es_stream_version(stream), 'exact');
			RETURN;
		EXCEPTION WHEN SQLSTATE 'ES001' THEN
			PERFORM nextval('conflicts');
		END;
	END LOOP;
END $$;

-- Every third is rolled back.
CREATE FUNCTION append_in_subtransactions(stream text, count int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. count LOOP
		BEGIN
			PERFORM es_append(stream, 'any', 'subtransaction');
			IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
END $$;

-- What is refused now and then: a stream that was removed, or archived, by another one.
CREATE FUNCTION attempt(statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
EXCEPTION
	WHEN deadlock_detected OR serialization_failure THEN RAISE;
	WHEN OTHERS THEN
		IF SQLSTATE NOT LIKE 'ES%' AND SQLSTATE NOT IN ('55000', '0A000', '22023', '42704') THEN RAISE; END IF;
END $$;

CREATE FUNCTION append(stream text) RETURNS void LANGUAGE sql
BEGIN ATOMIC
	SELECT es_append(stream, 'any', 'plain', jsonb_build_object('at', clock_timestamp()));
END;
END

# Each begins with a stream :s, a short pause :short and a long one :long, in
# microseconds, and a number :n.
my $variables = <<'END';
\set s random(1, 100)
\set short random(0, 5000)
\set long random(100000, 700000)
\set n random(1, 1000000000)
END

# [weight, script]
my %quick = (
	single => [ 30, "SELECT append('stress-:s');" ],
	exact  => [ 15, "SELECT append_exact('stress-:s');" ],
	batch  => [ 10, <<'END' ],
SELECT es_append_batch('stress-:s', 'any', array_fill('batch'::text, ARRAY[1 + :s % 10]),
	array_fill('{}'::jsonb, ARRAY[1 + :s % 10]));
END
	pause => [ 20, <<'END' ],
BEGIN;
SELECT append('stress-:s');
\sleep :short us
COMMIT;
END
	several => [ 10, <<'END' ],
\set t random(1, 100)
BEGIN;
SELECT append('stress-:s');
\sleep :short us
SELECT append('other-:t');
\sleep :short us
SELECT append('other-:t');
COMMIT;
END
	any_order => [ 5, <<'END' ],
\set s random(1, 10)
\set t random(1, 10)
BEGIN;
SELECT append('stress-:s');
\sleep :short us
SELECT append('stress-:t');
COMMIT;
END
	rollback => [ 15, <<'END' ],
BEGIN;
SELECT append('stress-:s');
\sleep :short us
ROLLBACK;
END
	savepoint => [ 8, <<'END' ],
BEGIN;
SELECT append('stress-:s');
SAVEPOINT a;
SELECT append('savepoint-:client_id');
\sleep :short us
ROLLBACK TO a;
\sleep :short us
COMMIT;
END
	only_rolled_back => [ 4, <<'END' ],
BEGIN;
SAVEPOINT a;
SELECT append('stress-:s');
ROLLBACK TO a;
\sleep :short us
COMMIT;
END
	nested => [ 8, <<'END' ],
BEGIN;
SAVEPOINT a;
SELECT append('stress-:s');
SAVEPOINT b;
SELECT append('nested-:client_id');
SAVEPOINT c;
SELECT append('nested-:client_id');
ROLLBACK TO b;
\sleep :short us
SELECT append('nested-:client_id');
RELEASE a;
\sleep :short us
COMMIT;
END
	import => [ 2, <<'END' ]);
INSERT INTO es_import (stream, type)
	SELECT 'import-' || :client_id || '-' || i % 10, 'imported' FROM generate_series(1, 30) AS i;
END

my %burst = (
	map({ $_ => $quick{$_} } qw(single exact batch import)),
	# the transaction id is older than the position
	two => [ 20, <<'END' ]);
BEGIN;
SELECT append('stress-:s');
SELECT append('other-:client_id');
COMMIT;
END

# These keep streams of their own, so that the quick ones do not wait for them.
my %slow = (
	idle_after_append => [ 4, <<'END' ],
BEGIN;
SELECT append('idle-:client_id');
\sleep :long us
COMMIT;
END
	idle_then_rollback => [ 2, <<'END' ],
BEGIN;
SELECT append('idle-:client_id');
\sleep :long us
ROLLBACK;
END
	idle_without_append => [ 4, <<'END' ],
BEGIN;
INSERT INTO elsewhere VALUES (:n);
\sleep :long us
COMMIT;
END
	old_id => [ 4, <<'END' ],
BEGIN;
INSERT INTO elsewhere VALUES (:n);
\sleep :long us
SELECT append('old-:client_id');
\sleep :short us
COMMIT;
END
	old_snapshot => [ 2, <<'END' ],
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM elsewhere;
\sleep :long us
SELECT append('old-:client_id');
\sleep :short us
COMMIT;
END
	import => [ 2, <<'END' ],
BEGIN;
INSERT INTO es_import (stream, type)
	SELECT 'slow-' || :client_id || '-' || i % 50, 'imported' FROM generate_series(1, 300) AS i;
\sleep :long us
COMMIT;
END
	subtransactions => [ 3, <<'END' ],
BEGIN;
SELECT append_in_subtransactions('subtransactions-:client_id', 100);
\sleep :long us
COMMIT;
END
	prepared => [ 6, <<'END' ]);
BEGIN;
SELECT append('prepared-:client_id-:n');
\sleep :short us
SELECT append('prepared-:n-:client_id');
PREPARE TRANSACTION 'p-:client_id-:n';
\sleep :long us
END

# They remove streams of the quick ones, and some of their own.
my %remove = (
	delete   => [ 10, "SELECT es_delete_stream('stress-:s', 'any');" ],
	truncate => [ 10, "SELECT es_truncate_stream('stress-:s', 1000000000);" ],
	some     => [ 10, "SELECT es_truncate_stream('stress-:s', greatest(es_stream_version('stress-:s') - 2, 1));" ],
	tagged   => [ 5, <<'END' ],
SELECT es_append('tagged-:s', 'any', 'plain', tags => ARRAY['s:' || :s, 'c:' || :client_id]);
SELECT es_delete_stream('tagged-:s', 'any');
END
	pause => [ 5, <<'END' ],
BEGIN;
SELECT es_delete_stream('stress-:s', 'any');
\sleep :short us
COMMIT;
END
	rollback => [ 5, <<'END' ],
BEGIN;
SELECT es_truncate_stream('stress-:s', 1000000000);
\sleep :short us
ROLLBACK;
END
	own => [ 5, <<'END' ],
BEGIN;
SELECT append('stress-:s');
SELECT es_delete_stream('stress-:s', 'any');
\sleep :short us
SELECT append('stress-:s');
SELECT es_truncate_stream('stress-:s', 1000000000);
COMMIT;
END
	repeatable => [ 5, <<'END' ],
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM elsewhere;
\sleep :short us
SELECT es_delete_stream('stress-:s', 'any');
COMMIT;
END
	idle => [ 1, <<'END' ],
SELECT append('removed-:client_id');
BEGIN;
SELECT es_delete_stream('removed-:client_id', 'any');
\sleep :long us
COMMIT;
END
	prepared => [ 2, <<'END' ]);
SELECT append('removed-:client_id-:n'), append('removed-:client_id-:n');
BEGIN;
SELECT es_delete_stream('removed-:client_id-:n', 'any');
PREPARE TRANSACTION 'r-:client_id-:n';
END

# They change and remove events of streams with tags and bodies, and archive some.
my %change = (
	tagged => [ 30, <<'END' ],
SELECT attempt(format($$SELECT es_append('tagged-%s', 'any', 'plain', '{"n": %s}', tags => ARRAY['s:%1$s', 'c:%s'], body => '\\x00ff')$$, :s % 20, :n, :client_id));
END
	rewrite => [ 15, <<'END' ],
SELECT attempt(format($$SELECT es_rewrite(id, '{"rewritten": %s}') FROM (SELECT id FROM es_load('tagged-%s') WHERE type = 'plain' LIMIT 1) AS e$$, :n, :s % 20));
END
	compact => [ 5, "SELECT attempt(format('SELECT es_compact_stream(%L, %L)', 'tagged-' || :s % 20, 'es_merge'));" ],
	shorten => [ 5, "SELECT attempt(format('SELECT es_truncate_stream(%L, greatest(es_stream_version(%1\$L) - 2, 1))', 'tagged-' || :s % 20));" ],
	archive => [ 5, <<'END' ],
BEGIN;
SELECT append('archived-:client_id-:n'), append('archived-:client_id-:n');
COMMIT;
SELECT attempt('SELECT es_archive_stream(''archived-:client_id-:n'')');
END
	delete => [ 5, "SELECT attempt('SELECT es_delete_stream(''stress-:s'', ''any'')');" ],
	retain => [ 2, "SELECT attempt('SELECT es_run_retention(''other'', force => true)');" ]);

# Ends prepared transactions some time after they were prepared, in another
# session than the one that appended.
my $end_prepared = <<'END';
SELECT format(CASE WHEN random() < 0.7 THEN 'COMMIT' ELSE 'ROLLBACK' END || ' PREPARED %L', gid)
  FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - random() * interval '400 ms' \gexec
SELECT pg_sleep(0.04);
END

my $wide_import = <<'END';
SELECT pg_sleep(2);
INSERT INTO es_import (stream, type)
	SELECT 'wide-' || i, 'imported' FROM generate_series(1, 1500) AS i;
END

sub create_writers
{
	my ($node) = @_;

	$node->safe_psql('postgres', $setup);
	return;
}

sub start_pgbench
{
	my ($node, $scripts, $folder, $clients, $seconds) = @_;
	my @files;

	foreach my $name (sort keys %$scripts)
	{
		my ($weight, $script) = @{ $scripts->{$name} };
		my $file = PostgreSQL::Test::Utils::tempdir() . "/$name.sql";

		append_to_file($file, "$variables$script\n");
		push @files, '-f', "$file\@$weight";
	}

	# A deadlock's victim tries again.
	return IPC::Run::start(
		[
			'pgbench', '-n', '-c', $clients, '-j', 1, '-T', $seconds,
			'--max-tries', 100, '--random-seed', int rand 2**31, @files, $node->connstr('postgres')
		],
		'<', '/dev/null', '>', "$folder.out", '2>', "$folder.err",
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
}

my %scripts = (quick => \%quick, burst => \%burst, slow => \%slow, remove => \%remove, change => \%change);

sub commit_prepared
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{SELECT format('COMMIT PREPARED %L', gid) FROM pg_prepared_xacts \gexec});
	return;
}

# Removals wait for prepared transactions, and others for them.
sub end_prepared_until_finished
{
	my ($node, $process) = @_;

	while ($process->pumpable)
	{
		commit_prepared($node);
		sleep(0.1);
	}
	return;
}

# Lets as many clients of each kind write for some seconds.  Returns when all have
# come to their end; dies if one did not.
sub write_events
{
	my ($node, $seconds, %clients) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir();
	my %process = map {
		$_ => start_pgbench($node, $scripts{$_}, "$folder/$_", $clients{$_}, $seconds)
	} keys %clients;

	if ($clients{slow})
	{
		append_to_file("$folder/end_prepared.sql", $end_prepared x ($seconds * 20));
		append_to_file("$folder/wide.sql", $wide_import x ($seconds / 4));
		$process{$_} = start_psql($node, "$folder/$_.sql", "$folder/$_")
		  foreach 'end_prepared', $clients{remove} || $clients{change} ? () : 'wide';
	}
	# A wide import waits for what was left prepared.
	foreach my $name ('end_prepared', (grep { !/^(end_prepared|wide)$/ } sort keys %process), 'wide')
	{
		commit_prepared($node) if $name eq 'wide';
		end_prepared_until_finished($node, $process{$name})
		  if ($clients{remove} || $clients{change}) && $name ne 'end_prepared' && $process{$name};
		next if !$process{$name} || finish_psql($process{$name});
		die "$name: " . slurp_file("$folder/$name.err");
	}
	return;
}

1;
