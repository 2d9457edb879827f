# The same targets serve people, hooks and CI. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Any Python from 3.11 on; override with `make test PYTHON=python3.13` (in a clone without a .venv).
PYTHON ?= $(firstword $(foreach each,python3 python3.13 python3.12 python3.11,$(shell $(each) -c \
	'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(each))))
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := deploy/constraints.txt
PACKAGES := dcmtk redis-server postgresql orthanc dicom3tools libpixelmed-java default-jre-headless openssl

BROKER ?= local
DEMO_OUTPUT ?= demo-output
RUN ?= runs/reference
BENCH_OUTPUT ?= runs/benchmark
PYTEST_WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup
ARGS ?=

.PHONY: help
help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# --- set-up ---------------------------------------------------------------------------------------------------

$(STAMPS)/python:
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed, and none was found" >&2; exit 1; fi
	@if ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then deploy/scripts/system-packages.sh python3-venv; fi
	@if [ ! -x $(BIN)/python ]; then echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); fi
	@mkdir -p $(STAMPS) && touch $@

# The build back end comes from the lock too, hence no isolated (and unpinned) build environment.
$(STAMPS)/serving: $(STAMPS)/python pyproject.toml $(LOCK)
	@echo "installing fundus-worker into $(VENV) (serving: no torch)"
	@$(PIP) install -c $(LOCK) pip hatchling
	@$(PIP) install -c $(LOCK) --no-build-isolation -e .
	@touch $@

$(STAMPS)/dev: $(STAMPS)/serving
	@echo "installing the training and development extras into $(VENV)"
	@$(PIP) install -c $(LOCK) --no-build-isolation -e '.[dev,dashboard]'
	@touch $@

.PHONY: setup system-packages
setup: $(STAMPS)/dev ## Everything that development needs, into .venv

system-packages: ## Debian packages that tests use (as root or with password-less sudo; else says what is missing)
	@deploy/scripts/system-packages.sh $(PACKAGES)

# --- running --------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(STAMPS)/serving ## The main job: DICOM in, reports and SQL rows out (BROKER=redis: through Celery)
	@if [ "$(BROKER)" = redis ]; then deploy/scripts/system-packages.sh redis-server; fi
	@$(BIN)/fundus-worker demo --broker $(BROKER) --output $(DEMO_OUTPUT) $(ARGS)

# --- checking -------------------------------------------------------------------------------------------------

.PHONY: test test-fast lint types corpus fuzz fuzz-coverage bench bench-adapter
test: $(STAMPS)/dev system-packages ## All tests with branch coverage; says what it had to skip
	@mkdir -p build
	@$(PYTEST) -m "not gpu" --cov --cov-report=term --junitxml=build/tests.xml $(ARGS)

test-fast: $(STAMPS)/dev ## The tests that take less than ten seconds each, without coverage
	@$(PYTEST) -m "not gpu and not slow" $(ARGS)

lint: $(STAMPS)/dev ## ruff, import-linter, typos, mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/typos
	@$(MAKE) --no-print-directory types

types: $(STAMPS)/dev ## mypy --strict over the three packages and the tests
	@$(BIN)/mypy --strict dicom_io models worker tests

corpus: $(STAMPS)/dev ## Write an odd DICOM file of each kind that real senders produce: OUT=build/corpus
	@PYTHONPATH=.:tests $(BIN)/python -m corpus --out "$(or $(OUT),build/corpus)" $(ARGS)

# Accounted for: the outcomes add up to OBJECTS. The second lets atheris choose what to mutate.
fuzz: $(STAMPS)/dev ## Mutate the corpus against header and pixels: OBJECTS=100000 SEED=1
	@PYTHONPATH=.:tests $(BIN)/python -m corpus.fuzz --objects "$(or $(OBJECTS),100000)" --seed "$(or $(SEED),1)" $(ARGS)

fuzz-coverage: $(STAMPS)/dev ## The same, guided by the code that it reaches: OBJECTS=100000 SEED=1
	@PYTHONPATH=.:tests $(BIN)/python -W ignore -m corpus.coverage "$(or $(OBJECTS),100000)" "$(or $(SEED),1)"

bench: $(STAMPS)/dev ## Measure the hot paths on this machine (tests/bench)
	@$(PYTEST) -n 0 -p no:randomly -s -o python_files='bench_*.py' -o python_functions='bench_*' -q tests/bench $(ARGS)

# The plain CycleGAN and the paired bound are trained for two cameras (TRAINED=a,b for others): minutes each.
bench-adapter: $(STAMPS)/dev ## Camera-shift benchmark: RUN=runs/reference IMAGES=… LABELS=… LESIONS=…
	@: "$${IMAGES:?folder of photographs}" "$${LABELS:?CSV of their grades}" "$${LESIONS:?photographs with masks}"
	@$(BIN)/fundus-train evaluate benchmark --run "$(RUN)" --out "$(BENCH_OUTPUT)" --images "$(IMAGES)" \
		--labels "$(LABELS)" --lesions "$(LESIONS)" \
		--trained "$(or $(TRAINED),$$($(BIN)/fundus-train data simulate --list | head -2 | paste -sd,))" $(ARGS)

# --- tidying --------------------------------------------------------------------------------------------------

.PHONY: fmt clean
fmt: $(STAMPS)/dev ## Format the code, fix what ruff can fix, rewrite the reference tables of the docs
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .
	@PYTHONPATH=.:tests $(BIN)/python deploy/scripts/reference.py

clean: ## Remove what was built, measured or cached (keeps .venv and fundus-data)
	@rm -rf build dist htmlcov $(DEMO_OUTPUT) .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache *.egg-info
	@find dicom_io models worker tests -name __pycache__ -type d -prune -exec rm -rf {} +
