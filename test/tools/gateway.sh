# shellcheck shell=bash
# For scripts that start the gateway beside a private server (private.sh, which they read first).
#
#   gateway_start LOG PROGRAM ARGUMENT...
#                                     starts it as the unprivileged user; sets $gateway, its pid,
#                                     and $url, without a slash at its end, when it listens
#   gateway_ready                     waits until it has the database, too
#   gateway_stop                      ends it; its exit code
#
# private_at_exit should call gateway_stop.

gateway=
url=

gateway_start()
{
	local log=$1

	shift
	# exec, so that the pid is that of the program; in a group of its own, so that a Ctrl-C is the
	# script's
	set -m
	(
		cd "$PRIVATE_DIR" || exit
		[ "$(id -u)" = 0 ] || exec "$@"
		# shellcheck disable=SC2154 # of private.sh
		exec setpriv --reuid "$private_user" --regid "$(id -g "$private_user")" --init-groups --inh-caps=-all -- "$@"
	) </dev/null 2>"$log" &
	gateway=$!
	set +m
	for _ in $(seq 100); do
		url=$(sed -n 's/.*"event": *"listening".*"url": *"\([^"]*\)".*/\1/p' "$log" | head -n 1)
		url=${url%/}
		[ -z "$url" ] || return 0
		kill -0 "$gateway" 2>/dev/null || break
		sleep 0.1
	done
	private_fail "the gateway did not start: $(tail -n 5 "$log")"
}

gateway_ready()
{
	for _ in $(seq 100); do
		if curl -fsS -o /dev/null "$url/readyz" 2>/dev/null; then return 0; fi
		sleep 0.1
	done
	private_fail "the gateway is not ready: $(curl -sS "$url/readyz" 2>&1)"
}

gateway_stop()
{
	local pid=$gateway

	gateway=
	[ -n "$pid" ] || return 0
	kill "$pid" 2>/dev/null || true
	wait "$pid"
}
