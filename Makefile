# Windsock: every command a developer or CI uses. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo up down status test test-thorough test-fast test-kubernetes test-compose mutations images lint lint-deploy format bench sbom lock clean

BIN := .venv/bin
# Heavy libraries must not spin while they wait for a core that somebody else uses.
export OMP_WAIT_POLICY ?= passive
unexport PYTHONDONTWRITEBYTECODE
# More processes than cores run the tests, as many of them wait; tests/conftest.py says how many, and in what order.
SHARED := --numprocesses auto --no-loadscope-reorder

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-15s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv from the lock (the other commands do it themselves)
	@scripts/setup.sh

demo: setup ## Run the whole loop on simulated payments: data to model to drift to new model
	@$(BIN)/windsock demo $(ARGS)

up: setup ## Start Airflow, MLflow and PostgreSQL here; Ctrl-C stops them
	@$(BIN)/windsock up $(ARGS)

down: setup ## Stop what `make up` or `make demo` started
	@$(BIN)/windsock down $(ARGS)

status: setup ## Show each part of the running stack
	@$(BIN)/windsock status $(ARGS)

test: setup ## Run every test (those that need what is not here say so and skip)
	@$(BIN)/python -m pytest $(SHARED) $(ARGS)

test-thorough: setup ## Run every test with all examples of properties and all places to kill at, not a third of them
	@HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest $(SHARED) $(ARGS)

test-fast: setup ## Run the tests that need no running stack
	@$(BIN)/python -m pytest tests/unit tests/dags $(SHARED) $(ARGS)

test-kubernetes: setup ## Run the tests on the cluster that KUBECONFIG names (or on one started here, if that can be)
	@scripts/with-cluster.sh $(BIN)/python -m pytest tests/kubernetes $(ARGS)

test-compose: setup ## Run the compose file in a Docker daemon that answers, or that can be started here: ten minutes
	@WINDSOCK_TEST_COMPOSE=1 scripts/with-cluster.sh $(BIN)/python -m pytest -n 0 tests/compose $(ARGS)

mutations: setup ## Break one rule at a time and see that the test named for it fails
	@$(BIN)/python scripts/mutations.py $(ARGS)

images: setup ## Build the container images of trainer and Airflow
	@scripts/images.sh $(ARGS)

lint: setup ## Check style, types and every model spec
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo && $(BIN)/windsock lint

lint-deploy: ## Check images, manifests, compose file, chart values and workflow with the tools that are here
	@scripts/lint-deploy.sh $(ARGS)

format: setup ## Put the code into the house format
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: setup ## Measure, as JSON lines with the physical limit beside each figure
	@$(BIN)/python -m bench $(ARGS)

sbom: ## Write the parts list of the locked packages, with their hashes, to var/sbom.json (CycloneDX)
	@mkdir -p var && $$(command -v uv || echo .uv/bin/uv) tool run --quiet --from cyclonedx-bom==7.5.0 \
		cyclonedx-py requirements requirements.txt --output-reproducible --output-format JSON --output-file var/sbom.json

lock: ## Compile requirements.in into requirements.txt
	@scripts/lock.sh

clean: ## Stop the stack and remove what is made here, .venv aside
	@[ ! -x $(BIN)/windsock ] || $(BIN)/windsock down || true
	@rm -rf var .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis include/*.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
