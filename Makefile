# What a person needs here. `make run` first; CI calls `make check` and `make e2e`.

CARGO ?= cargo

.PHONY: run demo build test e2e check fmt clippy doc model fuzz minimal minimal-part bench bench-quick bench-micro check-benches \
  man reference clean help

help: ## what there is to make
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 22

run: build ## build and start the server with the defaults, and say what to try next
	@printf '%s\n' \
	  '' \
	  'threadcast is starting. Try in another terminal:' \
	  '  curl http://localhost:3002/health' \
	  '  curl http://localhost:3002/initial' \
	  '  statemachine-ui --no-websocket          # the page of the original engine, at http://localhost:3001' \
	  '  statemachine-db send-event --target ui --type activity_log --payload '"'"'{"message": "hello"}'"'"'' \
	  'and without the original engine:' \
	  '  target/release/threadcast tail              # events as they come' \
	  '  make demo                                   # five machines, so that there are some' \
	  'Ctrl-C ends it.' \
	  ''
	@exec target/release/threadcast serve

demo: build ## five machines that live beside a running server until Ctrl-C
	@exec target/release/threadcast demo

build: ## build the release binary: target/release/threadcast
	$(CARGO) build --release --locked

test: ## run every test: units, the real binary over real sockets, the models; of the minimal build what a feature can change
	CARGO=$(CARGO) tests/run --locked
	$(MAKE) model
	$(MAKE) minimal-part

check: fmt clippy doc test ## format, lints, documentation, every test; CI calls this and e2e

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

e2e: build man ## run real shells, proxies and probes, and the original engine with its tools and page (Debian, PyPI, npm)
	tests/e2e/shells target/release/threadcast target/man target/e2e/shells
	tests/e2e/run

model: ## try every interleaving of the hand-over between fan-out and writer, and of the list that has no lock
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(CARGO) test --locked --no-default-features --release --lib -- handover process::pile

fuzz: ## feed the parsers random input, FUZZ_SECONDS (60) for each; `make test` does so for some seconds
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} $(CARGO) test --locked --test fuzz -- --nocapture

minimal: ## run every test of the build without optional features
	CARGO=$(CARGO) CARGO_TARGET_DIR=target/minimal tests/run --locked --no-default-features

# The features change the settings file, the stacks in reports, and what is linked: these files meet that.
MINIMAL_PART = cli:: contract:: drill:: heartbeat:: http:: layers:: logging:: settings:: state_file:: tail:: tidy:: watchdog::

minimal-part:
	CARGO_TARGET_DIR=target/minimal $(CARGO) test --locked --no-default-features --lib --bins
	CARGO=$(CARGO) CARGO_TARGET_DIR=target/minimal ONLY="$(MINIMAL_PART)" tests/run --locked --no-default-features --test it

bench: ## compare the server with its peers, some forty minutes on a quiet machine; the page is benches/results/README.md
	CARGO=$(CARGO) benches/run

bench-quick: ## the same with the main cases once, two minutes after the first build; a short table here
	CARGO=$(CARGO) benches/run --quick

bench-micro: ## time each step on the way of an event by itself
	@test -e benches/micro.rs -o -d benches/micro || { echo 'there is no bench "micro" in benches/' >&2; exit 1; }
	$(CARGO) bench --locked --bench micro

check-benches: ## format and lints of the load generator and the peers; not part of check
	@for manifest in benches/load/Cargo.toml benches/peers/*/Cargo.toml; do \
	  test -e "$$manifest" || continue; \
	  echo "$$manifest"; \
	  $(CARGO) fmt --check --manifest-path "$$manifest" || exit; \
	  $(CARGO) clippy --release --locked --all-targets --manifest-path "$$manifest" --target-dir target/bench -- -D warnings || exit; \
	done

man: ## write the manual to target/man: a page for each command, and threadcast.toml(5)
	$(CARGO) run --quiet --locked --example pages -- man target/man

reference: ## write docs/reference.md and the tables of docs/services.md anew after a change of a command, a setting or a key
	$(CARGO) run --quiet --locked --example pages -- reference docs/reference.md
	$(CARGO) run --quiet --locked --example pages -- services docs/services.md

clean:
	$(CARGO) clean
