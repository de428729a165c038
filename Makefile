# Every target makes its own environment: a machine needs Python 3.11 and make, nothing else.
PYTHON ?= python3.11
VENV ?= .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python

.PHONY: demo test test-slow lint bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(READY)  ## train EOIR on the phantom, evaluate it, register a pair it never saw
	$(RUN) -m monai.bundle run --config_file bundles/eoir/configs/train.json
	$(RUN) -m monai.bundle run --config_file "['bundles/eoir/configs/train.json','bundles/eoir/configs/evaluate.json']"
	$(RUN) -m monai.bundle run --config_file bundles/eoir/configs/inference.json

test: $(READY)  ## the default tests
	$(RUN) -m pytest

test-slow: $(READY)  ## what takes longer: packed bundles, whole runs, real scans
	$(RUN) -m pytest -m 'slow and not gpu'

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(READY)  ## forward and backward of every LNCC backend at 160x192x224
	$(VENV)/bin/regbundles benchmark lncc

clean:
	rm -rf $(VENV) bundles/*/eval bundles/*/models
