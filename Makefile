# The commands of the README. They need python3 (3.11 or newer) and make; everything else comes from the hashed locks.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run cluster test soak check bench clients clients-lock docs setup format lock clean

help:
	@echo "make run     serve http://127.0.0.1:8080 with a demo tenant and a sandbox provider"
	@echo "make cluster three gateways, PostgreSQL, Valkey, a sandbox provider and a proxy on this machine (docs/scaling.md)"
	@echo "make test    every test, with a real PostgreSQL and a real Valkey that it starts itself"
	@echo "make soak    the ledger against the upstream's own truth under five minutes of mixed load (SOAK_S=300)"
	@echo "make check   format, lint, types, import contracts"
	@echo "make bench   benchmarks: ratios between sides of the same run"
	@echo "make clients the clients that people use, each in an environment of its own, against one gateway"
	@echo "make setup   the virtual environment alone, in $(VENV)"

run: $(VENV)/.runtime
	@$(BIN)/wardgate demo $(ARGS)

cluster: $(VENV)/.dev
	@$(BIN)/python -m ops.cluster up $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS)

SOAK_S ?= 300
soak: $(VENV)/.dev
	WARDGATE_SOAK_S=$(SOAK_S) $(BIN)/python -m pytest -s -p no:xdist tests/scenarios/test_ledger_truth.py -k valkey

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	-@$(BIN)/python -m tests.benchmarks.fetch
	$(BIN)/python -m tests.benchmarks $(ARGS)
	$(BIN)/python -m tests.benchmarks.crowd

# Each client in an environment of its own. Clients in JavaScript need node and npm.
CLIENTS := .clients
CLIENT_LOCKS := $(wildcard tests/clients/locks/*.lock)
CLIENT_ENVIRONMENTS := $(CLIENT_LOCKS:tests/clients/locks/%.lock=$(CLIENTS)/%/.installed) $(CLIENTS)/js/.installed

clients: $(VENV)/.dev $(CLIENT_ENVIRONMENTS)
	$(BIN)/python -m pytest -m clients -p no:xdist -rs -vv tests/clients $(ARGS)

$(CLIENTS)/%/.installed: tests/clients/locks/%.lock
	@echo "Installing the client $* ..."
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $<
	@touch $@

$(CLIENTS)/js/.installed: tests/clients/js/package-lock.json
	@if ! command -v npm >/dev/null || ! command -v node >/dev/null; then \
	  echo "NO node or npm HERE: the clients in JavaScript are skipped." >&2; \
	else \
	  echo "Installing the clients in JavaScript ..." && rm -rf $(@D) && mkdir -p $(@D) \
	  && cp tests/clients/js/package.json tests/clients/js/package-lock.json tests/clients/js/.npmrc $(@D) \
	  && (cd $(@D) && npm ci --silent) && touch $@; \
	fi

docs: $(VENV)/.dev
	$(BIN)/python -m router.reasons_doc > docs/reasons.md.new && mv docs/reasons.md.new docs/reasons.md

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(VENV)/.runtime

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Wardgate needs Python 3.11 or newer; say which: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "python3 cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.runtime: $(VENV)/.python requirements.lock requirements-build.lock pyproject.toml
	@echo "Installing the locked requirements (about a minute the first time) ..."
	@$(PIP) install --quiet --require-hashes -r requirements.lock
	@$(PIP) install --quiet --require-hashes -r requirements-build.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@echo "Installing the locked test requirements ..."
	@$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

# Needs uv. The locks name no host; --constraint keeps the two in step.
LOCK := uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 --quiet
lock:
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml --extra dev --constraint requirements.lock -o requirements-dev.lock
	printf 'hatchling>=1.27\neditables>=0.5\n' | $(LOCK) - -o requirements-build.lock

clients-lock:
	@set -e; for wanted in tests/clients/locks/*.in; do $(LOCK) $$wanted -o $${wanted%.in}.lock; done
	cd tests/clients/js && npm install --package-lock-only

clean:
	rm -rf $(VENV) $(CLIENTS) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
