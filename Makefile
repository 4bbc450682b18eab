# One environment in .venv, one command per job. `make` alone lists them.
#
# Nothing here needs the network once .venv exists, and nothing loads a model or a data set from a hub.

PYTHON ?= python3
BIN := .venv/bin
SCENARIO ?= simulations/scenarios/demo.toml
# One test process per core; `make test WORKERS=0` runs them in one process, which is what a debugger wants.
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check slow bench docs constraints clean

help: ## list the commands
	@awk -F ': |## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$NF }' $(MAKEFILE_LIST)

# Two stamps, so that the demo does not install test tools. The stamp is older than the files it was built from when
# they change, and then pip brings the environment up to date; it is written last, so a broken install is not kept.
.venv/demo.stamp: pyproject.toml constraints.txt
	@echo "Building the environment in .venv; this takes some minutes the first time."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[demo]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt
	@echo "Building the environment in .venv; this takes some minutes the first time."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[demo,dev,site,coordinator,ray]'
	touch $@ .venv/demo.stamp

demo: .venv/demo.stamp ## fine-tune across four simulated hospitals, with patient-level privacy
	$(BIN)/cloister-simulate run $(SCENARIO)

test: .venv/dev.stamp ## run the quick tests
	$(PYTEST)

check: .venv/dev.stamp ## lint, types, import rules and the quick tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(PYTEST)

slow: .venv/dev.stamp ## run the tests that take longer
	$(PYTEST) -m slow

bench: .venv/dev.stamp ## measure what privacy, the simulation and a deployed federation cost in time, memory and bytes
	$(BIN)/python -m simulations.bench
	$(BIN)/python -m simulations.bench_deployed

docs: .venv/demo.stamp ## write docs/configuration.md from the config classes
	$(BIN)/python -m simulations.config_docs > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

constraints: .venv/dev.stamp ## write down the versions of this environment, after an upgrade that was tested
	sed -n '/^#/p' constraints.txt > constraints.txt.new
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//' >> constraints.txt.new
	mv constraints.txt.new constraints.txt

clean: ## remove the environment and what tools left behind; run folders stay
	rm -rf .venv build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache .coverage
	find common client server simulations tests -name __pycache__ -type d -prune -exec rm -rf {} +
