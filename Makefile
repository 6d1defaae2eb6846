# Two commands for a newcomer: `make demo` shows what Aldis is for, `make test` holds it to that.
SHELL := /bin/bash
CARGO ?= cargo
# Where the cache keeps the linter of the wire; one on PATH of another version is not used before it.
BUF := buf-1.75.0

.PHONY: demo fleet-up fleet-down test check lint bench binaries prerequisites programs proto-check proto-baseline deny

## demo: a bad release is taken out of four real clusters, and one that cannot start is put back
## (CLUSTERS=2 for a small machine, STORE=embedded for a control plane without etcd, NODES=real or simulated
## in place of what the machine can run, WITH=postgres,redis for services beside the clusters)
demo: programs
	target/debug/aldis-fleet demo

## fleet-up: starts four real clusters with Aldis over them, a shop in them and services beside them, leaves them
## running, and says how to use them (the same choices; all services, unless WITH names some, or none)
fleet-up: programs
	@target/debug/aldis-fleet up

## fleet-down: stops them
fleet-down:
	@if [ -x target/debug/aldis-fleet ]; then target/debug/aldis-fleet down; else echo "no fleet was ever started here"; fi

## programs: builds Aldis and its fleet launcher
programs: prerequisites binaries
	@echo "building Aldis (the first time some ten minutes, for its dependencies)"
	@$(CARGO) build --workspace --bins --locked

## test: everything that must hold before a change lands
## (a fleet that all tests of a program share ends with the program, as if killed: what it left is removed here)
test: prerequisites binaries lint proto-check deny
	$(CARGO) test --workspace --no-fail-fast; status=$$?; \
	for notes in target/tmp/*/networks; do \
		[ ! -d "$$notes" ] || target/debug/aldis-fleet down --folder "$$(dirname "$$notes")" >/dev/null; \
	done; exit $$status

## check: format, lints, docs, unit tests (under a minute when warm)
check: lint
	$(CARGO) test --workspace --lib --locked --quiet

lint: prerequisites
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --workspace --no-deps --locked --quiet

## bench: figures beside their limits; FIGURES="submissions command" for some of them
bench: prerequisites binaries
	$(CARGO) build --release --workspace
	$(CARGO) bench -p aldis-tests --bench bench -- $(FIGURES)

## deny: which crates may be linked, where cargo-deny is installed
deny:
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --log-level error check bans licenses sources; \
	else echo "aldis: cargo-deny is not installed, deny.toml not checked: \`cargo install cargo-deny --locked\`"; fi

## binaries: what the fleet and the tests run of other projects (`tests/fleet/binaries.sh` lists it), built once into a cache
binaries: prerequisites
	tests/fleet/binaries.sh >/dev/null

## proto-check: lints the wire, and compares it with the one that released programs speak
proto-check: binaries
	cd proto && PATH="$$(../tests/fleet/binaries.sh buf)/$(BUF):$$PATH" && buf lint && buf breaking --against baseline.binpb

## proto-baseline: takes the wire as it is for released
proto-baseline: binaries
	cd proto && PATH="$$(../tests/fleet/binaries.sh buf)/$(BUF):$$PATH" && buf build -o baseline.binpb

prerequisites:
	@tests/fleet/prerequisites.sh
