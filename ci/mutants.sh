#!/usr/bin/env bash
# Risk: a check that cannot fail. Takes each fence, re-check and wake away in turn and runs the models, then each defence that a hostile
# peer would love to see gone, and runs the cheapest test of it: each mutant must turn red or, where the list says so, stay green for
# the reason given there. Short form: the first three and the first six; --full: all. A name: that mutant alone.
set -euo pipefail
cd "$(dirname "$0")/.."
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

# name @ file @ perl substitution over the whole file @ target of cargo test @ the test that must turn red
defences=(
  'late-seal@src/rpc/server/open.rs@s/ *seal_after_map::seal\(&shared\)\?;\n//@--test rpc_server@a_window_whose_client_seals_nothing'
  'taken-window@src/rpc/server/window.rs@s/Sent::WithFds => wait_until_taken\(.*?\)\?,\n/Sent::WithFds => {}\n/s@--test rpc_server@no_second_descriptor_before'
  'wake-one@src/sys/native.rs@s/Flags::empty\(\), 1\)/Flags::empty(), i32::MAX as u32)/@--lib@a_wake_of_a_shared_word'
  'noexec-seal@src/sys/memfd.rs@s/flags \| MemfdFlags::NOEXEC_SEAL\)/flags)/@--lib@no_file_of_ours_can_be_executed'
  'fragment-order@src/rpc/message/fragment.rs@s/if \*head != FragmentHead::later\(.*?\)\.encode\(\) \{/if false {/@--lib@rpc::message::fragment'
  'mux-credit@src/stream/mux/protocol/validate.rs@s/\.checked_sub\(cost\)\.ok_or\(MuxViolation::OverCredit\(id\)\)\?/.saturating_sub(cost)/@--lib@protocol::hostile'

  'taken-socket@src/rpc/server/socket.rs@s/if let Sent::WithFds = sent \{/if let (true, Sent::WithFds) = (false, sent) {/@--test rpc_server@no_second_descriptor_before'
  'lost-window@src/rpc/transport/window_receive.rs@s/ && !came\.lost\(\)//@--test rpc_server@a_request_whose_descriptors_are_lost'
  'lost-request@src/rpc/server/call.rs@s/\|fds\| fds\.lost\(\)/|_| false/@--test rpc_server@a_request_whose_descriptors_are_lost'
  'lost-answer@src/rpc/client/handle.rs@s/if fds\.lost\(\)/if false \&\& fds.lost()/@--test rpc_server@an_answer_whose_descriptors_are_lost'
  'lock-nofollow@src/stream/socket/lock_file.rs@s/ \| OFlags::NOFOLLOW//@--test stream_lock_file@not_followed'

  'stuck-closers@src/sys/foreign.rs@s/state\.threads < MOST_THREADS/true/@--test stream_foreign@cost_32_threads'
  'waiting-closes@src/sys/foreign.rs@s/busy_closer\(MOST_WAITING\)\.is_some\(\)/false/@--test stream_foreign@cost_32_threads'
  'sigpipe-frame@src/stream/socket/outbox.rs@s/waiting \| SendFlags::NOSIGNAL/waiting/@--test endpoint_hostile@no_signal_reaches'
  'sigpipe-try@src/stream/socket/outbox.rs@s/SendFlags::DONTWAIT \| SendFlags::NOSIGNAL/SendFlags::DONTWAIT/@--test endpoint_hostile@no_signal_reaches'
  'sigpipe-refusal@src/rpc/server/accept.rs@s/SendFlags::DONTWAIT \| SendFlags::NOSIGNAL/SendFlags::DONTWAIT/@--test rpc_server@refused_and_gone'

  'frame-maximum@src/stream/frame/decoder.rs@s/if header\.length > self\.maximum =>/if false =>/@--lib@stream::frame'
  'attach-count@src/stream/frame/attach.rs@s/came > n \|\| \(came < n && !batch\.truncated\)/false/@--test stream_attachments@'
  'attach-second@src/stream/frame/attach.rs@s/batch\.matched \|\| self\.after_attach/false/@--test stream_attachments@'
  'attach-misplaced@src/stream/frame/attach.rs@s/return Err\(FrameViolation::MisplacedFds\);//@--test stream_attachments@'
  'frame-patience@src/stream/socket/inbox.rs@s/Some\(due\) if Instant::now\(\) >= due/Some(_) if false/@--lib@half_a_frame_is_waited_for'
  'mux-channels@src/stream/mux/protocol/validate.rs@s/self\.offered >= self\.terms\.max_channels \|\| self\.lingering > budget/budget == 0/@--lib@protocol::hostile'
  'mux-parity@src/stream/mux/protocol/validate.rs@s/id == 0 \|\| \(id % 2 == 1\) == self\.terms\.initiator/false/@--lib@protocol::hostile'
  'fragment-surplus@src/rpc/message/fragment.rs@s/bytes > left \|\| is_too_short/is_too_short/@--lib@rpc::message::fragment'
  'bulk-frame@src/rpc/message/bulk.rs@s/ \|\| length != self\.expected\(\)//@--lib@rpc::message::bulk'
  'bulk-maximum@src/rpc/message/bulk.rs@s/\.filter\(\|_\| length <= maximum\)//@--lib@rpc::message::bulk'
  'whole-maximum@src/rpc/message/arrival.rs@s/if u64::from\(length\) <= maximum/if maximum > 0/@--lib@rpc::message::arrival'
  'message-descriptors@src/rpc/message/arrival.rs@s/fds > MOST_DESCRIPTORS \|\| //@--lib@rpc::message::arrival'
  'hello-extensions@src/rpc/message/hello.rs@s/count\.is_some_and\(\|count\| count as usize > MOST_EXTENSIONS\)/count.is_some_and(|_| false)/@--lib@rpc::message::hello'
  'late-answer@src/rpc/transport/socket.rs@s/ \|\| self\.socket\.has_begun_message\(\)//@--test rpc@hostile_server'
  'quota-process@src/rpc/server/quota.rs@s/within\(Scope::Process, .*?\)\?;//@--lib@rpc::server::quota'
  'quota-user@src/rpc/server/quota.rs@s/within\(Scope::User, .*?\)\?;//@--lib@rpc::server::quota'
  'window-seals@src/window/receive.rs@s/Some\(\(_, name\)\) => Err\(Refusal::MissingSeal\(name\)\)/Some((_, _)) => Ok(())/@--lib@window::'
  'window-tmpfs@src/window/receive.rs@s/return Err\(Refusal::NotTmpfs\);//@--test endpoint_hostile@descriptors'
  'window-size@src/window/receive.rs@s/if size < needed/if false/@--test endpoint_hostile@descriptors'
  'window-read-write@src/window/receive.rs@s/return Err\(Refusal::NotReadWrite\);//@--test endpoint_hostile@descriptors'
  'codec-depth@src/rpc/codec/limits.rs@s/if \*depth == MOST_NESTED/if *depth == u8::MAX/@--test rpc_decoding@'
  'codec-memory@src/rpc/codec/limits.rs@s/\.checked_sub\(bytes\)\.ok_or\(DecodeError::TooLarge\)\?/.saturating_sub(bytes)/@--test rpc_decoding@'
  'stale-bytes@src/endpoint/stale.rs@s/\(end > length\)\.then_some\(end\)/None/@--lib@endpoint::stale'
  'listener-identity@src/stream/socket/socket_file.rs@s/identity\(&found\) == self\.identity\) \{/identity(\&found).0 == self.identity.0) {/@--test stream_lock_file@somebody_elses'
  'listener-alive@src/stream/socket/socket_file.rs@s/Err\(Errno::CONNREFUSED\) => \{/Ok(()) | Err(Errno::CONNREFUSED) => {/@--test stream_lock_file@somebody_listens_on'
)

