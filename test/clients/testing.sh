# shellcheck shell=bash
# The tests of an application that doc/guide/testing.md shows: with pytest, node:test and RSpec, each three times in
# one database, as a store that is left behind would make the next run fail. Used by test/clients/run, which has the
# variables.
# shellcheck disable=SC2154

testing_guide=doc/guide/testing.md

# Sets the command, and the file and the fence of its language in the guide.
choose_testing()
{
	local program

	case ${client#testing-} in
		python)
			program=$("$top/test/tools/packages" python3) && "$program" -c 'import pytest' || return 1
			testing_file=test_account.py testing_fence=python
			command=("$program" -m pytest -q -p no:cacheprovider)
			;;
		node)
			need_node_driver || return 1
			testing_file=account.test.js testing_fence=js
			command=(env NODE_PATH="$PRIVATE_DIR/node/node_modules" node --test-reporter=tap)
			;;
		ruby)
			program=$("$top/test/tools/packages" ruby) && "$program" -S rspec --version || return 1
			testing_file=account_spec.rb testing_fence=ruby
			command=("$program" -S rspec --format documentation)
			;;
	esac >/dev/null
}

testing_is_shown()
{
	diff -u <(blocks_of "$testing_fence" "$testing_guide") "$examples/testing/$testing_file" >&2
}

# Fails if a test fails, or if not all three have run.
run_tests_once()
{
	local output=$PRIVATE_DIR/$client.log

	env PGDATABASE="$database" PYTHONDONTWRITEBYTECODE=1 "${command[@]}" "$examples/testing/$testing_file" </dev/null >"$output" 2>&1 &&
		grep -qE '^(4 passed|# pass 3|3 examples, 0 failures)' "$output" && return
	sed 's/^/# /' "$output"
	return 1
}

run_testing()
{
	local n

	holds "its text is in $testing_guide" testing_is_shown
	for n in 1 2 3; do holds "its tests pass, run $n" run_tests_once; done
	is "nothing is left" "SELECT (SELECT count(*) FROM es_events), (SELECT count(*) FROM balance), position
		FROM es_projections" "0 0 0"
}
