# Everything below needs only python3 (3.11 or newer) and pip: each target sets up .venv by itself.
PYTHON ?= python3
# On Linux pip's torch brings several GB of CUDA libraries. Without a GPU, leave them out with
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
MINUTES ?= 1

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo up test lint format bench bench-gpu bench-queue bench-serve tiny-models evaluate test-installs test-clients test-bench test-docker test-system test-chaos chaos overload constraints clean

demo: .venv/.runtime  ## draw 14 pictures at once through a real stack, into demo-output/
	$(BIN)/darkroom demo --out demo-output

up: .venv/.runtime  ## serve on http://127.0.0.1:8000 until Ctrl-C
	$(BIN)/darkroom up

test: .venv/.dev  ## the tests
	$(BIN)/python -m pytest

lint: .venv/.dev  ## style, types and import boundaries
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.dev  ## parity, step overhead, scheduling policies, poll latency and image files, printed
	$(BIN)/python -m tests.benchmarks.parity
	$(BIN)/python -m tests.benchmarks.step_overhead
	$(BIN)/python -m tests.benchmarks.sched_sim
	$(BIN)/python -m tests.benchmarks.poll_latency
	$(BIN)/python -m tests.benchmarks.image_encode
	$(BIN)/python -m tests.benchmarks.scrape
	$(BIN)/python -m tests.benchmarks.request_overhead
	$(BIN)/python -m tests.benchmarks.waiting

bench-gpu: .venv/.dev  ## full-size models with random weights on one GPU; resumes, BENCH_GPU="--budget-s 600" and so on
	$(BIN)/python -m tests.benchmarks.gpu $(BENCH_GPU)

bench-queue: .venv/.dev  ## what the queue's server spends on each call, by how much waits in it and how many share it
	$(BIN)/python -m tests.benchmarks.queue

bench-serve: .venv/.peers  ## open-loop load on Darkroom and on its alternatives, hours on two cores
	$(BIN)/python -m tests.benchmarks.serve

tiny-models: .venv/.dev  ## retrain the bundled models from nothing, hours on two cores; resumes where it was cut off
	$(BIN)/python -m workers.tiny.training
	$(BIN)/python -m workers.tiny.build
	$(BIN)/python -m workers.tiny.evaluate
	$(BIN)/python -m workers.tiny.card

evaluate: .venv/.dev  ## how well the bundled models draw what held-out prompts say, in tables
	$(BIN)/python -m workers.tiny.evaluate

chaos: .venv/.dev  ## load while everything is killed, frozen and drained, MINUTES=30 or so
	$(BIN)/python -m tests.system.chaos --minutes $(MINUTES) $(CHAOS)

overload: .venv/.dev  ## ten times the load that there is capacity for, MINUTES=5 or so
	$(BIN)/python -m tests.system.overload --minutes $(MINUTES) $(OVERLOAD)

test-chaos: .venv/.dev  ## a minute in which everything is killed, and every answer held to the API's own description
	$(BIN)/python -m pytest -m system tests/system/test_chaos.py tests/system/test_documented.py

test-system: .venv/.dev  ## versions side by side, poison jobs, overload: real processes, some minutes
	$(BIN)/python -m pytest -m system

test-installs: .venv/.dev  ## a gateway without torch and a worker without fastapi, in fresh environments
	$(BIN)/python -m pytest -m install

test-clients: .venv/.dev  ## LiteLLM and LangChain, in an environment of their own
	$(BIN)/python -m pytest -m clients

test-bench: .venv/.dev  ## the serve benchmark from end to end, a few requests only
	$(BIN)/python -m pytest -m bench

test-docker: .venv/.dev  ## the images and the Compose stack, on whatever Docker Engine answers
	TORCH_INDEX=$(or $(TORCH_INDEX),https://download.pytorch.org/whl/cpu) $(BIN)/python -m pytest -m docker --log-cli-level=INFO

constraints: .venv/.dev  ## write down what is installed now
	echo '# Exact versions of everything that is installed, as tested. Refresh: make constraints' > constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\).*/\1/' >> constraints.txt

clean:
	rm -rf .venv demo-output

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.torch: .venv/bin/python constraints.txt
	@echo "Installing into .venv (a minute or two the first time) ..."
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	@touch $@

.venv/.runtime: .venv/.torch pyproject.toml
	$(PIP) --editable '.[embedded]'
	@touch $@

.venv/.dev: .venv/.runtime
	$(PIP) --editable '.[dev]'
	@touch $@

.venv/.peers: .venv/.dev tests/benchmarks/serve/constraints.txt
	$(PIP) --constraint tests/benchmarks/serve/constraints.txt --editable '.[peers]'
	@touch $@
