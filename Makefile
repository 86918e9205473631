# The doors for people: `make setup`, `make demo`, `make test`, `make lint`, `make bench`, `make fuzz`, `make fuzz-http`,
# `make rolling`.
# Each needs bash, git, make and a Rust toolchain; everything else is installed or named by scripts/setup.sh (what the two
# for fuzzing need besides, they name themselves).

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint campaign bench fuzz fuzz-http rolling

help: ## say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: ## install what is missing (FFmpeg, PostgreSQL, Chromium, a C compiler)
	@scripts/setup.sh

demo: setup ## run the service with a simulated LiveKit and make a clip; ONCE=1 ends after the clip
	cargo build --locked
	@target/debug/livekit-replay demo $(if $(filter 1,$(ONCE)),--once)

test: setup ## format, lints and all tests, on SQLite and on a private PostgreSQL
	@scripts/test.sh

lint: ## format and lints alone; cargo-deny too where it is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check licenses bans sources; else echo "cargo-deny is not installed: licences and bans were not checked"; fi

campaign: setup ## a long fault campaign against the real program; SEED="1 2 3" ENGINE="sqlite postgres replicas" OPERATIONS=2000, or SOAK_MINUTES=30 for its load alone
	@$(if $(SEED),SEED="$(SEED)") $(if $(ENGINE),ENGINE="$(ENGINE)") $(if $(OPERATIONS),OPERATIONS=$(OPERATIONS)) $(if $(SOAK_MINUTES),SOAK_MINUTES=$(SOAK_MINUTES)) scripts/campaign.sh

bench: ## measure clips, sessions and cleanup, write docs/performance.md; ONLY="clips exact" for parts, SECONDS=60 for a shorter recording, FULL=1 for everything
	@scripts/setup.sh bench
	@$(if $(SECONDS),BENCH_SECONDS=$(SECONDS)) $(if $(FULL),FULL=$(FULL)) cargo bench --locked --bench clips -- $(ONLY)

fuzz: ## random bytes for playlists, webhooks, windows and ranges; SECONDS_EACH=600, ONLY="range" for parts
	@$(if $(SECONDS_EACH),SECONDS_EACH=$(SECONDS_EACH)) scripts/fuzz.sh $(ONLY)

fuzz-http: ## generated requests for everything in the OpenAPI document, with good and bad tokens; EXAMPLES=100
	@$(if $(EXAMPLES),EXAMPLES=$(EXAMPLES)) scripts/fuzz-http.sh

rolling: setup ## an older release (COMMIT=, built from git) and this one beside each other under load, and back again
	@scripts/rolling.sh $(COMMIT)
