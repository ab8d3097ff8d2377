# Everything a developer types. `make` alone lists the targets.

UV_VERSION := 0.13.9
PYTHON ?= python3
ARGS ?=

# What the wheels in uv.lock are for.
PYTHONS := '>=3.11,<3.15'

# An uv that answers is used; else a pinned one of our own is made in .uv.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
export UV_PROJECT_ENVIRONMENT := .venv

RUN := .venv/bin/

.DEFAULT_GOAL := help
.PHONY: help setup parts format lint types imports check test integration storm bench docs dashboards rules demo clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s%s\n", $$1, $$2}'

setup: .venv/.synced  ## make .venv with everything, leadpulse in .venv/bin
	@:

.uv/bin/uv:
	@echo "setup: no uv on this machine, putting uv $(UV_VERSION) into .uv"
	@$(PYTHON) -m venv .uv \
		|| { rm -rf .uv; echo "setup: $(PYTHON) can make no virtual environment: install python3-venv, or uv"; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Both stamps hold as long as the lock and the project file do not change.
.venv/.synced: pyproject.toml uv.lock | $(filter .uv/bin/uv,$(UV))
	@echo "setup: making .venv from uv.lock"
	@$(UV) sync --quiet --frozen --python $(PYTHONS) --all-extras
	@touch .venv/.synced .venv/.demo

# What a first user needs and no more; takes nothing away from a developer's environment.
.venv/.demo: pyproject.toml uv.lock | $(filter .uv/bin/uv,$(UV))
	@echo "setup: making .venv from uv.lock"
	@$(UV) sync --quiet --frozen --python $(PYTHONS) --inexact --no-dev --extra demo --extra visitors
	@touch .venv/.demo

parts: setup  ## install what tests need besides Python: Java, Maven, Redis, Kafka's jars
	@$(RUN)python -m tests.parts.install

format: setup  ## format and mend what can be mended
	@$(RUN)ruff format .
	@$(RUN)ruff check --fix .

lint: setup  ## lint, and see that the format is right
	@$(RUN)ruff check .
	@$(RUN)ruff format --check .

types: setup  ## mypy strict
	@$(RUN)mypy

imports: setup  ## who may import whom
	@$(RUN)lint-imports --no-logo

check: lint types imports  ## lint, format, types and imports

test: parts check  ## check, then every test: unit, property, integration, fault
	@$(RUN)pytest $(ARGS)

integration: parts  ## only the tests on a real broker and a real Redis
	@$(RUN)pytest -m "integration or fault" $(ARGS)

storm: parts  ## kill and pause workers, then compare everything; ARGS="--seed 7 --events 60000 --faults 8 --workers 2"
	@$(RUN)python -m tests.faults.storm $(ARGS)

bench: parts  ## measure against plain Faust; ARGS="--json FILE"
	@$(RUN)python -m tests.bench $(ARGS)

docs: setup  ## write what is made from the code: tables of KPIs, schemas, dashboards, topics
	@$(RUN)python -m tests.generated

dashboards: setup  ## write Grafana's dashboards from their code
	@$(RUN)python deploy/grafana/dashboards.py

rules: parts  ## check and test what Prometheus and Alertmanager are told
	@promtool check config deploy/prometheus/prometheus.yml
	@promtool test rules deploy/prometheus/tests/*.test.yml
	@amtool check-config deploy/alertmanager/alertmanager.yml

demo: .venv/.demo  ## broker, Redis, worker and traffic in one go; ARGS="--seconds 30 --plain"
	@$(RUN)leadpulse demo $(ARGS)

clean:  ## take away everything that make made
	rm -rf .venv .uv .parts .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
