# shellcheck shell=bash
# A private PostgreSQL server for the scripts of make check, demo and bench.
#
# Nothing of it touches the system: the server's files are a relocated copy in a
# scratch folder (programs are copied, everything else is a link, and only our
# own extension is new), it listens on a Unix socket in that folder alone, and it
# runs as an unprivileged user even when root calls. The folder, and whatever
# runs in it, is gone when the script ends, however it ends.
#
# A script uses it so:
#
#   set -euo pipefail
#   cd "$(dirname "$0")/../.."            # the top of the checkout
#   . test/tools/private.sh
#   private_init                          # scratch folder and traps
#   private_build                         # make, in the checkout
#   private_install                       # the private tree, with our extension
#   private_start 'shared_buffers = 1GB'  # initdb and start, with these settings
#   private_psql -c 'CREATE EXTENSION eventstore'
#
# The script must not set traps of its own for EXIT, HUP, INT, PIPE or TERM;
# it may define a function private_at_exit, which is called first.
#
# Functions
#   private_init            make the scratch folder
#   private_build           build the checkout for PG_CONFIG's server
#   private_install         make the private tree and put it first in PATH
#   private_start [LINE...] start the server with these lines of postgresql.conf;
#                           to change them, stop it and start it again
#   private_stop            stop it (again to be started with its data)
#   private_psql ARG...     psql without psqlrc that stops at the first error, as
#                           the calling user, who can read the checkout
#   run_as COMMAND...       run as the unprivileged user; if the current folder
#                           is outside the scratch folder, which that user may
#                           not read, the command starts in the scratch folder
#   attended COMMAND...     run without input, so that a signal to the script
#                           ends it at once, with everything it has started
#   private_folder NAME     make a folder in the scratch folder that belongs to
#                           the unprivileged user, and print its path
#   private_key_file NAME   make a file with a key for eventstore.key_file, and
#                           print its path; always the same key, so that what
#                           shows its fingerprint does not change
#   private_keep NAME       let the server outlive the script
#   private_kept NAME       print the scratch folder of a kept server, or fail
#   private_end_kept NAME   stop a kept server and delete its folder; fails if
#                           there is none
#
# Variables (all exported)
#   PG_CONFIG     the server's pg_config
#   PRIVATE_DIR   the scratch folder: data/, run/ (the socket), log (the
#                 server's log), inst/ (the private tree), tmp/, home/
#   PRIVATE_BIN   the private tree's programs
#   PRIVATE_PGXS  PGXS's files: test/regress/pg_regress, test/perl ...
#   PGHOST PGPORT PGUSER PGDATABASE   how to connect: superuser "postgres",
#                 database "postgres", no password
#
# The settings of every private server: no TCP, UTF8, locale C,
# max_prepared_transactions 50; all else, fsync too, is the server's default.

# The caller's own server must not be met by accident, and messages are parsed.
for private_variable in "${!PG@}"; do
	case $private_variable in
		PG_CONFIG) ;;
		*) unset "$private_variable" ;;
	esac
done
unset private_variable MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS
export LC_ALL=C

private_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
private_group=

private_fail()
{
	echo "eventstore: $*" >&2
	exit 1
}

#
# The scratch folder and the unprivileged user
#

private_choose_user()
{
	private_user=$(id -un 2>/dev/null || id -u)
	if [ "$(id -u)" = 0 ]; then
		private_user=nobody
		if id postgres >/dev/null 2>&1; then private_user=postgres; fi
	fi
}

