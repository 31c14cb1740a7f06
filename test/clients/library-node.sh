# shellcheck shell=bash
# The library of clients/node: it is linted, packed, and installed from the packed file into a program, whose tests
# are compiled against its types, and run behind pgbouncer. The server is killed and restarted under them. Used by
# test/clients/run, which has the variables.
# shellcheck disable=SC2154

library=        # in a copy of the checkout
library_app=    # a program that has it installed
library_seconds=120    # for a file of tests; many times what one takes

npm_quietly()
{
	npm --prefer-offline --no-audit --no-fund --no-update-notifier --fetch-retries=3 --fetch-retry-mintimeout=1000 \
		--fetch-retry-maxtimeout=5000 --loglevel=error "$@"
}

# A copy of the library with the packages of its lock file, and a program beside it.
install_library_node()
{
	mkdir -p "$library" "$library_app"
	cp -R "$top"/clients/node/{package.json,package-lock.json,tsconfig.json,biome.json,README.md,src,test} "$library"
	cp "$examples/shop/shop.ts" "$library/test"
	cp "$top/LICENSE" "$library/../.."
	(cd "$library" && npm_quietly ci --ignore-scripts) >&2
}

# The packages of the lock file are there, so that nothing but the packed file is new.
install_packed_library()
{
	ls "$library"/eventstore-postgres-*.tgz >/dev/null || return 1
	cp -al "$library/node_modules" "$library_app"
	cp "$library"/test/*.ts "$library"/test/tsconfig.json "$library_app"
	node -p 'const { devDependencies } = require(process.argv[1]);
		JSON.stringify({ private: true, type: "module", devDependencies })' "$library/package.json" >"$library_app/package.json"
	(cd "$library_app" && npm_quietly install --ignore-scripts "$library"/eventstore-postgres-*.tgz) >&2
}

pack_library()
{
	(cd "$library" && npm pack --silent) >"$PRIVATE_DIR/$client-pack.log" 2>&1
}

lint_library()
{
	(cd "$library" && node_modules/.bin/biome ci --colors=off --error-on-warnings src test) >"$PRIVATE_DIR/$client-lint.log" 2>&1
}

# The program of README.md is compiled and run as the others are.
compile_tests()
{
	blocks_of ts clients/node/README.md >"$library_app/readme.test.ts"
	(cd "$library_app" && node_modules/.bin/tsc) >"$PRIVATE_DIR/$client-types.log" 2>&1
}

# Restarts the server whenever the test asks for it, until the test has ended.
serve_restarts()
{
	local test=$1 file=$2 deadline=$((SECONDS + library_seconds))

	while kill -0 "$test" 2>/dev/null && [ $SECONDS -lt $deadline ]; do
		if [ -e "$file" ]; then
			restart_server
			rm -f "$file"
		fi
		sleep 0.05
	done
	kill -KILL "$test" 2>/dev/null || true
}

# Each test of a file counts; so does a file that ends before its tests are over.
run_library_file()
{
	local name=$1 status=0 started=${EPOCHREALTIME/./} output=$PRIVATE_DIR/$client-$1.log restart=$PRIVATE_DIR/$client-restart

	env PGDATABASE="$database" BOUNCER_HOST="$bouncer_folder" BOUNCER_PORT=6432 RESTART_FILE="$restart" \
		node --test-reporter=tap "$library_app/built/$name.test.js" </dev/null >"$output" 2>&1 &
	pids[0]=$!
	serve_restarts "${pids[0]}" "$restart"
	wait "${pids[0]}" || status=$?
	pids[0]=
	sed -nE "s/^ok [0-9]+ - /ok - $client: /p; s/^not ok [0-9]+ - /not ok - $client: /p; s/^(# [0-9]+ events .*)/\1/p" "$output"
	passed=$((passed + $(grep -cE '^ok [0-9]+ - ' "$output" || true)))
	failed=$((failed + $(grep -cE '^not ok [0-9]+ - ' "$output" || true)))
	holds "the tests of $name come to their end" [ "$status" = 0 ]
	echo "# $client $name: $(seconds_since "$started")"
}

# The program of README.md has a database of its own.
run_library_readme()
{
	local database=library-node-readme

	private_psql -q -c "CREATE DATABASE \"$database\""
	PGDATABASE=$database private_psql -q -c 'CREATE EXTENSION eventstore'
	run_library_file readme
}

# What doc/tutorial/shop.md shows: the program, part by part, and its output.
run_library_shop()
{
	local database=library-node-shop language=shop

	private_psql -q -c "CREATE DATABASE \"$database\""
	PGDATABASE=$database private_psql -qo /dev/null -f "$examples/shop/setup.sql"
	holds "the page of the shop shows its set-up" is_shown sql "$examples/shop/setup.sql"
	holds "it shows the program" is_shown ts "$examples/shop/shop.ts"
	holds "which has up to 150 lines" [ "$(wc -l <"$examples/shop/shop.ts")" -le 150 ]
	holds "the shop ends well" attended run_shop 2>"$PRIVATE_DIR/$client-shop.log"
	holds "it prints what its page shows" is_shown text "$library_app/shop.out"
}

run_shop()
{
	PGDATABASE=$database timeout 120 node "$library_app/built/shop.js" >"$library_app/shop.out"
}

run_library_node()
{
	local name

	holds "the linter finds nothing" lint_library
	holds "it compiles, strictly, and is packed" pack_library
	holds "the packed file is installed" install_packed_library
	holds "a program compiles, strictly, against its types" compile_tests
	[ -e "$library_app/built/store.test.js" ] || return 0    # it did not
	start_bouncer
	run_library_readme
	run_library_shop
	for name in store decide consumer follow emmett; do run_library_file $name; done
}
