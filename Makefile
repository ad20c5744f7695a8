# Spindle: one Makefile for everything. `make help` lists what it can do.
#
# Sources are found, not listed: every src/*/*.c goes into libspindle.a, src/cli/*.c into the program, tests/unit/test_*.c
# become one test program each, tests/fuzz/fuzz_*.c one fuzz target each, tests/bench/bench_*.c one measuring program each.
# VARIANT picks the flavour and its own build folder: release (build/), asan, tsan, fuzz.

VARIANT ?= release
CC      ?= gcc
CXX     ?= g++
PYTHON  ?= python3
JOBS    ?= $(shell nproc)
PREFIX  ?= /usr/local

B := build$(if $(filter-out release,$(VARIANT)),/$(VARIANT))

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror
CPPFLAGS += -Isrc -Iinclude -D_GNU_SOURCE -MMD -MP
CFLAGS   ?= -O2 -g
CFLAGS   += -std=c17 $(WARNINGS) -fno-strict-aliasing -pthread
CXXFLAGS ?= -O2 -g
CXXFLAGS += -std=c++17 -Wall -Wextra -Wpedantic -Wshadow -Werror -fno-rtti -pthread
LDFLAGS  += -pthread
LDLIBS   := -luv -lck -lsimdjson -ljansson -lyaml -lxxhash -lmicrohttpd -lz -lm -lstdc++

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
CC := clang
CXX := clang++
CFLAGS += -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer
CXXFLAGS += -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
endif

LIB_SOURCES  := $(filter-out src/cli/main.c,$(wildcard src/*/*.c))
LIB_CXX      := $(wildcard src/*/*.cpp)
LIB_OBJECTS  := $(LIB_SOURCES:%.c=$B/obj/%.o) $(LIB_CXX:%.cpp=$B/obj/%.o)
MAIN_OBJECT  := $B/obj/src/cli/main.o
UNIT_SOURCES := $(wildcard tests/unit/test_*.c)
UNIT_TESTS   := $(UNIT_SOURCES:tests/unit/%.c=$B/tests/%)
FUZZ_SOURCES := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_TARGETS := $(FUZZ_SOURCES:tests/fuzz/%.c=$B/fuzz/%)
FUZZ_REPLAYS := $(FUZZ_SOURCES:tests/fuzz/%.c=$B/tests/replay_%)
BENCH_SOURCES := $(wildcard tests/bench/bench_*.c)
BENCHES      := $(BENCH_SOURCES:tests/bench/%.c=$B/bench/%)

.DEFAULT_GOAL := build
.PHONY: build
build: $B/spindle ## compile the program into build/spindle

$B/spindle: $(MAIN_OBJECT) $B/libspindle.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/libspindle.a: $(LIB_OBJECTS)
	@rm -f $@
	$(AR) rcs $@ $^

$B/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$B/obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c -o $@ $<

$B/tests/%: $B/obj/tests/unit/%.o $B/libspindle.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

$B/tests/replay_%: $B/obj/tests/fuzz/%.o $B/obj/tests/fuzz/replay.o $B/libspindle.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/fuzz/%: $B/obj/tests/fuzz/%.o $B/libspindle.a
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

$B/bench/%: $B/obj/tests/bench/%.o $B/libspindle.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

.PHONY: unit
unit: $(UNIT_TESTS) ## run the unit tests
	@set -e; for t in $(UNIT_TESTS); do $$t; done

.PHONY: fuzz-targets fuzz-replay benches
fuzz-targets: $(FUZZ_TARGETS) ## build the fuzz targets (with VARIANT=fuzz)

fuzz-replay: $(FUZZ_REPLAYS) ## feed each fuzz target its corpus and mutations of it
	@set -e; for t in $(FUZZ_REPLAYS); do $$t tests/fuzz/corpus/$${t##*/replay_fuzz_}; done

benches: $(BENCHES) ## build the measuring programs

-include $(shell find $B/obj -name '*.d' 2>/dev/null)
