# What the tests of the extension eventstore_cluster share: routers and their shards.
package EventStoreCluster;

use strict;
use warnings;

use Exporter qw(import);
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(need_plproxy connection_to new_router);

# Skips the test where PL/Proxy is not installed.
sub need_plproxy
{
	my ($folder) = PostgreSQL::Test::Utils::run_command([ 'pg_config', '--sharedir' ]);

	plan skip_all => 'PL/Proxy is not installed' unless -e "$folder/extension/plproxy.control";
	return;
}

# How a router reaches a database.
sub connection_to
{
	my ($node, $database) = @_;

	return sprintf("host=%s port=%s dbname=%s", $node->host, $node->port, $database);
}

# A database that is a router, by the steps of doc/operate/scale.md.
sub new_router
{
	my ($node, $database, @connections) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, "CREATE SCHEMA es; CREATE EXTENSION eventstore SCHEMA es; CREATE EXTENSION eventstore_cluster CASCADE;
		ALTER DATABASE $database SET search_path = es_cluster");
	$node->safe_psql($database, sprintf("SELECT es_create_shards(ARRAY[%s])", join(', ', map { "'$_'" } @connections)));
	return;
}

1;
