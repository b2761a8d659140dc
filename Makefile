# `make demo` and `make test` are all that a fresh machine needs: each makes the environment it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export RAY_USAGE_STATS_ENABLED = 0
SHELL := bash
# of pip's many lines those that show progress: each download with its size, the installation, errors
SHOWN := -E '/^ *(Downloading|Building|Installing|ERROR|error)/p'

.PHONY: demo test test-all lint format clean

demo: $(VENV)/.installed
	@$(BIN)/python -m jobs.demo

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest

test-all: $(VENV)/.installed lint
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, this is {v}; set PYTHON=")'
	@echo "Installing into $(VENV): about 3 GB to download (the default torch wheels), 7 GB on disk, a few minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@set -o pipefail; $(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable ".[dev]" | sed -un $(SHOWN)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
