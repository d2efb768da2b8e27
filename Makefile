# make demo    set up and run the main job       make test    set up and run the quick checks
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PY := .venv/bin/python
DATA ?=
SYMBOL ?=

N ?= 1000
CHAOS_RUNS ?= 1000
JOBS ?= 4
# The suites start thousands of processes; without bytecode each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadfile

.PHONY: help setup dev demo test check slow chaos chaos-database bench lock clean

help:
	@sed -n 's/^# make/make/p' Makefile
	@echo "make setup   only set up                       make bench   measure, against peers too"
	@echo "make check   lint, types, import contracts     make slow    the longer seeded suites"
	@echo "make lock    pin the dependencies again        make clean   remove .venv and caches"
	@echo "make slow SEEDS=10   ten times as many seeded histories as in CI"
	@echo "make chaos N=10000   so many bad days of the live engine: faults at every request, kills at every step"
	@echo "make chaos-database  kill the database server a thousand times (CHAOS_RUNS) in the middle of its work"

setup:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; set PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) ops/setup.py run

dev:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; set PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) ops/setup.py dev

demo: setup
	@PATH="$(CURDIR)/.venv/bin:$$PATH" DATA="$(DATA)" SYMBOL="$(SYMBOL)" sh ops/demo.sh

test: dev check
	$(PYTEST) -m "not slow"

check: dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports

slow: dev
	$(PYTEST) -m slow

bench: dev
	@$(PYTHON) ops/setup.py bench
	$(PY) -m benchmarks

lock: dev
	UV=.venv/bin/uv sh ops/lock.sh

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

chaos: dev
	$(PY) -m tests.sim.chaos --runs $(N) --jobs $(JOBS)

chaos-database: dev
	CHAOS_RUNS=$(CHAOS_RUNS) $(PY) -m pytest -m slow -k server tests/ledger/test_kill.py
