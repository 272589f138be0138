# Two commands do all the set-up: `make demo` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
CARGO ?= cargo
BENCH_FLAGS ?=
SOAK_UPGRADES ?= 200
SOAK_SECONDS ?= 0
ATTACK_CONNECTIONS ?= 2000

.PHONY: help demo build test check unit integration soak attack h2-cost conformance docs deny audit bench bench-routing bench-select simulate setup setup-python bench-setup clean

help: ## Shows this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## Three origins and the proxy in one process; DEMO=--chaos kills origins meanwhile
	$(CARGO) run --release --bin crestline -- demo $(DEMO)

build: setup ## The binary, optimised: target/release/crestline
	$(CARGO) build --release --bin crestline

test: setup setup-python ## What CI runs: formatting, lints, all tests, docs, licences
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) test --lib --bins
	$(CARGO) test --test allocations
	$(CARGO) test --test integration
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --lib
	$(MAKE) deny

check: test ## The same as test

unit: setup ## The tests beside the code
	$(CARGO) test --lib

integration: setup setup-python ## The tests that start the real program; T=NAME for some of them
	$(CARGO) test --test integration -- $(T)

soak: setup ## SOAK_UPGRADES upgrades in a row under load, over SOAK_SECONDS at least; tells its figures
	SOAK_UPGRADES=$(SOAK_UPGRADES) SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --release --test integration -- \
		--exact --nocapture soak::upgrades_in_a_row_lose_nothing

attack: setup ## ATTACK_CONNECTIONS of slowhttptest, four ways, while a client that behaves is timed
	ATTACK_CONNECTIONS=$(ATTACK_CONNECTIONS) $(CARGO) test --release --test integration -- --nocapture attack::

h2-cost: setup ## What floods over HTTP/2 cost the processor and memory, by a release build
	$(CARGO) test --release --test integration -- --nocapture h2_cost::

deny: setup ## Licences, bans and sources of all packages
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources

audit: ## Known vulnerabilities; fetches the advisory list
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check advisories

conformance: setup ## CACHE_TESTS, a checkout of http-tests/cache-tests after `npm i`, run against a `cache`
	@test -n "$(CACHE_TESTS)" || { echo "CACHE_TESTS names no checkout of github.com/http-tests/cache-tests"; exit 2; }
	$(CARGO) build --bin crestline
	tests/cache_tests.sh target/debug/crestline "$(CACHE_TESTS)"

bench: bench-setup ## Crestline beside a bare Pingora balancer, nginx and HAProxy
	$(CARGO) build --profile dist --bin crestline --example bare --example bench
	target/dist/examples/bench $(BENCH_FLAGS)

bench-routing: setup ## What finding a route costs among 10,000
	$(CARGO) bench --bench routing

bench-select: setup ## What choosing a backend costs, of 3, 100 and 10,000, by every algorithm
	$(CARGO) bench --bench select

simulate: setup ## A hundred backends with faults behind every algorithm, in virtual time
	$(CARGO) bench --profile dev --bench simulate

clean: ## Removes what was built
	$(CARGO) clean

# Pingora's compression and aws-lc build with cmake and a C compiler; the tests use curl, openssl,
# sslscan, h2load, nghttp, slowhttptest and ss, Node, Python and a browser as clients; pebble is the
# CA that they ask, dnsmasq the DNS server, etcd itself, rsyslog reads the log, systemd judges its
# units, and promtool (of prometheus) its metrics. What is from PyPI comes by setup-python.
setup:
	@packages=; \
	command -v cmake >/dev/null || packages="$$packages cmake"; \
	command -v cc >/dev/null || packages="$$packages gcc libc6-dev"; \
	command -v g++ >/dev/null || packages="$$packages g++"; \
	command -v curl >/dev/null || packages="$$packages curl"; \
	command -v openssl >/dev/null || packages="$$packages openssl"; \
	command -v sslscan >/dev/null || packages="$$packages sslscan"; \
	command -v h2load >/dev/null || packages="$$packages nghttp2-client"; \
	command -v nghttp >/dev/null || packages="$$packages nghttp2-client"; \
	command -v chromium >/dev/null || packages="$$packages chromium"; \
	command -v node >/dev/null || packages="$$packages nodejs"; \
	/usr/bin/python3 -c 'import h2, grpc' 2>/dev/null || packages="$$packages python3-h2 python3-grpcio"; \
	/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$$packages python3-venv"; \
	command -v dnsmasq >/dev/null || packages="$$packages dnsmasq-base"; \
	command -v etcd >/dev/null || packages="$$packages etcd-server"; \
	command -v pebble >/dev/null || packages="$$packages pebble"; \
	command -v slowhttptest >/dev/null || packages="$$packages slowhttptest"; \
	command -v ss >/dev/null || packages="$$packages iproute2"; \
	command -v redis-server >/dev/null || packages="$$packages redis-server"; \
	command -v rsyslogd >/dev/null || packages="$$packages rsyslog"; \
	command -v promtool >/dev/null || packages="$$packages prometheus"; \
	command -v systemd-analyze >/dev/null || packages="$$packages systemd"; \
	$(install)

# Tools from PyPI, in a place of their own beside the build; again when their versions change.
setup-python: setup
	@cmp -s tests/clients/requirements.txt target/python/requirements.txt || { \
		echo "installing tools from PyPI" && rm -rf target/python && mkdir -p target && \
		/usr/bin/python3 -m venv target/python && \
		target/python/bin/pip install -q --disable-pip-version-check --no-deps -r tests/clients/requirements.txt && \
		cp tests/clients/requirements.txt target/python/; }

bench-setup: setup
	@packages=; \
	command -v wrk >/dev/null || packages="$$packages wrk"; \
	command -v nginx >/dev/null || packages="$$packages nginx-light"; \
	command -v haproxy >/dev/null || packages="$$packages haproxy"; \
	command -v taskset >/dev/null || packages="$$packages util-linux"; \
	$(install)

# Installs $$packages where there is apt-get; elsewhere says what is missing.
define install
if [ -n "$$packages" ]; then \
	if command -v apt-get >/dev/null; then \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		echo "installing$$packages"; \
		$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $$packages >/dev/null; \
	else echo "please install:$$packages" >&2; exit 1; fi; \
fi
endef
