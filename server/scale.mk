# Beyond one machine; included by the root Makefile.

# Ray is large, and `make test` does without it.
RAY := $(VENV)/.stamp-ray

$(RAY): $(DEV) pyproject.toml constraints.txt
	@if [ -z "$(filter-out $(DEV),$?)" ] || { .ci/install requirements $(VENV) ray && \
	    .ci/install requirements $(VENV) bulk; }; then touch $@; else exit 1; fi

.PHONY: check-ray
check-ray: $(RAY) ## check configurations for Ray Serve and RayService manifests [FILES=my/longhand.yaml]
	@$(PY) -m longhand_server.ray_config $(if $(FILES),$(FILES),$(wildcard server/deploy/ray/*.yaml))

.PHONY: check-kubernetes
check-kubernetes: $(RAY) ## check Kustomize folders against schemas and settings [FOLDERS=my/overlay]
	@PYTHONPATH=tests $(PY) -m helpers.manifests $(if $(FOLDERS),$(FOLDERS),server/deploy/kubernetes/base server/deploy/kubernetes/ray \
	    $(wildcard server/deploy/kubernetes/overlays/*))

# Triton's clients, each in an environment of its own: their message types have the names of ours. The older one is the
# last with perf_analyzer in it, which needs CUDA's runtime and Debian's libb64-0d besides.
TRITONCLIENTS := $(patsubst %,build/tritonclient/%/.done,2.40.0 2.73.0)
TRITON_2.40.0 := protobuf==3.20.3 nvidia-cuda-runtime-cu12==12.9.79
TRITON_2.73.0 := protobuf==6.33.6

build/tritonclient/%/.done: server/scale.mk | $(PY)
	@echo "longhand: installing tritonclient $* ..."
	@$(PY) -m venv build/tritonclient/$*
	@build/tritonclient/$*/bin/python -m pip install -q --disable-pip-version-check \
	    "tritonclient[grpc]==$*" grpcio==1.85.3 numpy==2.4.6 $(TRITON_$*)
	@touch $@

.PHONY: test-scale
test-scale: $(DEV) $(RAY) $(TRITONCLIENTS) ## the tests that `make test` leaves out: many hosts, Ray, Triton's clients; minutes [ARGS="-k hosts"]
	@$(PY) -m pytest -m scale --timeout 600 $(ARGS)

.PHONY: bench-scale
bench-scale: $(DEV) ## simulate 1,000 replicas, held against a real server -> server/SIMULATION.md [ARGS=--reuse]
	@PYTHONPATH=tests $(PY) -m benchmarks.scale.bench_scale $(ARGS)

.PHONY: bench-ray
bench-ray: $(RAY) ## Ray Serve against the plain server, batchers, bulk against the bare pipeline [ARGS="serve batchers bulk"]
	@$(PY) tests/benchmarks/scale/bench_ray.py $(ARGS)
