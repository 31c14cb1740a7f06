# The files of monitoring/ with the real prometheus-postgres-exporter: its role needs the
# documented rights and no more, each metric of each query has the right value, and
# the dashboard and the alerts name no metric that there is not.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my ($exporter) = grep { -x $_ } map { "$_/prometheus-postgres-exporter" } split(/:/, $ENV{PATH}), '/usr/bin';

plan skip_all => 'there is no prometheus-postgres-exporter here' unless defined $exporter;

my $monitoring = "$FindBin::RealBin/../../monitoring";
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store(
	'monitoring',
	fsync   => 'off',
	workers => 2);

sub run
{
	return $node->safe_psql('postgres', $_[0]);
}

sub as_monitoring
{
	my ($sql) = @_;

	return $node->psql('postgres', $sql, extra_params => [ '-U', 'monitoring' ]);
}

#
# What there is to be seen
#

run(q{
	CREATE ROLE monitoring LOGIN;
	CREATE TABLE seen (position bigint);
	SELECT es_create_projection('good', category => 'account', query => 'INSERT INTO seen SELECT position FROM new_events');
	SELECT es_create_projection('bad', category => 'account', query => 'INSERT INTO seen SELECT 1 / (version - version) FROM new_events', max_attempts => 1);
	SELECT es_create_projection('parks', category => 'account', query => 'INSERT INTO seen SELECT 1 / (version - version) FROM new_events', max_attempts => 1, on_failure => 'park');
	SELECT es_create_projection('paused', category => 'account', query => 'INSERT INTO seen SELECT 1 FROM new_events');
	SELECT es_create_projection('at once', category => 'account', query => 'INSERT INTO seen SELECT position FROM new_events', mode => 'sync');
	SELECT es_pause_projection('paused');
	SELECT es_create_subscription('mails', partitions => 2);
	SELECT es_append('account-' || n, 'none', 'opened', '{"a": 1}') FROM generate_series(1, 4) AS n;
	SELECT es_append('order-"\1', 'none', 'placed');
	SELECT es_append_batch('order-1', 'none', '[{"type": "placed"}, {"type": "paid"}]');
	SELECT es_append('-1', 'none', 'nameless');
	CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event WHERE 1 / length(payload) = 1';
	SELECT es_receive('topic "x"', 'g', 'x', 'on_message(text, jsonb)');
	SELECT es_receive('topic "x"', 'g', '', 'on_message(text, jsonb)', max_retries => 0);
});
$node->psql('postgres', q{SELECT es_append('account-1', 'none', 'opened'); SELECT es_append('account-1', 9, 'opened')}, on_error_stop => 0);
$node->psql('postgres', q{BEGIN; SELECT es_append('account-1', 'any', 'opened'); ROLLBACK});
run(q{SELECT es_append('account-1', 'any', 'opened', id => '00000000-0000-0000-0000-000000000001') FROM generate_series(1, 3)});
ok($node->poll_query_until('postgres', q{
		SELECT count(*) FILTER (WHERE state = 'failed') = 1 AND sum(parked) = 5 AND sum(lag_events) FILTER (WHERE name = 'good') = 0
		  FROM es_projection_status}),
	'the projections have done what they do');
run(q{SELECT es_nack('mails', token, position, 'no', 'park') FROM es_poll('mails', max_count => 1);
	SELECT * FROM es_poll('mails', 'one', max_count => 2);
	SELECT * FROM es_poll('mails', 'two', max_count => 2)});

#
# Its role
#

isnt(as_monitoring('SELECT * FROM es_stats'), 0, 'a role sees nothing before it may');
command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-v', 'role=monitoring', '-f', "$monitoring/role.sql" ], 'role.sql');
foreach my $sql ('SELECT * FROM es_events', 'SELECT * FROM es_read()', 'SELECT payload FROM es_failures', 'SELECT * FROM es_inbox',
	'SELECT es_stats_reset()', q{SELECT es_append('a-1', 'any', 'x')}, q{SELECT nextval('es_position')})
{
	isnt(as_monitoring($sql), 0, "the role may not: $sql");
}

#
# The queries, in a file of a simple form
#

my %queries;
my $query;
my $column;

