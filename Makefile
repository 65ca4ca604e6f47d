# The commands that people type. `make help` lists them.
#
# Everything is installed into .venv, in the exact versions of constraints.txt. Files named .venv/.stamp-* record what
# is done, so that a second run starts at once and a change of a source rebuilds just what hangs on it.

PYTHON ?= python3
PORT ?= 50051
IMAGE ?= examples/sample_line.png
# `make test TORCH=no` leaves PyTorch out; the tests that need it are skipped and say so.
TORCH ?= yes

VENV := .venv
PY := $(VENV)/bin/python
RUNTIME := $(VENV)/.stamp-runtime
DEV := $(VENV)/.stamp-dev
TRAINING := $(VENV)/.stamp-training
CONFIGURATION := setup.py pyproject.toml constraints.txt decoder_ext/kenlm_build.py
PROTOS := $(wildcard proto/longhand/*/*.proto)
CXX_SOURCES := $(wildcard decoder_ext/src/*.cc decoder_ext/src/*.h decoder_ext/include/longhand_decoder/*.h)
CXX_TABLES := $(wildcard decoder_ext/src/*.inc)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

# At most 80 columns; what stands in brackets is typed as one and stays on one line.
.PHONY: help
help: ## this list
	@awk 'FNR == 1 { print(NR == 1 ? "make ..." : "\n" FILENAME ":") } \
	    /^[a-z][a-z-]*:.*## / { \
	        line = sprintf("  %-16s", substr($$0, 1, index($$0, ":") - 1)); \
	        for (text = substr($$0, index($$0, "## ") + 3); text != ""; text = substr(text, length(word) + 2)) { \
	            match(text, /^\[[^]]*\]|^[^ ]*/); word = substr(text, 1, RLENGTH); \
	            if (length(line) + 1 + length(word) > 80) { print line; line = sprintf("%18s", "") } \
	            line = line " " word \
	        } \
	        print line \
	    }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(RUNTIME) ## read one handwritten line end to end [IMAGE=path.png]
	@$(PY) -m longhand_client.demo "$(IMAGE)"

.PHONY: serve
serve: $(RUNTIME) ## run the server until Ctrl-C [PORT=50051] [ARGS="--help"]
	@exec $(PY) -m longhand_server --port $(PORT) $(ARGS)

.PHONY: test
test: $(if $(filter no,$(TORCH)),$(DEV),$(TRAINING)) ## run the whole test suite [TORCH=no] [ARGS="-k name"]
	@$(PY) -m pytest $(ARGS)

.PHONY: lint
lint: $(TRAINING) ## ruff, mypy --strict, clang-format; changes nothing
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy $(wildcard setup.py decoder_ext server training clients tests examples)
	@$(VENV)/bin/clang-format --dry-run -Werror $(CXX_SOURCES)
	@if [ -e node_modules/.bin/buf ]; then \
	    $(PY) setup.py -q build_stubs --descriptor-set build/longhand.binpb && \
	    node_modules/.bin/buf lint build/longhand.binpb --config proto/buf.yaml; \
	else echo "buf is not here (make test-tools brings it); the .proto is not linted"; fi

.PHONY: format
format: $(DEV) ## put Python and C++ into the project's format
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
	@$(VENV)/bin/clang-format -i $(CXX_SOURCES)

.PHONY: venv
venv: $(TRAINING) ## make .venv with everything for development

.PHONY: stubs
stubs: $(RUNTIME) ## generate the protobuf modules again
	@$(PY) setup.py -q build_stubs --inplace

.PHONY: clean
clean: ## remove .venv and what was built; runs/ stays
	rm -rf $(VENV) build dist *.egg-info
	find proto decoder_ext \( -name '*_pb2*.py*' -o -name '*.so' \) -delete

$(PY):
	@.ci/install environment "$(PYTHON)" $(VENV)

# An environment and what is installed into it editable know their folder by its path. No such file is ever made, so
# that this is looked at every time.
$(VENV)/.same-folder: | $(PY)
	@.ci/install same-folder $(VENV)

$(RUNTIME): $(CONFIGURATION) $(PROTOS) $(CXX_SOURCES) $(CXX_TABLES) | $(VENV)/.same-folder
	@if [ -n "$(filter $(CONFIGURATION),$?)" ]; then .ci/install package $(VENV) server; \
	else .ci/install rebuild $(VENV); fi
	@touch $@

$(DEV): $(RUNTIME) pyproject.toml constraints.txt
	@if [ -z "$(filter-out $(RUNTIME),$?)" ] || .ci/install requirements $(VENV) dev; then touch $@; else exit 1; fi

$(TRAINING): $(DEV) pyproject.toml constraints.txt
	@if [ -z "$(filter-out $(DEV),$?)" ] || .ci/install requirements $(VENV) training; then touch $@; else exit 1; fi

-include decoder_ext/decoder.mk server/server.mk server/scale.mk training/training.mk clients/clients.mk
