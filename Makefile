# Two commands for a machine with Python 3.11 or 3.12 and make:
#   make leaderboard   makes the environment, runs the main job, prints the table and where its page is
#   make test          makes the environment, lints, types, checks the layers, runs the tests
# and two for vision-language judges, whose server lives in an environment of its own:
#   make judge-env     makes .venv-judges, with vLLM for a GPU
#   make test-vllm     makes .venv-judges-cpu, with vLLM for a processor, and judges a small tournament with it

VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quick

# The first interpreter that answers and is new enough; overcomplete bounds Python below 3.13.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)

JUDGES := .venv-judges
JUDGES_CPU := .venv-judges-cpu

.PHONY: leaderboard test tests lint bench readme judge-env judge-env-cpu test-vllm clean

leaderboard: $(VENV)/run
	$(BIN)/eludebench run quick --out $(RUN)
	$(BIN)/eludebench report $(RUN)

test: $(VENV)/dev
	@$(MAKE) --no-print-directory -j 2 lint tests

# Files are taken in their order: by default those with few tests come last, and these are the long ones.
tests: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=15 \
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
	$(BIN)/eludebench figure pareto --run results/quick --out results/quick/pareto.svg
	$(BIN)/python tests/test_readme.py

judge-env: $(JUDGES)/ready

judge-env-cpu: $(JUDGES_CPU)/ready

# A real vLLM with tiny random judges: what is tested is the wire, not what they say. VLLM_TESTS narrows it down.
VLLM_TESTS :=
test-vllm: $(VENV)/dev $(JUDGES_CPU)/ready
	ELUDEBENCH_VLLM=$(CURDIR)/$(JUDGES_CPU) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests/vllm $(VLLM_TESTS)

$(JUDGES)/ready: judges/serving-requirements.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 found; install one, or name it: make PYTHON=/path/to/python"; exit 2; }
	@echo "making $(JUDGES) with $(PYTHON): vLLM and its CUDA libraries, a large download"
	$(PYTHON) -m venv $(JUDGES)
	$(JUDGES)/bin/pip install --quiet --disable-pip-version-check -r judges/serving-requirements.txt
	touch $@

$(JUDGES_CPU)/ready: judges/serving-cpu-requirements.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 found; install one, or name it: make PYTHON=/path/to/python"; exit 2; }
	@echo "making $(JUDGES_CPU) with $(PYTHON): 3.5 GB, some minutes"
	@$(PYTHON) -m venv $(JUDGES_CPU)
	@$(JUDGES_CPU)/bin/pip install --quiet --disable-pip-version-check -r judges/serving-cpu-requirements.txt \
		|| { echo "test-vllm cannot run here: pip did not get what judges/serving-cpu-requirements.txt names (above)."; \
		echo "It needs a CPU build of torch: name PyTorch's CPU index in PIP_EXTRA_INDEX_URL, or a folder with the wheel"; \
		echo "in PIP_FIND_LINKS, and run it again. No other test depends on it."; exit 2; }
	@$(JUDGES_CPU)/bin/pip uninstall --quiet --yes torchaudio torchcodec
	touch $@

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
	rm -rf $(VENV) $(JUDGES) $(JUDGES_CPU) runs
