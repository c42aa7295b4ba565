# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone with Python 3.11, pip and make.
#   make test PYTHON=/path/to/python3.11      another interpreter
#   make test VENV=/tmp/venv                  another place for the virtual environment
#   make test PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
#                                             PyTorch without CUDA where PyPI's wheel brings it (Linux): 0.2 GB, not 3 GB

PYTHON    ?= python3.11
VENV      ?= .venv
PIP_FLAGS ?=
BIN       := $(VENV)/bin
STAMP     := $(VENV)/.outthink-installed
PIP       := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_FLAGS)

.PHONY: help setup demo results test check docs format coverage claims bench peers engines train integration constraints clean
.DEFAULT_GOAL := help

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(STAMP)  ## virtual environment with the pinned versions

# The build backend is installed first, from the same pins, so that building needs no environment of its own.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) flit_core
	$(PIP) --no-build-isolation -e ".[engine,analysis,dev]"
	@touch $@

demo: $(STAMP)  ## accuracy against budget, several methods; writes outputs/demo
	$(BIN)/outthink demo -o outputs/demo

results: demo  ## the table in README.md, from a new run of the demo
	$(BIN)/python benchmarks/readme_table.py outputs/demo

test: $(STAMP)  ## the fast tests
	$(BIN)/python -m pytest

check: $(STAMP)  ## formatting, lint, types, generated pages up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m outthink.papers --check

docs: $(STAMP)  ## METHODS.md and docs/papers, from the cards of the papers
	$(BIN)/python -m outthink.papers

format: $(STAMP)  ## put the formatting right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(STAMP)  ## branch coverage of the contract, which is to be complete
	$(BIN)/python -m pytest tests/core --cov=outthink.core --cov-branch --cov-report=term-missing --cov-fail-under=100

claims: $(STAMP)  ## what the papers claim, measured (slow), and the pages that say so
	$(BIN)/python -m pytest -m "slow and not integration and not gpu" --timeout 1800
	$(BIN)/python -m outthink.papers

bench: $(STAMP)  ## what the runtime and the engine take
	@for script in $(filter-out benchmarks/readme_table.py,$(wildcard benchmarks/*.py)) benchmarks/engine/embedded.py; do \
	    echo "== $$script"; $(BIN)/python $$script || exit 1; \
	done

# In a virtual environment of their own, in the system's temporary folder.
peers: $(STAMP)  ## transformers and llama.cpp, to be measured beside the engine
	$(BIN)/python benchmarks/engine/peers.py --pip-flags "$(PIP_FLAGS)"

engines: peers  ## the engine beside others (hours), and the tables in docs/engine.md
	$(BIN)/python benchmarks/engine/shapes.py --check
	@for name in many_samples search early_stop single_stream growth speculative embedded replicas tables; do \
	    echo "== $$name"; $(BIN)/python benchmarks/engine/$$name.py || exit 1; \
	done

# About an hour on two cores for each; what is shipped stays as it is until somebody copies the new folder over it.
MODELS := outputs/embedded
TRAIN  := $(BIN)/python -m outthink.training train
train: $(STAMP)  ## the embedded models anew, into outputs/embedded
	$(TRAIN) reasoner --out $(MODELS)/reasoner
	$(TRAIN) reasoner-small --out $(MODELS)/reasoner-small
	$(TRAIN) reasoner-prm --base $(MODELS)/reasoner --out $(MODELS)/reasoner-prm
	$(TRAIN) reasoner-prm-weak --base $(MODELS)/reasoner --out $(MODELS)/reasoner-prm-weak

integration: $(STAMP)  ## against servers that are not ours (slow)
	$(BIN)/python -m pytest -m integration --timeout 1800

# Everything at its newest within the ranges of pyproject.toml, except torch: to move that, edit its line first.
FRESH := build/constraints
constraints:  ## pin the newest versions that the ranges allow
	$(PYTHON) -m venv --clear $(FRESH)
	$(FRESH)/bin/python -m pip install --quiet $(PIP_FLAGS) flit_core "$$(grep '^torch==' constraints.txt)"
	$(FRESH)/bin/python -m pip install --quiet $(PIP_FLAGS) --no-build-isolation -e ".[engine,analysis,dev]"
	{ grep '^#' constraints.txt; $(FRESH)/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > $(FRESH).txt
	mv $(FRESH).txt constraints.txt
	rm -rf $(FRESH)

clean:  ## remove what the targets made, the virtual environment included
	rm -rf $(VENV) outputs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
