# Two commands do everything: `make demo` runs the whole idea, `make test` passes the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: help demo test slow faults lint format bench gpu lowest clean

help:
	@echo "make demo    simulate, fit an SDN, train digits with it, write outputs/demo/report.html"
	@echo "make test    run the tests            make slow    run the slow ones too"
	@echo "make bench   quick benchmarks         make lint    ruff and mypy"
	@echo "make gpu     where there is one: its tests, benchmarks and short trainings, 10 minutes, a folder of results"
	@echo "make lowest  the lowest stated versions, and the quick tests with them"

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-ucr.txt
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python -m src.demo

test: $(VENV)/.ready-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

slow: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -q -m slow

faults: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -q tests/faults -m "slow or not slow"

lint: $(VENV)/.ready-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(VENV)/.ready-dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks --quick

gpu: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks.gpu

lowest:
	$(PYTHON) tools/lowest.py .venv-lowest

clean:
	rm -rf $(VENV) outputs
