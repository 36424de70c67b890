#!/usr/bin/env bash
# Risk: a test, or the product, that holds only where nothing else goes on. Runs the tests the ways that a bad day has: two busy loops
# beside them, one CPU, room for 256 descriptors, SIGPIPE at its default (Rust's runtime ignores it, other programs do not), and in
# random order. Each failure is named with the command that repeats it.
#
# usage: ci/luck.sh [--full [RUNS]]
#
# The short form runs a few quick test programs once each way. --full runs all of them RUNS times (20), the ways in
# turn, and the order is always random.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUST_BACKTRACE=0
ways=(hogs one-cpu few-descriptors sigpipe shuffled)
runs=${#ways[@]} patience=240
# Seconds of a test program before it counts as hung.
if [ "${1:-}" = --full ]; then runs=${2:-20} patience=1200; fi
quick='^(api|endpoint|endpoint_handshake|endpoint_inherited|endpoint_wire|process|rpc_debug|rpc_end|rpc_limits|rpc_quiet|stream_attachments|stream_debug|stream_goodbye|stream_lock_file)$'

# Builds the tests; prints the name, folder and path of each program.
programs() {
  cargo test --workspace --all-features --no-run --message-format=json 2>target/luck.build | python3 -c '
import json, os, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made["profile"]["test"]:
        print(made["target"]["name"], os.path.dirname(made["manifest_path"]), made["executable"])
' || { cat target/luck.build >&2; return 1; }
}

mkdir -p target
list=$(programs)

# Rust's runtime has SIGPIPE ignored before main; this keeps it at its default instead.
cat >target/sigpipe.c <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
typedef void (*handler)(int);
handler signal(int number, handler what) {
    handler (*next)(int, handler) = (handler (*)(int, handler))dlsym(RTLD_NEXT, "signal");
    return next(number, number == SIGPIPE && what == SIG_IGN ? SIG_DFL : what);
}
C
cc -shared -fPIC -o target/sigpipe.so target/sigpipe.c -ldl

hogs=()
end_hogs() {
  [ ${#hogs[@]} -eq 0 ] || kill "${hogs[@]}" 2>/dev/null || true
  hogs=()
}
trap end_hogs EXIT

# Runs one program one way.
run_program() {
  local way=$1 seed=$2 folder=$3 program=$4 before=()
  case $way in
    # What needs two CPUs is not there, and may be skipped.
    one-cpu) before=(env -u FLIPCALL_REQUIRE_ALL taskset -c 0) ;;
    few-descriptors) before=(prlimit --nofile=256:) ;; # A test that is about hundreds raises it.
    sigpipe) before=(env "LD_PRELOAD=$PWD/target/sigpipe.so") ;;
  esac
  local command=(env RUSTC_BOOTSTRAP=1 CARGO_MANIFEST_DIR="$folder" "${before[@]}" "$program" -Zunstable-options "--shuffle-seed=$seed")
  if ! (cd "$folder" && timeout "$patience" "${command[@]}") >target/luck.log 2>&1 </dev/null; then
    echo "FAILED $way: cd $folder && ${command[*]}"
    grep -aE -A3 "^(test .* FAILED|thread .* panicked)|^error|still runs after" target/luck.log | tail -n 40
    return 1
  fi
}

failures=0
for ((run = 0; run < runs; run++)); do
  way=${ways[run % ${#ways[@]}]} seed=$((RANDOM * 32768 + RANDOM)) begin=$SECONDS count=0
  if [ "$way" = hogs ]; then
    for _ in 1 2; do
      sh -c 'while :; do :; done' &
      hogs+=($!)
    done
  fi
  while read -r name folder program; do
    [ "${1:-}" = --full ] || [[ $name =~ $quick ]] || continue
    count=$((count + 1))
    run_program "$way" "$seed" "$folder" "$program" || failures=$((failures + 1))
  done <<<"$list"
  end_hogs
  echo "run $((run + 1)) of $runs, $way, seed $seed: $count programs in $((SECONDS - begin)) s"
done
[ "$failures" -eq 0 ] || { echo "luck: $failures programs failed"; exit 1; }
echo "luck: no failure"