foreach my $line (split /\n/, slurp_file("$monitoring/postgres_exporter.yaml"))
{
	if ($line =~ /^(\w+):$/) { $query = $queries{$1} = { sql => '', labels => [], metrics => {} }; }
	elsif ($line =~ /^    - (\w+):$/) { $column = $1; }
	elsif ($line =~ /^        usage: "LABEL"$/) { push @{ $query->{labels} }, $column; }
	elsif ($line =~ /^        usage: "(\w+)"$/) { $query->{metrics}{$column} = lc $1; }
	elsif ($line =~ /^    (.*)$/ and !%{ $query->{metrics} } and !@{ $query->{labels} }) { $query->{sql} .= "$1\n"; }
}
is(scalar(keys %queries), 8, 'there are eight queries');

#
# The exporter
#

my $port = PostgreSQL::Test::Cluster::get_free_port();
my $run;

{
	local $ENV{DATA_SOURCE_NAME} = 'user=monitoring host=' . $node->host . ' port=' . $node->port . ' dbname=postgres sslmode=disable';

	$run = IPC::Run::start(
		[
			$exporter, "--web.listen-address=127.0.0.1:$port", '--disable-default-metrics', '--disable-settings-metrics',
			"--extend.query-path=$monitoring/postgres_exporter.yaml"
		],
		'<', '/dev/null', '>', "$folder/exporter.out", '2>', "$folder/exporter.err");
}

sub stop_exporter
{
	$run->kill_kill if defined $run;
	undef $run;
	return;
}

END
{
	local $?;
	stop_exporter();
}

sub scrape
{
	foreach (1 .. 100)
	{
		my $answer = HTTP::Tiny->new->get("http://127.0.0.1:$port/metrics");

		return $answer->{content} if $answer->{success};
		sleep 0.1;
	}
	die 'the exporter does not answer: ' . slurp_file("$folder/exporter.err");
}

sub unquote
{
	my ($text) = @_;

	$text =~ s/\\(.)/$1/g;
	return $text;
}

# Values by name and labels, and the types, as the exporter shows them.
my $text = scrape();
my (%values, %types);

foreach my $line (split /\n/, $text)
{
	$types{$1} = $2 if $line =~ /^# TYPE (eventstore_\w+) (\w+)/;
	next unless $line =~ /^(eventstore_\w+)(?:\{(.*)\})? (\S+)$/;
	my ($name, $labels, $value) = ($1, $2 // '', $3);
	my %label;

	$label{$1} = unquote($2) while $labels =~ /(\w+)="((?:[^"\\]|\\.)*)"/g;
	delete $label{server};
	$values{$name}{ join ',', map { "$_=$label{$_}" } sort keys %label } = $value;
}
like($text, qr/^pg_exporter_user_queries_load_error\{.*\} 0$/m, 'the exporter has read the queries');

