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

.PHONY: help setup demo test check format coverage claims bench train integration clean
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

test: $(STAMP)  ## the fast tests
	$(BIN)/python -m pytest

check: $(STAMP)  ## formatting, lint, types, layout
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)  ## put the formatting right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(STAMP)  ## branch coverage of the contract, which is to be complete
	$(BIN)/python -m pytest tests/core --cov=outthink.core --cov-branch --cov-report=term-missing --cov-fail-under=100

claims: $(STAMP)  ## what the papers claim, measured (slow)
	$(BIN)/python -m pytest -m "slow and not integration and not gpu" --timeout 1800

integration: $(STAMP)  ## against servers that are not ours (slow)
	$(BIN)/python -m pytest -m integration --timeout 1800

clean:  ## remove what the targets made, the virtual environment included
	rm -rf $(VENV) outputs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
