#!/usr/bin/env bash
# Puts faults back into a copy of the project, one after the other, and runs the simulation until it finds each. Prints the steps that it took. Usage:
# tests/simulation/prove_faults.sh [name of a patch in tests/simulation/faults ...]
set -uo pipefail
cd "$(dirname "$0")/../.."
faults=("$@")
[ ${#faults[@]} -gt 0 ] || mapfile -t faults < <(cd tests/simulation/faults && ls -- *.patch | sed 's/\.patch$//')
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git archive HEAD | tar -x -C "$copy"
# Shared by all faults, so that dependencies are built once.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$copy/target} TICKCAST_SIM_SHRINK=0 RUST_BACKTRACE=0
missed=0
for fault in "${faults[@]}"; do
  patch=tests/simulation/faults/$fault.patch
  # Faults in the log of a cluster have a simulation of their own.
  rules=every_promise_holds_on_the_wire
  [[ $fault != log_* ]] || rules=every_promise_of_the_log
  seeds=500
  [[ $fault != log_* ]] || seeds=300
  patch --quiet -d "$copy" -p1 <"$patch" || { echo "$fault: the patch does not apply"; missed=1; continue; }
  if ! (cd "$copy" && cargo test --quiet --test simulation --no-run); then
    echo "$fault: does not compile"
    missed=1
  elif found=$(cd "$copy" && TICKCAST_FULL=0 TICKCAST_SIM_SEEDS=$seeds cargo test --quiet --test simulation "$rules" 2>&1); then
    echo "$fault: NOT FOUND"
    missed=1
  else
    echo "$fault: $(grep -m1 -oE 'after ([0-9]+ seeds and )?[0-9]+ steps: .*' <<<"$found")"
  fi
  patch --quiet -d "$copy" -p1 -R <"$patch"
done
exit $missed
