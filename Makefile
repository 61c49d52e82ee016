# One door to the project. `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What opens results of XPCS at beamlines, without its windows: of its libraries only those that reading needs.
VIEWER := xpcs-viewer scikit-learn joblib cloudpickle threadpoolctl narwhals
# What results of HEDM are compared with in tests; of its libraries only those that this needs.
RIVAL := ImageD11==2.1.3 xfab==0.0.6 six
DEMO ?= demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint sweep chaos bench clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Beamway needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --upgrade \
	  --target $(VENV)/viewer $(VIEWER) || echo "not installed, so one test will be skipped: $(VIEWER)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --upgrade \
	  --target $(VENV)/imaged11 $(RIVAL) || echo "not installed, so some tests will be skipped: $(RIVAL)"
	touch $@

demo: $(BIN)/.installed ## scan, reconstruct and check a phantom on this machine, through the whole product
	$(BIN)/beamway demo --directory $(DEMO)

test: $(BIN)/.installed-dev ## install what the tests need, then lint and test everything
	tests/install-system-parts
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m tests.lanes

lint: $(BIN)/.installed-dev ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

sweep: $(BIN)/.installed-dev ## kill a run at each crash point, for each kind of stage and database (half an hour)
	$(BIN)/python -m tests.chaos.sweep

chaos: $(BIN)/.installed-dev ## runs flow while everything dies, hangs and comes back: MINUTES=5 RUNS=500 SEED=1
	tests/install-system-parts
	$(BIN)/python -m tests.chaos.storm --runs $(or $(RUNS),500) --minutes $(or $(MINUTES),5) --seed $(or $(SEED),1)

bench: $(BIN)/.installed-dev ## measure us and the rivals in the same run
	$(BIN)/python benchmarks/orchestration.py

clean: ## remove what the targets above made
	rm -rf $(VENV) $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
