# Each target creates its environment once and does one thing. PYTHON selects the interpreter (3.11+).
PYTHON ?= python3
VENV ?= .venv
PARITY_VENV ?= .venv-parity
# The torch and TensorFlow builds that the parity tests are pinned to exist for Python 3.11.
PARITY_PYTHON ?= python3.11

BIN := $(VENV)/bin
# --no-compile: imports compile only what is used; compiling everything takes 71 s of CPU time, not 32.
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
DECLARED := requirements.txt pyproject.toml
# Tests are split over the processors; a worker that is done takes tests from another one.
PYTEST := -m pytest --numprocesses=logical --maxprocesses=8 --dist=worksteal

# Imports write bytecode into the environments; without it each process compiles JAX anew, in seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs test test-fast test-load test-docs test-parity check clean

# EEF from expert trajectories to runs/demo/report.md; a stopped run resumes.
demo: $(VENV)/.installed
	$(BIN)/python -m eef_jax.main --config=configs/webshop.py --workdir=runs/demo

# Options for pytest go into ARGS: make test ARGS='--durations=30'
test: $(VENV)/.installed-test
	$(BIN)/python $(PYTEST) -m 'not (docs or load)' $(ARGS)

# What runs while one writes: no Java, no other processes, nothing that compiles for long.
test-fast: $(VENV)/.installed-test
	$(BIN)/python $(PYTEST) -m 'not (browser or docs or java or load or processes or slow)' $(ARGS)

# The long versions of tests that `test` runs shorter, compiled as runs are: with XLA's default code generation.
test-load: $(VENV)/.installed-test
	EEF_CODEGEN=default $(BIN)/python $(PYTEST) -m load $(ARGS)

# Every documented command, program and preset with small settings, as tests/docs/commands.toml says.
# In their order, since later ones use what earlier ones made; those that are not run are listed.
test-docs: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m docs tests/docs $(ARGS)

# Compares with torch and TensorFlow in a separate environment; the package never needs them.
test-parity: $(PARITY_VENV)/.installed
	$(PARITY_VENV)/bin/python -c 'import tensorflow, torch, transformers'  # without them all tests would be skipped
	$(PARITY_VENV)/bin/python -m pytest --override-ini=addopts=-q tests/parity

check: $(VENV)/.installed-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck launch/*.sh launch/slurm.sbatch .ci/run

# The documentation as a site, build/docs/site/index.html; a warning is an error. The two variables silence what
# mkdocs' plugins say about each other.
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/pages.py build/docs
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet --strict --config-file=build/docs/mkdocs.yml
	EEF_SITE=build/docs/site $(BIN)/python -m pytest tests/docs/test_site.py

clean:
	rm -rf $(VENV) $(PARITY_VENV)

# A stamp file older than the declared dependencies triggers a new installation.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(DECLARED) | $(BIN)/python
	$(BIN)/python $(PIP) --editable .
	touch $@

$(VENV)/.installed-test: $(DECLARED) | $(BIN)/python
	$(BIN)/python $(PIP) --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-check: $(DECLARED) | $(BIN)/python
	$(BIN)/python $(PIP) --editable '.[test,check]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-docs: $(DECLARED) | $(BIN)/python
	$(BIN)/python $(PIP) --editable '.[test,docs]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(PARITY_VENV)/.installed: $(DECLARED)
	$(PARITY_PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/python $(PIP) --editable '.[test,parity]'
	touch $@
