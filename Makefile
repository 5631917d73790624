# The front door. CMake does the building; ci/ holds the checks.
#
# SPDX-License-Identifier: Apache-2.0

BUILD  ?= build
OUT    ?= out
PREFIX ?= /usr/local

# cmake --install reads DESTDIR from the environment.
export DESTDIR

.DEFAULT_GOAL := all
.PHONY: all test bench install clean format help

all: ## build the libraries and the tool, build/splitkv
	@ci/install-deps build
	@ci/build $(BUILD)

test: ## build and run every test and check (ctest); installs what is missing
	@ci/test $(BUILD)

bench: ## accuracy and speed of suite pr683; writes out/pr683.json and out/pr683.svg
	@ci/install-deps build bench
	@ci/build $(BUILD)
	@ci/bench $(BUILD) $(OUT)

install: ## install what `make` built into $(DESTDIR)$(PREFIX), default /usr/local
	@test -f $(BUILD)/CMakeCache.txt || { echo "run make first" >&2; exit 1; }
	cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## remove build/ and out/
	rm -rf $(BUILD) $(OUT)

format: ## clang-format all C files in place
	@ci/check-format --fix

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10
