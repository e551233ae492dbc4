# Thin on purpose: people, the Makefile and CI run the same scripts.

.PHONY: help install demo test lint bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: ## make .venv with everything developers need
	@scripts/install dev

demo: ## run notebooks/quickstart.ipynb in a sandbox
	@scripts/install demo
	@.venv/bin/python scripts/demo.py

test: ## lint, types and all tests
	@scripts/install dev
	@scripts/test

lint: ## ruff, mypy and pyright
	@scripts/install dev
	@scripts/lint

bench: ## compare with plain ipykernel
	@scripts/install dev
	@scripts/bench

clean: ## remove .venv and everything that was built
	@scripts/clean
