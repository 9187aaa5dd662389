# make train   sets up .venv, trains Real NVP on the embedded digits, samples, evaluates, exports
# make test    sets up .venv, runs lint and every test
# make test-all runs slow tests too
# make test-oldest runs a few tests with the oldest versions that are allowed
# make compat  runs more with the oldest, a middle and the newest, and writes docs/compatibility.md
# make release-check builds both archives and tries them: CONTRIBUTING.md has the rest of a release
# make docs    builds the site of docs/ into build/site
# make lecture runs the chapters of docs/lecture in full, and renews their output and pictures
# make format  lets ruff rewrite what it can

PYTHON ?= python3
BIN := .venv/bin

# The images that come with the workplace are used if they are there and nothing else is named.
ifndef TFDS_DATA_DIR
ifneq ($(wildcard ../shared/tensorflow_datasets),)
export TFDS_DATA_DIR := $(abspath ../shared/tensorflow_datasets)
endif
endif

.PHONY: train test test-all test-oldest compat docs lecture release-check format clean

train: .venv/core
	$(BIN)/python -m train digits

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-oldest: .venv/installed
	$(BIN)/python tests/compat --short

compat: .venv/installed
	$(BIN)/python tests/compat

# The variable spares mkdocs-material's note on the MkDocs to come.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lecture: .venv/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable ".[docs]"
	$(BIN)/python docs/lecture/build.py

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

release-check: .venv/installed
	$(BIN)/python tests/release archives
	$(BIN)/python tests/release readme
	$(BIN)/python tests/release source

# It is made anew whenever the dependencies change; the marker is written last, so that an install
# that was cut off is done again. uv takes half of pip's time, but does not know pip's settings, by
# which some reach an index of their own. Training needs none of the extras.
INSTALL = $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "tfnvp needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12")' \
	&& $(PYTHON) -m venv .venv \
	&& $(BIN)/python -m pip install --quiet uv \
	&& { $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --editable "$(1)" \
		|| $(BIN)/python -m pip install --quiet --editable "$(1)"; }

.venv/core: setup.cfg setup.py pyproject.toml
	$(call INSTALL,.)
	touch $@

.venv/installed: setup.cfg setup.py pyproject.toml
	$(call INSTALL,.[dev])
	touch .venv/core $@

clean:
	rm -rf .venv .compat build dist *.egg-info
