# Every target makes its own environment: a machine needs Python 3.11 and make, nothing else.
PYTHON ?= python3.11
VENV ?= .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python
ANTS := .venv-ants
LABEL := .venv-label
# a file of tests stays with one process, whose fixtures it shares; cores are busy with processes, not with threads
TEST := OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile

.PHONY: demo test test-slow test-ants test-label label-server reliability weights lint bench bench-gpu clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

# antspyx asks for older numpy and scipy than ours: they come first here, everything else is that of $(VENV)
$(ANTS)/.ready: $(READY) constraints-ants.txt
	$(PYTHON) -m venv $(ANTS)
	echo "import site; site.addsitedir('$$(ls -d $(CURDIR)/$(VENV)/lib/python3*/site-packages)')" \
		> $$(ls -d $(ANTS)/lib/python3*/site-packages)/inherited.pth
	$(ANTS)/bin/pip install --quiet --disable-pip-version-check --constraint constraints-ants.txt antspyx
	$(ANTS)/bin/python -c 'import ants'
	touch $@

# MONAI Label asks for numpy 1.26; what it needs is listed to the last package, everything else is that of $(VENV)
$(LABEL)/.ready: $(READY) constraints-label.txt
	$(PYTHON) -m venv --clear $(LABEL)
	echo "import site; site.addsitedir('$$(ls -d $(CURDIR)/$(VENV)/lib/python3*/site-packages)')" \
		> $$(ls -d $(LABEL)/lib/python3*/site-packages)/inherited.pth
	$(LABEL)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-label.txt
	$(LABEL)/bin/python -c 'import tools.monai_label.server'
	touch $@

demo: $(READY)  ## train EOIR on the phantom, evaluate it, register a pair it never saw
	$(RUN) -m monai.bundle run --config_file bundles/eoir/configs/train.json
	$(RUN) -m monai.bundle run --config_file "['bundles/eoir/configs/train.json','bundles/eoir/configs/evaluate.json']"
	$(RUN) -m monai.bundle run --config_file bundles/eoir/configs/inference.json

test: $(READY)  ## the default tests
	$(TEST)

test-slow: $(READY)  ## what takes longer: packed bundles, whole runs, real scans
	$(TEST) -m 'slow and not gpu'

test-ants: $(ANTS)/.ready  ## what ANTs reads of ours, and we of its
	$(ANTS)/bin/python -m pytest -m ants

test-label: $(LABEL)/.ready  ## a live MONAI Label server, over HTTP
	$(LABEL)/bin/python -m pytest tests/tools/monai_label -m label

label-server: $(LABEL)/.ready  ## MONAI Label on phantom studies, for 3D Slicer: http://127.0.0.1:8000
	$(LABEL)/bin/python -m tools.monai_label demonstration demo/label
	$(LABEL)/bin/python -m tools.monai_label serve --studies demo/label/studies

reliability: $(READY)  ## every bad input, attack, fault and kill; the table of what held
	$(TEST) tests/reliability -m '' --full --ledger results/reliability.csv

weights: $(READY)  ## trains every network on the phantom, into bundles/*/models; goes on where it was stopped
	$(VENV)/bin/regbundles weights all

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(READY)  ## forward and backward of every LNCC backend at 160x192x224
	$(VENV)/bin/regbundles benchmark lncc

bench-gpu: $(READY)  ## nine minutes of all that a GPU has to show; again, until nothing is left
	$(VENV)/bin/regbundles benchmark gpu --minutes 9

clean:
	rm -rf $(VENV) $(ANTS) $(LABEL)
	git clean -fdxq bundles/*/eval bundles/*/models  # not the initial states that are in git
