# Every target works on a fresh machine: the environment is made on the way.
#   make test VENV=/path/to/environment   uses an existing environment as it is
#   make test PYTHON=python3.12           makes the environment with another interpreter

VENV ?= .venv
PYTHON ?= python3
OUTPUT ?= outputs/blocks
# Processes that share the tests; each computes with one thread.
WORKERS ?= 2
# More arguments for the command behind a target: make test ARGUMENTS="-k similarity"
ARGUMENTS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.vl-alignment-installed
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest

# An environment named by VENV that exists and was not made here is used as it is.
ENVIRONMENT := $(STAMP)
ifneq ($(VENV),.venv)
ifneq ($(wildcard $(BIN)/python),)
ifeq ($(wildcard $(STAMP)),)
ENVIRONMENT :=
endif
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## Show this help
	@echo "Targets (variables: VENV=$(VENV) PYTHON=$(PYTHON) OUTPUT=$(OUTPUT) WORKERS=$(WORKERS) ARGUMENTS=):"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: study
study: $(ENVIRONMENT)  ## Train and compare all alignment functions on the built-in data; resumes
	$(BIN)/vl-alignment compare --output $(OUTPUT) $(ARGUMENTS)

.PHONY: test
test: $(ENVIRONMENT)  ## Run all tests but the slow ones
	$(PYTEST) -n $(WORKERS) -m "not slow" $(ARGUMENTS)

.PHONY: test-slow
test-slow: $(ENVIRONMENT)  ## Run the slow tests
	$(PYTEST) -m slow $(ARGUMENTS)

# An environment of its own with the lowest versions that pyproject.toml admits; PYTHON should be 3.11, the lowest too.
LOWEST := build/lowest
.PHONY: test-lowest
test-lowest: $(LOWEST)/.installed  ## Run the tests on the lowest versions that pyproject.toml admits
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n $(WORKERS) -m "not slow" $(ARGUMENTS)

$(LOWEST)/.installed: pyproject.toml .ci/lowest_versions.py
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python .ci/lowest_versions.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --constraint $(LOWEST)/constraints.txt --editable ".[test,features,hdf5,ocr,index,demo,browser]"
	touch $@

.PHONY: audit
audit: $(ENVIRONMENT)  ## Check pins, licenses, origin and known vulnerabilities of what is installed
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit
	$(BIN)/python .ci/audit.py $(BIN)/python build/audit/bin/pip-audit

.PHONY: lint
lint: $(ENVIRONMENT)  ## Check formatting, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: format
format: $(ENVIRONMENT)  ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: benchmark
benchmark: $(ENVIRONMENT)  ## Measure all speed and memory figures against the plain versions
	$(BIN)/python benchmarks/run.py --output outputs/benchmarks.json $(ARGUMENTS)

.PHONY: fuzz
fuzz: $(ENVIRONMENT)  ## Feed every reader with 21,000 damaged and hostile files
	$(BIN)/python benchmarks/fuzz.py $(ARGUMENTS)

.PHONY: environment
environment: $(ENVIRONMENT)  ## Make the virtual environment with the tested versions

.PHONY: clean
clean:  ## Remove the environment, caches and build products; outputs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist src/*.egg-info
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[test,lint,features,hdf5,ocr,index,demo,browser]"
	touch $@
