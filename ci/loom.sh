#!/usr/bin/env bash
# The models of transfer, park, cancel and shutdown, explored by loom: every interleaving within the preemption bound.
#   ci/loom.sh          at most 3 preemptions
#   ci/loom.sh --full   at most 5
set -euo pipefail
cd "$(dirname "$0")/.."

bound=3
[ "${1:-}" = "--full" ] && bound=5

# A run that explored nothing is no proof: no model at all is a failure.
run() {
    RUSTFLAGS="--cfg loom" cargo test -p flipcall --profile loom --lib --target-dir target/loom -- "$@"
}
count=$(run --list models:: | grep -c ': test$' || true)
if [ "$count" = 0 ]; then
    echo "ci/loom.sh: there is no model to explore" >&2
    exit 1
fi
LOOM_MAX_PREEMPTIONS=$bound run models::
echo "loom: $count models, at most $bound preemptions"
