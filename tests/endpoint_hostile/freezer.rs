//! Row 4 once more: the peer is stopped by the freezer of its control group, as a container runtime pauses it.
//!
//! Needs a writable cgroup v2 hierarchy. Where there is none this is left out even where nothing else may be: many machines that can run
//! everything else do not let a test make a group, and a stopped peer stands in for a frozen one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flipcall::endpoint::Interrupted;
use flipcall::endpoint::{Connector, Options, WaitPolicy};

use crate::attacker::{AGES, Peer, alone, arena, next_window};

const DEADLINE: Duration = Duration::from_millis(60);

/// A control group of one process, thawed and removed when dropped.
struct Freezer(PathBuf);

impl Freezer {
    /// A group for `peer` under the one of this process.
    fn of(peer: &Peer) -> std::io::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let mount =
            mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[2] == "cgroup2");
        let mount = mount.ok_or_else(|| std::io::Error::other("no cgroup v2 hierarchy is mounted"))?[1].to_string();
        let groups = std::fs::read_to_string("/proc/self/cgroup")?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let path = Path::new(&mount).join(own).join(format!("flipcall-test-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let freezer = Self(path);
        freezer.write("cgroup.procs", &peer.child.id().to_string())?;
        freezer.write("cgroup.freeze", "0")?;
        Ok(freezer)
    }

    fn write(&self, file: &str, value: &str) -> std::io::Result<()> {
        std::fs::write(self.0.join(file), value)
    }

    /// Returns once nothing in the group runs any more.
    fn freeze(&self) {
        self.write("cgroup.freeze", "1").expect("it could be written before");
        let start = Instant::now();
        while !std::fs::read_to_string(self.0.join("cgroup.events")).expect("a group").contains("frozen 1") {
            assert!(start.elapsed() < AGES, "it does not freeze");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn thaw(&self) {
        self.write("cgroup.freeze", "0").expect("it could be written before");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = self.write("cgroup.freeze", "0").and_then(|()| self.write("cgroup.kill", "1"));
        // The group is empty once its process is reaped, which the kill only begins.
        let start = Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn the_answer_of_a_frozen_peer_comes_late_and_only_once() {
    let _alone = alone();
    let arena = arena(4);
    let peer = Peer::start("echoes", "", &[arena.fd()]);
    let freezer = match Freezer::of(&peer) {
        Ok(freezer) => freezer,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skipped a frozen peer (may be left out anywhere): {error}");
            return;
        }
    };
    for policy in [WaitPolicy::Spin, WaitPolicy::Adaptive, WaitPolicy::Park] {
        let client = Connector::new(next_window(&arena), Options::new().policy(policy)).unwrap();
        let mut endpoint = client.connect(AGES).unwrap();
        let length = endpoint.write_datagram(b"first").unwrap();
        assert_eq!(endpoint.send_recv(length, AGES).expect("an answer"), 5);
        freezer.freeze();
        let length = endpoint.write_datagram(b"second").unwrap();
        let start = Instant::now();
        let Err(Interrupted::TimedOut(waiting)) = endpoint.send_recv(length, DEADLINE) else { panic!("not frozen") };
        assert!(start.elapsed() >= DEADLINE && start.elapsed() < AGES / 4, "{:?}", start.elapsed());
        freezer.thaw();
        let (mut endpoint, length) = waiting.resume(AGES).expect("the late answer");
        assert_eq!((length, endpoint.reader().read_array()), (6, Some(*b"second")), "{policy:?}");
        let length = endpoint.write_datagram(b"third").unwrap();
        assert_eq!(endpoint.send_recv(length, AGES).expect("an answer"), 5);
        assert_eq!(endpoint.reader().read_array(), Some(*b"third"), "{policy:?}");
    }
    // A shutdown does not wait for it either.
    freezer.freeze();
    let client = Connector::new(next_window(&arena), Options::new()).unwrap();
    let handle = client.shutdown_handle();
    let Err(Interrupted::TimedOut(client)) = client.connect(DEADLINE) else { panic!("not frozen") };
    let start = Instant::now();
    handle.shut_down();
    drop(client);
    assert!(start.elapsed() < AGES / 4, "{:?}", start.elapsed());
    drop((freezer, peer));
}
