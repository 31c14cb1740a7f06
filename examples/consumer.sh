#!/usr/bin/env bash
# A consumer of a subscription in bash, with psql.
#
#     consumer.sh SUBSCRIPTION [NAME]
#
# It connects by the usual variables, such as PGHOST, PGDATABASE and PGUSER. One
# running program at a time may use a NAME. If it is started again under its NAME,
# it continues at once with the events that it had in flight. Without a NAME it
# waits until their lease expires.
#
# It uses long polls, in which es_poll sleeps in the server until there is an event.
# LISTEN would be of no use, since psql shows a notification only after its next
# command.
set -euo pipefail
trap '' PIPE

literal() { printf "'%s'" "${1//\'/\'\'}"; }
subscription=$(literal "$1")
name=NULL
[ -z "${2-}" ] || name=$(literal "$2")
lease=$(literal "${LEASE:-30s}")

connect() {
	coproc PSQL { exec psql -XqAt -F $'\t' -v VERBOSITY=terse; }
	pid=${PSQL_PID-}
	exec {to}>&"${PSQL[1]-}"- {from}<&"${PSQL[0]-}"-
}

# psql ends when the connection is lost.
disconnect() {
	exec {to}>&- {from}<&-
	wait "$pid"
}

# Runs a statement: its rows come in the array answer, its SQLSTATE in state.
# Fails when the connection is lost, and ends the program with an error that
# does not go away by connecting again, unless the statement may fail so.
ask() {
	local line may_fail=${2-}
	answer=()
	printf '%s;\n\\echo end of answer :SQLSTATE\n' "$1" >&"$to" || return
	while IFS= read -r line <&"$from"; do
		if [[ $line != 'end of answer '* ]]; then answer+=("$line"); continue; fi
		state=${line##* }
		# shellcheck disable=SC2254 # "*": any error may be
		case $state in
			00000 | $may_fail) return 0 ;;
			08* | 53* | 57*) return 1 ;;
			*) exit 1 ;;
		esac
	done
	return 1
}

# Does the work. It may run twice for an event, so it should be idempotent. The
# event is JSON without tabs and line breaks; a failure is in state.
handle() {
	ask "INSERT INTO handled (consumer, position, stream, version, attempt)
		SELECT $name, e.* FROM jsonb_to_record('${1//\'/\'\'}')
			AS e (position bigint, stream text, version bigint, attempt int)" '*'
}

deliver() {
	local row token position stream event
	local -A failed=()
	for row in "$@"; do
		IFS=$'\t' read -r token position stream event <<<"$row"
		[ -z "${failed[$stream]-}" ] || continue # it comes again, after the one that failed
		handle "$event" || return
		if [ "$state" != 00000 ]; then
			ask "SELECT es_nack($subscription, $token, $position, :'LAST_ERROR_MESSAGE')" ES006 || return
			failed[$stream]=yes
		fi
	done
	ask "SELECT es_ack($subscription, $token)" ES006 || return
	[ "$state" = 00000 ] || echo "the lease expired, and another consumer has these events now" >&2
}

consume() {
	ask "SELECT es_create_subscription($subscription, partitions => 4, lease => $lease)" 42710 || return
	pause=1
	until [ "$stopping" ]; do
		ask "SELECT token, position, to_json(stream), to_json(e)
			FROM es_poll($subscription, consumer => $name, wait => '5s') AS e" || return
		[ "${#answer[@]}" = 0 ] || deliver "${answer[@]}" || return
	done
}

# What is in flight is finished first; es_poll returns within its wait.
stopping=
trap 'stopping=yes' TERM
pause=1
until [ "$stopping" ]; do
	if connect && consume; then disconnect; break; fi
	disconnect || true
	echo "connection lost, next try in $pause s" >&2
	sleep "$pause"
	pause=$((pause < 10 ? pause * 2 : 10))
done
