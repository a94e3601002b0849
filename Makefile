# Everything here works on a machine with make and Python 3.11 or newer; the rest is installed into .venv.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check bench fuzz docs

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) ## every HTTP stack on one session: 20 seconds, a live table, a verdict (ARGS="--seconds 60")
	@$(BIN)/python -m tradovate_auth.testing.demo $(ARGS)

test: $(INSTALLED) ## all tests, with branch coverage of every line (ARGS="-k name" for some, without the limit)
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal $(ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(if $(ARGS),--fail-under=0)

check: $(INSTALLED) ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(INSTALLED) ## what the adapters cost, as ratios within one run, and the month of a fleet: some minutes
	@PYTHONPATH=tests $(BIN)/python -m bench.run

fuzz: $(INSTALLED) ## inputs that nobody thought of, for what reads others' bytes: 20 seconds (ARGS="--seconds 600")
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@PYTHONPATH=tests $(BIN)/python -m bench.fuzz $(ARGS)

docs: $(INSTALLED) ## the documentation, into docs/_build/html
	$(BIN)/sphinx-build -W -n -b html docs docs/_build/html

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "This needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV): a minute, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
