# Two commands do everything on a fresh machine:
#   make train   install if needed, train config/_0_laptop.yaml, merge, evaluate, report
#   make test    install if needed, run the tests
# Others: make install, make bench, make report, make clean.

PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= _0_laptop
ARGS   ?=

export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
BIN := $(VENV)/bin

.PHONY: train test bench report install clean

train: install
	@$(BIN)/python scripts/main_job.py --config-name $(CONFIG) $(ARGS)

test: install
	@$(BIN)/python -m pytest tests $(ARGS)

bench: install
	@$(BIN)/python -m benchmarks $(ARGS)

report: install
	@$(BIN)/python -m ragen.report $(if $(RUN),$(RUN),$(wildcard outputs/*))

install:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/install.sh

clean:
	rm -rf outputs .pytest_cache .hypothesis
