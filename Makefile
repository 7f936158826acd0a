# make test: lint, types and tests.   make demo: train and evaluate two small models, with a table and a plot.
# Both install into $(VENV) first. On a machine with its own environment: VENV=/path/to/it make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
# Two OpenMP runtimes (PyTorch's and Faiss's) otherwise spin against each other on a CPU.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: test demo lint clean

$(VENV)/.installed: setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt \
		-e ".[fairseq,cpu,bm25,demo,test]"
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	test ! -x $(BIN)/mypy || $(BIN)/mypy  # not installed on Python 3.10

test: lint
	$(BIN)/python -m pytest -n 2 --durations 10

demo: $(VENV)/.installed
	PATH="$(BIN):$$PATH" $(BIN)/python demo/run.py

clean:
	rm -rf $(VENV) demo/out
