PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

DATA := $(or $(EBMRUN_DATA),data)
# One thread for each process: the tests run in two, and threads that wait for each other stall on a busy machine.
export OMP_NUM_THREADS ?= 1

.PHONY: help run test test-data test-all mutants benchmark relaxation reproduce rules feedback hardware lint clean
.PHONY: mnist-is-there
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

run: $(VENV)/ready  ## set up, then train by predictive coding on the bundled digits
	$(BIN)/ebmrun algo=pc dataset=digits

test: $(VENV)/ready-to-test  ## set up, then run the quick tests that need no data
	$(BIN)/pytest -n 2 -m "not slow and not data"

test-data: mnist-is-there $(VENV)/ready-to-test  ## the quick tests that need MNIST, from the folder EBMRUN_DATA (default: data)
	$(BIN)/pytest -n 2 -m "data and not slow"

test-all: mnist-is-there $(VENV)/ready-to-test  ## every test, the slow ones too, and what they cover of the package
	$(BIN)/pytest -n 2 --cov=ebmrun --cov-report=term:skip-covered

mnist-is-there:
	$(if $(shell test -f '$(DATA)/MNIST/raw/train-images-idx3-ubyte' && echo yes),,$(error no MNIST in \
	$(abspath $(DATA)): set EBMRUN_DATA to the folder that holds MNIST/raw))

mutants: $(VENV)/ready-to-test  ## break the package on purpose, and see that a test notices each time
	$(BIN)/python scripts/mutants.py

benchmark: $(VENV)/ready-to-test  ## time gradients and runs against plain PyTorch, into results/benchmark
	rm -rf outputs/benchmark
	env -u OMP_NUM_THREADS $(BIN)/ebmrun study=benchmark hydra.run.dir=outputs/benchmark
	$(BIN)/python scripts/figure_benchmark.py outputs/benchmark
	mkdir -p results/benchmark
	cp $(addprefix outputs/benchmark/,benchmark.csv benchmark.json benchmark.png README.md) results/benchmark

relaxation: $(VENV)/ready-to-test  ## time every way to relax, network by network, into results/relaxation
	rm -rf outputs/relaxation
	env -u OMP_NUM_THREADS $(BIN)/ebmrun study=relaxation hydra.run.dir=outputs/relaxation
	$(BIN)/python scripts/figure_relaxation.py outputs/relaxation
	mkdir -p results/relaxation
	cp $(addprefix outputs/relaxation/,relaxation.csv relaxation.json relaxation.png README.md) results/relaxation

# Five seeds of each run of one epoch; an earlier sweep's folders would be mixed in, so they go first.
FIVE = seed=0,1,2,3,4 logger=csv

reproduce: $(VENV)/ready-to-test  ## the paper's figures and the unification, into results/paper and results/unification
	rm -rf outputs/paper outputs/unification
	$(BIN)/ebmrun study=paper logger=csv hydra.run.dir=outputs/paper/inference
	$(BIN)/ebmrun -m experiment=millidge2023_converged $(FIVE) algo=bp alignment.every=0 \
	    hydra.sweep.dir=outputs/paper/backprop
	$(BIN)/ebmrun -m experiment=millidge2023_converged $(FIVE) hydra.sweep.dir=outputs/paper/converged
	$(BIN)/ebmrun -m experiment=millidge2023_as_published $(FIVE) hydra.sweep.dir=outputs/paper/as_published
	$(BIN)/ebmrun study=unification logger=csv hydra.run.dir=outputs/unification
	$(BIN)/python scripts/figure_paper.py outputs/paper results/paper
	$(BIN)/python scripts/figure_unification.py outputs/unification results/unification

RULES = dataset=mnist trainer.epochs=3 alignment.every=50 alignment.reference=both $(FIVE)

