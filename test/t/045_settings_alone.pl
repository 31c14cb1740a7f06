# The settings of workers may stand in postgresql.conf while the library is not preloaded:
# the first call of a session does not warn of them.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use Test::More;

my $node = new_store('alone', conf => q{
eventstore.databases = 'postgres'
eventstore.workers = 3
eventstore.stats_categories = 5
});
my ($result, $out, $warnings) = $node->psql('postgres', q{SELECT version FROM es_append('a-1', 'any', 'x'); SHOW eventstore.databases; SHOW eventstore.workers});

is("$out/$warnings", "1\npostgres\n3/", 'the first call of a session warns of nothing');
$node->stop;
done_testing();
