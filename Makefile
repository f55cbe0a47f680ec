# make demo   a whole charging session: driver against PSU mock, recorded, replayed, compared
# make test   all tests             make coverage   branch coverage of the core
# make lint   ruff, mypy, import-linter
# make simulate  200 simulated worlds, every turn checked (docs/simulation.md)
# make bench  the figures of docs/performance.md, 6 minutes; QUICK=1: one minute, few of everything
# make load   floods while four cars charge, for LOAD_SECONDS (60)
# make soak   session after session at 60 times the usual rate, for MINUTES (10)
# make fuzz   TARGET=… SECONDS=…: one fuzz target (docs/fuzzing.md)
#
# Each target sets up what it needs in .venv, from requirements-dev.txt (versions and hashes). That file is complete,
# so pip need not resolve anything: without --no-deps, older ones refuse `coverage[toml]` once a newer coverage is out.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: demo test coverage lint simulate bench fuzz load soak setup clean

setup: $(VENV)/.installed

# Debian's python3 comes without ensurepip; python3-venv brings it.
$(VENV)/.installed: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fusioncharger needs Python 3.11 or newer as $(PYTHON)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing python3-venv, which creates the virtual environment"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; \
	  else \
	    echo "python3 lacks the venv module. Install it first: sudo apt-get install python3-venv"; exit 1; \
	  fi
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(BIN)/fusioncharger demo

test: setup
	$(BIN)/pytest $(PYTEST_ARGS)

# The core through its Inputs and Outputs alone: what they do not reach is not needed.
CORE := actors messages telemetry
coverage: setup
	$(BIN)/pytest -q $(CORE:%=tests/%) $(CORE:%=--cov=fusioncharger.%) --cov-branch \
	  --cov-report=term-missing:skip-covered --cov-fail-under=95

# mypy is run from a folder that holds the package under its name: in the repository root, io/ would shadow
# the standard library's io.
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/lint && ln -sfn ../.. $(VENV)/lint/fusioncharger
	cd $(VENV)/lint && ../bin/mypy --config-file fusioncharger/pyproject.toml -p fusioncharger
	$(BIN)/lint-imports

simulate: setup
	$(BIN)/fusioncharger simulate --ci

bench: setup
	$(BIN)/python benchmarks/run.py $(if $(QUICK),--quick) $(BENCH_ARGS)

# No shell between make and pytest: who ends make ends both, and with them what the test has started.
load: export LOAD_SECONDS ?= 60
load: setup
	$(BIN)/pytest -q -s tests/load

MINUTES ?= 10
soak: export SOAK_MINUTES = $(MINUTES)
soak: setup
	$(BIN)/pytest -q -s tests/soak/soak.py

# Where there is no wheel of atheris, the target runs under hypothesis.
SECONDS ?= 60
fuzz: setup
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
	  -r requirements-fuzz.txt 2>/dev/null || echo "no atheris for this Python or machine"
	$(BIN)/python tests/fuzz/run.py $(TARGET) --seconds $(SECONDS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info .fuzz