rules: mnist-is-there $(VENV)/ready-to-test  ## nine learning rules on MNIST, into results/rules
	rm -rf outputs/rules
	$(BIN)/ebmrun -m algo=ep nudge=clamped,one_sided,negative,centered,coupled,coupled_negative,coupled_centered \
	    nudge.strength=0.25 $(RULES) hydra.sweep.dir=outputs/rules/contrasts
	$(BIN)/ebmrun -m algo=ep nudge=one_sided nudge.random_sign=true nudge.strength=0.25 $(RULES) \
	    hydra.sweep.dir=outputs/rules/random_sign
	$(BIN)/ebmrun -m algo=tbp,rbp $(RULES) hydra.sweep.dir=outputs/rules/backprop
	$(BIN)/python scripts/table_rules.py results/rules outputs/rules/*/

FEEDBACK = -m algo=pc,lifted,ep_centered,chl dataset=mnist arch.activation=tanh optim.weight_decay=1e-2 \
    trainer.epochs=1 alignment.every=25 seed=0 logger=csv

feedback: mnist-is-there $(VENV)/ready-to-test  ## weights of their own for the way down, into results/feedback
	rm -rf outputs/feedback
	$(BIN)/ebmrun $(FEEDBACK) feedback=tied,random,sign,kolen_pollack arch.hidden=[128,64] optim.lr=0.02 \
	    hydra.sweep.dir=outputs/feedback/two_layers
	$(BIN)/ebmrun $(FEEDBACK) feedback=tied,random arch.hidden=[128] optim.lr=0.01 \
	    hydra.sweep.dir=outputs/feedback/one_layer
	$(BIN)/python scripts/table_feedback.py results/feedback outputs/feedback/two_layers outputs/feedback/one_layer

HARDWARE = arch.hidden=[64] arch.activation=tanh trainer.epochs=8 alignment.every=0 seed=0,1,2 logger=csv
FAULTS = noise.readings=0,1e-3,1e-2,1e-1 noise.reading_bits=3,4,6,8 noise.weight_bits=3,4,6,8

hardware: $(VENV)/ready-to-test  ## noise, bits and the best strength of a nudge, into results/hardware
	rm -rf outputs/hardware
	$(BIN)/ebmrun -m study=certify algo=lifted arch.activation=tanh precision=float64 logger=csv nudge.strength=0.01 \
	    nudge=single,centered,fourth_order,holomorphic noise.readings=1e-5,1e-4,1e-3 study.strengths.largest=0.45 \
	    study.strengths.smallest=1e-4 study.strengths.points=37 hydra.sweep.dir=outputs/hardware/strength
	# Few bits make some runs diverge, which the table says: the others go on.
	for fault in $(FAULTS) 'noise.states=1e-3,1e-2,1e-1 relax.max_steps=20'; do \
	    place=$${fault%%=*}; \
	    $(BIN)/ebmrun -m algo=chl $$fault $(HARDWARE) energy.feedback_gain=0.3 \
	        hydra.sweep.dir=outputs/hardware/accuracy/chl/$$place; \
	    $(BIN)/ebmrun -m algo=pc,lifted,ep_centered $$fault $(HARDWARE) nudge.strength=0.3 \
	        hydra.sweep.dir=outputs/hardware/accuracy/strong/$$place; \
	done; true
	for fault in $(FAULTS); do \
	    $(BIN)/ebmrun -m algo=pc $$fault $(HARDWARE) \
	        hydra.sweep.dir=outputs/hardware/accuracy/weak/$${fault%%=*}; \
	done; true
	$(BIN)/python scripts/figure_hardware.py outputs/hardware/strength outputs/hardware/accuracy results/hardware

lint: $(VENV)/ready-to-test  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:  ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# A stamp is written only after its installation succeeded; what it depends on decides when to install again.
$(VENV)/ready: setup.cfg pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) .
	touch $@

$(VENV)/ready-to-test: setup.cfg pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) .[test]
	touch $@ $(VENV)/ready
