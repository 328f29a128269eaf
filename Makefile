# Each target does its own set-up: a virtual environment in .venv with everything the project needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OLDEST := .venv-oldest
FRESH  := .venv-package
PIP    := -m pip --disable-pip-version-check install -qq

# Else each of the hundreds of processes that tests start compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE

# Half of the time of all tests: everything tried in every way, whole servers under attack, killed processes, and the few
# files that take longest.
LONG := tests/api/test_who_sees_what.py tests/api/test_dates_everywhere.py tests/beside tests/cli/test_civicrmapi_cv.py \
	tests/cli/test_rehearse.py tests/journeys/test_processes.py tests/journeys/test_readme.py \
	tests/maintenance/test_adopt.py tests/maintenance/test_checks.py tests/reliability/convergence \
	tests/reliability/crash tests/reliability/database tests/reliability/hostile \
	tests/sync/runs/stages/test_killed_runs.py tests/sync/undo/test_undo_histories.py
QUICK := -m "not soak and not browser and not convergence and not galera"

.PHONY: demo test test-long convergence convergence-mariadb test-mariadb test-mariadb-reliability test-galera test-oldest check docs package bench soak reliability clean

demo: $(STAMP)
	@$(BIN)/civiapi demo

# Three workers on two cores: a third of the time tests wait for servers and clocks.
test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist worksteal $(QUICK) $(addprefix --ignore ,$(LONG))

test-long: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist worksteal $(QUICK) $(LONG)

# Two thousand random histories over both ends, under faults of every kind; prints their seeds.
convergence: $(STAMP)
	$(BIN)/python -m pytest -s -m convergence

# As many on MariaDB, each process with a server of its own (a history takes three times as long).
convergence-mariadb: $(STAMP)
	$(BIN)/python -m pytest -s --database mariadb -m convergence

# Without what other targets try on MariaDB: the crash matrix, the servers' troubles, random histories; and what opens
# MariaDB in the other runs too.
test-mariadb: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist worksteal --database mariadb $(QUICK) \
		--ignore tests/reliability/crash/test_crash.py --ignore tests/reliability/database \
		--ignore tests/reliability/convergence/test_convergence.py \
		--ignore tests/beside --ignore tests/journeys/test_processes.py

# The crash matrix (a sample), the frozen holder, and a server that is stopped, killed, full or read-only, on MariaDB.
test-mariadb-reliability: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal --database mariadb -m "not soak" tests/reliability/crash/test_crash.py \
		tests/reliability/crash/test_alerts.py tests/reliability/crash/test_frozen.py tests/reliability/database

# A Galera cluster of three nodes, while its nodes and four processes are killed, frozen and cut off (three minutes).
test-galera: $(STAMP)
	@command -v mariadb-install-db > /dev/null && command -v rsync > /dev/null && test -e /usr/lib/galera/libgalera_smm.so || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			mariadb-server galera-4 rsync > /dev/null; } || true
	timeout -k 5 900 $(BIN)/python -m pytest -p no:cacheprovider -m galera tests/reliability/cluster

# The oldest libraries that pyproject.toml allows, in an environment of their own: what its ranges promise is tried.
# Without the two matrices of tests/api: they try our declarations, with statements that the others there make too.
test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -p no:cacheprovider tests/api \
		--ignore tests/api/test_who_sees_what.py --ignore tests/api/test_dates_everywhere.py \
		tests/auth tests/http tests/emulator/test_members.py \
		tests/emulator/test_listing.py tests/emulator/test_batches.py tests/emulator/test_state.py \
		tests/project --ignore tests/project/test_dependencies.py --ignore tests/project/test_deploy.py \
		--ignore tests/project/test_docs.py tests/ui/test_charts.py tests/sync/mailchimp \
		tests/sync/reconcile/test_decide.py tests/endpoints/test_rest.py tests/endpoints/test_jsonrpc.py \
		tests/server/test_scheduler.py

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
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/bandit -q -r civiapi entities sync --severity-level medium --confidence-level medium
	$(BIN)/python -m pip check

# The documentation site, into site/: built strictly, and every link and anchor in it checked.
docs: $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python tests/project/check_links.py site

# Wheel and sdist into dist/: checked, then the wheel is installed into a new environment and runs the demo there.
package: $(VENV)/.package-installed
	rm -rf dist build $(FRESH)
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/project/check_package.py dist
	$(PYTHON) -m venv $(FRESH)
	$(FRESH)/bin/python $(PIP) dist/*.whl
	mkdir $(FRESH)/elsewhere
	cd $(FRESH)/elsewhere && ../bin/civiapi --version && timeout -k 5 180 ../bin/civiapi demo --once

soak: $(STAMP)
	$(BIN)/python -m pytest -s -m soak

# The long tests of reliability, every test that docs/reliability.md names, and that page written anew.
reliability: $(STAMP)
	$(BIN)/python -m pytest -s -m soak tests/reliability
	CIVIAPI_HOSTILE_TEXTS=2000 $(BIN)/python -m tests.reliability.report.evidence
	$(BIN)/python -m tests.reliability.report.write

bench: $(STAMP)
	$(BIN)/python -m bench.surface
	$(BIN)/python -m bench.surface --database mariadb
	$(BIN)/python -m bench.sync $(BENCH)
	$(BIN)/python -m bench.sync --database mariadb $(BENCH)
	$(BIN)/python -m bench.screens
	$(BIN)/python -m bench.report

$(STAMP): pyproject.toml
	@echo "Installing what the project needs into $(VENV) (once; a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) --upgrade pip
	@$(BIN)/python $(PIP) --editable ".[dev]"
	@touch $(STAMP)

$(VENV)/.%-installed: $(STAMP)
	$(BIN)/python $(PIP) --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(FRESH) build dist site *.egg-info