prepare() {
  rm -rf "$copy" && mkdir -p "$copy"
  cp -r Cargo.toml Cargo.lock src "$copy/"
  for folder in tests benches examples crates docs; do mkdir -p "$copy/$folder" && cp -r "$folder/." "$copy/$folder/"; done
}

# Applies a substitution to a file of the copy. Returns 1 if nothing changed.
mutate() {
  perl -0pi -e "$3" "$copy/$2"
  cmp -s "$2" "$copy/$2" || return 0
  echo "mutant $1 changes nothing: the list is stale"
  failed=1
  return 1
}

failed=0
log="$PWD/target/mutants.log"
only=${1:-}
wanted() { [ -z "$only" ] || [ "$only" = --full ] || [ "$only" = "$1" ]; }

run_models() {
  # A target folder of its own: cargo names a package's artifacts by its path within the workspace, so a mutant built into target/loom
  # would take the place of the real thing there, and ci/loom.sh would explore the mutant.
  export CARGO_TARGET_DIR="$PWD/target/loom-mutants" RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3
  local run=${#mutants[@]} mutant name file change expected reason colour verdict
  [ -n "$only" ] || run=3
  for mutant in "${mutants[@]:0:$run}"; do
    IFS='|' read -r name file change expected reason <<<"$mutant"
    wanted "$name" || continue
    prepare
    mutate "$name" "$file" "$change" || continue
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
}

# Runs the tests of a target whose names contain one of the words, in the copy.
run_test() {
  local target=$1
  shift
  # shellcheck disable=SC2086
  (cd "$copy" && timeout 300 cargo test --quiet -p flipcall --all-features $target -- "$@") >"$log" 2>&1
}

# Each test has to be there, and green as long as its defence is. Returns 1 unless they are.
check_tests() {
  local target=$1 word
  shift
  if ! run_test "$target" "$@"; then
    echo "tests of the defences fail without a mutant: $target: $*"; tail -n 20 "$log"
    return 1
  fi
  for word in "$@"; do
    # What cargo itself says goes to another stream than the names.
    run_test "$target" --list "$word"
    grep -q ': test$' "$log" || { echo "no test of $target is called $word"; return 1; }
  done
}

run_defences() {
  export CARGO_TARGET_DIR="$PWD/target/defence-mutants" RUSTFLAGS="" CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
  local run=${#defences[@]} mutant name file change target test
  local -A tests=()
  [ -n "$only" ] || run=6
  for mutant in "${defences[@]:0:$run}"; do
    IFS=@ read -r name file change target test <<<"$mutant"
    ! wanted "$name" || tests[$target]+=" $test"
  done
  prepare
  for target in "${!tests[@]}"; do
    # shellcheck disable=SC2086
    check_tests "$target" ${tests[$target]} || failed=1
  done
  for mutant in "${defences[@]:0:$run}"; do
    IFS=@ read -r name file change target test <<<"$mutant"
    wanted "$name" || continue
    mutate "$name" "$file" "$change" || continue
    # shellcheck disable=SC2086
    if ! (cd "$copy" && cargo test --quiet -p flipcall --all-features $target --no-run) >"$log" 2>&1; then
      echo "mutant $name does not build"; tail -n 20 "$log"; failed=1
    elif run_test "$target" "$test"; then
      echo "mutant $name: green (WRONG, $test does not see it)"; failed=1
    else
      echo "mutant $name: red (ok)"
    fi
    cp "$file" "$copy/$file"
  done
}

run_models
run_defences
exit "$failed"
