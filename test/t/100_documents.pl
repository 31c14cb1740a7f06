# The SQL of the documents: each block runs, and prints what the document shows.
#
#   DOCUMENTS="README.md doc/guide/append.md"   these only
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Cwd qw(abs_path);
use EventStoreDocuments;
use EventStoreTest;
use File::Find;
use PostgreSQL::Test::Utils;
use Test::More;

my $top  = abs_path("$FindBin::RealBin/../..");
my $key  = PostgreSQL::Test::Utils::tempdir('documents') . '/key';

append_to_file($key, "0f" x 32);
chmod 0600, $key or die "$key: $!\n";
my $node = new_store('documents', fsync => 'off', extension => 0,
	conf => "timezone = 'UTC'\nautovacuum = off\neventstore.key_file = '$key'");

$node->safe_psql('postgres', 'CREATE DATABASE store');
$node->safe_psql('store', 'CREATE EXTENSION eventstore');

# As the owner of a new server finds it, and with the extension unless the document creates it.
sub with_database
{
	my ($document, $run) = @_;
	my $template = $document =~ /^CREATE EXTENSION eventstore\b/m ? 'template1' : 'store';

	$node->safe_psql('postgres', "CREATE DATABASE document TEMPLATE $template");
	$run->($node->connstr('document'));
	$node->safe_psql('postgres', 'DROP DATABASE document WITH (FORCE)');
	$node->safe_psql('postgres', "DROP ROLE $_")
	  foreach split /\n/, $node->safe_psql('postgres', q{SELECT quote_ident(rolname) FROM pg_roles WHERE oid >= 16384});
	return;
}

sub blocks_of
{
	my ($document) = @_;
	my ($blocks, $faults) = read_blocks($document);

	with_database($document, sub { run_blocks($_[0], @$blocks) }) if @$blocks;
	return ($blocks, $faults);
}

sub document_holds
{
	my ($path) = @_;
	my ($blocks, $faults) = blocks_of(slurp_file("$top/$path"));

	is(join("\n", @$faults), '', "$path: SQL is in blocks that are run, or say why not");
	foreach my $block (@$blocks)
	{
		ok(!@{ $block->{faults} }, "$path: line $block->{line}") or diag(join "\n\n", @{ $block->{faults} });
	}
	return;
}

#
# Documents that are wrong are found to be
#
sub faults_found
{
	my ($blocks, $faults) = blocks_of($_[0]);

	return scalar(@$faults) + grep { @{ $_->{faults} } } @$blocks;
}

my $error = q{SELECT es_append('a-1', 7, 'opened');};

is(faults_found("```sql\nSELECT 1;  --> 1\nSELECT 2; --> 2\n--> 3\n```\n"), 1, 'a row too few is a fault');
is(faults_found("```sql\nSELECT 1;\n--> 2\n```\n"), 1, 'another row is a fault');
is(faults_found("```sql\nSELECT 1;  --> 1\n```\n"), 0, 'the row that is shown is none');
is(faults_found("```sql\n$error\n```\n"), 1, 'an error that is not shown is a fault');
is(faults_found("```sql\nSELECT 1; --! ES001: …\n```\n"), 1, 'an error that is only shown is a fault');
is(faults_found("```sql\n$error --! ES002: …\n```\n"), 1, 'another error is a fault');
is(faults_found("```sql\n$error --! ES001: wrong expected version of stream \"a-1\"\n```\n"), 0, 'the error that is shown is none');
is(faults_found("```sql\nSELECT 1 AS a;\n```\n\n```text\n a\n---\n 2\n(1 row)\n```\n"), 1, 'another output is a fault');
is(faults_found("```sql\nSELECT 1 AS a;\n```\n\n```text\n a\n---\n 1\n(1 row)\n```\n"), 0, 'the output that is shown is none');
is(faults_found("<!-- sql\nCREATE TABLE t (n int);\n-->\n```sql\nSELECT count(*) FROM t; --> 0\n```\n"), 0, 'a hidden block is run');
is(faults_found("<!-- sql\nSELECT 1; --> 1\n-->\n"), 1, 'a hidden block that is not hidden is a fault');
is(faults_found("```sql\nSELECT 1; \\q\n```\n```sql\nSELECT 2;\n```\n"), 2, 'what comes after the end of psql is a fault');
is(faults_found("```sql (needs two servers)\nSELECT fails();\n```\n"), 0, 'a block that says why is not run');
is(faults_found("```sql ()\nSELECT 1;\n```\n```\nSELECT 1;\n```\n"), 2, 'a block that does not say why is a fault');

#
# All documents
#
my @documents = split ' ', $ENV{DOCUMENTS} // '';

if (!@documents)
{
	find({ wanted => sub { push @documents, s{^\Q$top\E/}{}r if /\.md$/ }, no_chdir => 1 }, "$top/doc");
	@documents = ('README.md', sort @documents);
}
document_holds($_) foreach @documents;

is(slurp_file($node->logfile) =~ /(TRAP|PANIC|segmentation)/i ? $1 : '', '', 'no failure in the log');
$node->stop;
done_testing();
