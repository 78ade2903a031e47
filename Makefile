# What one types. Each target first installs what it needs and misses (scripts/deps.sh says what and why).
# ARGS=… is handed on:  make top ARGS="-p 4711"   make bench ARGS="--rounds 7"

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
SBERF := $(TARGET_DIR)/release/sberf
ROOT := $(if $(filter-out 0,$(shell id -u)),sudo)
ARGS ?=
PREFIX ?= /usr/local
export PREFIX DESTDIR
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)

# rustup installs here, and a fresh shell (or sudo) may not know yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help top build install uninstall test test-kernels cross lint fmt bench soak screenshot demo readme rust deps clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

top: build ## build, then start `sberf top`
	@$(ROOT) $(SBERF) top $(ARGS)

build: rust deps ## a release binary
	@$(CARGO) build --release --locked
	@echo "built $(SBERF)"

install: ## program, manual pages, completions to PREFIX (/usr/local); asks before it sets capabilities
	@[ -x $(SBERF) ] || $(MAKE) --no-print-directory build
	@scripts/install.sh install $(SBERF)

uninstall: ## remove them again
	@scripts/install.sh uninstall

test: ## formatting, lints and every test; those on the live kernel as root
	@scripts/rust.sh rustfmt clippy
	@scripts/deps.sh build test
	@scripts/test.sh

test-kernels: ## on every kernel of the table in README.md, in virtual machines; ARGS="6.12" takes one; some 10 minutes
	@scripts/rust.sh
	@scripts/deps.sh build test
	SBERF_KERNELS=all $(CARGO) test --locked --test kernels -- $(ARGS)

cross: deps ## that it builds for aarch64, by cargo check
	@scripts/cross.sh

lint: deps ## formatting and lints only
	@scripts/rust.sh rustfmt clippy
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

fmt: ## format the Rust sources
	@scripts/rust.sh rustfmt
	$(CARGO) fmt

bench: rust ## speed of each part, then cost beside htop, runqlat, offcputime; as root, some 10 minutes
	@scripts/deps.sh build bench
	$(CARGO) bench --locked --bench speed
	CARGO_TARGET_$(TRIPLE)_RUNNER="$(if $(ROOT),sudo -E,env)" $(CARGO) bench --locked --bench overhead -- $(ARGS)

soak: rust ## half an hour on a machine that is never quiet: nothing grows, no tick is lost; as root (ARGS="--minutes 5")
	@scripts/deps.sh build bench
	CARGO_TARGET_$(TRIPLE)_RUNNER="$(if $(ROOT),sudo -E,env)" $(CARGO) bench --locked --bench soak -- $(ARGS)

demo: build ## record assets/demo.sberf: a made-up working day of this machine, as root
	@scripts/demo.sh $(SBERF) assets/demo.sberf

screenshot: rust deps ## draw the README's pictures from assets/demo.sberf
	@scripts/screenshots.sh

readme: rust deps ## write the parts of README.md that are made from the code
	@SBERF_WRITE_README=1 $(CARGO) test --locked -q --test readme

rust:
	@scripts/rust.sh

deps:
	@scripts/deps.sh build

clean: ## remove what was built
	$(CARGO) clean