# What the query says, to the same role, must be what the exporter says.
sub check_query
{
	my ($name, $sql, $labels, $metrics) = @_;
	my $rows = JSON::PP->new->utf8->decode(
		$node->safe_psql('postgres', "SELECT coalesce(json_agg(q), '[]') FROM ($sql) AS q", extra_params => [ '-U', 'monitoring' ]));

	cmp_ok(scalar(@$rows), '>', 0, "$name: there are rows");
	foreach my $column (sort keys %$metrics)
	{
		my $metric = "${name}_$column";
		my %given = %{ $values{$metric} // {} };
		my @wrong;

		is($types{$metric}, $metrics->{$column}, "$metric is a $metrics->{$column}");
		foreach my $row (@$rows)
		{
			my $of = join ',', map { "$_=" . (JSON::PP::is_bool($row->{$_}) ? ('false', 'true')[ $row->{$_} ] : $row->{$_}) } sort @$labels;
			my $value = delete $given{$of};

			# ages have grown since
			push @wrong, "{$of} is " . ($value // 'missing') . ", not $row->{$column}"
			  unless defined $value
			  and ($column =~ /_seconds$/ ? $value <= $row->{$column} + 1e-6 && $value > $row->{$column} - 60 : $value == $row->{$column});
		}
		is(join('; ', @wrong, map { "{$_} is no row" } keys %given), '', "$metric is what the query says");
	}
	return;
}

check_query($_, @{ $queries{$_} }{qw(sql labels metrics)}) foreach sort keys %queries;

# And what the query says is what has been done.
my %known = (
	eventstore_category_appends_total    => { 'category=account' => 5, 'category=order' => 2, 'category=' => 1 },
	eventstore_category_events_total     => { 'category=account' => 5, 'category=order' => 3, 'category=' => 1 },
	eventstore_category_conflicts_total  => { 'category=account' => 2 },
	eventstore_category_retries_total    => { 'category=account' => 1 },
	eventstore_category_duplicates_total => { 'category=account' => 2 },
	eventstore_inbox_skipped_total       => { 'group_id=g,other=false,topic=topic "x"' => 1 },
	eventstore_inbox_failed_total        => { 'group_id=g,other=false,topic=topic "x"' => 1 },
	eventstore_log_drawn                 => { '' => 10 },
	eventstore_log_horizon               => { '' => 10 },
	eventstore_projection_running        => { 'mode=async,projection=good' => 1, 'mode=async,projection=bad' => 0, 'mode=sync,projection=at once' => 1 },
	eventstore_projection_failing_seconds => { 'mode=async,projection=good' => 0, 'mode=sync,projection=at once' => 0 },
	eventstore_projection_failed         => { 'mode=async,projection=bad' => 1, 'mode=async,projection=good' => 0 },
	eventstore_projection_lag_events     => { 'mode=async,projection=paused' => 5, 'mode=async,projection=good' => 0 },
	eventstore_projection_handled_total  => { 'mode=async,projection=good' => 5 },
	eventstore_projection_parked         => { 'mode=async,projection=parks' => 5 },
	eventstore_health_problems           => { 'problem=projection_failed' => 1, 'problem=projection_paused' => 1, 'problem=event_parked' => 2, 'problem=message_failed' => 1 },
	eventstore_failures_count            => { 'kind=projection' => 5, 'kind=inbox' => 1 },
	eventstore_processes_workers         => { '' => 2 },
	eventstore_processes_launchers       => { '' => 1 });

foreach my $metric (sort keys %known)
{
	is($values{$metric}{$_}, $known{$metric}{$_}, "$metric {$_}") foreach sort keys %{ $known{$metric} };
}
cmp_ok($values{eventstore_projection_lag_seconds}{'mode=async,projection=paused'}, '>', 0, 'a paused projection lags');

foreach my $metric (qw(lag_events lag_seconds in_flight parked oldest_parked_seconds))
{
	my @positive = grep { $_ > 0 } values %{ $values{"eventstore_subscription_$metric"} };

	cmp_ok(scalar(@positive), '>', 0, "eventstore_subscription_$metric is not always 0");
}
cmp_ok($values{eventstore_failures_count}{'kind=subscription'}, '>', 0, 'the subscription has failures');

run(q{SELECT es_append('account-1', 'any', 'opened') FROM generate_series(1, 7)});
like(scrape(), qr/^eventstore_category_appends_total\{category="account",.*\} 12$/m, 'the exporter sees more appends');

#
# Dashboard and alerts
#

sub all_are_there
{
	my ($file, @expressions) = @_;
	my %names = map { $_ => 1 } map { /\b(eventstore_\w+)/g } @expressions;

	cmp_ok(scalar(keys %names), '>', 3, "$file names metrics");
	is(join(' ', grep { !exists $values{$_} } sort keys %names), '', '... that the exporter has');
	return %names;
}

my $dashboard = JSON::PP->new->utf8->decode(slurp_file("$monitoring/grafana.json"));
my @targets = map { @{ $_->{targets} // [] } } @{ $dashboard->{panels} };
my %shown = all_are_there('grafana.json', map({ $_->{expr} } @targets), map({ $_->{query} } @{ $dashboard->{templating}{list} }));

is(join(' ', grep { !$shown{$_} } sort keys %values), '', 'the dashboard shows every metric');
all_are_there('alerts.yaml', slurp_file("$monitoring/alerts.yaml") =~ /expr: (.*)/g);

# Labels that expressions and legends name; Prometheus adds the instance.
my %labels = map { $_ => 1 } 'instance', map { @{ $_->{labels} } } values %queries;
my @named = map {
	($_->{expr} =~ /(\w+)=~/g, $_->{legendFormat} =~ /\{\{(\w+)\}\}/g, map { split /, / } $_->{expr} =~ /by \(([^)]*)\)/g)
} @targets;

is(join(' ', grep { !$labels{$_} } @named), '', 'and names only labels that there are');

stop_exporter();
$node->stop;
done_testing();
