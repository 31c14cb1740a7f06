# What the Makefiles of the further extensions have in common. Each sets EXTENSION, and SQL, the files of its install
# script in their order; the extension has no library of its own.
#
#   make, make install, make uninstall [PG_CONFIG=...] [DESTDIR=...]     by PGXS

EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(EXTENSION).control)
INSTALL_SCRIPT_SQL = $(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(INSTALL_SCRIPT_SQL)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifeq (,$(wildcard $(PGXS)))
$(error PostgreSQL's build files are missing: "$(PG_CONFIG) --pgxs" names no file. Install them, or set PG_CONFIG)
endif

override with_llvm = no
include $(PGXS)

$(INSTALL_SCRIPT_SQL): $(SQL) $(MAKEFILE_LIST) $(EXTENSION).control
	@rm -f $(EXTENSION)--*.sql
	{ printf '%s\n' '\echo Use "CREATE EXTENSION $(EXTENSION)" to load this file. \quit'; \
	  for f in $(SQL); do echo; cat $$f; done; } >$@.tmp && mv $@.tmp $@
