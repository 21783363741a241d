# make run         install what is missing, run the stages that changed, print a summary
# make test        format, lint, import layers, types and tests
# make test-e2e    tests that run stages, servers and browsers in processes of their own
# make test-search, test-slow, test-oldest, test-newest: drawn tests with other examples each time, slow tests, the oldest
#                 and the newest versions of what is depended on
# make docs        build the pages and the reference into docs/_build/html, with warnings as errors
# make dist        build the sdist and the wheel into dist/, and try both in a clean environment
# make aarch64     run kernels that are compiled for aarch64 under qemu, and compare their results
# make sanitize    run the C kernels on random shapes under the compiler's sanitizers

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled modules and tests are kept, whatever the shell says: a second run collects its tests in half of the time.
export PYTHONDONTWRITEBYTECODE :=
CONSTRAINTS ?= constraints.txt
INSTALL = pip install --quiet --constraint $(CONSTRAINTS) $(if $(UPGRADE),--upgrade --upgrade-strategy eager) --editable

# Neighbours stay on one worker, where they share the fixtures of their module.
PYTEST = OMP_NUM_THREADS=1 pytest --numprocesses auto --dist worksteal

.PHONY: run test test-e2e test-search test-slow test-oldest test-newest docs dist sanitize aarch64
.DEFAULT_GOAL := run

run: .venv/installed
	@modelpred run

test: .venv/installed-dev
	ruff format --check
	ruff check
	lint-imports
	pyright
	$(PYTEST)

test-e2e: .venv/installed-dev
	$(PYTEST) --dist loadscope -m "e2e and not slow"

test-search: .venv/installed-dev
	$(PYTEST) --hypothesis-profile=search -m "hypothesis and not slow"

test-slow: .venv/installed-dev
	$(PYTEST) -m slow

# PyTorch's default wheels for Linux include CUDA. An index of builds for the CPU avoids them:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test-oldest
# TORCH=2.13.0 names the version where pip's own index has a CPU build of that version only.
test-oldest: .venv/bin/pip
	python tests/oldest.py $(if $(TORCH),torch==$(TORCH)) > .venv/oldest.txt
	$(MAKE) --always-make --assume-old .venv/bin/pip test test-e2e CONSTRAINTS=.venv/oldest.txt

test-newest: .venv/bin/pip
	echo $(if $(TORCH),torch==$(TORCH)) > .venv/newest.txt
	$(MAKE) --always-make --assume-old .venv/bin/pip test test-e2e CONSTRAINTS=.venv/newest.txt UPGRADE=1

docs: .venv/installed-docs
	python -m sphinx --builder html --quiet --fresh-env --fail-on-warning --keep-going docs docs/_build/html

dist:
	$(PYTHON) -m tests.distributions

sanitize: .venv/installed-dev
	python -m tests.benchmarks.sanitize

aarch64: .venv/installed-dev
	python -m tests.benchmarks.aarch64

KERNELS = $(wildcard modelpred/targets/compiled/*.[ch])

.venv/installed: .venv/bin/pip pyproject.toml setup.py constraints.txt $(KERNELS)
	@echo "Installing into .venv (about 2 GB, some minutes the first time) ..."
	@$(INSTALL) '.[pipeline]'
	@touch $@

.venv/installed-dev: .venv/bin/pip pyproject.toml setup.py constraints.txt $(KERNELS)
	@echo "Installing with the development tools into .venv (about 2.6 GB, some minutes the first time) ..."
	@$(INSTALL) '.[dev]'
	@touch .venv/installed $@

.venv/installed-docs: .venv/bin/pip pyproject.toml setup.py constraints.txt $(KERNELS)
	@$(INSTALL) '.[docs]'
	@touch .venv/installed $@

.venv/bin/pip:
	@test -n "$(PYTHON)" || { echo "ModelPred needs Python 3.11 or newer, which was not found; install it or name it: make run PYTHON=/path/to/python3" >&2; exit 1; }

	@$(PYTHON) -m venv .venv
