# Measuring and looking at the clients' side. Included by the Makefile.

BENCH_CALL ?= unary

.PHONY: bench
bench: $(DEV) ## measure a server started for it: lines/s and latency [ARGS="--rate 20"]
	@$(PY) clients/benchmark.py --local --call $(BENCH_CALL) $(ARGS)
