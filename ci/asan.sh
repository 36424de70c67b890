#!/usr/bin/env bash
# Tests under the address sanitizer: heap, stack and mapped memory, and leaks at the end.
#
# The standard library is not instrumented, which only means that its own mistakes would go unseen. Accesses in inline assembly (the
# copies to and from a window) are invisible to it as well: their bounds are checked by unit tests of `sys::bytes`.
#   ci/asan.sh [--full]   --full: more cases of the tests that make their own
set -euo pipefail
cd "$(dirname "$0")/.."

[ "${1:-}" = "--full" ] && export PROPTEST_CASES=4096

export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address"
export ASAN_OPTIONS=detect_stack_use_after_return=1
cargo test -p flipcall --target x86_64-unknown-linux-gnu --target-dir target/asan --lib \
    --test endpoint_wire --test endpoint_handshake --test endpoint_sequences --test corpus --test endpoint_threads
