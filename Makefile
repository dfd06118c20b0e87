# Highway from a fresh Debian or Ubuntu with Python: `make demo` and `make test` prepare what they need themselves.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= $(shell command -v python3 || command -v python)
ARGS ?=

# The interpreters that pyenv keeps, where there is a pyenv: tox finds them by name.
PYENV_PATH := $(shell root=$$(pyenv root 2>/dev/null) && printf ':%s' "$$root"/versions/3.*/bin)

SOURCES := setup.py setup.cfg pyproject.toml $(shell find highway -name "*.py" -o -name "*.p??" -o -name "*.[ch]")

.PHONY: help demo test docs clean system system-test

help:
	@echo "make demo    feed real photographs through Highway: rate, bottleneck, a contact sheet in demo-output/"
	@echo "make test    all tests, some with every Python from 3.10 that is here, lint, types, sanitizers, wheel, demo"
	@echo "make docs    the documentation as a site, in build/docs/index.html"
	@echo "make clean   remove what these have made, environments included"
	@echo
	@echo "All make their own environments in .venv and .tox, and install missing system packages where they may."
	@echo "Another interpreter: make demo PYTHON=/path/to/python3.12    Some of the tests: make test ARGS='-e py311'"

demo: .venv/demo-installed
	.venv/bin/highway demo

test: .venv/tox-installed system-test
	@# Two at a time: half of an environment's time is waiting, or compiling on one core.
	PATH="$$PATH$(PYENV_PATH)" .venv/bin/python -m tox run-parallel --parallel 2 --parallel-live $(ARGS)

docs: .venv/tox-installed
	PATH="$$PATH$(PYENV_PATH)" .venv/bin/python -m tox run -e docs

clean:
	rm -rf .venv .tox build dist demo-output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find highway/_core -name "*.so" -delete

system:
	@sh tools/system_packages.sh "$(PYTHON)"

system-test:
	@PATH="$$PATH$(PYENV_PATH)" sh tools/system_packages.sh "$(PYTHON)" \
	    python3.10 python3.11 python3.12 python3.13 python3.14

# The rest makes .venv, step by step; a step that fails leaves no mark and is taken anew.

.venv/made: | system
	"$(PYTHON)" -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	@touch $@

.venv/demo-installed: .venv/made $(SOURCES) | system
	@echo "Installing Highway and what its demo needs; compiling Pillow-SIMD takes a minute or two."
	@# Editable: the checkout itself is what Python imports, wherever it is started.
	.venv/bin/python -m pip install --quiet --editable ".[simd,cli]"
	.venv/bin/python tools/check_pillow_simd.py --repair
	@# For its photographs alone: what it depends on would bring Pillow, which overwrites Pillow-SIMD.
	.venv/bin/python -m pip install --quiet --no-deps scikit-image
	@touch $@

.venv/tox-installed: .venv/made
	.venv/bin/python -m pip install --quiet "tox>=4.25"
	@touch $@
