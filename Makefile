# make demo: install subo into .venv and fit it to real data; make test: the tests that take no seconds each;
# make test-slow: the others, whole programs and long proofs; make lint: style and types.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore

.PHONY: demo test test-slow lint clean

# Bits have probabilities; importance weighting trains a q(z|x) wide enough for log p(x) to be trusted; the cosine ends training.
demo: $(VENV)/.installed
	$(BIN)/subo fit digits --binarize dynamic --bound iwae --num-samples 10 --epochs 60 --learning-rate 3e-3 --decay cosine \
		--evaluation-samples 10000 --out runs/demo --overwrite

# Models are too small to share: a thread each.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_OPTIONS)

test: $(VENV)/.installed-dev
	$(PYTEST)

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# torch comes first and pinned: an unpinned one would bring gigabytes of GPU libraries to a machine without a GPU.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("subo needs Python 3.11 or newer; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Installing subo and what it needs into $(VENV): some minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $$(grep '^torch==' constraints.txt)
	@$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests and lint need into $(VENV)."
	@$(PIP) --constraint constraints.txt --editable '.[test,lint]'
	@touch $@

clean:
	rm -rf $(VENV) runs
