# `make` alone lists the targets. Each target first installs what it needs into .venv.

DATASET ?= digits
PYTHON ?= python3
BASE ?= main
STUDY ?= comparison

# macOS has make 3.81. With its default shell it starts simple commands itself and then ignores the
# PATH that is exported below.
SHELL := bash
VENV := .venv
TORCH := .venv-torch
UV := uv==0.13.9
PIP_AUDIT := pip-audit==2.10.1
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

INSTALL = uv pip install --python $(VENV)/bin/python --require-hashes -r
COMPILE = uv pip compile -q --universal --generate-hashes --python-version 3.11 \
	--fork-strategy fewest --no-header --upgrade -o requirements.txt requirements.in
PYTEST = python -m pytest -n 2 --dist loadfile
TESTED = $(VENV)/installed $(VENV)/installed-tests $(VENV)/installed-studies lint

# Settings of `make run` in params.yaml. Digits has few images: smaller batches, more epochs.
ifeq ($(DATASET),digits)
SETTINGS ?= -S dataset=digits -S epochs=20 -S train.batch_size=32
else
SETTINGS ?= -S dataset=$(DATASET) -S epochs=10 -S train.batch_size=256
endif

# `dvc exp run` makes a commit, which needs an author. Lend one to this command if git has none.
AUTHOR = $(shell git config user.email >/dev/null && git config user.name >/dev/null || \
	echo env GIT_AUTHOR_NAME=anonymous GIT_AUTHOR_EMAIL=anonymous@localhost \
	GIT_COMMITTER_NAME=anonymous GIT_COMMITTER_EMAIL=anonymous@localhost)

# Even with `make -j`, only one installation writes to .venv at a time.
.NOTPARALLEL:
.PHONY: help run test test-all lint report review verify study bench audit docs lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' Makefile | awk -F: '{printf "  make %-8s %s\n", $$1, $$2}'

run: $(VENV)/installed  ## run the whole pipeline on DATASET (digits, mnist, fashion_mnist), print the results
	@$(AUTHOR) dvc exp run $(SETTINGS)
	@python -m tools.results

test: $(TESTED)  ## check style and run the fast tests (4 minutes)
	@$(PYTEST)

test-all: $(TESTED)  ## check style and run all tests that are not marked slow
	@$(PYTEST) -m "not slow"

lint: $(VENV)/installed-tests  ## check style and formatting
	@ruff check
	@ruff format --check

report: $(VENV)/installed  ## open the report of the last run
	@test -f plots/report.html || { echo "error: plots/report.html is missing; make run creates it"; exit 1; }
	@python -m webbrowser -t "file://$(CURDIR)/plots/report.html"

review: export BASE := $(BASE)
review: $(VENV)/installed  ## compare metrics and parameters with those of BASE (main)
	@python -m tools.review "$$BASE"

verify: $(VENV)/installed  ## rerun DATASET in fresh clones and compare the results, byte for byte
	@python -m tools.verify $(SETTINGS)

study: export STUDY := $(STUDY)
study: $(VENV)/installed $(VENV)/installed-studies  ## run the missing trials of studies/STUDY.yaml (comparison), on RAY_ADDRESS if set
	@python -m studies.engine "studies/$$STUDY.yaml" $(if $(YES),--yes)

bench: $(VENV)/installed $(TORCH)/installed  ## measure the speed next to plain Keras and PyTorch (about an hour)
	@dvc repro -q prepare
	@python -m benchmarks.bench --torch $(TORCH)/bin/python
	@python -m benchmarks.time_to_accuracy
	@python -m benchmarks.pipeline

audit: $(VENV)/bin/uv  ## look up known vulnerabilities of the pinned packages
	@uv tool run $(PIP_AUDIT) --strict --disable-pip \
		-r requirements.txt -r tests/requirements.txt -r studies/requirements.txt

docs: $(VENV)/installed  ## update the tables in README.md and docs/ from the recorded results
	@python -m tools.docs

lock: $(VENV)/bin/uv  ## pin the newest versions that requirements.in allows
	@for folder in . tests studies; do (cd $$folder && $(COMPILE)) || exit 1; done

# Only files that git ignores: plots/ and studies/results/ also hold committed ones.
clean:  ## remove what the pipeline generated; keep your files under data/, .venv, trials and DVC's cache
	@git clean -fdXq data/prepared data/models data/predictions data/checkpoints plots review \
		studies/results dvc_plots .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: $(PYTHON) is not Python 3.11 to 3.13; name one: make PYTHON=python3.12 run"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/bin/uv: | $(VENV)/bin/python
	@python -m pip install -q --disable-pip-version-check $(UV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/uv
	@$(INSTALL) $<
	@touch $@

# Packages that these share with the pipeline have the same versions in both files.
$(VENV)/installed-%: %/requirements.txt | $(VENV)/bin/uv
	@$(INSTALL) $<
	@touch $@

$(TORCH)/installed: benchmarks/requirements.txt
	@$(PYTHON) -m venv $(TORCH)
	@$(TORCH)/bin/pip install -q --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@
