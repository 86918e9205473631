#!/usr/bin/env bash
# Does the campaign find what is wrong? Each patch of tests/campaign/mutations is applied in a scratch worktree, and a
# short campaign is run there, with the faults that the patch's mistake needs. Says for each "found" or "NOT FOUND", and
# ends with 0 if all were found. Arguments: names of patches (all of them without); SEED, MUTATIONS_TARGET (a target
# directory to build in).
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
seed=${SEED:-1}
work=$(mktemp -d "${TMPDIR:-/tmp}/livekit-replay-mutations.XXXXXX")
export CARGO_TARGET_DIR=${MUTATIONS_TARGET:-$work/target}
# beside a target directory that is used again, so that the next run finds what it built
tree=${MUTATIONS_TARGET:+$MUTATIONS_TARGET/mutated}
tree=${tree:-$work/tree}
cleanup() {
  git -C "$root" worktree remove --force "$tree" 2>/dev/null
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
git worktree add --quiet --detach "$tree" HEAD || exit 1

# engine, operations, faults
needs() {
  case $1 in
    no-pin-check) echo "sqlite 90 ClockForward" ;;
    no-fsync) echo "sqlite 60 HooksDoubled" ;;
    event-outside-the-transaction) echo "sqlite 90 DrillRename,DrillSettle" ;;
    lease-never-expires) echo "postgres 90 DrillRename,DrillSettle" ;;
    reservation-not-returned) echo "sqlite 200 BufferGone,BufferFull,BufferReadOnly,HostDies,EgressFails" ;;
    egress-not-matched-by-path) echo "sqlite 90 StartTimesOut" ;;
    webhook-trusted-in-order) echo "sqlite 120 HooksLate,HooksSwapped" ;;
    *) echo "sqlite 400" ;;
  esac
}

names=("$@")
[ ${#names[@]} -gt 0 ] || names=($(cd tests/campaign/mutations && ls *.patch | sed 's/\.patch$//'))
missed=0
for name in "${names[@]}"; do
  read -r engine operations faults <<<"$(needs "$name")"
  git -C "$tree" checkout --quiet . && git -C "$tree" apply "$root/tests/campaign/mutations/$name.patch" || exit 1
  if ! (cd "$tree" && ${CARGO:-cargo} test --quiet --locked --no-run --test campaign 2>"$work/build.log"); then
    tail -n 20 "$work/build.log"
    echo "$name: does not build"
    exit 1
  fi
  if (cd "$tree" && ENGINE=$engine OPERATIONS=$operations PER_PHASE=12 FAULTS=$faults SEED=$seed scripts/campaign.sh) >"$work/run.log" 2>&1; then
    echo "| $name | NOT FOUND | SEED=$seed ENGINE=$engine OPERATIONS=$operations FAULTS=$faults |"
    missed=1
  else
    echo "| $name | found | SEED=$seed ENGINE=$engine OPERATIONS=$operations FAULTS=$faults |"
    grep -E '^WRONG|does not settle' -A3 "$work/run.log" | head -n 5 | cut -c1-300
  fi
done
exit $missed
