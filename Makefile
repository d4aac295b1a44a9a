# Each target makes .venv if it is missing, installs with the constraints, and does its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RESULTS := demo monuseg covid-cxr acdc sikd c2fvl-phantoms c2fvl-covid-cxr textdiff

.PHONY: demo test test-slow check docs benchmark results wheel clean

demo: $(READY)
	$(BIN)/preceptor demo --out runs/demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_floors.py

docs: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e .[docs]
	$(BIN)/typer preceptor.cli utils docs --name preceptor --output docs/reference/commands.md
	$(BIN)/mkdocs build --strict --site-dir site

benchmark: $(READY)
	$(BIN)/python -m benchmarks

results: $(READY)
	@test -d "$(PRECEPTOR_DATA)" || { echo "PRECEPTOR_DATA must name the folder of real data"; exit 2; }
	$(BIN)/preceptor demo --out runs/demo
	$(BIN)/preceptor run textfreekd/monuseg --set data.root=$(PRECEPTOR_DATA)/monuseg-text/MoNuSeg --out runs/monuseg
	$(BIN)/preceptor run textfreekd/covid-cxr --set data.root=$(PRECEPTOR_DATA)/covid-cxr-infection-text --out runs/covid-cxr
	$(BIN)/preceptor compare zoo/acdc --set recipe.data.root=$(PRECEPTOR_DATA)/acdc-h5 --jobs 2 --out runs/acdc
	$(BIN)/preceptor run sikd/acdc-sunnybrook --set data.root=$(PRECEPTOR_DATA)/acdc-h5/ACDC --set evaluate.elsewhere.sunnybrook.root=$(PRECEPTOR_DATA)/sunnybrook-lv/Part1 --out runs/sikd
	$(BIN)/preceptor run c2fvl/phantoms --out runs/c2fvl-phantoms
	$(BIN)/preceptor run c2fvl/covid-cxr --set data.root=$(PRECEPTOR_DATA)/covid-cxr-infection-text --out runs/c2fvl-covid-cxr
	$(BIN)/preceptor pretrain-diffusion textdiff/monuseg --set data.root=$(PRECEPTOR_DATA)/monuseg-text/MoNuSeg --out runs/monuseg-diffusion
	$(BIN)/preceptor compare textdiff/monuseg --set recipe.data.root=$(PRECEPTOR_DATA)/monuseg-text/MoNuSeg --jobs 2 --out runs/textdiff
	$(BIN)/python -m benchmarks.results $(RESULTS:%=runs/%) --write docs/results.md --readme README.md

wheel: $(READY)
	$(BIN)/python -m build --wheel

clean:
	rm -rf site dist build .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e .[dev]
	@touch $(READY)
