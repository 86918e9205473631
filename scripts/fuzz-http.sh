#!/usr/bin/env bash
# Asks the service for everything its OpenAPI document describes, with generated requests, with good tokens and with bad
# ones: no answer of 500 or above but the declared 503, none that is not declared, none that breaks its schema. Ends with
# a table; 1 if anything was found. The service and its simulated LiveKit are our own, on free loopback ports, with data
# that goes with the run. `EXAMPLES` requests per operation, generation and good token (100), `SEED` (1), `ONLY` a token
# kind, `PROFILE=release` for that build, `LIMITED=1` with the usual rate limits.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v python3 >/dev/null 2>&1 || { echo "fuzz-http: python3 (with venv) is needed" >&2; exit 1; }
tools=$PWD/target/fuzz-http/tools
if ! [ -x "$tools/bin/st" ]; then
  echo "fuzz-http: installing schemathesis into $tools"
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check 'schemathesis>=4.30,<5'
fi

profile=${PROFILE:-debug}
if [ "${BUILD:-1}" = 1 ]; then
  if [ "$profile" = release ]; then cargo build --locked --release; else cargo build --locked; fi
fi
program=$PWD/target/$profile/livekit-replay

work=$(mktemp -d "${TMPDIR:-/tmp}/livekit-replay-fuzz.XXXXXX")
pids=()
cleanup() {
  trap - EXIT INT TERM HUP
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# the command's first line of output that names an address
address() {
  local pid=$1 file=$2 pattern=$3 found
  for _ in $(seq 600); do
    found=$(grep -oE "$pattern" "$file" | head -n 1 | grep -oE '127\.0\.0\.1:[0-9]+' || true)
    if [ -n "$found" ]; then echo "$found"; return; fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$file" >&2
  return 1
}

touch "$work/simulator.log" "$work/service.log"
secret=livekits-secret-in-this-run-alone
"$program" simulator --listen 127.0.0.1:0 --key "devkey:$secret" >"$work/simulator.log" 2>&1 &
pids+=($!)
simulator=$(address $! "$work/simulator.log" 'simulated LiveKit at [^ ]+')

export LIVEKIT_URL=ws://$simulator LIVEKIT_API_KEY=devkey LIVEKIT_API_SECRET=$secret JWT_SECRET=the-apps-secret-in-this-run-alone
export REPLAY__DATA_DIR=$work/data REPLAY_BUFFER_PATH=$work/buffer REPLAY_STORAGE_PATH=$work/clips PORT=0 RUST_LOG=info
# with limits on most requests would be refused by them alone
if [ "${LIMITED:-0}" != 1 ]; then
  export REPLAY__RATE_LIMITS__START_PER_MINUTE=0 REPLAY__RATE_LIMITS__CAPTURE_PER_MINUTE=0
  export REPLAY__RATE_LIMITS__DELETE_PER_MINUTE=0 REPLAY__RATE_LIMITS__FILMSTRIP_PER_MINUTE=0
fi
unset DATABASE_URL
"$program" serve >"$work/service.log" 2>&1 &
service=$!
pids=("$service" "${pids[@]}")
base=$(address "$service" "$work/service.log" '"ready".*|.*"address":"[^"]+".*')

status=0
"$tools/bin/python" scripts/fuzz-http/run.py --base "http://$base" --simulator "http://$simulator" --tools "$tools/bin" \
  --program "$program" --work "$work" --examples "${EXAMPLES:-100}" --seed "${SEED:-1}" ${ONLY:+--only "$ONLY"} || status=$?
mkdir -p target/fuzz-http/last
cp "$work"/*.log "$work"/*.txt target/fuzz-http/last/ 2>/dev/null || true
kill -0 "$service" 2>/dev/null || { echo "fuzz-http: the service did not live to the end" >&2; status=1; }
exit "$status"
