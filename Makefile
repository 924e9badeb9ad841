PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

# Absolute, since tests run the command from folders of their own.
ifdef EBMRUN_DATA
export EBMRUN_DATA := $(abspath $(EBMRUN_DATA))
endif
# One thread for each process: the tests run in two, and threads that wait for each other stall on a busy machine.
export OMP_NUM_THREADS ?= 1

.PHONY: help run test test-all lint clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

run: $(VENV)/ready  ## set up, then train by predictive coding on the bundled digits
	$(BIN)/ebmrun algo=pc dataset=digits

test: $(VENV)/ready-to-test  ## set up, then run the quick tests; they read MNIST from the folder EBMRUN_DATA
	$(BIN)/pytest -n 2 -m "not slow"

test-all: $(VENV)/ready-to-test  ## the same, with the slow tests
	$(BIN)/pytest -n 2

lint: $(VENV)/ready-to-test  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:  ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# A stamp is written only after its installation succeeded; what it depends on decides when to install again.
$(VENV)/ready: setup.cfg pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) .
	touch $@

$(VENV)/ready-to-test: setup.cfg pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) .[test]
	touch $@ $(VENV)/ready
