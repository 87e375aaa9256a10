# `make` alone lists the targets. Each target first installs what it needs into .venv.

DATASET ?= digits
PYTHON ?= python3
BASE ?= main
STUDY ?= comparison
WORKERS ?= 3

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
PYTEST = python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
TESTED = $(VENV)/installed $(VENV)/installed-tests $(VENV)/installed-studies lint
ALL_TESTED = $(TESTED) $(VENV)/installed-demo

SETTINGS = $(if $(EPOCHS),-S epochs=$(EPOCHS)) $(if $(SEED),-S seed=$(SEED)) \
	$(if $(SIZE),-S prepare.image_size=$(SIZE))

# Even with `make -j`, only one installation writes to .venv at a time.
.NOTPARALLEL:
.PHONY: help run test test-all lint report compare review recommit verify study search bench demo export audit docs lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' Makefile | awk -F: '{printf "  make %-8s %s\n", $$1, $$2}'

run: export DATASET := $(DATASET)
run: $(VENV)/installed  ## run the pipeline on DATASET (digits, mnist, … or your data) in runs/; EPOCHS=30, SEED=3, SIZE=28
	@python -m tools.run_dataset "$$DATASET" $(SETTINGS)

test: $(TESTED)  ## check style and run the fast tests (5 to 8 minutes)
	@$(PYTEST)

test-all: $(ALL_TESTED)  ## check style and run all tests that are not marked slow
	@$(PYTEST) -m "not slow"

lint: $(VENV)/installed-tests  ## check style and formatting
	@ruff check
	@ruff format --check

report: $(VENV)/installed  ## open the report of the last run
	@page=$$(ls -t plots/report.html runs/*/plots/report.html 2>/dev/null | head -1); \
	test -f "$$page" || { echo "error: there is no report yet; make run creates one"; exit 1; }; \
	python -m webbrowser -t "file://$(CURDIR)/$$page"

compare: $(VENV)/installed  ## print all experiments and the work tree as one table
	@python -m tools.compare

review: export BASE := $(BASE)
review: $(VENV)/installed  ## compare metrics and parameters with those of BASE (main)
	@python -m tools.review "$$BASE"

recommit: $(VENV)/installed  ## after editing only comments or docstrings: record the code in dvc.lock without running it
	@python -m tools.recommit

verify: export DATASET := $(DATASET)
verify: $(VENV)/installed  ## rerun DATASET in fresh clones and compare the results, byte for byte
	@python -m tools.verify $$(python -m tools.recipe "$$DATASET") $(SETTINGS)

study: export STUDY := $(STUDY)
study: $(VENV)/installed $(VENV)/installed-studies  ## run the missing trials of studies/STUDY.yaml (comparison), on RAY_ADDRESS if set
	@python -m studies.engine "studies/$$STUDY.yaml" $(if $(YES),--yes)

search: export DATASET := $(DATASET)
search: $(VENV)/installed $(VENV)/installed-studies  ## search the recipes of DATASET (mnist, fashion_mnist) on validation images
	@python -m studies.engine.search "$$DATASET" $(if $(YES),--yes)

bench: $(VENV)/installed $(TORCH)/installed  ## measure the speed next to plain Keras and PyTorch (about an hour)
	@dvc repro -q prepare
	@python -m benchmarks.bench --torch $(TORCH)/bin/python
	@python -m benchmarks.time_to_accuracy
	@python -m benchmarks.pipeline

demo: $(VENV)/installed $(VENV)/installed-demo  ## draw a digit in the browser and see what the trained models say; RUN=digits
	@python -m tools.demo $(if $(RUN),--run "$(RUN)")

export: $(VENV)/installed $(if $(ONNX),$(VENV)/installed-onnx)  ## write LiteRT and SavedModel versions to data/export/; RUN=digits, ONNX=1
	@python -m tools.export $(if $(RUN),--run "$(RUN)")

audit: $(VENV)/bin/uv  ## look up known vulnerabilities of the pinned packages
	@uv tool run $(PIP_AUDIT) --strict --disable-pip \
		-r requirements.txt -r tests/requirements.txt -r studies/requirements.txt \
		-r extras/demo/requirements.txt -r extras/onnx/requirements.txt

docs: $(VENV)/installed  ## update the tables in README.md and docs/ from the recorded results
	@python -m tools.docs

lock: $(VENV)/bin/uv  ## pin the newest versions that requirements.in allows
	@for folder in . tests studies extras/demo extras/onnx; do (cd $$folder && $(COMPILE)) || exit 1; done

clean: $(VENV)/installed  ## remove what the pipeline generated; keep your files, .venv, studies and DVC's cache
	@python -m tools.clean

$(VENV)/bin/python:
	@echo "installing into $(VENV), about 2 GB: half a minute with a fast network"
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

$(VENV)/installed-%: extras/%/requirements.txt | $(VENV)/bin/uv
	@$(INSTALL) $<
	@touch $@

$(TORCH)/installed: benchmarks/requirements.txt
	@$(PYTHON) -m venv $(TORCH)
	@$(TORCH)/bin/pip install -q --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@
