# shellcheck shell=bash
# The tutorials of doc/tutorial/: the page shows the whole program, part by part, and its output; what
# is run is the last block of commands of the page. And the lines of the same language in README.md, within
# the program of the same name in readme/. Used by test/clients/run, which has the variables.
# shellcheck disable=SC2154

port=
forwarder=    # leads the JDBC driver, which knows TCP only, to the Unix socket

# Sets what a tutorial needs, or fails where it or its driver is missing.
choose_tutorial()
{
	language=${client#tutorial-}
	tutorial_env=()
	tutorial_fence=
	tutorial_folder=$PRIVATE_DIR/$client
	mkdir -p "$tutorial_folder/bin"
	cp "$examples"/tutorial/* "$tutorial_folder"
	case $language in
		python) tutorial_file=account.py && use_program python3 ;;
		ruby) tutorial_file=account.rb && use_program ruby ;;
		node)
			tutorial_file=account.js tutorial_fence=js
			need_node_driver || return 1
			tutorial_env=(NODE_PATH="$PRIVATE_DIR/node/node_modules")
			;;
		go)
			tutorial_file=account.go
			command -v go >/dev/null && [ -d /usr/share/gocode/src/github.com/lib/pq ] || return 1
			tutorial_env=(GOCACHE="$PRIVATE_DIR/go")
			;;
		java)
			tutorial_file=Account.java
			command -v java >/dev/null && [ -e "$jdbc" ] || return 1
			;;
	esac
}

# Debian's interpreter has Debian's driver, and may not be the first in PATH.
use_program()
{
	local program

	program=$("$top/test/tools/packages" "$1") && ln -sf "$program" "$tutorial_folder/bin/$1"
}

start_forwarder()
{
	exec {forwarded}< <(exec "$here/forward" "$PGHOST" "$PGPORT")
	forwarder=$!
	read -r -u "$forwarded" port
}

stop_forwarder()
{
	[ -n "$forwarder" ] && kill "$forwarder" && forwarder=
}

# blocks_of LANGUAGE DOCUMENT: one after the other.
blocks_of()
{
	awk -v first="\`\`\`$1" '$0 == first { on = 1; next } $0 == "```" { on = 0 } on' "$top/$2"
}

# The last block of commands.
page_commands()
{
	awk '$0 == "```sh" { on = 1; text = ""; next } $0 == "```" { on = 0 } on { text = text $0 "\n" } END { printf "%s", text }' \
		"$top/doc/tutorial/$language.md"
}

# Empty lines between the parts do not count.
is_shown()
{
	diff -u <(blocks_of "$1" "doc/tutorial/$language.md" | grep -v '^$') <(grep -v '^$' "$2") >&2
}

# run_commands FOLDER DATABASE: those of the page.
run_commands()
{
	cd "$1" || return
	timeout 120 env PGDATABASE="$2" JDBC_URL="jdbc:postgresql://127.0.0.1:${port:-}/$2?user=$PGUSER" \
		PATH="$tutorial_folder/bin:$PATH" "${tutorial_env[@]}" bash -euc "$(page_commands)" >output
}

run_tutorial()
{
	local fence=${tutorial_fence:-$language}

	[ "$language" != java ] || start_forwarder
	holds "its page shows the program" is_shown "$fence" "$examples/tutorial/$tutorial_file"
	holds "its page shows the set-up" is_shown sql "$examples/tutorial/setup.sql"
	holds "its commands name the program" grep -q "$tutorial_file" <(page_commands)
	holds "the program ends well" attended run_commands "$tutorial_folder" "$database" 2>"$PRIVATE_DIR/$client-1.log"
	holds "it prints what its page shows" is_shown text "$tutorial_folder/output"
	is "the read model has all events" \
		"SELECT es_wait('balance', max(position), '60s'), (SELECT sum(amount) FROM balance) FROM es_events" "t 39"
	is "all events but the last are acknowledged" \
		"SELECT sum(in_flight), sum(lag_events) FROM es_subscription_status" "0 1"
	run_readme "$fence"
	[ "$language" != python ] || holds "doc/guide/ids.md computes the id of the store" \
		"$tutorial_folder/bin/python3" -c "$(blocks_of python doc/guide/ids.md)"
	stop_forwarder 2>/dev/null || true
}

# The lines that show the SQLSTATE end with what they print.
run_readme()
{
	local folder=$tutorial_folder/readme

	mkdir "$folder"
	blocks_of "$1" README.md >"$folder/lines"
	sed "/^\s*[/#]* README$/r $folder/lines" "$here/readme/$tutorial_file" >"$folder/$tutorial_file"
	holds "README.md has such lines" grep -q es_append "$folder/lines"
	holds "they run" attended run_commands "$folder" readme 2>"$PRIVATE_DIR/$client-2.log"
	holds "they append, load and meet the conflict" [ "$(tr -d ' ' <"$folder/output" | xargs)" = \
		"$(sed -nE 's/.* (#|\/\/) (ES001|true)$/\2/p' "$folder/lines") [opened]" ]
}