run_as()
{
	(
		case $PWD/ in
			"$PRIVATE_DIR"/*) ;;
			*) cd "$PRIVATE_DIR" || exit ;;
		esac
		[ "$(id -u)" = 0 ] || exec "$@"
		exec env HOME="$PRIVATE_DIR/home" USER="$private_user" LOGNAME="$private_user" \
			setpriv --reuid "$private_user" --regid "$(id -g "$private_user")" \
			--init-groups --inh-caps=-all -- "$@"
	)
}

# A socket's path is limited to 107 bytes; programs must be able to run there,
# and the unprivileged user to reach it.
private_try_scratch()
{
	[ "${#1}" -le 60 ] && [ -d "$1" ] && [ -w "$1" ] || return 1
	PRIVATE_DIR=$(mktemp -d "$1/es.XXXXXX") || return 1
	chmod 700 "$PRIVATE_DIR"
	if [ "$(id -u)" = 0 ]; then chown "$private_user:" "$PRIVATE_DIR"; fi
	printf '#!/bin/sh\nexit 0\n' >"$PRIVATE_DIR/try"
	chmod 755 "$PRIVATE_DIR/try"
	if run_as "$PRIVATE_DIR/try" 2>/dev/null; then
		rm -f "$PRIVATE_DIR/try"
		return 0
	fi
	rm -rf "$PRIVATE_DIR"
	PRIVATE_DIR=
	return 1
}

private_folder()
{
	mkdir -p "$PRIVATE_DIR/$1"
	chmod 700 "$PRIVATE_DIR/$1"
	if [ "$(id -u)" = 0 ]; then chown "$private_user:" "$PRIVATE_DIR/$1"; fi
	echo "$PRIVATE_DIR/$1"
}

private_key_file()
{
	local file

	file=$(private_folder keys)/$1
	run_as sh -c "umask 077; printf '%064d\n' 7 >'$file'"
	echo "$file"
}

private_init()
{
	umask 022
	if [ -z "${PG_CONFIG:-}" ]; then
		PG_CONFIG=$("$private_top/test/tools/packages" pg_config) || exit
	fi
	# By its full name, because the private tree will come first in PATH.
	PG_CONFIG=$(command -v "$PG_CONFIG") || private_fail "PG_CONFIG is not a program."
	private_choose_user
	trap private_cleanup EXIT
	trap 'private_exit 129' HUP
	trap 'private_exit 130' INT
	trap 'private_exit 141' PIPE
	trap 'private_exit 143' TERM
	PRIVATE_DIR=
	PRIVATE_BIN=
	private_try_scratch "${TMPDIR:-/tmp}" || private_try_scratch /tmp ||
		private_try_scratch /var/tmp ||
		private_fail "no folder for scratch files: user $private_user must be able to run programs in it (tried ${TMPDIR:-/tmp}, /tmp and /var/tmp)."
	touch "$PRIVATE_DIR/eventstore-scratch"
	private_folder run >/dev/null
	private_folder home >/dev/null
	TMPDIR=$(private_folder tmp)
	PGHOST=$PRIVATE_DIR/run
	PGPORT=5432
	PGUSER=postgres
	PGDATABASE=postgres
	export PG_CONFIG PRIVATE_DIR TMPDIR PGHOST PGPORT PGUSER PGDATABASE
}

#
# Running things so that they can be stopped
#

# bash runs a trap only when the command in front has ended, so the command goes
# to the background, in a process group that can be ended as a whole.
attended()
{
	local status=0

	set -m
	(
		set +m
		"$@"
	) </dev/null &
	private_group=$!
	set +m
	wait "$private_group" || status=$?
	private_group=
	return "$status"
}

private_end_group()
{
	[ -n "$private_group" ] || return 0
	kill -TERM -- "-$private_group" 2>/dev/null || true
	wait "$private_group" 2>/dev/null || true
	private_group=
}

# Tests start servers of their own in the scratch folder.
private_end_servers()
{
	local pid_file

	find "$PRIVATE_DIR" -name inst -prune -o -name postmaster.pid -print 2>/dev/null |
		while read -r pid_file; do
			private_end_server "$(dirname "$pid_file")"
		done
}

private_end_server()
{
	run_as "$PRIVATE_BIN/pg_ctl" stop -D "$1" -m fast -t 60 -s </dev/null >/dev/null 2>&1 ||
		run_as "$PRIVATE_BIN/pg_ctl" stop -D "$1" -m immediate -t 60 -s </dev/null >/dev/null 2>&1 ||
		true
}

# A second signal must not break into the cleanup.
private_exit()
{
	trap '' HUP INT PIPE TERM
	exit "$1"
}

private_cleanup()
{
	local status=$?

	trap '' HUP INT PIPE TERM
	set +e
	if [ "$(type -t private_at_exit)" = function ]; then private_at_exit; fi
	private_end_group
	if [ -n "$PRIVATE_DIR" ]; then
		private_end_servers
		cd / || true
		rm -rf "$PRIVATE_DIR"
	fi
	exit "$status"
}

#
# Build and install
#

private_make()
{
	local compiler=()

	if [ -n "${CC:-}" ]; then compiler=(CC="$CC"); fi
	make --no-print-directory -s -C "$private_top" PG_CONFIG="$PG_CONFIG" "${compiler[@]}" "$@"
}

private_build()
{
	private_make -j "$(nproc 2>/dev/null || echo 2)" all
}

# The server finds its files relative to its program's real path, so programs
# are copies. Folders are real and only their files are links: nothing that is
# installed here can reach the system through a link.
private_mirror()
{
	local target=$private_inst$1

	[ -d "$1" ] || return 0
	mkdir -p "$target"
	cp -rs "$1/." "$target"
}

private_install()
{
	local bindir include

	private_inst=$PRIVATE_DIR/inst
	bindir=$("$PG_CONFIG" --bindir)
	include=$("$PG_CONFIG" --includedir-server)
	PRIVATE_BIN=$private_inst$bindir
	PRIVATE_PGXS=$("$PG_CONFIG" --pgxs)
	PRIVATE_PGXS=${PRIVATE_PGXS%/makefiles/*}
	mkdir -p "$PRIVATE_BIN" "$(dirname "$private_inst$include")"
	cp -L "$bindir"/* "$PRIVATE_BIN"
	private_mirror "$("$PG_CONFIG" --pkglibdir)"
	private_mirror "$("$PG_CONFIG" --sharedir)"
	[ -e "$private_inst$include" ] || ln -s "$include" "$private_inst$include"
	# An eventstore that the system has must not be seen here.
	find "$private_inst" -name 'eventstore*' -type l -delete
	private_make DESTDIR="$private_inst" install >"$PRIVATE_DIR/install.log" ||
		private_fail "make install failed: $(cat "$PRIVATE_DIR/install.log")"
	PATH=$PRIVATE_BIN:$PATH
	export PATH PRIVATE_BIN PRIVATE_PGXS
}

#
# The server
#

private_initdb()
{
	run_as "$PRIVATE_BIN/initdb" -D "$PRIVATE_DIR/data" -U postgres -A trust \
		-E UTF8 --no-locale --no-sync >"$PRIVATE_DIR/initdb.log" 2>&1 ||
		private_fail "initdb failed: $(cat "$PRIVATE_DIR/initdb.log")"
	echo "include 'private.conf'" >>"$PRIVATE_DIR/data/postgresql.conf"
}

private_start()
{
	[ -d "$PRIVATE_DIR/data" ] || private_initdb
	cat >"$PRIVATE_DIR/data/private.conf" <<-END
		listen_addresses = ''
		unix_socket_directories = '$PGHOST'
		port = $PGPORT
		max_prepared_transactions = 50
	END
	[ $# = 0 ] || printf '%s\n' "$@" >>"$PRIVATE_DIR/data/private.conf"
	run_as "$PRIVATE_BIN/pg_ctl" start -D "$PRIVATE_DIR/data" -l "$PRIVATE_DIR/log" \
		-w -t 60 -s </dev/null >/dev/null ||
		private_fail "the private server did not start: $(tail -n 20 "$PRIVATE_DIR/log")"
}

private_stop()
{
	run_as "$PRIVATE_BIN/pg_ctl" stop -D "$PRIVATE_DIR/data" -m fast -w -t 60 -s
}

private_psql()
{
	"$PRIVATE_BIN/psql" -X -v ON_ERROR_STOP=1 "$@"
}

#
# A server that stays
#

private_note()
{
	echo "${XDG_STATE_HOME:-${HOME:-/root}/.local/state}/eventstore/$1"
}

private_keep()
{
	local note

	note=$(private_note "$1")
	private_end_kept "$1" || true
	mkdir -p "$(dirname "$note")"
	printf '%s\n%s\n' "$PRIVATE_DIR" "$PRIVATE_BIN" >"$note"
	trap - EXIT HUP INT PIPE TERM
}

private_kept()
{
	local note dir

	note=$(private_note "$1")
	[ -r "$note" ] && read -r dir <"$note" && [ -e "$dir/eventstore-scratch" ] && echo "$dir"
}

# A script with a server of its own keeps that one.
private_end_kept()
{
	local note PRIVATE_DIR PRIVATE_BIN

	note=$(private_note "$1")
	if ! PRIVATE_DIR=$(private_kept "$1"); then
		rm -f "$note"
		return 1
	fi
	PRIVATE_BIN=$(sed -n 2p "$note")
	private_choose_user
	private_end_servers
	rm -rf "$PRIVATE_DIR" "$note"
}
