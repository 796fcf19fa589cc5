# Everything runs in .venv, which `make install` fills from the pinned versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := $(VENV)/.kernels

.DEFAULT_GOAL := help
.PHONY: help install demo tables test check format clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## create .venv with the package and its development tools

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

$(KERNELS): $(STAMP)  # a gigabyte that the tests of the GPU's kernels need, in Triton's interpreter, and no one else
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,cuda]"
	touch $@

demo: $(STAMP)  ## complete the example scan and draw it before and after
	$(BIN)/python -m densescan.demo

tables: $(STAMP)  ## write the tables of README and docs anew from the records
	$(BIN)/python benchmarks/pages.py

test: check $(KERNELS)  ## all checks, then the tests, one process a core
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal

check: $(STAMP)  ## style, formatting, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## put the code into the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, caches and build products
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests -type d \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +
