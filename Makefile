# `make` alone lists the targets. Every target installs what it needs into .venv first.

DATASET ?= digits
PYTHON ?= python3
BASE ?= main
STUDY ?= comparison

# Not make's default: make 3.81, which macOS has, would look for programs in the PATH that it was
# started with, not in the one exported below, wherever a line needs no shell.
SHELL := bash
VENV := .venv
TORCH := .venv-torch
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# What a run sets in params.yaml. The digits are few: smaller batches, more epochs.
ifeq ($(DATASET),digits)
SETTINGS ?= -S dataset=digits -S epochs=20 -S train.batch_size=32
else
SETTINGS ?= -S dataset=$(DATASET) -S epochs=10 -S train.batch_size=256
endif

# `dvc exp run` records a commit, for which git wants an author. Where none is configured, one is
# lent to this command alone.
AUTHOR = $(shell git config user.email >/dev/null && git config user.name >/dev/null || \
	echo env GIT_AUTHOR_NAME=anonymous GIT_AUTHOR_EMAIL=anonymous@localhost \
	GIT_COMMITTER_NAME=anonymous GIT_COMMITTER_EMAIL=anonymous@localhost)

.PHONY: help run test lint audit report review verify bench study lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##/\1:/p' Makefile | awk -F: '{printf "  make %-8s %s\n", $$1, $$2}'

run: $(VENV)/installed  ## run the whole pipeline on DATASET (digits; mnist, fashion_mnist), print the results
	@$(AUTHOR) dvc exp run $(SETTINGS)
	@python -m stages.results

test: $(VENV)/installed-tests $(VENV)/installed-studies lint  ## run the tests, but for the slow ones (tests/README.md)
	@python -m pytest -n 2

lint: $(VENV)/installed-tests  ## check style and formatting
	@ruff check
	@ruff format --check

audit: $(VENV)/bin/python  ## ask the package index for known vulnerabilities of the pinned versions
	@python .ci/audit.py $(AUDIT)

report: $(VENV)/installed  ## open the report of the last run
	@test -f plots/report.html || { echo "error: plots/report.html is missing; make run makes it"; exit 1; }
	@python -m webbrowser -t "file://$(CURDIR)/plots/report.html"

review: export BASE := $(BASE)
review: $(VENV)/installed  ## compare figures and parameters with those of BASE (main)
	@python -m stages.review "$$BASE"

verify: $(VENV)/installed  ## run DATASET in fresh clones, two against each other or (mnist) one against the committed figures
	@python -m stages.verify $(SETTINGS)

bench: $(VENV)/installed $(TORCH)/installed  ## measure the speed beside plain Keras and PyTorch (about an hour)
	@dvc repro -q prepare
	@python -m benchmarks.bench --torch $(TORCH)/bin/python
	@python -m benchmarks.time_to_accuracy
	@python -m benchmarks.growth
	@python -m benchmarks.pipeline

study: export STUDY := $(STUDY)
study: $(VENV)/installed-studies  ## run what is missing of studies/STUDY.yaml (comparison); on RAY_ADDRESS if set
	@python -m stages.study "studies/$$STUDY.yaml"

lock: $(VENV)/installed  ## pin the newest versions that requirements.in allows
	@pip install -q uv
	@uv pip compile -q --universal --generate-hashes --python-version 3.11 \
		--fork-strategy fewest --no-header --upgrade -o requirements.txt requirements.in
	@for part in tests studies; do (cd $$part && uv pip compile -q --universal --generate-hashes \
		--python-version 3.11 --fork-strategy fewest --no-header --upgrade \
		-o requirements.txt requirements.in) || exit 1; done

clean:  ## remove what the pipeline made and git ignores; keep .venv, studies/trials and the DVC cache
	@rm -rf data plots/figures plots/report.html plots/report.md dvc_plots .pytest_cache .ruff_cache \
		studies/results/*.html

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: $(PYTHON) is not Python 3.11 to 3.13; name one: make PYTHON=python3.12 run"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (about two minutes, once)"
	@pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/installed-tests: tests/requirements.txt $(VENV)/installed
	@pip install -q --disable-pip-version-check --require-hashes -r tests/requirements.txt
	@touch $@

$(TORCH)/installed: benchmarks/requirements.txt
	@$(PYTHON) -m venv $(TORCH)
	@$(TORCH)/bin/pip install -q --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

$(VENV)/installed-studies: studies/requirements.txt $(VENV)/installed
	@pip install -q --disable-pip-version-check --require-hashes -r studies/requirements.txt
	@touch $@
