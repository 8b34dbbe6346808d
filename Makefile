# Each target makes its own environment once and does one thing. PYTHON picks the interpreter (3.11+).
PYTHON ?= python3
VENV ?= .venv
PARITY_VENV ?= .venv-parity
# The torch and TensorFlow builds that the parity tests are pinned to exist for Python 3.11.
PARITY_PYTHON ?= python3.11

BIN := $(VENV)/bin
# --no-compile: importing compiles what is used; installing would compile all (71 s of CPU time, not 32).
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
DECLARED := requirements.txt pyproject.toml

.PHONY: demo test test-parity check clean

# EEF from expert trajectories to runs/demo/report.md; started again it continues where it was.
demo: $(VENV)/.installed
	$(BIN)/python -m eef_jax.main --config=configs/webshop.py --workdir=runs/demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

# Against torch and TensorFlow, in an environment of its own: the package never needs them.
test-parity: $(PARITY_VENV)/.installed
	$(PARITY_VENV)/bin/python -c 'import tensorflow, torch, transformers'  # else all would be skipped
	$(PARITY_VENV)/bin/python -m pytest --override-ini=addopts=-q tests/parity

check: $(VENV)/.installed-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck launch/*.sh launch/slurm.sbatch .ci/run

clean:
	rm -rf $(VENV) $(PARITY_VENV)

# A stamp is newer than what it was installed from, or it is installed again.
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

$(PARITY_VENV)/.installed: $(DECLARED)
	$(PARITY_PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/python $(PIP) --editable '.[test,parity]'
	touch $@
