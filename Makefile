# A fresh machine with Python 3.11 or newer, pip and make needs no more than these.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Every core tests; a worker that is done takes tests of one that is not, so that tests that share a fixture stay together.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

SCREENSHOTS ?= build/screenshots
PEERS ?= peers

.PHONY: demo serve test test-all test-notebooks lint docs benchmark benchmark-peers clean

demo: $(VENV)/.demo  ## explain real photos, offline, and write vitrail-demo/index.html
	$(BIN)/vitrail demo --out vitrail-demo

serve: $(VENV)/.app  ## the web page, on this machine
	$(BIN)/vitrail serve

test: $(VENV)/.dev  ## the test suite; screenshots of the page go to build/screenshots
	VITRAIL_SCREENSHOTS=$(SCREENSHOTS) $(PYTEST) -m "not slow"

test-all: $(VENV)/.dev  ## the slow tests too
	$(PYTEST)

test-notebooks: $(VENV)/.dev  ## the notebooks that `make test` leaves out
	$(BIN)/python -m pytest -m slow tests/docs/test_notebooks.py

lint: $(VENV)/.dev  ## style, types, who may import whom, dead code, words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/python scripts/check_words.py

docs: $(VENV)/.docs  ## the documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

benchmark: $(VENV)/.dev  ## speed and memory against plain forward passes
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/hit.py
	$(BIN)/python benchmarks/explainers.py
	$(BIN)/python benchmarks/diffmask.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/precision.py

benchmark-peers: $(VENV)/.dev  ## speed against published codes, which are in subfolders of PEERS; writes the table of docs/performance.md
	$(BIN)/python benchmarks/peers/run_all.py --peers $(PEERS) --write

clean:
	rm -rf $(VENV) site vitrail-demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev,train,demo,hf,clip,captum,webdataset,datasets,parquet,matlab,app]'
	touch $@

$(VENV)/.app: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[app,demo]'
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[docs,train,hf,captum,app]'
	touch $@
