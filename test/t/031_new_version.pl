# A new version of a read model is made beside the old one and takes its place in one
# transaction, as doc/guide/projection_change.md says, while others append, wait, read, and workers run:
# by the names of tables, and by a view on the tables of a schema for each version.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreProjections;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('version', workers => 2, conf => "eventstore.poll_interval = '50ms'\n");
my $folder = PostgreSQL::Test::Utils::tempdir();

# What a reader has seen must not become less.
sql($node, 'CREATE TABLE reads (n bigserial, name text, total bigint)',
	q{CREATE FUNCTION look(name text) RETURNS void LANGUAGE plpgsql AS $$
		DECLARE
			found bigint;
		BEGIN
			EXECUTE format('SELECT coalesce(sum(total), 0) FROM %I', name) INTO found;
			INSERT INTO reads (name, total) VALUES (look.name, found);
		END $$});

# Appends, waits for the projection of the name, and finds the row by the name.
sub start_client
{
	my ($name) = @_;
	my $client = <<"END";
SELECT 'o-' || gen_random_uuid() AS s \\gset
SELECT "position" AS p FROM es_append(:'s', 'any', 'placed', '{"total": 1}') \\gset
SELECT CASE WHEN es_wait('$name', :p, '60 s') THEN 'there' END;
SELECT 'row' FROM $name WHERE stream = :'s';
END

	append_to_file("$folder/$name.sql", $client x 5000);
	return start_psql($node, "$folder/$name.sql", "$folder/$name", '-v', 'ON_ERROR_STOP=1');
}

sub lines { return split /\n/, slurp_file($_[0]) }
sub events { return sql($node, q{SELECT count(*) FROM es_events WHERE type = 'placed'}) }

# Runs the swap once the new version has caught up, in the midst of the load.
sub swaps
{
	my ($name, $new, @swap) = @_;
	my $reader = start_repeating($node, "look_$name", "SELECT look('$name');\n" x 50);
	my $client = start_client($name);

	$node->poll_query_until('postgres', "SELECT count(*) > 5 FROM reads WHERE name = '$name' AND total > 0")
	  or die 'nobody reads';
	sql($node, @{$new});
	$node->poll_query_until('postgres', "SELECT lag_events < 5 FROM es_projection_status WHERE name = '${name}_v2'")
	  or die 'the new version does not catch up';
	foreach my $swap (@swap)
	{
		# it lags when it takes the place of the other
		sql($node, "SELECT es_pause_projection('${name}_v2')");
		$node->poll_query_until('postgres', "SELECT lag_events > 3 FROM es_projection_status WHERE name = '${name}_v2'")
		  or die 'nobody appends';
		my $before = sql($node, "SELECT max(n) FROM reads WHERE name = '$name'");

		sql($node, 'BEGIN', "SELECT es_resume_projection('${name}_v2')", @{$swap}, 'COMMIT');
		$node->poll_query_until('postgres', "SELECT count(*) > 5 FROM reads WHERE name = '$name' AND n > $before")
		  or die 'nobody reads any more';
	}
	end_psql($reader, $client);
	unlike(slurp_file("$folder/$name.err"), qr/ERROR/, "$name: nobody who appends, waits and reads has an error");
	my @lines = lines("$folder/$name.out");
	pop @lines if @lines % 2;
	is(join(' ', sort keys %{ { map { $_ => 1 } @lines } }), 'row there', "$name: what was waited for is there");
	is_query($node,
		"SELECT count(*) FROM (SELECT total < lag(total) OVER (ORDER BY n) AS less FROM reads WHERE name = '$name') r WHERE less",
		'0', "$name: no reader sees less than before");
	becomes_true($node, "SELECT bool_and(lag_events = 0 AND state = 'running') FROM es_projection_status WHERE name ~ '^$name'",
		"$name: both versions go on");
	return;
}

