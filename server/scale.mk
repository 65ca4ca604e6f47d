# Beyond one machine; included by the root Makefile.

.PHONY: check-kubernetes
check-kubernetes: $(DEV) ## check Kustomize folders against schemas and settings [FOLDERS=my/overlay]
	@PYTHONPATH=tests $(PY) -m helpers.manifests $(if $(FOLDERS),$(FOLDERS),server/deploy/kubernetes/base \
	    $(wildcard server/deploy/kubernetes/overlays/*))

.PHONY: test-scale
test-scale: $(DEV) ## the tests that `make test` leaves out: many hosts, Ray, Triton's clients; minutes [ARGS="-k hosts"]
	@$(PY) -m pytest -m scale --timeout 600 $(ARGS)

.PHONY: bench-scale
bench-scale: $(DEV) ## simulate 1,000 replicas, held against a real server -> server/SIMULATION.md [ARGS=--reuse]
	@PYTHONPATH=tests $(PY) -m benchmarks.scale.bench_scale $(ARGS)
