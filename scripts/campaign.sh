#!/usr/bin/env bash
# A long fault campaign (docs/campaign.md). ENGINE: sqlite, postgres, replicas, or several of them ("sqlite replicas");
# SEED: one or several ("1 2 3"); OPERATIONS (2000), PER_PHASE (16), REPLICAS, FAULTS (names in tests/campaign/faults.rs,
# by commas). SOAK_MINUTES=30 runs the same load without faults instead. Ends with 0 if nothing was wrong.
set -uo pipefail
cd "$(dirname "$0")/.."

engines=${ENGINE:-sqlite postgres replicas}
seeds=${SEED:-$RANDOM$RANDOM}
what=the_campaign
[ -z "${SOAK_MINUTES:-}" ] || what=the_soak
outcome=0
for engine in $engines; do
  for seed in $seeds; do
    echo "== $what on $engine, seed $seed"
    ENGINE=$engine SEED=$seed ${CARGO:-cargo} test --locked --test campaign -- --ignored --exact --nocapture "$what" || outcome=1
  done
done
exit $outcome
