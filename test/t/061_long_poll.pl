# Long polls where appenders wake them.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreLongPolls;
use Test::More;

begin('woken', conf => "max_connections = 70\n", workers => 1);
has_worker();
holds_nothing_asleep('woken');
holds_nothing_after_looking('woken');
works_everywhere('woken');
wakes_up('woken', 50);
wakes_up_after_all('woken', 50);
wakes_up_in_time('woken', 100);
gives_up('woken');
is_ended('woken');
stands_in_nobodys_way('woken');
last_is_woken('woken', 62);
ends_with_all('woken');
finish();
done_testing();
