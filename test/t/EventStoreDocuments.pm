# Reads the SQL of documents, runs it, and compares what it prints with what the document shows.
# CONTRIBUTING.md says how a document is written for that.
package EventStoreDocuments;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(read_blocks run_blocks);

my $mark = '=== end of a statement ===';

# Before each block: as it is shown, in one line a row for "-->", or as psql prints it.
my $for_rows = "\\pset format unaligned\n\\pset tuples_only on\n\\pset expanded off\n\\set VERBOSITY verbose\n";
my $for_text = "\\pset format aligned\n\\pset tuples_only off\n\\pset expanded off\n\\set VERBOSITY default\n";

# The blocks of a document that are run, in order, and the faults of those that cannot be.  A block
# is a hash of line, text and, where a text block follows that shows it, output.
sub read_blocks
{
	my ($document) = @_;
	my (@blocks, @faults, $last);

	while ($document =~ /^(?:```([^\n]*)\n(.*?)^```$|<!-- sql\n(.*?)^-->$|(\S[^\n]*)$)/msg)
	{
		my ($fence, $text, $hidden, $prose) = ($1, $2, $3, $4);
		my $line = 1 + (substr($document, 0, $-[0]) =~ tr/\n//);

		if (defined $prose)
		{
			$last = undef;
		}
		elsif (defined $hidden && $hidden =~ /--!?>/)
		{
			push @faults, "line $line: a comment of HTML ends at its first \"-->\"";
		}
		elsif (defined $hidden || $fence eq 'sql')
		{
			push @blocks, $last = { line => $line, text => $hidden // $text };
		}
		elsif ($fence eq 'text' && $last)
		{
			$last->{output} = $text;
		}
		elsif ($fence =~ /^sql\b/ ? $fence !~ /^sql \(\S.*\)$/ : is_sql($text))
		{
			push @faults, "line $line: SQL without a fence that is sql, or sql (why it is not run)";
		}
	}
	return (\@blocks, \@faults);
}

# Returns true if a block in another language is SQL nevertheless.
sub is_sql
{
	my ($text) = @_;

	return $text =~ /^(?:SELECT|CREATE|ALTER|DROP|INSERT|UPDATE|DELETE|CALL|LISTEN|GRANT|BEGIN)\b.*;\s*$/ms;
}

# Its statements, each with the rows ("-->") and messages ("--!") that are shown after it.
sub statements
{
	my ($text) = @_;
	my @statements;
	my ($sql, $depth) = ('', 0);

	while ($text =~ /\G(\$\w*\$).*?\1|\G'[^']*'|\G"[^"]*"|\G--([>!]?)(?:[ ]?)([^\n]*)|\G\/\*.*?\*\/|\G\\[^\n]*|\G./sg)
	{
		my ($token, $sign, $shown) = ($&, $2, $3);

		if ($sign && $sql !~ /\S/ && @statements)
		{
			push @{ $statements[-1]{ $sign eq '>' ? 'rows' : 'messages' } }, $shown;
			next;
		}
		$sql .= $token;
		$depth += $token eq '(' ? 1 : $token eq ')' ? -1 : 0;
		if ($token =~ /^\\/ || $token eq ';' && $depth == 0)
		{
			push @statements, { sql => $sql };
			$sql = '';
		}
	}
	push @statements, { sql => "$sql;" } if $sql =~ s/--[^\n]*//gr =~ /\S/;
	return @statements;
}

# Runs the blocks in one session of psql.  The faults of each are in its faults.
sub run_blocks
{
	my ($connstr, @blocks) = @_;
	my $script = '';
	my $output;

	foreach my $block (@blocks)
	{
		$block->{statements} = [ statements($block->{text}) ];
		$script .= defined $block->{output} ? $for_text : $for_rows;
		$script .= "$_->{sql}\n\\echo $mark\n" foreach @{ $block->{statements} };
	}
	IPC::Run::run([ 'psql', '-Xq', '-d', $connstr ],
		'<', \$script, '>&', \$output, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	my @printed = split /^\Q$mark\E\n/m, $output, -1;
	pop @printed;

	foreach my $block (@blocks)
	{
		$_->{printed} = shift @printed foreach @{ $block->{statements} };
		$block->{faults} = [ defined $block->{output} ? faults_of_text($block) : map { faults_of_statement($_) } @{ $block->{statements} } ];
	}
	return;
}

sub faults_of_text
{
	my ($block) = @_;
	my $printed = join '', map { $_->{printed} // "(psql has ended)\n" } @{ $block->{statements} };

	return ($block->{text} =~ /^[^'\n]*--[>!]/m ? 'It has "-->" or "--!", and a block that shows the output.' : (),
		difference($block->{output}, $printed));
}

sub faults_of_statement
{
	my ($statement) = @_;
	my ($sql, $printed) = @{$statement}{qw(sql printed)};
	my @shown = @{ $statement->{messages} // [] };
	my (@rows, @messages, @faults, $error);

	return "psql has ended before: $sql" unless defined $printed;
	foreach my $line (split /\n/, $printed)
	{
		if ($line =~ /^(ERROR|FATAL|PANIC|WARNING|NOTICE|DETAIL|HINT|CONTEXT):  (.*)/)
		{
			$error //= $2 if $1 eq 'ERROR';
			push @messages, $1 eq 'ERROR' ? $2 : $line;
		}
		elsif ($line !~ /^(?:LOCATION:  |LINE \d+: |\s*\^$|Asynchronous notification )/)
		{
			# a DETAIL may have several lines
			push @{ defined $error ? \@messages : \@rows }, $line;
		}
	}
	push @faults, "$sql\nraises $error, which is not shown" if defined $error && !@shown;
	# the SQLSTATE, with which psql's verbose form begins, need not be shown
	foreach my $shown (@shown)
	{
		push @faults, "$sql\ndoes not say: $shown\nbut says:\n@{[ join qq(\n), @messages ]}"
		  unless grep { is_shown($shown, $_) || is_shown($shown, s/^[0-9A-Z]{5}: //r) } @messages;
	}
	push @faults, map { "$sql\n$_" } difference(join("\n", @{ $statement->{rows} }, ''), join("\n", @rows, ''))
	  if $statement->{rows};
	return @faults;
}

# A line "…" stands for any lines.
sub difference
{
	my ($shown, $printed) = @_;
	my $pattern = join '', map { $_ eq '…' ? '(?:.*\n)*' : pattern($_) . '\n' } lines($shown);
	my $text = join '', map { "$_\n" } lines($printed);

	return $text =~ /^$pattern\z/ ? () : "shows:\n${shown}but prints:\n$printed";
}

sub is_shown
{
	my ($shown, $printed) = @_;
	my $pattern = pattern(lines($shown));

	return join('', lines($printed)) =~ /^$pattern$/;
}

# Within a line "…" stands for any characters.
sub pattern
{
	return join '.*', map { quotemeta } split /…/, $_[0], -1;
}

# Without what differs each time, and the widths of columns, which follow from that.
sub lines
{
	my ($text) = @_;

	$text =~ s/\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b/(uuid)/g;
	$text =~ s/\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?\+00\b/(time)/g;
	$text =~ s/\bPID \d+/PID (number)/g;
	$text =~ s/-{2,}/-/g;
	$text =~ s/[ \t]+/ /g;
	$text =~ s/^ | $//gm;
	return grep { $_ ne '' } split /\n/, $text;
}

1;
