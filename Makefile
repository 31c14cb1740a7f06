# eventstore: an event store inside PostgreSQL.
#
#   make, make install, make installcheck   build; install; test a running server (PGXS)
#   make demo [KEEP=1] [REPO=/some/repo]    the main job, on a private server; make demo-stop ends a kept one
#   make check [ONLY="regress tap ..."] [TESTS="name ..."]   every test, on private servers (test/README.md)
#   make check-fast                         regress, isolation and pgTAP
#   make check-all [VERSIONS="15 17"]       all of it in its long form, on each server version, and upgrades
#   make check-clients [CLIENTS="node ..."]  consumers with real drivers; make check runs them, too
#   make fuzz [CALLS=n] [SEED=n]            random calls of every function, a million; a short form is in make check
#   make check-assert, make check-asan      regress, isolation and fuzz on a server with assertions, with AddressSanitizer
#   make torture [FORM=short] [SEED=n]      kills and other faults, on private servers; KILLS=n of the long form
#   make bench [SHORT=1 [WRITE=1]]          figures against plain SQL, on a private server; the ratios that are kept
#   make bench-instructions [WRITE=1]       instructions a call, against those that are kept (bench/instructions)
#   make bench-decisions [SHORT=1 [WRITE=1]] figures of decisions by tags, against other ways to make them
#   make bench-growth [LONG=1]              what grows with the log, at 1, 10 and 100 million events (doc/operate/growth.md)
#   make bench-peers                        figures against other event stores (doc/compare/peers.md)
#   make bench-gateway                      appends, reads and event streams through the gateway, against libpq
#   make gateway, make gateway-install      the gateway, a program that serves HTTP (doc/operate/gateway.md)
#   make message-db, make message-db-install   the extension eventstore_message_db (doc/compare/message-db.md)
#   make tap, make tap-install              the extension eventstore_tap, pgTAP functions (doc/guide/testing.md)
#   make cluster, make cluster-install      the extension eventstore_cluster, a router on PL/Proxy (doc/operate/scale.md)
#   make console                            the console that the gateway serves, by npm (gateway/console/README.md)
#   make gateway-demo                       a private server with sample data and the gateway; prints the address
#   make gateway-asan                       the gateway with AddressSanitizer, for tests
#   make format, make format-check          pgindent style; the layout of the sources; links and words of the documents
#   make drawings                           the drawings of doc/internals/, by graphviz
#
# PG_CONFIG=/path/to/pg_config picks the server version. demo, check,
# check-clients, torture and the benchmarks first install what is missing, when they may.

EXTENSION = eventstore
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" eventstore.control)
MODULE_big = eventstore
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

# The install script is these files, in this order.
SQL_FILES = base stats log identity drop_guard notify type personal read append failure aggregate retention projection subscription inbox retention_rule operate restore reset privilege worker \
	health_remedy health_log health_type health_personal health_projection health_subscription health_inbox health_retention health erase cluster restore_end
