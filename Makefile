# make quickstart   distil a small CLIP on real images and print the table
# make test         the fast tier of the tests: all but what is marked slow
# make test-all     all tests
# make coverage     line and branch coverage of both tiers, an hour or more
# make mutants      change the code in ways that a test must notice, and run the tests on each change; ARGS="--help" for more
# make study        the paper's methods on the quickstart's data, about an hour on two cores
# make bench        time and memory of every loss under pytest-benchmark; sizes by ARGS="--bench-batch 1024"
# make check-recipes  every recipe at full model size: two steps, export, evaluation (8 GiB, 6 CPU-minutes, no network)
# make check-wheel  every loss from the wheel in an environment with torch alone (downloads torch, 6 GB, removed afterwards)
# make docs         the documentation site in site/, which needs no network; a broken link or reference fails
# make lint         ruff: rules and formatting; codespell: spelling; mypy: types
# make env          the environment alone
# make clean        remove the environment and what tools cached; data/ and runs/ stay
#
# PYTHON=python3.12 chooses the interpreter of a new environment, ARGS="..." adds arguments to clipkd or pytest.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin

.PHONY: quickstart study test test-all coverage mutants bench check-recipes check-wheel docs lint env clean

quickstart: $(VENV)/.harness
	@$(BIN)/clipkd quickstart $(ARGS)

# One run per core. Safe to interrupt: the same command resumes.
study: $(VENV)/.harness
	@$(BIN)/clipkd data openmoji
	@$(BIN)/clipkd study study/openmoji --jobs $(WORKERS) $(ARGS)

# One thread a worker: two test processes that each want every core slow each other down. Neighbours stay on one worker, which
# saves their fixtures. Bytecode is kept even where the environment forbids it: the tests start many processes.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: $(VENV)/.test
	@$(PYTEST) -m "not slow" $(ARGS)

test-all: $(VENV)/.test
	@$(PYTEST) $(ARGS)

# The slow tests' lines are added to those of the fast tier. A failed test does not keep the figures back, but fails the target.
coverage: $(VENV)/.test
	@rm -rf .coverage-data && mkdir .coverage-data
	@COVERAGE_FILE=.coverage-data/fast $(PYTEST) -m "not slow" --cov --cov-report= $(ARGS); fast=$$?; \
	cp .coverage-data/fast .coverage-data/full; \
	COVERAGE_FILE=.coverage-data/full $(PYTEST) -m slow --cov --cov-append --cov-report= $(ARGS); slow=$$?; \
	for tier in fast full; do \
		COVERAGE_FILE=.coverage-data/$$tier $(BIN)/python -m coverage report > .coverage-data/$$tier.txt; \
		echo "$$tier tier: $$(tail -n 1 .coverage-data/$$tier.txt) (by file: .coverage-data/$$tier.txt)"; \
	done; exit $$((fast || slow))

mutants: $(VENV)/.test
	@$(BIN)/python -m tests.mutants $(ARGS)

# Named outright: its name keeps it out of `make test`. No OMP_NUM_THREADS: it may use every core, alone.
bench: $(VENV)/.test
	@$(BIN)/python -m pytest tests/bench/bench_losses.py --benchmark-group-by=group --benchmark-columns=min,median,iqr,rounds $(ARGS)

check-recipes: $(VENV)/.harness
	@$(BIN)/clipkd recipes dry-run --all $(ARGS)

check-wheel:
	@PYTHON=$(PYTHON) .ci/check_wheel.sh

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "site/index.html"

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m codespell_lib .
	@$(BIN)/python -m mypy

env: $(VENV)/.test

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks .coverage-data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(VENV)/.unfinished marks an installation under way. Where it is found at the start, the last one was killed and may have
# left half a package that pip takes for a whole one: start over. The stamps come last.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "error: '$(PYTHON)' must be Python 3.10 or newer; name another with make PYTHON=python3.12" >&2; exit 1; }
	@if [ -e $(VENV)/.unfinished ] || ! $(BIN)/python -c '' 2>/dev/null; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.unfinished
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(1)]'
	@rm $(VENV)/.unfinished
endef

$(VENV)/.harness: pyproject.toml setup.py
	$(call install,harness)
	@touch $@

$(VENV)/.test: pyproject.toml setup.py
	$(call install,test)
	@touch $(VENV)/.harness $@

$(VENV)/.docs: pyproject.toml setup.py
	$(call install,docs)
	@touch $(VENV)/.harness $@
