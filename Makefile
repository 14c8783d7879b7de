# `make setup` makes .venv from the lock; every other target calls it first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(shell command -v uv 2>/dev/null)
export OMP_NUM_THREADS ?= 1
ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
export TOKENIZERS_PARALLELISM = false
.DEFAULT_GOAL := help
.PHONY: help setup demo test fast check format bench docs wheel lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## .venv with everything in the lock, advgym editable (idempotent)

$(STAMP): requirements.lock pyproject.toml
ifdef UV
	test -x $(BIN)/python || uv venv --quiet --python ">=3.11,<3.14" $(VENV)
	uv pip install --quiet --python $(BIN)/python -r requirements.lock
	uv pip install --quiet --python $(BIN)/python --no-deps -e .
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
endif
	touch $@

demo: setup ## attack all four domains with the same agents; writes demo/index.html
	$(BIN)/advgym demo --out demo

test: setup ## the whole suite; realdata tests run where ADVGYM_DATA is set
	$(BIN)/python -m pytest $(ARGS)

fast: setup ## the suite without its slow tests
	$(BIN)/python -m pytest -m "not slow"

check: setup ## ruff, mypy (all files; the core --strict), import contracts, doctests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs/test_docs_doctests.py -p no:cacheprovider

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## every benchmark, each prints its own table
	$(BIN)/advgym bench --all

docs: setup ## the documentation as a site
	$(BIN)/mkdocs build --strict --site-dir site

wheel: setup ## dist/*.whl
	$(BIN)/python -m build --wheel --outdir dist

lock: ## solve requirements.lock again (needs uv)
	uv pip compile --quiet pyproject.toml --extra dev --python-version 3.11 --universal --no-header --no-annotate -o requirements.lock

clean: ## what the targets made
	rm -rf $(VENV) build dist site demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
