# Entries of tags while everything goes on: appends, conditional appends, imports and rows of
# the owner in several sessions, rollbacks, and es_reindex_tags beside them, with entries that
# somebody removes and adds.  Whoever looks finds that entries and events agree, but for what
# was done to them by hand; at the end they agree.  Conditions without tags beside each other
# end without a deadlock.
use strict;
use warnings;

use lib 't';
use PostgreSQL::Test::Utils;
use Test::More;

use EventStoreTest;

my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store('entries', fsync => 'off', conf => 'deadlock_timeout = 100ms');
my $seconds = few_or_many(6, 30);

use_seed();
$node->safe_psql('postgres', q{
	CREATE VIEW of_events AS SELECT t.tag, e.position, e.type FROM es_events AS e, unnest(e.tags) AS t (tag);
	-- entries of these are removed and added by hand
	CREATE VIEW differences AS
		SELECT d.* FROM ((TABLE of_events EXCEPT TABLE es_tags) UNION ALL (TABLE es_tags EXCEPT TABLE of_events)) AS d
		 WHERE d.tag <> 'hand';
	CREATE TABLE seen (differences bigint, damage bigint, added bigint, removed bigint);
	CREATE FUNCTION some_tags() RETURNS text[] LANGUAGE sql VOLATILE AS
	$$ SELECT array_agg('t:' || floor(random() * 50)::int) || CASE WHEN random() < 0.3 THEN '{hand}'::text[] ELSE '{}' END
	     FROM generate_series(1, 1 + floor(random() * 4)::int) $$});

# Runs a script of pgbench in so many clients.
sub start_clients
{
	my ($name, $clients, $script) = @_;

	append_to_file("$folder/$name", $script);
	return [ $name,
		IPC::Run::start(
			[ 'pgbench', '-n', '-c', $clients, '-T', $seconds, '-f', "$folder/$name", '--max-tries=1000', $node->connstr('postgres') ],
			'<', '/dev/null', '>', "$folder/$name.out", '2>', "$folder/$name.err",
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default)) ];
}

sub end_clients
{
	foreach my $clients (@_)
	{
		my ($name, $run) = @$clients;
		my $ok = finish_psql($run);

		ok($ok, "$name: no client has failed") or diag(slurp_file("$folder/$name.err"));
		my ($transactions) = slurp_file("$folder/$name.out") =~ /number of transactions actually processed: (\d+)/;
		cmp_ok($transactions // 0, '>', 0, "$name: they have done something");
	}
	return;
}

#
# All kinds of writers, and repairs
#

end_clients(
	start_clients('appends', 2, q{
		\set stream random(1, 20)
		BEGIN;
		SELECT es_append('a-' || :stream, 'any', 'appended', tags => some_tags());
		\set end random(1, 4)
		\if :end = 1
		ROLLBACK;
		\else
		COMMIT;
		\endif
	}),
	start_clients('conditions', 1, q{
		SELECT es_append_if(jsonb_build_array(jsonb_build_object('type', 'conditional', 'tags', some_tags())), '[{"tags": ["nobody"]}]');
	}),
	start_clients('imports', 1, q{
		\set rows random(1, 200)
		INSERT INTO es_import (stream, type, tags) SELECT 'i-' || n % 7, 'imported', some_tags() FROM generate_series(1, :rows) AS n;
	}),
	start_clients('owner', 1, q{
		INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data, tags)
		SELECT nextval('es_position'), 1, '3', now(), id, 'o-' || id, 'inserted', '{}', (SELECT array_agg(DISTINCT t ORDER BY t) FROM unnest(some_tags()) AS t)
		  FROM gen_random_uuid() AS id;
	}),
	start_clients('damage', 1, q{
		DELETE FROM es_tags WHERE tag = 'hand' AND position IN (SELECT position FROM es_tags WHERE tag = 'hand' ORDER BY random() LIMIT 1);
		INSERT INTO es_tags SELECT 'hand', floor(random() * 1000000)::bigint + 1000000000, 'no event'
			ON CONFLICT DO NOTHING;
	}),
	start_clients('repairs', 1, q{
		INSERT INTO seen (added, removed) SELECT added, removed FROM es_reindex_tags();
	}),
	start_clients('readers', 1, q{
		INSERT INTO seen (differences) SELECT count(*) FROM differences;
	}));
is_query($node, 'SELECT sum(differences), count(differences) > 0 FROM seen', '0|t', 'whoever looked found that entries and events agree');
is_query($node, 'SELECT sum(added) > 0, sum(removed) > 0 FROM seen', 't|t', 'damage was repaired meanwhile');
is_query($node, 'SELECT count(*) FROM es_reindex_tags()', '1', 'a last repair');
is_query($node, 'SELECT count(*) FROM ((TABLE of_events EXCEPT TABLE es_tags) UNION ALL (TABLE es_tags EXCEPT TABLE of_events)) AS d', '0',
	'after it entries and events agree');
is_query($node, q{SELECT string_agg(DISTINCT type, ' ' ORDER BY type) FROM es_tags}, 'appended conditional imported inserted', 'there are entries of all kinds of writers');
holds_versions_dense($node, 'versions');

#
# Conditions without tags, which wait for who may own a lower position: one at a time
#

my $before = -s $node->logfile;
my $script = q{
	\set me random(1, 1000000000)
	SELECT es_append_if(jsonb_build_array(jsonb_build_object('type', 'numbered', 'stream', 'n-' || :me)), '[{"types": ["forbidden"]}]');
};
end_clients(start_clients('untagged', 8, $script), start_clients('plain', 2, q{
	SELECT es_append('p-' || :client_id, 'any', 'plain');
}));
unlike(slurp_file($node->logfile, $before), qr/deadlock detected/, 'no deadlock');

done_testing();
