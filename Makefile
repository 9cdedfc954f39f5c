# Each command makes .venv and installs into it what it needs, when that is not there yet.
PYTHON ?= python3
BIN := .venv/bin
# Processes that share the tests, and threads of each: more threads than cores wait for each other. Three processes on
# two cores, as many tests wait for other processes.
WORKERS ?= 3
OMP_NUM_THREADS ?= 1
READY := .venv/.ready
# Without bytecode each process would compile all tests again, for 15 s.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(BIN)/python -m pytest

CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
NO_CHROMIUM := the test of the page needs Chromium, and it could not be installed: apt-get install chromium, as root

.PHONY: demo demo-all test test-all test-page lint clean

$(READY): requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: $(READY)  ## made-up clips → frames → pretraining → one model for four tasks → a page, in minutes
	$(BIN)/python -m lavender.demo

demo-all: $(READY)  ## the same, and then controls, a model for each task, and the task-specific heads
	$(BIN)/python -m lavender.demo --all

test: $(READY)  ## the quick suite
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow and not gpu and not page"

test-all: $(READY)  ## everything that this machine can run
	$(PYTEST) -n $(WORKERS) --dist worksteal

test-page: $(READY)  ## the page in a headless Chromium, which Debian and Ubuntu have as a package
ifeq ($(CHROMIUM),)
	@test "$$(id -u)" = 0 || { echo "$(NO_CHROMIUM)" >&2; exit 1; }
	@apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium \
		|| { echo "$(NO_CHROMIUM)" >&2; exit 1; }
endif
	$(PYTEST) -m "page and not slow" tests/page

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lavender _tools main_*.py eval_*.py

clean:
	rm -rf _demo .pytest_cache .ruff_cache .mypy_cache
