# Long polls in a server with many processes: many at once, and that the last is woken as
# the first.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreLongPolls;
use Test::More;

begin('large', conf => "max_connections = 300\n", workers => 1);
many_at_once('large', 100);
all_are_woken('large', 250);
last_is_woken('large', 285);
finish();
done_testing();
