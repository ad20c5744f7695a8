# Spindle: one Makefile for everything. `make help` lists what it can do.
#
# Sources are found, not listed: every src/*/*.c and src/*/*/*.c goes into libspindle.a, src/cli/main.c on top of it becomes
# the program, tests/unit/test_*.c become one test program each (with the other tests/unit/*.c), tests/fuzz/fuzz_*.c one fuzz target each,
# tests/bench/bench_*.c one measuring program each. VARIANT picks the flavour and its own build folder: release (build/), asan, tsan,
# fuzz, clang (build/VARIANT/).

VARIANT      ?= release
PYTHON       ?= python3
JOBS         ?= $(shell nproc)
PREFIX       ?= /usr/local
FUZZ_SECONDS ?= 30
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
ifneq ($(filter clang fuzz,$(VARIANT)),)
CC  := clang
CXX := clang++
endif

B := build$(if $(filter-out release,$(VARIANT)),/$(VARIANT))

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror
CPPFLAGS += -Isrc -Iinclude -D_GNU_SOURCE -MMD -MP
CFLAGS   ?= -O2 -g
CFLAGS   += -std=c17 $(WARNINGS) -fno-strict-aliasing -pthread
CXXFLAGS ?= -O2 -g
CXXFLAGS += -std=c++17 -Wall -Wextra -Wpedantic -Wshadow -Werror -fno-rtti -pthread
LDFLAGS  += -pthread
LDLIBS   := -luv -lsimdjson -ljansson -lyaml -lxxhash -lmicrohttpd -lssl -lcrypto -lz -lzstd -lsodium -lm -lstdc++
ALLOCATOR := $(if $(filter asan tsan fuzz,$(VARIANT)),,-ljemalloc)# sanitizers bring their own

ifeq ($(VARIANT),asan)
CFLAGS += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CXXFLAGS += -fsanitize=address,undefined -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
endif
ifeq ($(VARIANT),tsan)
CFLAGS += -fsanitize=thread
CXXFLAGS += -fsanitize=thread
LDFLAGS += -fsanitize=thread
endif
ifeq ($(VARIANT),fuzz)
CFLAGS += -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer
CXXFLAGS += -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
endif

