#!/usr/bin/env bash
# Fuzzes what a peer can write: each target for a while, beginning with its committed corpus. New inputs stay out of the committed
# folders: they go to fuzz/target/corpus.
#   ci/fuzz.sh          10 s a target
#   ci/fuzz.sh --full   10 min a target
set -euo pipefail
cd "$(dirname "$0")/.."

TARGETS=(header handshake state cursors message rpc)

seconds=10
[ "${1:-}" = "--full" ] && seconds=600

cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked --quiet
# The sanitizer is a nightly feature of a compiler that is otherwise the stable one.
export RUSTC_BOOTSTRAP=1
cargo fuzz build
# A descriptor that an input leaves behind ends the run soon.
ulimit -n 512
for target in "${TARGETS[@]}"; do
    found="fuzz/target/corpus/$target"
    mkdir -p "$found"
    cargo fuzz run "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -detect_leaks=1 -max_len=4200 -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1
done
