# Sets up Highway on a fresh Debian or Ubuntu with Python: `make demo` and `make test` install what they need.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= $(shell command -v python3 || command -v python)
ARGS ?=

# Interpreters of pyenv, if installed: tox finds them by name.
PYENV_PATH := $(shell root=$$(pyenv root 2>/dev/null) && printf ':%s' "$$root"/versions/3.*/bin)

SOURCES := setup.py setup.cfg pyproject.toml $(shell find highway -name "*.py" -o -name "*.p??" -o -name "*.[ch]")

.PHONY: help demo test docs clean system system-test

help:
	@echo "make demo    feed real photographs through Highway: rate, bottleneck, a contact sheet in demo-output/"
	@echo "make test    all tests, some with every installed Python from 3.10 on, lint, types, sanitizers, wheel, demo"
	@echo "make docs    the documentation as a site, in build/docs/index.html"
	@echo "make clean   remove the output of these, including environments"
	@echo
	@echo "All create environments in .venv and .tox, and install missing system packages if permitted."
	@echo "Another interpreter: make demo PYTHON=/path/to/python3.12    Some of the tests: make test ARGS='-e py311'"

demo: .venv/demo-installed
	.venv/bin/highway demo

test: .venv/tox-installed system-test
	@# Two at a time: an environment spends half of its time waiting, or compiling on one core.
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

# The remaining targets create .venv step by step; a failed step runs again.

.venv/made: | system
	"$(PYTHON)" -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	@touch $@

.venv/demo-installed: .venv/made $(SOURCES) | system
	@echo "Installing Highway and the packages of its demo; compiling Pillow-SIMD takes a minute or two."
	@# Editable: Python imports the checkout itself from any folder.
	.venv/bin/python -m pip install --quiet --editable ".[simd,cli]"
	.venv/bin/python tools/check_pillow_simd.py --repair
	@# Only for its photographs: its dependencies include Pillow, which overwrites Pillow-SIMD.
	.venv/bin/python -m pip install --quiet --no-deps scikit-image
	@touch $@

.venv/tox-installed: .venv/made
	.venv/bin/python -m pip install --quiet "tox>=4.25"
	@touch $@
