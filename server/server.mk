# The server's own commands; included by the root Makefile.

SOAK_SECONDS ?= 300

.PHONY: bench-server
bench-server: $(TRAINING) ## measure the server: throughput, overhead, latency, overload -> server/BENCHMARK.md
	@$(PY) tests/benchmarks/server/bench_server.py --write server/BENCHMARK.md $(ARGS)

.PHONY: bench-gpu
bench-gpu: $(TRAINING) ## measure a machine with a GPU: each stage, the pipeline, the server [ARGS="--workers 4 8"]
	@$(PY) tests/benchmarks/server/bench_gpu.py $(ARGS)

.PHONY: soak
soak: $(DEV) ## mixed good and bad calls for 5 minutes, every answer checked [SOAK_SECONDS=300]
	@$(PY) tests/benchmarks/server/soak.py --seconds $(SOAK_SECONDS)

.PHONY: chaos
chaos: $(DEV) ## misbehaving clients and killed workers, ten times as much as in the tests
	@CHAOS_SCALE=10 $(PY) -m pytest tests/integration/test_chaos.py tests/integration/test_workers.py --timeout 900

.PHONY: fuzz
fuzz: $(DEV) ## 100,000 damaged images through the decoder
	@FUZZ_INPUTS=100000 $(PY) -m pytest -s tests/unit/server/test_image_fuzz.py