SQL = $(SQL_FILES:%=sql/%.sql)
INSTALL_SCRIPT_SQL = $(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(INSTALL_SCRIPT_SQL)

# pg_regress looks for a test in ./sql first, where our own files are.
REGRESS := $(sort $(basename $(notdir $(wildcard test/sql/*.sql))))
REGRESS_OPTS = --inputdir=test
ifneq (,$(filter $(notdir $(wildcard sql/*.sql)),$(notdir $(wildcard test/sql/*.sql))))
$(error a test must not have the name of a file in sql/)
endif
ISOLATION := $(sort $(basename $(notdir $(wildcard test/specs/*.spec))))
ISOLATION_OPTS = --inputdir=test --outputdir=.
PROVE_TESTS := $(sort $(wildcard test/t/*.pl))
TAP_TESTS := $(if $(PROVE_TESTS),1)

# make WERROR= builds with a compiler that knows warnings we do not.
WERROR = -Werror
# The server's headers leave parameters unused. Its flags and attributes are
# those of the compiler it was built with, which clang may not know.
PG_CPPFLAGS = -I$(patsubst %/,%,$(srcdir))/src -DEVENTSTORE_VERSION='"$(EXTVERSION)"'
PG_CFLAGS = -Wall -Wextra $(WERROR) -Wno-unused-parameter $(if $(is_clang),$(CLANG_CFLAGS))
is_clang = $(findstring clang,$(shell $(CC) --version 2>/dev/null))
CLANG_CFLAGS = -Wno-unknown-warning-option -Wno-ignored-optimization-argument \
	-Wno-ignored-attributes
SHLIB_LINK = -lcrypto

EXTRA_CLEAN = $(EXTENSION)--*.sql .built-with results log tmp_check output_iso \
	regression.diffs regression.out

own_goals = check check-fast check-all check-clients check-assert check-asan fuzz torture demo demo-stop bench bench-decisions bench-growth bench-peers bench-gateway \
	format format-check drawings bench-instructions console gateway gateway-asan gateway-demo gateway-install \
	message-db message-db-install tap tap-install cluster cluster-install

ifneq (,$(filter $(own_goals),$(MAKECMDGOALS)))
# ---- Goals with a script of their own: they must start where nothing is
# ---- installed yet, so PGXS is not read.

.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)

# "make clean check": the rest goes to a make that reads PGXS.
pgxs_goals = $(filter-out $(own_goals),$(MAKECMDGOALS))
ifneq (,$(pgxs_goals))
$(pgxs_goals):
	@$(MAKE) --no-print-directory $@
$(filter $(own_goals),$(MAKECMDGOALS)): | $(pgxs_goals)
endif

# Only what the user has set: the scripts look for a server themselves.
given = $(filter-out default undefined,$(origin $(1)))
export $(foreach v,PG_CONFIG CC REPO KEEP ONLY TESTS CLIENTS VERSIONS CALLS SEED FORM KILLS ROUNDS LONG WRITE BOUND TAP_JOBS DIFFERS DOCUMENTS,$(if $(call given,$(v)),$(v)))
export REGRESS REGRESS_OPTS ISOLATION ISOLATION_OPTS PROVE_TESTS

check:
	@test/tools/packages check
	@case " $${ONLY:-clients} " in *' clients '*) test/tools/packages clients || \
		echo "eventstore: the clients that need what is missing are left out." >&2 ;; esac
	@case " $${ONLY:-compat} " in *' compat '*) test/tools/packages compat || \
		echo "eventstore: the tests of compat/ are left out." >&2 ;; esac
	@case " $${ONLY:-torture} " in *' torture '*) test/tools/packages torture || \
		echo "eventstore: the torture is left out." >&2 ;; esac
	@case " $${ONLY:-gateway} " in *' gateway '*) { test/tools/packages gateway && test/tools/packages gateway-tests; } || \
		echo "eventstore: the tests of the gateway are left out." >&2 ;; esac
	@test/tools/check

check-fast:
	@test/tools/packages check
	@ONLY="regress isolation pgtap" test/tools/check

check-all:
	@test/tools/packages check-all || echo "eventstore: going on with what is here." >&2
	@LONG=$${LONG-1} test/versions/run

check-clients:
	@test/tools/packages clients
	@test/clients/run

check-assert check-asan:
	@test/tools/packages source
	@test/tools/check-source $(@:check-%=%)

fuzz:
	@test/tools/packages check
	@CALLS=$${CALLS:-1000000} test/fuzz/run

torture:
	@test/tools/packages torture
	@test/tools/packages failover
	@test/torture/run
	@test/torture/decisions
	@test/torture/removals
	@test/torture/failover
	@test/torture/replicas

demo:
	@test/tools/packages demo
	@examples/demo/run

demo-stop:
	@examples/demo/stop

bench:
	@test/tools/packages bench
	@bench/run

bench-instructions:
	@test/tools/packages bench
	@bench/instructions --kept

bench-decisions:
	@test/tools/packages bench-decisions
	@bench/decisions/run

bench-growth:
	@test/tools/packages bench-growth
	@bench/growth/run

bench-peers:
	@test/tools/packages bench-peers
	@bench/peers/run

bench-gateway:
	@test/tools/packages gateway
	@test/tools/packages gateway-tests
	@bench/gateway
	@bench/streams

console:
	@test/tools/packages console
	@$(MAKE) --no-print-directory -C gateway console

gateway gateway-asan gateway-install:
	@test/tools/packages gateway
	@PG_CONFIG=$$(test/tools/packages pg_config) && \
		$(MAKE) --no-print-directory -C gateway PG_CONFIG=$$PG_CONFIG $(patsubst gateway-%,%,$(@:gateway=all))

message-db message-db-install: folder = compat/message-db
tap tap-install: folder = pgtap
cluster cluster-install: folder = cluster
message-db message-db-install tap tap-install cluster cluster-install:
	@test/tools/packages demo
	@PG_CONFIG=$$(test/tools/packages pg_config) && \
		$(MAKE) --no-print-directory -C $(folder) PG_CONFIG=$$PG_CONFIG \
		$(if $(findstring install,$@),install,all)

gateway-demo:
	@test/tools/packages demo
	@test/tools/packages gateway
	@gateway/demo/run

format:
	@test/tools/packages format
	@test/tools/format

format-check:
	@test/tools/packages format
	@test/tools/format --check
	@test/tools/structure
	@test/tools/prose

drawings:
	@test/tools/packages drawings
	@test/tools/structure --dot >doc/internals/rooms.dot
	@for name in rooms event flow horizon lease failure; do dot -Tsvg doc/internals/$$name.dot -o doc/internals/$$name.svg || exit; done

else
# ---- Everything else is PGXS.

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifeq (,$(wildcard $(PGXS)))
$(error PostgreSQL's build files are missing: "$(PG_CONFIG) --pgxs" names no file. Install the server's development package (Debian: postgresql-server-dev-15 or later), or set PG_CONFIG)
endif

# Tests drop the extension with its events.
installcheck: export PGOPTIONS := $(PGOPTIONS) -c eventstore.allow_drop=on

# Bitcode for JIT inlining would make clang a requirement.
override with_llvm = no

include $(PGXS)

# Objects of another server version or compiler must not be linked again.
built_with := $(VERSION) $(CC) $(CFLAGS)
ifneq ($(built_with),$(shell cat .built-with 2>/dev/null))
$(file >.built-with,$(built_with))
endif

# after "make clean all" it is gone again
.built-with:
	@: $(file >$@,$(built_with))

$(OBJS): .built-with $(wildcard src/*.h src/*/*.h)

$(INSTALL_SCRIPT_SQL): $(SQL) Makefile eventstore.control
	@rm -f $(EXTENSION)--*.sql
	{ printf '%s\n' '\echo Use "CREATE EXTENSION $(EXTENSION)" to load this file. \quit'; \
	  for f in $(SQL); do echo; cat $$f; done; } >$@.tmp && mv $@.tmp $@

endif
