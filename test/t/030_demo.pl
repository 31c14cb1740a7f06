# The demo's converter against a repository with everything in it that git allows:
# the history goes in as events, and the log up to any commit is its tree.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use IPC::Run qw(run);
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'git is needed' unless eval { run([ 'git', '--version' ], '>', \my $out) };

my $demo = "$FindBin::RealBin/../demo";
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store('demo');

# As in test/demo/run.
my $import = <<'END';
CREATE TEMPORARY TABLE git_change (ordinal bigint, stream text, type text,
	data jsonb, metadata jsonb, seconds bigint) ON COMMIT DELETE ROWS;
PREPARE store AS
	INSERT INTO es_import (stream, type, data, metadata, id, occurred_at)
	SELECT stream, type, data, metadata,
	       es_digest(type, data, ARRAY['commit', 'path']), to_timestamp(seconds)
	  FROM git_change ORDER BY ordinal;
END
my $fold = <<'END';
COPY (SELECT data->>'mode', data->>'blob', data->>'path'
        FROM (SELECT DISTINCT ON (stream) type, data
                FROM es_read() WHERE position <= %d
               ORDER BY stream, version DESC) AS last
       WHERE type <> 'file_deleted') TO STDOUT
END

$ENV{PGCLIENTENCODING} = 'UTF8';

sub output_of
{
	my @command = @_;
	my ($out, $err);

	run([@command], '>', \$out, '2>', \$err) or die "@command: $err";
	return $out;
}

sub sorted
{
	return join '', map { "$_\n" } sort split /\n/, $_[0];
}

sub import_history
{
	my $file = "$folder/history.sql";

	unlink $file;
	append_to_file($file, $import);
	run([ "$demo/git-events", 'HEAD' ], '>>', $file, '2>', "$folder/progress")
	  or die slurp_file("$folder/progress");
	return finish_psql(start_psql($node, $file, "$folder/import"));
}

sub is_tree_of
{
	my ($commit, $position) = @_;
	my $folded = output_of('psql', '-XAtq', '-d', $node->connstr('postgres'),
		'-c', 'SET work_mem = \'64MB\'', '-c', sprintf($fold, $position));

	return sorted($folded) eq sorted(output_of("$demo/git-events", '--tree', $commit));
}

sub imports_repository
{
	my ($name, @options) = @_;
	my ($events, @commits, @wrong);

	output_of("$demo/make-repository", "$folder/$name", @options);
	local $ENV{GIT_DIR} = "$folder/$name/.git";
	$node->safe_psql('postgres', 'DROP EXTENSION IF EXISTS eventstore');
	$node->safe_psql('postgres', 'CREATE EXTENSION eventstore');

	ok(import_history(), "$name: its history goes in");
	$events = $node->safe_psql('postgres', 'SELECT count(*) FROM es_events');
	@commits = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres',
		q{SELECT data->>'commit', max(position) FROM es_events GROUP BY 1 ORDER BY 2});
	cmp_ok(scalar(@commits), '>', 30, "$name: it has many commits");

	# all the odd ones, which come first, and some ordinary ones
	@wrong = grep { !is_tree_of(@{ $commits[$_] }) }
	  grep { $_ < 40 || $_ % 20 == 0 || $_ == $#commits } 0 .. $#commits;
	is("@wrong", '', "$name: the log up to a commit is the commit's tree");
	holds_versions_dense($node, $name);
	holds_horizon_at_end($node, $name);

	ok(import_history(), "$name: its history goes in once more");
	is_query($node, 'SELECT count(*) FROM es_events', $events, "$name: and nothing is stored twice");
	note("$name: $events events of " . @commits . ' commits');
	return;
}

imports_repository('sha1', '--changes', 2000);
imports_repository('sha256', '--sha256');
$node->stop;
done_testing();
