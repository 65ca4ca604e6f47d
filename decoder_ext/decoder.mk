# Commands for the decoder alone. The root Makefile includes this file.

# What `make bench-decoder` measures on. Where an archive is missing it is made from the shipped model and ../shared/data.
BENCH := build/bench-decoder
DEVELOPMENT ?= $(BENCH)/development.npz
LINES ?= $(BENCH)/lines.npz
WORD_MODEL ?= server/longhand_server/models/en/word.klm
CHARACTER_MODEL ?= server/longhand_server/models/en/char.klm
PEER_WORD_MODEL ?= $(BENCH)/spaces.klm
PEER_UNIGRAMS ?= $(BENCH)/spaces.unigrams
NOTE ?= outputs of the shipped model for validation lines of ../shared/data
FUZZ_SECONDS ?= 60

.PHONY: bench-decoder
bench-decoder: $(TRAINING) ## compare decoders on the same lines and models, write decoder_ext/BENCHMARK.md
	@$(PY) -m pip install -q --no-deps pyctcdecode==0.5.0 pygtrie==2.6.2
	@$(PY) -m pip install -q kenlm==0.3.0 flashlight-text==0.0.7 matplotlib
	@$(PY) tests/benchmarks/decoder/prepare.py --out $(BENCH) --development $(DEVELOPMENT) --lines $(LINES) \
	    --peer-word-model $(PEER_WORD_MODEL) --peer-unigrams $(PEER_UNIGRAMS)
	@$(PY) tests/benchmarks/decoder/bench_decoder.py --development $(DEVELOPMENT) --lines $(LINES) \
	    --word-model $(WORD_MODEL) --character-model $(CHARACTER_MODEL) --peer-word-model $(PEER_WORD_MODEL) \
	    --peer-unigrams $(PEER_UNIGRAMS) --note "$(NOTE)" --out $(BENCH)
	@$(PY) tests/benchmarks/decoder/report.py $(BENCH) decoder_ext

.PHONY: sanitize
sanitize: $(DEV) ## the decoder's tests and a fuzzer under AddressSanitizer and UBSan [FUZZ_SECONDS=60]
	@$(PY) decoder_ext/tools/build_sanitized.py
	@export PYTHONPATH=build/sanitize:tests ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	    LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) $$(g++ -print-file-name=libstdc++.so.6)"; \
	$(PY) -m pytest tests/unit/decoder -p no:cacheprovider -o timeout=1200 -k "not forked and not stubtest" -q && \
	$(PY) tests/fuzz/fuzz_decoder.py --seconds $(FUZZ_SECONDS)

.PHONY: decoder-example
decoder-example: $(RUNTIME) ## build the C++ library and its example with CMake
	@mkdir -p build
	@$(PY) -c "import sys; sys.path.insert(0, 'decoder_ext'); import kenlm_build; print(kenlm_build.kenlm_source())" \
	    > build/kenlm-path
	@cmake -S decoder_ext -B build/cmake -DCMAKE_BUILD_TYPE=Release -DKENLM_SOURCE_DIR="$$(cat build/kenlm-path)" > build/cmake.log
	@cmake --build build/cmake -j2 && build/cmake/longhand_decoder_example
