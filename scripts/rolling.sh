#!/usr/bin/env bash
# Two releases beside each other: builds the older one out of the repository's own history, and lets people press their
# buttons while processes of the one replace those of the other, and back. `scripts/rolling.sh [COMMIT]`; without one, the
# first release whose data this program still serves. `REPLAY_ROLLING_SECONDS` both run together (120), `REPLAY_SEED`.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/postgres.sh
source scripts/postgres.sh

old=$(git rev-parse --verify "${1:-725a561}^{commit}")
work=$(mktemp -d "${TMPDIR:-/tmp}/livekit-replay-rolling.XXXXXX")
cleanup() {
  trap - EXIT INT TERM HUP
  postgres_stop
  git worktree remove --force "$work/old" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

program=$PWD/target/rolling/$old/livekit-replay
if ! [ -x "$program" ]; then
  echo "rolling: building $old"
  git worktree add --quiet --detach "$work/old" "$old"
  (cd "$work/old" && CARGO_TARGET_DIR=$work/target cargo build --locked --bin livekit-replay)
  mkdir -p "${program%/*}"
  mv "$work/target/debug/livekit-replay" "$program"
  rm -rf "$work/target"
fi

postgres_start "$work"
TEST_POSTGRES_URL=$POSTGRES_URL TMPDIR=$work REPLAY_OLD_PROGRAM=$program \
  cargo test --locked --test crash -- --exact --nocapture rolling::two_releases_serve_the_same_people
