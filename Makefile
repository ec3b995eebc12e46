# vipr: build it, see it, test it. `make` alone says what there is.

PREFIX ?= /usr/local
TOPOLOGY ?= two-segments
CARGO ?= cargo
# For the cargo that rustup installs, and Debian's administration programs.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
VIPR = target/release/vipr
SHELL_SCRIPTS = vm/*.sh vm/oracle/*.sh tests/namespaces/*.sh .ci/run

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## The program: target/release/vipr
	@vm/install-deps.sh build
	$(CARGO) build --release --locked

.PHONY: demo
demo: ## Real HTTP through vipr to three real servers (TOPOLOGY=one-arm: all on one bridge)
	@vm/install-deps.sh build demo
	$(CARGO) build --release --locked
	@timeout --foreground 60 vm/lab.sh run vm/demo.sh $(TOPOLOGY)

.PHONY: lab
lab: build ## The demo's cluster, and a shell in it
	@vm/install-deps.sh demo
	@vm/lab.sh shell $(TOPOLOGY)

.PHONY: check
check: ## Formatting, lints, shell scripts: what needs no test run
	@vm/install-deps.sh build test
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	shellcheck -x $(SHELL_SCRIPTS)

.PHONY: test
test: ## All checks and tests; as root the namespace tests too, in private namespaces
	@vm/install-deps.sh build demo test
	@$(MAKE) --no-print-directory check msrv
	VIPR_REQUIRE_NAMESPACES=$(if $(filter 0,$(shell id -u)),1,$(VIPR_REQUIRE_NAMESPACES)) \
	    $(CARGO) test --locked

.PHONY: msrv
msrv: ## Compiles with the oldest supported Rust, where that is installed
	@if [ "$$($(CARGO) --version | cut -d' ' -f2 | cut -d. -f1,2)" = $(MSRV) ]; then \
	    echo "msrv: this cargo is $(MSRV), the oldest supported: what passes here passes there"; \
	elif rustup run $(MSRV) true 2>/dev/null; then \
	    rustup run $(MSRV) cargo check --locked --all-targets --target-dir target/msrv; \
	else \
	    echo "msrv: SKIPPED: Rust $(MSRV) is not installed (rustup toolchain install $(MSRV))"; \
	fi

.PHONY: bench
bench: ## The benchmarks: a frame's cost in the core, and TAP to TAP
	@vm/install-deps.sh build demo
	$(CARGO) bench --locked

.PHONY: bench-reload
bench-reload: ## What changing the configuration costs, under load and for a large one
	@vm/install-deps.sh build demo test
	$(CARGO) build --release --locked
	$(CARGO) bench --locked --bench reload --no-run
	@timeout --foreground 240 vm/lab.sh run vm/bench-reload.sh
	@echo && echo "== The core alone, taking configurations into force"
	@$(CARGO) bench --locked --quiet --bench reload

.PHONY: oracle
oracle: ## vipr and the kernel's IPVS on the same frames (RECORD=1: renew what make test compares with)
	@vm/install-deps.sh build test oracle
	@vm/oracle/run.sh $(if $(RECORD),--record)

.PHONY: install
install: build ## Into PREFIX=/usr/local (DESTDIR for packagers)
	install -D -m 755 $(VIPR) $(DESTDIR)$(PREFIX)/bin/vipr

.PHONY: uninstall
uninstall: ## What install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/vipr

.PHONY: clean
clean: ## What building made
	$(CARGO) clean
