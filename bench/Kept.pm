package Kept;

# Ratios of a short benchmark, which are kept in a file for each major version of
# the server, and compared with those of another run.
use strict;
use warnings;
use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);

our @EXPORT = qw(keep_or_compare);

# The machine, as far as it decides the ratios.
sub conditions
{
	my ($model) = `cat /proc/cpuinfo` =~ /^model name\s*: (.*)$/m;

	chomp(my ($version, $cores) = (`psql -X -t -A -c 'SHOW server_version'`, `nproc`));
	return "PostgreSQL $version; $cores cores, " . ($model // 'of an unknown model');
}

sub write_kept
{
	my ($file, $what, @ratios) = @_;

	mkdir dirname($file);
	open my $out, '>', $file or die "$file: $!\n";
	print $out "# $what\n# ", conditions(), "\n";
	printf $out "%.2f %s\n", @$_[ 1, 0 ] for @ratios;
	close $out or die "$file: $!\n";
	print "wrote $file\n";
	return;
}

# A ratio that has fallen by a tenth is a warning, and no failure: machines differ,
# and have other things to do.
sub compare_with_kept
{
	my ($file, @ratios) = @_;
	my @warnings;

	open my $in, '<', $file or die "$file: $!\n";
	my @lines = <$in>;
	close $in;
	my ($where) = grep { s/^# (?=PostgreSQL)// } @lines;
	my %kept = map { /^([0-9.]+) (.*)$/ ? ($2 => $1) : () } @lines;
	print "kept: ${where}now:  ", conditions(), "\n";
	for (grep { $kept{ $_->[0] } } @ratios)
	{
		my ($words, $now) = @$_;

		printf "%-64s kept %.2f, now %.2f\n", $words, $kept{$words}, $now;
		push @warnings, sprintf 'warning: %s: %.2f is less by a tenth or more than the %.2f that is kept', $words, $now, $kept{$words}
		  if $now <= 0.9 * $kept{$words};
	}
	print "$_\n" for @warnings;
	printf "\n%d passed, 0 failed\n", scalar keys %kept;
	return;
}

# The kind names the file, the target makes it.  Ratios are [words, number].  WRITE=1
# in the environment keeps them.
sub keep_or_compare
{
	my ($kind, $target, $rounds, @ratios) = @_;
	my ($major) = `psql -X -t -A -c 'SHOW server_version'` =~ /^(\d+)/ or die "the server does not say its version\n";
	my $file = dirname(abs_path(__FILE__)) . "/kept/$kind-$major";

	if ($ENV{WRITE})
	{
		write_kept($file, "Ratios of the short benchmark, written by WRITE=1 SHORT=1 make $target; medians of $rounds rounds.", @ratios);
	}
	elsif (!-e $file)
	{
		print "skipped: there are no ratios to compare with: WRITE=1 SHORT=1 make $target keeps them.\n\n0 passed, 0 failed, 1 skipped\n";
	}
	else
	{
		compare_with_kept($file, @ratios);
	}
	return;
}

1;
