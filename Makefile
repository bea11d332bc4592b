# make demo, make test: each sets up everything it needs in its own .venv first.
# Another Python or place: make test PYTHON=python3.12 VENV=.venv312

PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& echo $$p && break; done)
VENV ?= .venv
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])')
LOCK = $(if $(filter 311,$(VERSION)),constraints/py311-cpu.txt,constraints/py312.txt)
BUILD_LOCK = constraints/build-py$(VERSION).txt
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALL = $(PIP) install --quiet --constraint $(LOCK) --build-constraint $(BUILD_LOCK)
PYTEST = $(VENV)/bin/python -m pytest
DEMO = runs/demo
# Stamps name the Python, so that another PYTHON is never tested under an old name.
BASE = $(VENV)/.base-$(VERSION)
TORCH = $(VENV)/.torch-$(VERSION)
RAY = $(VENV)/.ray-$(VERSION)
# Its pins conflict with ours: docs/VIDEOQA.md.
LMMS_VENV ?= .venv-lmms
LMMS = $(LMMS_VENV)/.lmms-$(VERSION)
LMMS_PIP = $(LMMS_VENV)/bin/python -m pip --disable-pip-version-check

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help demo test test-slow test-torch test-notebooks test-ray test-lmms lint types venv sam2 ray lmms clean
.DEFAULT_GOAL := help

help: ## these lines
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BASE) ## clips -> trajectories -> two trained models -> one report (under 6 minutes on two free cores)
	$(VENV)/bin/python -m trajvit_jax.demo --output=$(DEMO)

test: $(BASE) ## everything that needs no torch
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(PYTEST) -n 2 --dist loadfile

test-slow: $(BASE) ## tests that take minutes
	$(PYTEST) -m slow --durations=5

test-torch: $(TORCH) ## parity with PyTorch
	$(PYTEST) -m torch -n 2 --dist loadfile tests/torch

test-notebooks: $(BASE) ## every notebook, and that it prints what is committed
	$(PYTEST) -m notebook -n 2 tests/test_notebooks.py

test-ray: $(RAY) ## extraction on a Ray cluster
	$(PYTEST) -m ray tests

test-lmms: $(BASE) $(LMMS) ## a local task, and drawn replies, in lmms-eval itself
	TRAJVIT_LMMS_EVAL_PYTHON=$(LMMS_VENV)/bin/python \
		$(PYTEST) -m slow tests/trajvit_jax/llm/benchmarks

types: $(BASE) ## pyright (fetches its checker through npm)
	$(VENV)/bin/pyright

venv: $(BASE) ## the environment alone

sam2: $(TORCH) ## the environment with torch, sam2 and transformers

ray: $(RAY) ## the environment with Ray, for extraction on many machines

lmms: $(LMMS) ## an environment of its own with lmms-eval and the plugin

clean: ## removes the environment and the demo's output
	rm -rf $(VENV) $(LMMS_VENV) $(DEMO)

$(BASE): setup.py pyproject.toml $(wildcard constraints/*.txt)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -f $(BUILD_LOCK) || { echo "$(PYTHON) is Python $(VERSION); 3.11 or 3.12 is needed: make PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(VENV): about 1.4 GB, one to five minutes"
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet pip==26.3
	$(INSTALL) --editable '.[demo,notebooks,test]'
	touch $@

# --build-constraint keeps sam2's build from fetching a second, larger torch.
$(TORCH): $(BASE)
	SAM2_BUILD_CUDA=0 $(INSTALL) --editable '.[demo,notebooks,test,sam2]'
	touch $@

$(RAY): $(BASE)
	$(INSTALL) --editable '.[demo,notebooks,test,ray]'
	touch $@

# Wheels of torchvision are for CUDA: beside a torch without it they fail, and lmms-eval needs none.
$(LMMS): $(wildcard plugins/lmms_eval/*.py plugins/lmms_eval/pyproject.toml)
	$(PYTHON) -m venv --clear $(LMMS_VENV)
	$(LMMS_PIP) install --quiet torch==2.13.0 lmms-eval==0.7.3 'filelock<4' ./plugins/lmms_eval
	$(LMMS_VENV)/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || \
		$(LMMS_PIP) uninstall --yes --quiet torchvision timm
	touch $@