#
# Queries: the tables change their names, and the queries are given anew
#
my $query = q{INSERT INTO %s SELECT stream, sum((data->>'total')::bigint) FROM new_events GROUP BY stream
	ON CONFLICT (stream) DO UPDATE SET total = %1$s.total + excluded.total};
my $new_query = q{INSERT INTO %s SELECT stream, sum((data->>'total')::bigint), count(*) FROM new_events GROUP BY stream
	ON CONFLICT (stream) DO UPDATE SET total = %1$s.total + excluded.total, events = %1$s.events + excluded.events};

sub given { return '$$' . sprintf($_[0], $_[1]) . '$$' }

sql($node, q{SELECT count(es_append('o-' || n, 'any', 'placed', '{"total": 1}')) FROM generate_series(1, 300) AS n},
	'CREATE TABLE orders (stream text PRIMARY KEY, total bigint)',
	q{SELECT es_create_projection('orders', category => 'o', tables => '{orders}', query => } . given($query, 'orders') . ')');
swaps('orders',
	[
		'CREATE TABLE orders_v2 (stream text PRIMARY KEY, total bigint, events bigint)',
		q{SELECT es_create_projection('orders_v2', category => 'o', tables => '{orders_v2}', query => }
		  . given($new_query, 'orders_v2') . ')'
	],
	[
		q{SELECT es_rename_projection('orders', 'orders_v1')},
		q{SELECT es_rename_projection('orders_v2', 'orders')},
		q{SELECT es_run_projections('orders')},
		'ALTER TABLE orders RENAME TO orders_v1',
		'ALTER TABLE orders_v2 RENAME TO orders',
		q{SELECT es_alter_projection('orders_v1', query => } . given($query, 'orders_v1') . ')',
		q{SELECT es_alter_projection('orders', query => } . given($new_query, 'orders') . ')'
	]);
is_query($node, 'SELECT (SELECT sum(total) FROM orders_v1), (SELECT sum(events) FROM orders)',
	events() . '|' . events(), 'both versions have all events');
is(sql($node, q{SELECT es_drop_projection('orders_v1')}, 'DROP TABLE orders_v1',
	q{SELECT es_rebuild_projection('orders')}) =~ s/\s//gr, events(), 'the old one is dropped, the new one rebuilt');

#
# Handlers in a schema for each version: the view of readers changes, and nothing else
#
foreach my $version (qw(v1 v2))
{
	sql($node, "CREATE SCHEMA $version", "SET search_path = $version, public",
		"CREATE TABLE bills (stream text PRIMARY KEY, total bigint)",
		qq{CREATE FUNCTION $version.note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN
			INSERT INTO bills VALUES (event.stream, (event.data->>'total')::bigint)
				ON CONFLICT (stream) DO UPDATE SET total = bills.total + excluded.total;
		END \$\$});
}
sql($node, 'SET search_path = v1, public', q{SELECT es_create_projection('bills', 'v1.note', category => 'o', tables => '{v1.bills}')},
	'CREATE VIEW public.bills AS SELECT * FROM v1.bills');
swaps('bills',
	[
		'SET search_path = v2, public',
		q{SELECT es_create_projection('bills_v2', 'v2.note', category => 'o', tables => '{v2.bills}')}
	],
	map {
		[
			q{SELECT es_rename_projection('bills', 'bills_old')},
			q{SELECT es_rename_projection('bills_v2', 'bills')},
			q{SELECT es_rename_projection('bills_old', 'bills_v2')},
			q{SELECT es_run_projections('bills')},
			"CREATE OR REPLACE VIEW bills AS SELECT * FROM $_.bills"
		]
	} qw(v2 v1 v2));
is_query($node, 'SELECT (SELECT sum(total) FROM v1.bills), (SELECT sum(total) FROM v2.bills), (SELECT sum(total) FROM bills)',
	join('|', (events()) x 3), 'both versions have all events');
is_query($node, q{SELECT handler FROM es_projections WHERE name = 'bills'}, 'v2.note', 'the new one has the name');

$node->stop;
done_testing();
