# make demo   sets everything up in .venv and plays the bundled real cases
# make test   sets everything up, extras included, and runs the tests that take seconds
# make slow   runs the others: runs that are killed, several processes and hosts, whole chains
# make lint   formatting, types
# make installed  builds the wheel and does with it what a user does
# make docs   builds the documentation into out/site; a broken link is an error
# make sft-tiny  from nothing to a small vision-language model that plays, into runs/tiny
# make train-tiny  goes on with GRPO, PPO over turns and more fine-tuning, into runs/tiny_rl
# make learning  array policies, and chat policies from nothing on mixed scenes with RL from them, into runs/
# make pocket trains the packaged segmenter anew (under two hours on two cores), into runs/pocket
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
KEY := $(shell (cat pyproject.toml; $(PYTHON) -V) | cksum | cut -d' ' -f1)

MIXED := cases=phantoms?position=random,image_size=128,coordinates=pixel,experts=1600,images=14000,questions=8
MIXED := $(MIXED),vision_steps=3600,reading_steps=2000,first_steps=0,mixed_steps=300,lr=1e-3,muon_lr=0.008,test=384
FROM_MIXED := starts=runs/mixed0+runs/mixed1+runs/mixed2,scene=phantoms?position=random,backbone=pocket,image_size=128
FROM_MIXED := $(FROM_MIXED),max_steps=5,pool=400,iterations=12,groups=8,num_generations=8,minibatches=2,lr=2e-4
FROM_MIXED := $(FROM_MIXED),sft_steps=100,sft_rate=0.3
METHODS := sft,best_of_n,reward_to_go,branch,still_tower,cooler,group_of_4,group_of_16,process,newest_image
METHODS := $(METHODS),no_images,cost_0.005,cost_0.03
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
	$(BIN)/python -m benchmarks.learning.tiny_chain --out runs/mixed0 --settings "$(MIXED),seed=0"
	for seed in 1 2; do $(BIN)/python -m benchmarks.learning.tiny_chain --out runs/mixed$$seed \
	  --settings "$(MIXED),seed=$$seed,drawings=runs/mixed0" || exit 1; done
	$(BIN)/python -m benchmarks.learning.methods --out runs/mixed_rl --seeds 0,1,2 --methods $(METHODS) \
	  --settings "$(FROM_MIXED)"

# Dependencies are kept by a stamp of pyproject.toml; the package itself is always this checkout.
$(VENV)/.core-$(KEY):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.dev-$(KEY): $(VENV)/.core-$(KEY)
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@
