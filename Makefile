# vipr: build it, see it, test it. `make` alone says what there is.

PREFIX ?= /usr/local
TOPOLOGY ?= two-segments
CARGO ?= cargo
FUZZ_SECONDS ?= 60
FUZZ_TARGETS = frame frames configuration
# For the cargo that rustup installs, and Debian's administration programs.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
VIPR = target/release/vipr
# What runs alone in a machine has no libraries beside it.
IMAGE_TARGET = x86_64-unknown-linux-gnu
IMAGE_BUILD = RUSTFLAGS='-C target-feature=+crt-static' \
    $(CARGO) build --locked --profile minimal --no-default-features --target $(IMAGE_TARGET) --bin vipr
VIPR_LAB = $(CARGO) run --quiet --locked --package vipr-lab --
# For make image.
CONFIG ?= config/only-program.toml
# For make vm-lab and those after it.
STORY ?= healthy
REAL_SERVERS ?=
STORIES ?=
VM ?= client
SEGMENT ?= front
FILE ?=
DIRECTOR ?= machine
LAB_OPTIONS = $(if $(REAL_SERVERS),--real-servers $(REAL_SERVERS)) \
    $(if $(filter host,$(DIRECTOR)),--on-host)
SHELL_SCRIPTS = vm/*.sh vm/oracle/*.sh vm/uml/*.sh tests/namespaces/*.sh tests/namespaces/support/*.sh .ci/run

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

.PHONY: image
image: ## vipr as the only program of a machine: target/image/ (CONFIG=FILE goes in)
	@vm/install-deps.sh build image
	$(IMAGE_BUILD)
	$(VIPR_LAB) image --config $(CONFIG) --disk

.PHONY: bench-image
bench-image: ## The image's size, the time to its first answer, its memory
	@vm/install-deps.sh build image lab
	$(IMAGE_BUILD)
	$(VIPR_LAB) image --config config/only-program.toml --output target/bench-image
	$(VIPR_LAB) bench-image target/bench-image

.PHONY: vm-lab
vm-lab: ## The cluster in virtual machines (STORY=healthy TOPOLOGY=one-arm REAL_SERVERS=5 DIRECTOR=host)
	@vm/install-deps.sh build image lab
	$(IMAGE_BUILD)
	@$(VIPR_LAB) run $(LAB_OPTIONS) $(if $(filter one-arm,$(TOPOLOGY)),--one-arm) $(STORY)

.PHONY: vm-lab-stories
vm-lab-stories: ## The stories there are
	@$(VIPR_LAB) stories

.PHONY: vm-lab-test
vm-lab-test: ## Every story, asserted (STORIES="healthy ipvs" for some)
	@vm/install-deps.sh build image lab
	$(IMAGE_BUILD)
	@timeout --foreground 1200 $(VIPR_LAB) test $(LAB_OPTIONS) $(STORIES)

.PHONY: vm-lab-shell
vm-lab-shell: ## A shell in a machine of the running lab (VM=client)
	@$(VIPR_LAB) shell $(VM)

.PHONY: vm-lab-status
vm-lab-status: ## What the director of the running lab knows
	@$(VIPR_LAB) status

.PHONY: vm-lab-capture
vm-lab-capture: ## Frames of the running lab as a pcap file (SEGMENT=front FILE=front.pcap)
	@$(VIPR_LAB) capture $(SEGMENT) $(FILE)

.PHONY: check
check: ## Formatting, lints, shell scripts: what needs no test run
	@vm/install-deps.sh build test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --bin vipr -- -D warnings
	shellcheck -x $(SHELL_SCRIPTS)

.PHONY: test
test: ## All checks and tests; as root the namespace tests too, in private namespaces
	@vm/install-deps.sh build demo test
	@$(MAKE) --no-print-directory check msrv
	VIPR_REQUIRE_NAMESPACES=$(if $(filter 0,$(shell id -u)),1,$(VIPR_REQUIRE_NAMESPACES)) \
	    $(CARGO) test --locked --workspace
	@$(MAKE) --no-print-directory instructions

.PHONY: fuzz
fuzz: ## Looks for inputs that break it, FUZZ_SECONDS=60 for each target (needs nightly Rust)
	@vm/install-deps.sh build
	@rustup run nightly cargo --version >/dev/null 2>&1 || \
	    { echo "make fuzz: needs nightly Rust: rustup toolchain install nightly" >&2; exit 1; }
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	@$(CARGO) test --locked --quiet --test fuzz -- --ignored --exact write_seeds
	@for target in $(FUZZ_TARGETS); do \
	    $(CARGO) +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

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
bench: ## The benchmarks: TAP to TAP beside a bare copy loop, a frame's cost in the core, and checks
	@vm/install-deps.sh build demo
	$(CARGO) bench --locked --bench forwarding --bench core --bench checks --no-run
	@$(CARGO) bench --locked --quiet --bench forwarding
	@$(CARGO) bench --locked --quiet --bench core
	@$(CARGO) bench --locked --quiet --bench checks

.PHONY: bench-ipvs
bench-ipvs: ## A packet with vipr and with the kernel's IPVS, in instructions (boots a machine)
	@vm/install-deps.sh build test image lab
	@vm/bench-ipvs.sh "$$(RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) bench --locked \
	    --target $(IMAGE_TARGET) --bench ipvs --no-run --message-format=json | \
	    jq -r 'select(.target.name == "ipvs" and .executable) | .executable')"

.PHONY: instructions
instructions: ## Instructions of the core's hot paths, against their baseline (valgrind)
	@vm/install-deps.sh build test
	@$(CARGO) bench --locked --quiet --bench instructions

.PHONY: bench-reload
bench-reload: ## What changing the configuration costs, under load and for a large one
	@vm/install-deps.sh build demo test
	$(CARGO) build --release --locked
	$(CARGO) bench --locked --bench reload --no-run
	@timeout --foreground 240 vm/lab.sh run vm/bench-reload.sh
	@echo && echo "== The core alone, taking configurations into force"
	@$(CARGO) bench --locked --quiet --bench reload

.PHONY: bench-arp
bench-arp: ## How soon ARP is answered under load, and where clients end up while real servers leak it
	@vm/install-deps.sh build demo test
	$(CARGO) build --release --locked
	@timeout --foreground 120 vm/lab.sh run vm/bench-arp-load.sh
	@timeout --foreground 1500 vm/lab.sh run tests/namespaces/arp-guardian.sh 1000
	@timeout --foreground 1500 vm/lab.sh run tests/namespaces/nd-guardian.sh 1000

TUNE_CONFIG ?= /etc/vipr/vipr.toml

.PHONY: tune
tune: build ## What on this host costs speed (TUNE_CONFIG=FILE); vipr tune --apply changes it
	@$(VIPR) tune --check -c $(TUNE_CONFIG)

.PHONY: bench-offload
bench-offload: ## What offload is worth: bulk TCP on plain TAPs, with offload, on cards of the host
	@vm/install-deps.sh build demo test
	$(CARGO) build --release --locked
	@timeout --foreground 170 vm/lab.sh run vm/bench-offload.sh

.PHONY: oracle
oracle: ## vipr and the kernel's IPVS on the same frames (RECORD=1: renew what make test compares with)
	@vm/install-deps.sh build test oracle
	@vm/oracle/run.sh $(if $(RECORD),--record)

.PHONY: sctp
sctp: ## SCTP through vipr, in a guest that has it where this kernel has not
	@vm/install-deps.sh build demo test oracle
	$(CARGO) build --release --locked
	@if grep -q SCTP /proc/net/protocols; then vm/lab.sh run tests/namespaces/sctp.sh; \
	    else vm/uml/run.sh tests/namespaces/sctp.sh; fi

.PHONY: install
install: build ## Into PREFIX=/usr/local (DESTDIR for packagers)
	install -D -m 755 $(VIPR) $(DESTDIR)$(PREFIX)/bin/vipr

.PHONY: uninstall
uninstall: ## What install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/vipr

.PHONY: clean
clean: ## What building made
	$(CARGO) clean
