# Read models that can be compared with the log, clients that append to it, and
# clients that run projections.
#
# Each read model has, for a stream, how many events it has handled, their sum,
# the first and the last position, and how often one came that was not after the
# one before.  What it must be is a query over es_events: its fold.  Both are
# compared in one statement, under one snapshot, so that it may be done at any
# time.
package EventStoreProjections;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use EventStoreTest;

our @EXPORT = qw(
  create_read_models create_projections projections definition_of
  differences equals_fold positions positions_rise catch_up
  start_appenders start_repeating start_runner start_poller end_psql);

my $patience = $PostgreSQL::Test::Utils::timeout_default;

# A read model's columns, and what of the log it has.
my $columns = 'stream, n, total, first, last, disorder';
my %read_model = (
	by_handler => {
		arguments => "handler => 'by_handler(es_recorded_event)'"
	},
	by_query => {
		arguments => q{query => 'INSERT INTO by_query AS m
			SELECT stream, count(*), sum((data->>''n'')::int), min(position), max(position), 0
			  FROM new_events GROUP BY stream
			ON CONFLICT (stream) DO UPDATE SET n = m.n + excluded.n, total = m.total + excluded.total,
				last = excluded.last, disorder = m.disorder + (m.last >= excluded.first)::int'}
	},
	by_type => {
		arguments => q{handler_schema => 'by_type'},
		filter    => q{type IN ('paid', 'refunded')}
	},
	by_category => {
		arguments => q{handler => 'by_category(es_recorded_event)', category => 'account', types => '{paid,noted}'},
		filter    => q{es_category(stream) = 'account' AND type IN ('paid', 'noted')}
	},
	# one row for each event, in the order in which they came
	copied => {
		arguments => q{query => 'INSERT INTO copied (position, stream, version)
			SELECT position, stream, version FROM new_events ORDER BY position'},
		columns => 'stream, position, version, disorder',
		model   => q{SELECT stream, position, version,
			coalesce(position <= lag(position) OVER (ORDER BY at), false) AS disorder FROM copied},
		fold => 'stream, position, version, false'
	});

# A handler that counts; a table of the same name, with the same columns.
sub counting_function
{
	my ($function, $table) = @_;

	return qq{
CREATE FUNCTION $function(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO $table AS m VALUES (event.stream, 1, (event.data->>'n')::int, event.position, event.position, 0)
	ON CONFLICT (stream) DO UPDATE SET n = m.n + 1, total = m.total + excluded.total,
		last = excluded.last, disorder = m.disorder + (m.last >= excluded.first)::int;
END \$\$;
};
}

my $tables = join '', 'CREATE SCHEMA by_type;', map { qq{
CREATE TABLE $_ (stream text PRIMARY KEY, n bigint, total bigint, first bigint, last bigint, disorder bigint)
	WITH (fillfactor = 50);
} } qw(by_handler by_query by_type by_category);

sub projections
{
	my @names = sort keys %read_model;

	return @names;
}

sub create_read_models
{
	my ($node, $database) = @_;

	$node->safe_psql($database // 'postgres', join '', $tables,
		'CREATE TABLE copied (at bigint GENERATED ALWAYS AS IDENTITY, position bigint PRIMARY KEY, stream text, version bigint);',
		map { counting_function(@$_) }
		  [ 'by_handler', 'by_handler' ], [ 'by_category', 'by_category' ],
		[ 'by_type.on_paid', 'by_type' ], [ 'by_type.on_refunded', 'by_type' ]);
	return;
}

# What a projection is made of, as arguments.
sub definition_of
{
	my ($name) = @_;

	return $read_model{$name}{arguments};
}

# arguments: of all of them.
sub create_projections
{
	my ($node, $arguments, $database, @names) = @_;

	@names = projections() unless @names;
	$node->safe_psql($database // 'postgres', join '',
		map { "SELECT es_create_projection('$_', $read_model{$_}{arguments}, tables => '{$_}', $arguments);\n" } @names);
	return;
}

# The statement that counts what is not as the log says: up to the checkpoint,
# or all of it for one that is sync, without what is parked.
sub differences
{
	my ($name) = @_;
	my $model = $read_model{$name};
	my $listed = $model->{columns} // $columns;
	my $fold = $model->{fold}
	  // q{stream, count(*), sum((data->>'n')::int), min(position), max(position), 0::bigint};
	my $group = $model->{fold} ? '' : 'GROUP BY stream';
	my $filter = $model->{filter} // 'true';
	my $rows = $model->{model} // "SELECT $listed FROM $name";

	return qq{
		WITH upto AS (
			SELECT CASE WHEN mode = 'sync' AND state = 'running' THEN 9223372036854775807 ELSE position END AS upto
			  FROM es_projections WHERE name = '$name'),
		fold AS (
			SELECT $fold FROM es_events AS e, upto
			 WHERE position <= upto AND $filter
			   AND NOT EXISTS (SELECT FROM es_failures AS f WHERE f.projection = '$name' AND f.position = e.position)
			 $group),
		model AS ($rows)
		SELECT count(*) FROM ((TABLE model EXCEPT ALL TABLE fold) UNION ALL (TABLE fold EXCEPT ALL TABLE model)) AS d};
}

# The read models are the folds of the log up to their checkpoints.
sub equals_fold
{
	my ($node, $name, %params) = @_;
	my @names = @{ $params{projections} // [ projections() ] };
	my $wrong = '';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $projection (@names)
	{
		my $count = $node->safe_psql($params{database} // 'postgres', differences($projection));

		$wrong .= "$projection: $count rows differ\n" if $count ne '0';
	}
	return is($wrong, '', "$name: read models are the folds of the log");
}

# Checkpoints, by projection, that no crash can undo any more: a worker's commit is
# written to disk later, but not after one that waits for it.
sub positions
{
	my ($node) = @_;

	return map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{
		SELECT name, position FROM es_projections;
		DO $$ BEGIN PERFORM pg_logical_emit_message(true, 'test', ''); END $$;});
}

# No checkpoint is below the one that was seen before; %$before is moved on.
sub positions_rise
{
	my ($node, $before, $name) = @_;
	my %now = positions($node);
	my @fallen = grep { $now{$_} < ($before->{$_} // 0) } sort keys %now;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(', ', map { "$_ from $before->{$_} to $now{$_}" } @fallen), '',
		"$name: no checkpoint goes back");
	%$before = %now;
	return;
}

# Runs what is due until nothing is, from this process.
sub catch_up
{
	my ($node, $database) = @_;

	$node->safe_psql($database // 'postgres', 'CALL es_work(true)', timeout => $patience);
	return;
}

# Each is a transaction of an appender; [weight, script].
my $variables = <<'END';
\set s random(1, 20)
\set t random(1, 3)
\set u random(1, 20)
\set k random(1, 40)
\set n random(1, 1000)
\set pause random(0, 20000)
END

my %appender = (
	single => [ 4, <<'END' ],
SELECT es_append('account-' || :s, 'any', (ARRAY['paid', 'refunded', 'noted'])[:t], jsonb_build_object('n', :n));
END
	batch => [ 8, <<'END' ],
SELECT es_append_batch('order-' || :s, 'any', array_fill((ARRAY['paid', 'refunded', 'noted'])[:t], ARRAY[:k]),
	array_fill(jsonb_build_object('n', :n), ARRAY[:k]));
END
	account => [ 4, <<'END' ],
SELECT es_append_batch('account-' || :s, 'any', array_fill((ARRAY['paid', 'refunded', 'noted'])[:t], ARRAY[:k]),
	array_fill(jsonb_build_object('n', :n), ARRAY[:k]));
END
	import => [ 1, <<'END' ],
INSERT INTO es_import (stream, type, data)
	SELECT 'import-' || i % 10, (ARRAY['paid', 'refunded', 'noted'])[1 + i % 3], jsonb_build_object('n', i)
	  FROM generate_series(1, 60) AS i;
END
	# out of order: others commit in between
	late => [ 2, <<'END' ],
BEGIN;
SELECT es_append('account-' || :s, 'any', 'paid', jsonb_build_object('n', :n));
\sleep :pause us
SELECT es_append('late-' || :u, 'any', 'refunded', jsonb_build_object('n', :n));
COMMIT;
END
	rolled_back => [ 1, <<'END' ]);
BEGIN;
SELECT es_append('account-' || :s, 'any', 'paid', jsonb_build_object('n', :n));
\sleep :pause us
ROLLBACK;
END

# Appenders, who end after some seconds or when their connection does.
#   clients, seconds  how many, how long
#   rate              transactions a second, of about 15 events each
#   database          postgres if none
sub start_appenders
{
	my ($node, %params) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir();
	my @files;

	foreach my $name (sort keys %appender)
	{
		my ($weight, $script) = @{ $appender{$name} };

		append_to_file("$folder/$name.sql", "$variables$script\n");
		push @files, '-f', "$folder/$name.sql\@$weight";
	}
	local $ENV{PGAPPNAME} = 'appender';
	return IPC::Run::start(
		[
			'pgbench', '-n', '-c', $params{clients}, '-j', 1, '-T', $params{seconds},
			$params{rate} ? ('-R', $params{rate}) : (), '--max-tries', 100, '--random-seed', int rand 2**31,
			@files, $node->connstr($params{database} // 'postgres')
		],
		'<', '/dev/null', '>', "$folder/out", '2>', "$folder/err",
		IPC::Run::timeout($patience));
}

# A session that repeats a statement whatever becomes of it, until its connection
# ends.
sub start_repeating
{
	my ($node, $name, $sql, $database) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir();

	append_to_file("$folder/$name.sql", $sql x 2000);
	local $ENV{PGAPPNAME} = $name;
	return start_psql($node, "$folder/$name.sql", "$folder/$name", '-v', 'ON_ERROR_STOP=0',
		'-d', $node->connstr($database // 'postgres'));
}

# A client that runs projections, one batch a transaction.
sub start_runner
{
	my ($node, $database) = @_;

	return start_repeating($node, 'runner', "CALL es_work(false);\n", $database);
}

# A client that runs several batches in a transaction, and sometimes rolls back.
sub start_poller
{
	my ($node) = @_;

	return start_repeating($node, 'runner', <<'END');
SELECT es_run_projections(NULL, 4);
BEGIN; SELECT es_run_projections('by_query', 2); SELECT es_run_projections(NULL, 1); ROLLBACK;
BEGIN; SELECT es_run_projections('copied', 3); COMMIT;
SELECT pg_sleep(0.02);
END
}

# Ends sessions that were started so, if they have not ended by themselves.
sub end_psql
{
	my (@psql) = @_;

	foreach my $run (grep { defined } @psql)
	{
		$run->signal('TERM') if $run->pumpable;
		eval { $run->finish; 1 } or die $@;
	}
	return;
}

1;
