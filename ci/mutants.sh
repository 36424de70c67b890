#!/usr/bin/env bash
# Risk: a model that cannot fail. Takes each fence, re-check and wake away in turn and runs the models: each mutant must turn them red
# or, where the list says so, stay green for the reason given there. Short form: the first three; --full: all.
set -euo pipefail
cd "$(dirname "$0")/.."
# A target folder of its own: cargo names a package's artifacts by its path within the workspace, so a mutant built into target/loom
# would take the place of the real thing there, and ci/loom.sh would explore the mutant.
export CARGO_TARGET_DIR="$PWD/target/loom-mutants" RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3
copy="$PWD/target/mutants"

# name | file | perl substitution over the whole file | expected colour | reason where it is green
mutants=(
  'waker-fence|src/control/transfer.rs|s/fence_after_exchange\(\); \/\/ F2//|red|'
  'waiter-fence|src/control/wait.rs|s/fence\(Ordering::SeqCst\); \/\/ W2//|red|'
  'flip-wake|src/control/transfer.rs|s/            self\.wake_peer\(words\);\n//|red|'
  'parked-word|src/control/wait.rs|s/word\.store\(1, Ordering::Relaxed\); \/\/ W1//|red|'
  'flip-release|src/control/transfer.rs|s/theirs, Ordering::SeqCst, Ordering::Relaxed/theirs, Ordering::Relaxed, Ordering::Relaxed/|red|'
  'death-order|src/control/wait.rs|s/(        let gone = .*?;\n)(        let control = .*?;\n)/$2$1/|red|'
  'state-acquire|src/control/wait.rs|s/(fn control.*?)Ordering::Acquire/$1Ordering::Relaxed/s|red|'
  'cancel-wake|src/sys/cancel.rs|s/        wake_private\(&self\.0\);//|red|'
  'shutdown-wake|src/control/transfer.rs|s/(SHUT_DOWN, Ordering::AcqRel\);\n\s*if )wake_shared\(&words\.state\)/$1Ok::<(), Errno>(())/|red|'
  'shutdown-cancel|src/control/transfer.rs|s/    if !cancel\.raise\(Cancel::Shutdown\) \{\n        return;\n    \}\n//|red|'
  'shutdown-order|src/control/transfer.rs|s/    if !cancel\.raise\(Cancel::Shutdown\) \{\n        return;\n    \}\n(    words\.state\.swap.*?;\n)/$1    cancel.raise(Cancel::Shutdown);\n/s|red|'
  'recheck|src/control/wait.rs|s/        \/\/ W3 is this poll.*?\n.*?if self\.poll\(words\)\? \{\n            return Ok\(\(\)\);\n        \}\n//s|green|the kernel compares the state again under its lock, after the same fence; the poll saves a system call'
  'parked-reset|src/control/wait.rs|s/self\.0\.store\(0, Ordering::Relaxed\)/let _ = self.0/|green|a word left at 1 costs the peer wakes it need not send, never a sleeper'
  'cancel-acquire|src/sys/cancel.rs|s/self\.0\.load\(Ordering::Acquire\)/self.0.load(Ordering::Relaxed)/|red|'
)

run=${#mutants[@]}
[ "${1:-}" = --full ] || run=3
failed=0
for mutant in "${mutants[@]:0:$run}"; do
  IFS='|' read -r name file change expected reason <<<"$mutant"
  rm -rf "$copy" && mkdir -p "$copy"
  cp -r Cargo.toml Cargo.lock src "$copy/"
  for folder in tests benches examples crates; do mkdir -p "$copy/$folder" && cp -r "$folder/." "$copy/$folder/"; done
  perl -0pi -e "$change" "$copy/$file"
  if cmp -s "$file" "$copy/$file"; then
    echo "mutant $name changes nothing: the list is stale"
    failed=1
    continue
  fi
  log="$copy/log"
  if ! (cd "$copy" && cargo test --quiet -p flipcall --profile loom --lib --no-run) >"$log" 2>&1; then
    echo "mutant $name does not build"; tail -n 20 "$log"; failed=1
    continue
  fi
  colour=green
  (cd "$copy" && timeout 600 cargo test --quiet -p flipcall --profile loom --lib models) >"$log" 2>&1 || colour=red
  verdict=ok
  [ "$colour" = "$expected" ] || { verdict="WRONG, expected $expected"; failed=1; tail -n 20 "$log"; }
  echo "mutant $name: $colour ($verdict)${reason:+ – $reason}"
done
exit "$failed"
