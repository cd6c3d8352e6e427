# What a fresh machine needs is Python 3.11 or newer and make. Everything else is installed into .venv and the user's cache.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
LOCKED := requirements/tested.txt
LOCKED_DEV := requirements/dev.txt
VERSIONS := 3.11 3.12 3.13 3.14
CODE := src tests tools $(wildcard benchmarks examples docs)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
SPHINX := $(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# One interpreter to use: the newest that is supported. `make PYTHON=/path/to/python3.12 ...` chooses another.
PYTHON ?= $(shell tools/find_pythons.sh | head -n 1)

.PHONY: help demo demo-real test check test-others coverage mutants lint style types campaign campaign-real campaign-crash campaign-faults docs bench nodes lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       both directions of a transfer on the embedded network"
	@echo "make demo-real  the same on real nodes (btcd, three lnd, anvil); builds them once, about five minutes"
	@echo "make test       install what is missing, then linters, types and all tests"
	@echo "make coverage   every line and branch of decisions, store and proofs is run by their own tests"
	@echo "make mutants    no small change of a decision or a deadline goes unnoticed by their own tests; some minutes"
	@echo "make lint       linters and types only"
	@echo "make bench      compare with other packages, side by side"
	@echo "make campaign   simulated swaps, SEEDS=200000 or as many as HOURS= allow; goes on where it was stopped"
	@echo "make campaign-real   transfers on real nodes, with kills and reorganisations: a quarter of an hour"
	@echo "make campaign-crash  either side killed at every point of every path, on both stores: an hour; goes on where it was stopped"
	@echo "make campaign-faults  nodes killed, wires cut, endpoints that lie, a full disk: at every moment of a transfer: hours; goes on where it was stopped"
	@echo "make docs       build the documentation into docs/_build/html"
	@echo "make nodes      build the real nodes"
	@echo "make lock       choose the tested versions anew"
	@echo "make clean      remove what the other targets made here"

# Stamps: an installation is made again when what it was made from has changed.
$(VENV)/.created:
	@if [ -z "$(PYTHON)" ]; then \
	    echo "layer2 needs CPython 3.11, 3.12, 3.13 or 3.14 with venv and pip, and this machine has none that runs." >&2; \
	    echo "Install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3.13" >&2; \
	    exit 1; \
	fi
	@echo "creating $(VENV) with $(PYTHON)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(LOCKED) pyproject.toml
	@echo "installing layer2 and what it runs on"
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r $(LOCKED)
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed $(LOCKED_DEV)
	@echo "installing what tests and documentation need"
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r $(LOCKED_DEV)
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/layer2 demo

demo-real: $(VENV)/.installed
	@$(BIN)/layer2 demo --real

nodes: $(VENV)/.installed
	@$(BIN)/python -c "from layer2.devnet import ensure_binaries; ensure_binaries(progress=print)"

test:
	@start=$$(date +%s); status=0; \
	$(MAKE) --no-print-directory check || status=$$?; \
	echo "make test: $$(( $$(date +%s) - start )) seconds, exit status $$status"; \
	exit $$status

# In CI a missing node fails the tests that need it; on a user's machine they are skipped, loudly.
check: style
	@$(MAKE) --no-print-directory nodes || { [ "$${CI:-}" != true ] && echo "GOING ON WITHOUT REAL NODES"; }
	@$(MAKE) --no-print-directory --jobs=5 --output-sync=none test-real test-transfers test-rest test-others test-more

# Side by side, since most of the time is spent waiting for blocks. Real nodes miss deadlines if they are kept waiting, so everything
# else gives way to them.
# What runs beside them is printed when it has ended: so many runs on one screen could not be read.
ASIDE = @echo "$(1) beside these; follow with: tail -f $(VENV)/$@.log"; \
    status=0; nice -n $(2) $(MAKE) --no-print-directory $@-aloud > $(VENV)/$@.log 2>&1 || status=$$?; \
    cat $(VENV)/$@.log; exit $$status
.PHONY: test-real test-rest test-rest-aloud test-transfers test-transfers-aloud test-others-aloud test-more test-more-aloud test-simulation
test-real: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -m real

test-rest: $(VENV)/.installed-dev
	$(call ASIDE,the tests without real nodes run,10)

test-rest-aloud:
	@$(BIN)/python -m pytest -m "not real" --ignore=tests/simulation --ignore=tests/transfers

test-transfers: $(VENV)/.installed-dev
	$(call ASIDE,the tests of whole transfers run,10)

test-transfers-aloud:
	@$(BIN)/python -m pytest -m "not real" tests/transfers

test-others: $(VENV)/.installed-dev
	$(call ASIDE,the tests on the other interpreters run,10)

# Without what is slow or needs real nodes.
test-others-aloud:
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(addprefix test-on-,$(VERSIONS))

test-on-%: $(VENV)/.installed-dev
	@python=$$(tools/find_pythons.sh $*); \
	[ -z "$$python" ] || $(BIN)/python -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$*')" || \
	    $(MAKE) --no-print-directory test-one PYTHON=$$python VENV=.venvs/$*

test-more: $(VENV)/.installed-dev
	$(call ASIDE,types and the simulator run,19)

test-more-aloud:
	@$(MAKE) --no-print-directory --jobs=1 types test-simulation

test-simulation: $(VENV)/.installed-dev
	@SEEDS=10000 $(BIN)/python -m pytest tests/simulation

.PHONY: test-one
test-one: $(VENV)/.installed-dev
	@echo "the tests on $$($(BIN)/python --version)"
	@$(BIN)/python -m pytest -q -m "not real and not slow"

# Their own tests, without nodes: what is reached only through a whole transfer is not yet tested. Which files: pyproject.toml.
NEAR_TESTS := tests/proofs tests/storage $(patsubst %,tests/swaps/test_%.py,act_by deadlines exits_that_fail reverse_decisions \
    submarine_decisions unusual_observations withdrawn_offers)
coverage: $(VENV)/.installed-dev
	@$(BIN)/coverage run -m pytest -q -m "not real" $(NEAR_TESTS)
	@$(BIN)/coverage report

# FILES="_deadlines _act_by" chooses.
mutants: $(VENV)/.installed-dev
	@$(BIN)/python tools/mutate.py $(FILES)

lint: style types

style: $(VENV)/.installed-dev
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)

