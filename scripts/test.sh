#!/usr/bin/env bash
# Everything that must hold before a change is taken: format, lints, and all tests on both database engines.
# Ends with one line, `N passed, N failed`; a failed format or lint counts as one, and so does a missing PostgreSQL.
# The full log stays in target/test.log.
# Arguments go to `cargo test` (a filter, for one).
set -uo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/postgres.sh
source scripts/postgres.sh

work=$(mktemp -d "${TMPDIR:-/tmp}/livekit-replay-test.XXXXXX")
cleanup() {
  trap - EXIT INT TERM HUP
  postgres_stop
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p target
log=target/test.log
: >"$log"
steps_failed=0

step() {
  local name=$1
  shift
  echo "== $name"
  if ! "$@" >"$work/step.log" 2>&1; then
    tail -n 60 "$work/step.log"
    echo "== $name: FAILED"
    steps_failed=$((steps_failed + 1))
  fi
  cat "$work/step.log" >>"$log"
}

step "format" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings

echo "== tests: starting a private PostgreSQL"
if postgres_start "$work"; then
  export TEST_POSTGRES_URL=$POSTGRES_URL
else
  # whatever server an outer environment names is not ours to use
  unset TEST_POSTGRES_URL
  steps_failed=$((steps_failed + 1))
fi

# These wait for deadlines most of their time: more of them go at once. What takes a processor goes one per core.
waiting=(faults stores drills program)
others() {
  local file name
  for file in tests/*.rs tests/*/main.rs; do
    name=${file#tests/}
    name=${name%/main.rs}
    name=${name%.rs}
    [[ " ${waiting[*]} " == *" $name "* ]] || printf -- '--test\n%s\n' "$name"
  done
}

# Tests that pass are silent; everything else, and a line per finished program, is shown.
run() {
  TMPDIR=$work cargo test --workspace --locked --no-fail-fast "$@" 2>&1 |
    tee -a "$work/test.log" |
    awk '/^test .* \.\.\. ok$/ || /^ *Compiling / || /^running 0 tests/ || /^$/ { next }
         /^test result: ok\. 0 passed; 0 failed/ { next } { print; fflush() }'
  local outcomes=("${PIPESTATUS[@]}")
  [ "${outcomes[0]}" -eq 0 ] || outcome=1
}

echo "== tests: building and running (every line of it is in $log)"
outcome=0
if [ $# -gt 0 ]; then
  run "$@"
else
  mapfile -t targets < <(others)
  run --lib --bins "${targets[@]}"
  run "${waiting[@]/#/--test=}" -- --test-threads 6
fi
cat "$work/test.log" >>"$log"

# `test path::to::name ... ok`; output of a test may stand between the dots and the verdict, hence the result lines.
count() { awk -v pattern="$1" '/^test .* \.\.\. / && $2 ~ pattern { n++ } END { print n + 0 }' "$work/test.log"; }
passed=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$work/test.log")
failed=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$work/test.log")
# a test program that did not build or died says no number
if [ "$outcome" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi
# a test without its database did not pass, whatever cargo says of it
skipped=$(grep -c 'skipped: .*TEST_POSTGRES_URL is not set' "$work/test.log")
passed=$((passed - skipped))
without_postgres=0
if [ -z "${TEST_POSTGRES_URL:-}" ] || [ "$skipped" -gt 0 ]; then
  without_postgres=1
  # once, also where starting it has been counted above
  [ -z "${TEST_POSTGRES_URL:-}" ] || steps_failed=$((steps_failed + 1))
fi
failed=$((failed + steps_failed))

echo
[ "$without_postgres" -eq 0 ] || echo "PostgreSQL was NOT run: $skipped tests skipped, and this run has failed"
echo "on SQLite: $(count '(^|::)sqlite::') tests, on PostgreSQL: $(count '(^|::)postgres::') tests ($skipped of them skipped), in all: $(awk '/^test result:/ { n += $4 + $6 } END { print n + 0 }' "$work/test.log")"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$outcome" -eq 0 ]
