# `make help` lists what there is. PYTHON makes the environment; RUN names a training run; ARGS go to its command.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
RUN ?= runs/nano
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help setup train test check bench

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## make .venv with everything that training and the checks need

# torch goes first, so that its pinned version decides what the rest resolves to.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet -e '.[train,dev]'
	@touch $@

train: $(STAMP) ## train on the built-in tasks; RUN=runs/NAME, ARGS="--key value ..."
	$(BIN)/recall train --run $(RUN) $(ARGS)

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest -q $(ARGS)

check: $(STAMP) ## formatting, lint and types, then the tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory test

bench: $(STAMP) ## run every benchmark; each prints a table
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done
