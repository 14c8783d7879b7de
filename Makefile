# `make setup` makes .venv with what a user needs, `make setup-dev` with all that the tests need; other targets call them.
PYTHON ?= python3
EXTRAS ?= all,server# of `make setup`: one domain is EXTRAS=text
TORCH_INDEX ?=# an index of torch builds without CUDA; the default index is asked for all else
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
UV := $(shell command -v uv 2>/dev/null)
ifdef UV
INSTALL := uv pip install --quiet --python $(BIN)/python
NEW := uv venv --quiet --python ">=3.11,<3.14" $(VENV)
else
INSTALL := $(BIN)/python -m pip install --quiet
NEW := $(PYTHON) -m venv $(VENV)
endif
TORCH := $(shell sed -nE 's/^(torch|torchaudio)==([^ ;]+).*/\1==\2/p' requirements.lock)
CUDA := ^(nvidia-|cuda-|triton==)
export OMP_NUM_THREADS ?= 1
ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
export TOKENIZERS_PARALLELISM = false
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test fast check format bench docs wheel lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## .venv with the four domains and the server, advgym editable (EXTRAS=text: one domain; TORCH_INDEX=URL)

setup-dev: $(DEV) ## .venv with the whole lock: the tests, the peers they compare with, the tools of `make check`

$(STAMP): requirements.lock pyproject.toml
	@echo "make setup: advgym[$(EXTRAS)] into $(VENV), versions of requirements.lock. All domains and the server are 115"
	@echo "packages, 5.8 GB on the disk, of which 3.5 GB are CUDA libraries that torch brings from the default index."
	test -x $(BIN)/python || $(NEW)
	$(if $(TORCH_INDEX),$(INSTALL) --index-url $(TORCH_INDEX) $(TORCH))
	$(INSTALL) --constraint requirements.lock --editable ".[$(EXTRAS)]"
	touch $@

$(DEV): requirements.lock pyproject.toml
	@echo "make setup-dev: $$(wc -l < requirements.lock) packages at most into $(VENV), 6.5 GB on the disk, of which 3.5 GB are CUDA"
	@echo "libraries that torch brings from the default index; minutes on a fast line."
	test -x $(BIN)/python || $(NEW)
	$(if $(TORCH_INDEX),$(INSTALL) --index-url $(TORCH_INDEX) $(TORCH))
	$(if $(TORCH_INDEX),grep -vE '$(CUDA)|^torch(audio)?==' requirements.lock > $(VENV)/lock.txt,cp requirements.lock $(VENV)/lock.txt)
	$(INSTALL) --no-deps --requirement $(VENV)/lock.txt
	$(INSTALL) --no-deps --editable .
	touch $(STAMP) $@

demo: setup ## attack all four domains with the same agents; writes demo/index.html
	$(BIN)/advgym demo --out demo

test: setup-dev ## the whole suite; realdata tests run where ADVGYM_DATA is set
	$(BIN)/python -m pytest $(ARGS)

fast: setup-dev ## the suite without its slow tests
	$(BIN)/python -m pytest -m "not slow"

check: setup-dev ## ruff, mypy (all files; the core --strict), import contracts, doctests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs/test_docs_doctests.py -p no:cacheprovider

format: setup-dev ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev ## every benchmark, each prints its own table
	$(BIN)/advgym bench --all

docs: setup-dev ## the documentation as a site
	$(BIN)/mkdocs build --strict --site-dir site

wheel: setup-dev ## dist/*.whl
	$(BIN)/python -m build --wheel --outdir dist

lock: ## solve requirements.lock again (needs uv)
	uv pip compile --quiet pyproject.toml --extra dev --python-version 3.11 --universal --no-header --no-annotate -o requirements.lock

clean: ## what the targets made
	rm -rf $(VENV) build dist site demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
