# Measuring and looking at the clients' side. Included by the Makefile.

BENCH_CALL ?= unary
WEB_PORT ?= 8080
WEB := $(VENV)/.stamp-web

.PHONY: bench
bench: $(DEV) ## measure a server started for it: lines/s and latency [ARGS="--rate 20"]
	@$(PY) clients/benchmark.py --local --call $(BENCH_CALL) $(ARGS)

.PHONY: web
web: $(WEB) ## serve the web page, with a server of its own [WEB_PORT=8080] [ARGS="--address HOST:PORT"]
	@exec $(PY) -m longhand_web --port $(WEB_PORT) $(if $(ARGS),$(ARGS),--local)

.PHONY: browser
browser: ## what the tests of the page need: Debian's Chromium and axe-core (as root)
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }
	@test -e node_modules/axe-core || npm install --no-save --silent axe-core@4.14.1

$(WEB): $(RUNTIME) pyproject.toml constraints.txt
	@if [ -z "$(filter-out $(RUNTIME),$?)" ] || .ci/install requirements $(VENV) web; then touch $@; else exit 1; fi
