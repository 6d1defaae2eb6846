# Two commands for a newcomer: `make test` and, once the fleet can be run from here, `make demo`.
SHELL := /bin/bash
CARGO ?= cargo

.PHONY: test check binaries prerequisites

## test: everything that must hold before a change lands
test: prerequisites binaries check
	$(CARGO) test --workspace --no-fail-fast

## check: format, lints, docs, unit tests (under a minute when warm)
check: prerequisites
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --workspace --no-deps --locked --quiet
	$(CARGO) test --workspace --lib --locked --quiet

## binaries: the etcd, Kubernetes and kwok that the tests run, built once into a cache
binaries: prerequisites
	tests/fleet/binaries.sh >/dev/null

prerequisites:
	@tests/fleet/prerequisites.sh
