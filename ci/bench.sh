#!/bin/sh
# Proves that the benchmarks run; with --full, makes the figures that the project states about itself.
#
#   ci/bench.sh          a few seconds of everything: every transport once, every criterion bench once
#   ci/bench.sh --full   the figures, about ten minutes on two CPUs with nothing else running; results in target/bench/
#   ci/bench.sh --against BUILD   whether this build is slower than an older one: BUILD is the path of its `flipcall`. Both are measured
#                        in turns, five minutes with nothing else running; ci/against.py says how, and takes more arguments
set -eu
cd "$(dirname "$0")/.."

cargo build --release --bin flipcall
built="${CARGO_TARGET_DIR:-target}/release/flipcall"
bench() { timeout 600 "$built" bench "$@"; }

if [ "${1:-}" = --against ]; then
    shift
    exec timeout 3600 python3 ci/against.py "$built" "$@"
fi
if [ "${1:-}" != --full ]; then
    bench --rounds 1 --calls 20 --payload 0,48
    timeout 120 python3 ci/against.py --check "$built"
    # --test runs each criterion bench once, without measuring.
    timeout 600 cargo bench --bench round_trip --bench copy -- --test
    exit
fi

out="${CARGO_TARGET_DIR:-target}/bench"
mkdir -p "$out"
two=0,1
one=0,0
windows=window-spin,window-adaptive,window-park

echo "== every transport, as a user sees it"
bench --json "$out/table.json" --report "$out/table.html"

echo "== null call on two CPUs: window-spin <= 1.2x bare-spin, window-park <= 1.10x bare-futex"
bench --rounds 101 --payload 0 --cpus $two --transports window-spin,window-park --json "$out/null-two.json"

echo "== null call on one CPU: window-park <= 1.35x, window-adaptive <= 0.75x bare-futex"
bench --rounds 101 --payload 0 --cpus $one --transports window-adaptive,window-park --json "$out/null-one.json"

echo "== copies on two CPUs: window-spin <= 1.25x bare-copy"
bench --rounds 51 --payload 48,1024,4096,16384,65536,262144,1048576 --cpus $two --transports window-spin --json "$out/copy.json"

echo "== one CPU and a hog on it: window-adaptive <= 1.5x window-park over 20,000 calls a round"
bench --rounds 5 --calls 20000 --payload 0 --cpus $one --hog --against window-park \
    --transports window-adaptive --json "$out/hog.json"

echo "== a peer that thinks: window-adaptive <= 1.3x the better of window-spin and window-park"
bench --rounds 51 --payload 0 --cpus $two --cpus $one --think-us 0,1,10,100,1000 --against window-spin,window-park \
    --transports $windows --json "$out/think.json"

echo "== criterion"
timeout 1200 cargo bench --bench round_trip --bench copy
