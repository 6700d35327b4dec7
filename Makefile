# One model, two serving paths, one pipeline. `make e2e` does the main job, `make test` checks the project.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

UV_VERSION := 0.13.9
UV := $(or $(shell command -v uv),.uv/bin/uv)
RUN := $(UV) run --frozen --quiet
# What is run may call uv itself.
export PATH := $(CURDIR)/.uv/bin:$(PATH)

REPORT ?= report
ARGS ?=

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv==$(UV_VERSION)

.venv/.synced: pyproject.toml uv.lock $(filter .uv/bin/uv,$(UV))
	@$(UV) sync --frozen --quiet --compile-bytecode
	@touch $@

.PHONY: e2e
e2e: .venv/.synced ## The main job on the embedded node (root). REPORT=DIR, ARGS="--source DIR --keep".
	@$(RUN) python -m ci.node e2e --report $(REPORT) $(ARGS)

.PHONY: down
down: .venv/.synced ## Stop the embedded node that `make e2e ARGS=--keep` left up.
	@$(RUN) python -m ci.node down

.PHONY: test
test: check prepare unit browser interop cluster ## Lint, types, and every tier that needs no Dagger engine.

.PHONY: check
check: .venv/.synced ## Lint and types.
	@$(RUN) ruff format --check
	@$(RUN) ruff check
	@$(RUN) mypy src ci tests

.PHONY: prepare
prepare: .venv/.synced ## Install packages and build programs for the embedded node (root), once.
	@$(RUN) python -m ci.node prepare

.PHONY: unit
unit: .venv/.synced ## Unit and contract tests: no root, no network.
	@$(RUN) pytest tests/unit tests/contract

.PHONY: browser
browser: .venv/.synced ## The report's pages in a headless Chromium; screenshots in build/screenshots.
	@$(RUN) pytest tests/browser

.PHONY: interop
interop: .venv/.synced ## Our images in skopeo, crane, umoci, oras, containerd and KServe's commands (root).
	@$(RUN) python -m ci.node test tests/interop

.PHONY: cluster
cluster: .venv/.synced ## Cluster tests: a real API server, KServe and registry (root).
	@$(RUN) python -m ci.node test tests/cluster

.PHONY: test-gateway
test-gateway: .venv/.synced ## agentgateway and the endpoint picker, where SERVEPATH_AGENTGATEWAY names built programs (root).
	@$(RUN) python -m ci.node test tests/gateway

.PHONY: bench-modelcar
bench-modelcar: .venv/.synced ## Push one model beside oras, oci-modelcar and olot; writes docs/modelcar-bench.md (root).
	@$(RUN) python -m ci.modelcar_bench $(ARGS)

.PHONY: bench-pull
bench-pull: .venv/.synced ## Pull every form of a modelcar with containerd: make bench-pull MODEL=DIR (root).
	@$(RUN) python -m ci.modelcar_pull $(MODEL) $(ARGS)

.PHONY: bench-load
bench-load: .venv/.synced ## The load generator beside GuideLLM: what each adds and costs (installs GuideLLM, 1.1 GB).
	@$(RUN) python -m ci.load_bench compare $(ARGS)

.PHONY: test-guidellm
test-guidellm: .venv/.synced ## The metrics' definitions against GuideLLM, point by point (installs GuideLLM, 1.1 GB).
	@$(RUN) python -m ci.load_bench install
	@$(RUN) pytest tests/agreement

.PHONY: test-engine
test-engine: .venv/.synced ## `dagger call` on a real Dagger engine; skipped, with the reason, where none is reachable.
	@$(RUN) pytest tests/engine
