# Bookmesh needs Python 3.11+ and make, nothing else: every target first brings .venv up to date.

HTTP_PORT = 8080
GRPC_PORT = 9090
SELLERS = 50
DATA = .local
JOBS = 2

BIN := .venv/bin
# Where tools/breaking.sh finds buf.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo up test lint gen openapi simulate bench chaos lock clean install
.PHONY: gen-check openapi-check breaking

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install ## Buy three books from 50 sellers through the whole mesh, then exit
	@$(BIN)/bookmesh demo

up: install ## Run the whole mesh until Ctrl-C (HTTP_PORT=8080 GRPC_PORT=9090 SELLERS=50 DATA=.local; TLS=1: https)
	@$(BIN)/bookmesh up --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --sellers $(SELLERS) --data '$(DATA)' $(if $(TLS),--tls)

test: lint ## All checks, then all tests, in JOBS=2 processes
	@sh tools/test.sh $(JOBS)

lint: install gen-check breaking ## All checks: style, types, imports, contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint
	$(BIN)/buf format protos --diff --exit-code

gen: install ## Write gen/ from protos/
	$(BIN)/python tools/generate.py

openapi: install ## Write docs/openapi.yaml from protos/ (needs Go)
	$(BIN)/python tools/openapi/generate.py

simulate: install ## Every fault at every point of every purchase, in virtual time; writes build/simulate.json
	@$(BIN)/python -m tests.simulation

bench: install ## Measure; prints a table and writes build/bench.json (BOOKS=file.csv: its demand besides Zipf's)
	@BOOKS='$(BOOKS)' $(BIN)/python -m bench

chaos: install ## Buy 1,000 books while everything is killed; compares all ledgers (ARGS='--purchases 100 --seed 7')
	@$(BIN)/python -m tests.chaos $(ARGS)

gen-check: install
	$(BIN)/python tools/generate.py --check

openapi-check: install
	$(BIN)/python tools/openapi/generate.py --check

breaking: install
	@sh tools/breaking.sh

lock: install ## Write requirements.txt from pyproject.toml (UPGRADE=--upgrade: to the newest versions)
	$(BIN)/uv pip compile pyproject.toml --extra local --group dev --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command 'make lock' --quiet $(UPGRADE) -o requirements.txt

clean: ## Remove what the other targets made, save the data of meshes
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install: .venv/installed

.venv/installed: requirements.txt pyproject.toml tools/install.sh
	@sh tools/install.sh
