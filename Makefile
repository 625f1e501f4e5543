# What people do with a checkout. `make help` lists it; `make up` and `make test` install what they need first.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help install up demo test lint types tests soak bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

install: $(STAMP) ## the environment in .venv (about 2 GB, 3 to 10 minutes, once)

$(STAMP): constraints.txt pyproject.toml
	@python=''; for name in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if "$$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; \
	  then python=$$name; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo 'Python 3.11, 3.12 or 3.13 with its venv module is needed (Debian: apt install python3 python3-venv).' >&2; \
	  echo 'If it stands somewhere else: make install PYTHON=/path/to/python3' >&2; exit 1; fi; \
	echo "Installing into $(VENV) with $$($$python --version): $$(wc -l < constraints.txt) packages, about 2 GB on disk."; \
	echo 'This takes 3 to 10 minutes, once; packages that are cached already come faster.'; \
	[ -x $(BIN)/python ] || "$$python" -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
	@echo "Installed: $$(du -sh $(VENV) | cut -f1). Next: make up, or $(BIN)/aiops --help"

up: $(STAMP) ## start the platform on this machine; Ctrl-C ends it
	@exec $(BIN)/aiops up

demo: $(STAMP) ## a storm with six faults through a platform of its own, to incidents: about three minutes
	@exec $(BIN)/aiops demo

test: lint types tests ## everything that CI runs: lint, types, unit, definitions, e2e, faults

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP)
	$(BIN)/mypy

# Hundreds of processes are started: without compiled modules each would compile all of ours again.
tests: $(STAMP)
	@.ci/system-packages
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not soak'

soak: $(STAMP) ## long fault runs: a hundred kills, an hour of everything, all examples of property tests
	$(BIN)/python -m pytest -m soak --timeout 7200
	EXAMPLES=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not soak" tests/unit

bench: $(STAMP) ## speed, each line beside a bare reference; JSON in out/bench.json (QUICK=1 for a short run)
	$(BIN)/python tests/benchmarks/run.py $(if $(QUICK),--quick) $(TOPICS)

clean: ## remove caches and results; .venv and the home folder stay
	rm -rf out dist dbt/target dbt/logs .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
