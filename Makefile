# Each target does its own set-up: a virtual environment in .venv with everything the project needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OLDEST := .venv-oldest

.PHONY: demo test convergence test-mariadb test-oldest check bench soak reliability clean

demo: $(STAMP)
	$(BIN)/civiapi demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not soak and not browser and not convergence"

# Two thousand random histories over both ends, under faults of every kind; prints their seeds.
convergence: $(STAMP)
	$(BIN)/python -m pytest -s -m convergence

test-mariadb: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal --database mariadb -m "not soak and not browser and not convergence"

# The oldest libraries that pyproject.toml allows, in an environment of their own: what its ranges promise is tried.
test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -p no:cacheprovider tests/core --ignore tests/core/test_dependencies.py \
		tests/contract/test_rest.py tests/contract/test_jsonrpc.py tests/contract/test_chaining.py \
		tests/contract/test_schedule.py tests/contract/test_mailchimp_client.py

$(OLDEST)/.installed: pyproject.toml tests/oldest.py
	rm -rf $(OLDEST)
	$(PYTHON) -m venv $(OLDEST)
	$(PYTHON) tests/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt \
		--editable . pytest pytest-aiohttp hypothesis time-machine jsonrpcclient
	touch $(OLDEST)/.installed

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit -q -r civiapi entities sync --severity-level medium --confidence-level medium
	$(BIN)/python -m pip check

soak: $(STAMP)
	$(BIN)/python -m pytest -s -m soak

# The long tests of reliability, every test that docs/reliability.md names, and that page written anew.
reliability: $(STAMP)
	$(BIN)/python -m pytest -s -m soak tests/reliability
	CIVIAPI_HOSTILE_TEXTS=2000 $(BIN)/python -m tests.reliability.claims
	$(BIN)/python -m tests.reliability.report

bench: $(STAMP)
	$(BIN)/python -m bench.surface
	$(BIN)/python -m bench.sync $(BENCH)
	$(BIN)/python -m bench.screens

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info