LIB_SOURCES  := $(filter-out src/cli/main.c,$(wildcard src/*/*.c src/*/*/*.c))
LIB_CXX      := $(wildcard src/*/*.cpp src/*/*/*.cpp)
LIB_OBJECTS  := $(LIB_SOURCES:%.c=$B/obj/%.o) $(LIB_CXX:%.cpp=$B/obj/%.o)
MAIN_OBJECT  := $B/obj/src/cli/main.o
UNIT_SOURCES := $(wildcard tests/unit/test_*.c)
UNIT_HELPERS := $(filter-out $(UNIT_SOURCES),$(wildcard tests/unit/*.c))
UNIT_TESTS   := $(UNIT_SOURCES:tests/unit/%.c=$B/tests/%)
FUZZ_SOURCES := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_TARGETS := $(FUZZ_SOURCES:tests/fuzz/%.c=$B/fuzz/%)
FUZZ_REPLAYS := $(FUZZ_SOURCES:tests/fuzz/%.c=$B/tests/replay_%)
BENCH_SOURCES := $(wildcard tests/bench/bench_*.c)
BENCHES      := $(BENCH_SOURCES:tests/bench/%.c=$B/bench/%)

VENV         := build/venv/.ready
NODE         := $(if $(shell command -v npm),build/node/.ready)# clients in JavaScript are tested where there is npm
FORMATTED     = $(shell find $(wildcard src include tests) -name '*.[ch]' -o -name '*.cpp')
# A make that was started without -j builds on all processors.
PARALLEL      = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))
SUBMAKE       = $(MAKE) --no-print-directory $(if $(V),,-s)
SAY           = @printf '  %-4s %s\n'
Q            := $(if $(V),,@)

.DEFAULT_GOAL := build
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: help deps build demo unit test-programs test check asan tsan fault fuzz fuzz-targets benches bench layers format format-check install docs clean

help: ## show this list (V=1 shows the compiler's command lines)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install the Debian packages for building and testing that are missing (root or sudo)
	@tools/packages build test

build: $B/spindle ## compile the program into build/spindle

$B/spindle: $(MAIN_OBJECT) $B/libspindle.a
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(ALLOCATOR)

$B/libspindle.a: $(LIB_OBJECTS)
	$(SAY) AR $@
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^

$B/obj/%.o: %.c
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$B/obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(SAY) CXX $<
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c -o $@ $<

$B/tests/%: $B/obj/tests/unit/%.o $(UNIT_HELPERS:%.c=$B/obj/%.o) $B/libspindle.a
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

$B/tests/replay_%: $B/obj/tests/fuzz/%.o $B/obj/tests/fuzz/replay.o $B/libspindle.a
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/fuzz/%: $B/obj/tests/fuzz/%.o $B/libspindle.a
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CXX) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

$B/bench/%: $B/obj/tests/bench/%.o $B/libspindle.a
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

demo: ## build, play 200 drilling tools for 15 seconds, and show what came of it
	@tools/packages build
	@$(SUBMAKE) $(PARALLEL) build
	@tools/demo

test-programs: $(UNIT_TESTS) $(FUZZ_REPLAYS)

unit: test-programs ## run the unit tests alone
	@tests/run --variant $(VARIANT) --only unit,replay

test: deps ## run every test: units, stored fuzz inputs, the real program with third-party clients
	@$(SUBMAKE) $(PARALLEL) build test-programs $(VENV) $(NODE)
	@tests/run --variant $(VARIANT)

check: ## before a commit: format, layers, warnings of gcc and clang, unit tests
	@tools/packages build test check
	@$(SUBMAKE) format-check layers
	@$(SUBMAKE) $(PARALLEL) VARIANT=clang build test-programs
	@$(SUBMAKE) $(PARALLEL) build test-programs
	@tests/run --only unit,replay

asan: ## run every test with address and undefined-behaviour sanitizers
	@$(SUBMAKE) VARIANT=asan test

tsan: ## run every test with the thread sanitizer
	@$(SUBMAKE) VARIANT=tsan test

fault: ## kill the real program hundreds of times, fill its disk, take its files away (FAULT_KILLS, FAULT_SEED)
	@tools/packages build test
	@$(SUBMAKE) $(PARALLEL) build $(VENV)
	@tests/run --variant $(VARIANT) --only fault

fuzz: ## run each fuzz target for FUZZ_SECONDS (30)
	@tools/packages build fuzz
	@$(SUBMAKE) $(PARALLEL) VARIANT=fuzz fuzz-targets
	@set -e; for target in $(FUZZ_SOURCES:tests/fuzz/fuzz_%.c=%); do \
	    mkdir -p build/fuzz/corpus/$$target; \
	    echo "fuzzing $$target for $(FUZZ_SECONDS) s (build/fuzz/$$target.log)"; \
	    build/fuzz/fuzz/fuzz_$$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/$$target- \
	        build/fuzz/corpus/$$target tests/fuzz/corpus/$$target >build/fuzz/$$target.log 2>&1 || { tail -n 60 build/fuzz/$$target.log; exit 1; }; \
	done

fuzz-targets: $(FUZZ_TARGETS)

benches: $(BENCHES) ## build the programs in build/bench that measure one part each

bench: ## measure throughput, latency and cost beside other brokers of this machine
	@tools/packages build bench
	@tools/packages peers || echo "Measuring without them."
	@$(SUBMAKE) $(PARALLEL) build benches
	@tools/bench

layers: ## check who includes whom
	@tools/layers

format: ## bring every source file into the one format
	@clang-format -i $(FORMATTED)

format-check:
	@clang-format --dry-run -Werror $(FORMATTED)

install: build ## install the program below PREFIX (/usr/local); DESTDIR is honoured
	install -D -m 755 $B/spindle $(DESTDIR)$(PREFIX)/bin/spindle
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/spindle LICENSE NOTICE CHANGELOG.md README.md
	for file in $$(find docs -type f); do install -D -m 644 $$file $(DESTDIR)$(PREFIX)/share/doc/spindle/$$file || exit 1; done
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$B/spindle docs man > $(DESTDIR)$(PREFIX)/share/man/man1/spindle.1
	$B/spindle completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/spindle
	$B/spindle completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_spindle
	$B/spindle completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/spindle.fish

docs: build ## write the pages that are made from tables
	$B/spindle docs configuration > docs/configuration.md
	$B/spindle docs commands > docs/commands.md
	$(PYTHON) tests/system/statements.py > docs/mqtt.md

clean: ## remove everything that was built
	rm -rf build

$(VENV): tests/requirements.txt
	@$(PYTHON) -m venv --clear build/venv
	@build/venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

build/node/.ready: tests/node/package.json
	@mkdir -p $(@D)
	@cp $< $(@D)
	@cd $(@D) && npm install --silent --no-audit --no-fund --no-package-lock && touch .ready || echo "npm cannot install what the tests in JavaScript need; they are skipped."

-include $(shell find $B/obj -name '*.d' 2>/dev/null)
