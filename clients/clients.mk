# Measuring and looking at the clients' side. Included by the Makefile.

BENCH_CALL ?= unary
WEB_PORT ?= 8080
WEB := $(VENV)/.stamp-web

.PHONY: bench
bench: $(DEV) ## measure a server started for it: lines/s and latency [ARGS="--rate 20"]
	@$(PY) clients/benchmark.py --local --call $(BENCH_CALL) $(ARGS)

.PHONY: bench-clients
bench-clients: $(DEV) ## what the clients themselves cost, against servers that do nothing [ARGS=FILES]
	@PYTHONPATH=tests $(PY) tests/benchmarks/client/bench_client.py $(ARGS)

.PHONY: web
web: $(WEB) ## serve the web page, with a server of its own [WEB_PORT=8080] [ARGS="--address HOST:PORT"]
	@exec $(PY) -m longhand_web --port $(WEB_PORT) $(if $(findstring --address,$(ARGS)),,--local) $(ARGS)

.PHONY: test-tools
test-tools: ## what some tests want besides Python: Chromium, libb64 (Debian's, as root), axe-core, buf and grpc-js (npm)
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }
	@dpkg -s libb64-0d >/dev/null 2>&1 || apt-get install -y -q --no-install-recommends libb64-0d
	@command -v npm >/dev/null || apt-get install -y -q --no-install-recommends npm
	@test -e node_modules/axe-core -a -e node_modules/.bin/buf -a -e node_modules/@grpc/grpc-js || \
	    npm install --no-save --no-package-lock --silent axe-core@4.14.1 @bufbuild/buf @grpc/grpc-js @grpc/proto-loader

$(WEB): $(RUNTIME) pyproject.toml constraints.txt
	@if [ -z "$(filter-out $(RUNTIME),$?)" ] || .ci/install requirements $(VENV) web; then touch $@; else exit 1; fi
