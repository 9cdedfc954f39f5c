# Each command makes .venv and installs into it what it needs, when that is not there yet.
PYTHON ?= python3
BIN := .venv/bin
# Processes that share the tests, and threads of each: more threads than cores wait for each other.
WORKERS ?= 2
OMP_NUM_THREADS ?= 1
READY := .venv/.ready

.PHONY: demo demo-all test test-all lint clean

$(READY): requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: $(READY)  ## toy clips → frames → pretraining → a table and a picture, in minutes
	$(BIN)/python -m lavender.demo

demo-all: $(READY)  ## the same, and then one model for four tasks beside four models
	$(BIN)/python -m lavender.demo --all

test: $(READY)  ## the quick suite
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not gpu"

test-all: $(READY)  ## everything that this machine can run
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lavender _tools main_*.py eval_*.py

clean:
	rm -rf _demo .pytest_cache .ruff_cache .mypy_cache