types: $(VENV)/.installed-dev
	@for version in $(VERSIONS); do $(BIN)/mypy --python-version $$version || exit 1; done
	@$(BIN)/pyright --warnings --pythonpath $(BIN)/python
	@PYTHONPATH=src $(BIN)/lint-imports --no-cache --no-logo

SEEDS ?= 200000
campaign: $(VENV)/.installed
	@$(BIN)/python -m layer2.testing --seeds $(SEEDS) $(if $(HOURS),--hours $(HOURS)) $(if $(BARE),--bare)

campaign-real: $(VENV)/.installed-dev nodes
	@LAYER2_CAMPAIGN=1 $(BIN)/python -m pytest -rs tests/acceptance/test_mixed_run_under_fire.py

campaign-crash: $(VENV)/.installed-dev nodes
	@LAYER2_CAMPAIGN=1 LAYER2_CRASH_STORES=sqlite,postgresql $(BIN)/python -m pytest -s -rs tests/crash

# LAYER2_FAULTS_EVERY=3 takes every third moment.
campaign-faults: $(VENV)/.installed-dev nodes
	@LAYER2_CAMPAIGN=1 $(BIN)/python -m pytest -rs -s tests/faults/test_campaign.py

docs: $(VENV)/.installed-dev
	@$(SPHINX)
	@echo "the documentation is in docs/_build/html/index.html"

# Both sides run on the same interpreter: bolt11, the peer for invoices, has no release for Python 3.13 or newer.
PEERS := .venvs/peers
BENCH_PYTHON ?= $(shell tools/find_pythons.sh 3.12 3.11 | head -n 1)
bench:
	@[ -n "$(BENCH_PYTHON)" ] || { echo "make bench needs Python 3.12 or 3.11, for which all peers have releases." >&2; exit 1; }
	@$(MAKE) --no-print-directory bench-run PYTHON=$(BENCH_PYTHON) VENV=.venvs/bench

.PHONY: bench-run
bench-run: $(VENV)/.installed-dev $(PEERS)/.installed
	@LAYER2_BENCH_PEERS=$(PEERS)/bin/python $(BIN)/python benchmarks/run.py

$(PEERS)/.installed: requirements/bench.txt
	@echo "installing the packages to compare with"
	@rm -rf $(PEERS)
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python $(PIP_INSTALL) --require-hashes -r requirements/bench.txt
	@touch $@

# No index addresses in the result: it can be installed from any mirror.
UV_COMPILE := .venvs/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock:
	@[ -x .venvs/lock/bin/uv ] || { $(PYTHON) -m venv .venvs/lock && .venvs/lock/bin/python $(PIP_INSTALL) uv; }
	@$(UV_COMPILE) pyproject.toml --all-extras --group build -o $(LOCKED)
	@$(UV_COMPILE) pyproject.toml --all-extras --group dev -c $(LOCKED) -o $(LOCKED_DEV)
	@$(UV_COMPILE) --group pyproject.toml:bench -o requirements/bench.txt

clean:
	rm -rf .venv .venvs build dist docs/_build .demo layer2-demo .campaign .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
