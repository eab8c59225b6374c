# Two commands for a machine with Python 3.11 or 3.12 and make:
#   make leaderboard   makes the environment, runs the main job, prints the table and where it is
#   make test          makes the environment, lints, types, checks the layers, runs the tests

VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quick

# The first interpreter that answers and is new enough; overcomplete bounds Python below 3.13.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)

.PHONY: leaderboard test lint bench readme clean

leaderboard: $(VENV)/run
	$(BIN)/eludebench run quick --out $(RUN)

test: $(VENV)/dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile \
		--jaxtyping-packages=bench,judges,methods,metrics,beartype.beartype

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Timings: reported, never pass or fail.
bench: $(VENV)/dev
	$(BIN)/python -m pytest -q tests/speed --benchmark-only

# Makes the tables in both READMEs again from fresh runs, and keeps their records; `make readme RUNS=quick` for less.
RUNS := quick properties full efficiency ablations planted probes
readme: $(VENV)/dev
	rm -rf runs/readme
	set -e; for name in $(RUNS); do \
		$(BIN)/eludebench run $$name --out runs/readme/$$name --cache runs/readme/cache; \
		mkdir -p results/$$name; cp runs/readme/$$name/run.json runs/readme/$$name/records.jsonl results/$$name/; \
	done
	$(BIN)/python tests/test_readme.py

$(VENV)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 found; install one, or name it: make PYTHON=/path/to/python"; exit 2; }
	@echo "making $(VENV) with $(PYTHON): about 6 GB, some minutes, most of it torch and its CUDA libraries"
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/run: $(VENV)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/dev: $(VENV)/run
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs
