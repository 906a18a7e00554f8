# The two commands are `make demo` and `make test`; each sets up what it needs first.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test long lint format generated bench docs lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(STAMP)  ## the environment in .venv, from the hashed lock file

$(STAMP): requirements.lock bootstrap.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: $(PYTHON) is not on the path (make PYTHON=...)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## synthetic hospitals in, a released cohort out, through the real DAGs (into ./demo)
	$(BIN)/palmares demo --out demo

test: setup  ## every test but the long ones and the benchmarks
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder -q tests/acceptance tests/integration tests/dags tests/conformance tests/spec tests/unit

long: setup  ## the tests that take minutes: real servers with faults, whole hospitals, kills (CI runs them after `make test`)
	$(BIN)/python -m pytest -n auto --dist loadscope -q -m long tests

lint: setup  ## ruff, formatting, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## the benchmarks (long; ratios against a baseline in the same run)
	@for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: setup  ## write the generated pages and tables anew
	$(BIN)/python -m omop_etl.generated

generated: setup  ## fail when a generated file is stale
	$(BIN)/python -m omop_etl.generated --check

lock: setup  ## resolve the dependencies anew (needs the package index)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --all-extras --output-file requirements.lock pyproject.toml build.in
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --output-file bootstrap.lock bootstrap.in

clean:  ## remove the environment and everything that a command wrote here
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
