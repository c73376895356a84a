# The course's commands. `make lab` and `make test` do all set-up themselves; the second time it takes under a second.
# ARGS adds options, as in: make lab ARGS="--port 9000", make setup ARGS=--again, make test ARGS="-k cgroup".

.DEFAULT_GOAL := help
.PHONY: help lab test setup notebooks pictures check clean
MAKEFLAGS += --no-print-directory

BOOTSTRAP := sh labkit/setup/bootstrap.sh
PY := .venv/bin/python
ARGS ?=
PARTS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/labkit/parts
# The order of labkit.setup.parts.search_path: where a program of the lessons or the tests may lie besides PATH.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:$(PARTS)/usr/bin:$(PARTS)/usr/sbin:$(PARTS)/bin
CACHES := .mypy_cache .ruff_cache .pytest_cache .hypothesis

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: ## Set up what is missing and open JupyterLab on lesson 00
	@$(BOOTSTRAP) && exec $(PY) -P -m labkit.sandbox.server $(ARGS)

test: ## Set up what is missing and run all tests: as root also as an ordinary user, in a VM, and the notebooks
	@$(BOOTSTRAP) --dev
	@exec $(PY) -m tests.support.runs $(ARGS)

setup: ## Do the set-up alone: system parts, .venv/, packages, kernelspec
	@$(BOOTSTRAP) $(ARGS)

notebooks: ## Run notebooks/*.py and write the .ipynb files with their outputs
	@$(BOOTSTRAP) --dev && exec $(PY) -m labkit.lesson.build $(ARGS)

pictures: ## Draw notebooks/figures/*.svg again
	@$(BOOTSTRAP) && exec $(PY) -m labkit.charts.drawings $(ARGS)

check: ## What a change must pass: format, lint, types, then make test
	@$(BOOTSTRAP) --dev
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy --strict labkit
	@$(MAKE) test

clean: ## Remove what labkit left on the machine, .venv/ and the tools' caches
	@if [ -x $(PY) ]; then $(PY) -m labkit.cli clean; fi
	@echo "removing .venv $(CACHES) and __pycache__ folders (kept: downloaded parts in ~/.cache/labkit)"
	@rm -rf .venv $(CACHES)
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
