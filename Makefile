# The whole manual of this repository: `make` lists its targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for processes most of the time.
WORKERS ?= $(shell cores=$$(nproc); echo $$(( cores < 7 ? cores + 1 : 8 )))
PYTEST := pytest -n $(WORKERS) --dist loadscope
# What tests and benchmarks need beside Python packages and is not to be found here, as Debian calls it.
has = $(shell command -v $(1) 2>/dev/null)
MISSING := $(strip $(if $(call has,chromium chromium-browser google-chrome),,chromium) $(if $(call has,ip),,iproute2) \
	$(if $(call has,unshare),,util-linux))

.PHONY: help demo test check lowest bench system format clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## train a small model on 4 ranks, watched live
	@$(BIN)/allranks demo

test: $(VENV)/.dev system ## the whole test suite
	@$(BIN)/$(PYTEST)

check: $(VENV)/.dev ## lint, format, types (mypy and pyright, strict)
	@$(BIN)/ruff check --output-format concise .
	@$(BIN)/ruff format --check --quiet . || { echo 'some files are not formatted: run make format'; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/pyright

lowest: $(VENV)-lowest/.lowest ## unit tests against the oldest dependencies that we claim to support
	@$(VENV)-lowest/bin/$(PYTEST) -q tests/unit/bus tests/unit/sdk tests/unit/collector

bench: $(VENV)-bench/.bench $(VENV)/.dev system ## the figures, against ceilings and peers; results in benchmarks/results
	@$(BIN)/python -m benchmarks --peers

format: $(VENV)/.dev ## lint fixes and formatting
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

clean: ## remove the virtual environments
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-bench

# Where we may, we install it: a browser, and hosts whose cables can be pulled.
system:
ifneq ($(MISSING),)
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends $(MISSING) >/dev/null; \
	else echo 'the tests need these packages, as Debian calls them: $(MISSING)'; exit 1; fi
endif

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo 'allranks needs Python 3.10 or newer: make PYTHON=python3.12 …'; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo 'installing into $(VENV) …'
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo 'installing the development tools into $(VENV) …'
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[dev,frameworks]'
	@touch $@ $(VENV)/.demo

$(VENV)-bench/.bench: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-bench
	@$(VENV)-bench/bin/pip install -q --disable-pip-version-check -e '.[bench]'
	@touch $@

$(VENV)-lowest/.lowest: pyproject.toml tests/lowest.py
	@$(PYTHON) -m venv $(VENV)-lowest
	@$(VENV)-lowest/bin/python tests/lowest.py > $(VENV)-lowest/constraints.txt
	@$(VENV)-lowest/bin/pip install -q --disable-pip-version-check -c $(VENV)-lowest/constraints.txt -e '.[dev]'
	@touch $@
