//! The smallest FUSE file system there can be, served by the attacker: one file, which opens and then never answers again.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use crate::attacker::raw::{close_in_child, die_with_parent, fork, mount_fuse};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
/// What an fstat asks.
pub const GETATTR: u32 = 3;
const OPEN: u32 = 14;
/// What a close asks.
pub const FLUSH: u32 = 25;
const INIT: u32 = 26;

/// The number of the root directory; the file's is 2.
const ROOT: u64 = 1;
/// The file's name.
const NAME: &str = "file";
/// More than the longest request.
const LONGEST: usize = 64 << 10;

/// A running server of such a file system, and the requests that came for its file since it was opened.
///
/// It has no descriptor of the file itself: a process that holds both ends can never exit, since the flush of the one waits for the
/// other.
pub struct DeadFile {
    pub requests: Arc<Mutex<Vec<u32>>>,
}

impl DeadFile {
    /// Serves a file system from this process. A child of it mounts the file system on `directory`, where nobody else sees it, opens
    /// the file, hands its descriptor to `take`, and keeps it open until this process dies.
    pub fn serve(directory: &str, take: impl FnOnce(std::io::Result<OwnedFd>)) -> std::io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        std::fs::create_dir_all(directory)?;
        fork(|| {
            die_with_parent();
            let mounted = mount_fuse(device.as_fd(), directory);
            // Only the server may hold the device, or its death would end nothing.
            close_in_child(&device);
            let path = format!("{directory}/{NAME}");
            take(mounted.and_then(|()| File::options().read(true).write(true).open(path)).map(OwnedFd::from));
            0
        });
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || serve(device, &seen));
        Ok(Self { requests })
    }
}

/// Answers what it takes to open the file; notes the rest.
fn serve(mut device: File, seen: &Mutex<Vec<u32>>) {
    let mut request = vec![0; LONGEST];
    loop {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            // The child has not mounted it yet.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                std::thread::sleep(std::time::Duration::from_millis(1));
                continue;
            }
            Err(_) => return,
        };
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().expect("eight bytes"));
        assert!(length >= 40, "a request has a header");
        let (operation, unique, node) = (word(4), long(8), long(16));
        let answer = match (operation, node) {
            (INIT, _) => init(word(40)),
            (LOOKUP, ROOT) => entry(),
            (GETATTR, ROOT) => [&[0; 16][..], &attributes(ROOT)].concat(),
            // File handle 0, no flags.
            (OPEN, _) => vec![0; 16],
            (FORGET, _) => continue,
            _ => {
                seen.lock().unwrap().push(operation);
                continue;
            }
        };
        let length = 16 + answer.len() as u32;
        let header = [&length.to_ne_bytes()[..], &[0; 4], &unique.to_ne_bytes()].concat();
        if device.write(&[header, answer].concat()).is_err() {
            return;
        }
    }
}

/// fuse_init_out: version 7 of the protocol, the kernel's minor, nothing optional, writes of a page.
fn init(major: u32) -> Vec<u8> {
    let mut answer = vec![0; 64];
    answer[..4].copy_from_slice(&major.to_ne_bytes());
    answer[4..8].copy_from_slice(&31u32.to_ne_bytes());
    answer[20..24].copy_from_slice(&4096u32.to_ne_bytes());
    answer
}

/// fuse_entry_out: the file, valid for no time at all, so that every fstat asks again.
fn entry() -> Vec<u8> {
    [&2u64.to_ne_bytes()[..], &[0; 32], &attributes(2)].concat()
}

/// fuse_attr: a directory for the root, otherwise a file of a page that looks like what a window needs.
fn attributes(node: u64) -> Vec<u8> {
    let mut attributes = vec![0; 88];
    attributes[..8].copy_from_slice(&node.to_ne_bytes());
    attributes[8..16].copy_from_slice(&(1u64 << 20).to_ne_bytes());
    let mode: u32 = if node == ROOT { 0o040_755 } else { 0o100_644 };
    attributes[60..64].copy_from_slice(&mode.to_ne_bytes());
    attributes[64..68].copy_from_slice(&1u32.to_ne_bytes());
    attributes
}
