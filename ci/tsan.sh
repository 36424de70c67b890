#!/usr/bin/env bash
# Tests with several threads under the thread sanitizer.
#
# What it watches is what the threads of one process share: cancel words, counters, shutdown handles, the watchdog. What it does not see:
# - the peer's process, and that both ends of a window are the same memory, since each maps it for itself;
# - the copies to and from a window, which are inline assembly. That the flip orders them is what the loom models and the argument in
#   src/control/transfer.rs are for;
# - the inside of the standard library, which is not instrumented: ci/tsan.supp names what that makes it report wrongly.
#   ci/tsan.sh [--full]   --full: 20 times
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=1
[ "${1:-}" = "--full" ] && rounds=20

export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
export TSAN_OPTIONS="suppressions=$PWD/ci/tsan.supp halt_on_error=1"
for _ in $(seq "$rounds"); do
    # The oracle of the state table has one thread; its framework would need suppressions of its own.
    cargo test -p flipcall --target x86_64-unknown-linux-gnu --target-dir target/tsan --lib --test endpoint_threads -- --skip state_oracle
done
