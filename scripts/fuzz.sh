#!/usr/bin/env bash
# Runs the fuzz targets one after the other, each for SECONDS_EACH (600): begins with the examples in fuzz/seeds, keeps what it
# learns in fuzz/corpus and what it finds in fuzz/artifacts. Ends with a table; 1 if anything was found. Arguments name targets.
# SANITIZER=none leaves the address sanitizer out.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "fuzz: cargo-fuzz is not installed, nothing was run; install it with: cargo install cargo-fuzz --locked" >&2
  exit 1
fi
# the compiler's instrumentation is not stable yet; this opens it on a stable toolchain
export RUSTC_BOOTSTRAP=1
# the bundled SQLite has two tables of one name in its one file, which the sanitizer takes for one that was linked twice
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_odr_violation=0}
sanitizer=${SANITIZER:-address}
seconds=${SECONDS_EACH:-600}
if [ "$#" -gt 0 ]; then targets=("$@"); else mapfile -t targets < <(cargo fuzz list); fi

cargo fuzz build -O -s "$sanitizer"
mkdir -p target/fuzz-logs
failed=0
table=""
for target in "${targets[@]}"; do
  corpus=fuzz/corpus/$target log=target/fuzz-logs/$target.log
  mkdir -p "$corpus"
  verdict=clean
  # a playlist or a body of this size says it all; longer ones only make it slower
  cargo fuzz run -O -s "$sanitizer" "$target" "$corpus" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -max_len=8192 -timeout=10 -print_final_stats=1 >"$log" 2>&1 || verdict=FOUND
  if [ "$verdict" = FOUND ]; then
    failed=1
    tail -n 40 "$log"
  fi
  executions=$(awk '/stat::number_of_executed_units/ { print $2 }' "$log")
  coverage=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1)
  took=$(grep -oE 'Done [0-9]+ runs in [0-9]+ second' "$log" | grep -oE '[0-9]+ second' || true)
  line=$(printf '%-10s %-6s %12s executions in %ss  %s' "$target" "$verdict" "${executions:-?}" "${took:-?}" "${coverage:-no coverage said}")
  echo "$line"
  table+=$line$'\n'
done
echo
printf '%s' "$table"
exit "$failed"
