# make test: lint, types and all tests.   make fast: the tests without the slow ones.   make docs: the site, in site/.
# make demo: train four small models and compare them, with a table and plots.   make clean: remove all of it.
# Each installs into $(VENV) first. On a machine with its own environment: VENV=/path/to/it make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
# Python compiles what it imports, a small part of these packages; compiling all of them takes a minute.
PIP := $(BIN)/python -m pip install --no-compile --disable-pip-version-check --progress-bar off -c constraints.txt
# Two OpenMP runtimes (PyTorch's and Faiss's) otherwise spin against each other on a CPU.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: test fast lint docs demo clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --quiet pip setuptools wheel
	$(PIP) torch
	$(PIP) -e ".[fairseq,cpu,bm25,lucene,mt,demo,test]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e ".[docs]"
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	test ! -x $(BIN)/mypy || $(BIN)/mypy  # not installed on Python 3.10

test: lint
	$(BIN)/python -m pytest -n 2 --durations 10

fast: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m "not slow"

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # of the theme, about another program of that name

demo: $(VENV)/.installed
	$(BIN)/python demo/text.py demo/out/text
	PATH="$(BIN):$$PATH" $(BIN)/python reproduce/run.py demo/demo.yaml --text demo/out/text/ --out demo/out

clean:
	rm -rf $(VENV) demo/out site build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
