# make demo   sets everything up in .venv and plays the bundled real cases
# make test   sets everything up, extras included, and runs the tests that take seconds
# make slow   runs the others: runs that are killed, several processes and hosts, whole chains
# make lint   formatting, types
# make installed  builds the wheel and does with it what a user does
# make docs   builds the documentation into out/site; a broken link is an error
# make sft-tiny  from nothing to a small vision-language model that plays, into runs/tiny
# make train-tiny  goes on with GRPO, PPO over turns and more fine-tuning, into runs/tiny_rl
# make learning  array policies by imitation, PPO and repairing, tables and figures, into runs/arrays
# make pocket trains the packaged segmenter anew (under two hours on two cores), into runs/pocket
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
KEY := $(shell (cat pyproject.toml; $(PYTHON) -V) | cksum | cut -d' ' -f1)

.PHONY: demo test slow lint docs installed pocket sft-tiny train-tiny learning

demo: $(VENV)/.core-$(KEY)
	$(BIN)/medseg demo

test: $(VENV)/.dev-$(KEY)
	@# By file, and all tests that start Ray in one of the two processes (tests/conftest.py).
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

slow: $(VENV)/.dev-$(KEY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

lint: $(VENV)/.dev-$(KEY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

installed: $(VENV)/.dev-$(KEY)
	$(BIN)/python tests/installed

docs: $(VENV)/.dev-$(KEY)
	PYTHONPATH=.:agents NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q

pocket: $(VENV)/.dev-$(KEY)
	$(BIN)/python -m pip install -q tifffile
	$(BIN)/python -m scripts.pocket.data.real_images --output out/pocket/real_images.npz
	$(BIN)/python -m scripts.pocket run --out runs/pocket --processes 2

sft-tiny: $(VENV)/.dev-$(KEY)
	$(BIN)/python -m benchmarks.learning.tiny_chain --out runs/tiny

train-tiny: sft-tiny
	$(BIN)/python -m benchmarks.learning.tiny_rl --chain runs/tiny --out runs/tiny_rl --seeds 0

learning: $(VENV)/.dev-$(KEY)
	$(BIN)/python -m benchmarks.learning.arrays --out runs/arrays --seeds 0,1,2 --tasks abdomen --repair abdomen
	$(BIN)/python -m benchmarks.learning.arrays --out runs/arrays --seeds 0,1,2 --tasks random --ppo none

# Dependencies are kept by a stamp of pyproject.toml; the package itself is always this checkout.
$(VENV)/.core-$(KEY):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.dev-$(KEY): $(VENV)/.core-$(KEY)
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@
