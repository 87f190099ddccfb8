# Everything runs in .venv, which is made on first use and again whenever
# requirements.txt or pyproject.toml change. After that nothing needs a network.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
QUICKSTART := runs/quickstart

# Libraries that would look for a cloud or a model hub are told not to.
export HF_HUB_OFFLINE := 1
export NO_GCE_CHECK := true
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help install quickstart test lint format slow clean

help:
	@echo 'make quickstart  install, sweep the shipped models, show the report'
	@echo 'make test        install, then lint, types and tests'
	@echo 'make lint        format check, lint and types alone'
	@echo 'make format      format the code and sort the imports'
	@echo 'make slow        the tests that take minutes each'
	@echo 'make install     the environment alone, in $(VENV)'
	@echo 'make clean       remove $(VENV), caches and $(QUICKSTART)'

$(INSTALLED): requirements.txt pyproject.toml
	@test -n '$(PYTHON)' || { \
	  echo 'No python3 found; install Python 3.11 or newer.'; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo '$(PYTHON) is older than 3.11; say make PYTHON=/path/to/python3.11';\
	  exit 1; }
	'$(PYTHON)' -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation -e .
	@touch $@

install: $(INSTALLED)

quickstart: $(INSTALLED)
	$(BIN)/speccascade sweep --gin_file=configs/quickstart.gin \
	  --gin.RUN_DIR='"$(QUICKSTART)"'
	$(BIN)/speccascade report $(QUICKSTART)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

# One worker a core of a small machine; a test file stays on one worker, so
# that what it compiled is compiled once. Files of many tests start first: keep
# one of few tests under a minute, or it runs alone at the end.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf $(VENV) $(QUICKSTART) .pytest_cache .ruff_cache .mypy_cache build dist
