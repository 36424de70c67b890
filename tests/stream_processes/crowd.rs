//! Many sockets on one thread of another process, hostile ones among them.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flipcall::stream::FrameSocket;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{SOON, rss_of, skip};

pub fn a_thousand_sockets_and_four_hostile_ones() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let path = std::env::temp_dir().join(format!("flipcall-loop-{}.sock", std::process::id()));
    let program: PathBuf =
        std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/event_loop");
    if !program.exists() {
        return skip("the example event_loop is not built");
    }
    let mut server = Command::new(program).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let connect = || UnixStream::connect(&path).unwrap();
    let pid = server.id().to_string();
    let fds = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let idle = fds();
    // The hostile ones.
    let mut dripping = connect();
    let mut lying = connect();
    lying.write_all(&[0, 1, 0xFF, 0xFF, 0xFF, 0xFF]).unwrap();
    connect().write_all(&[0, 1, 0]).unwrap();
    let flooding = connect();
    let null = std::fs::File::open("/dev/null").unwrap();
    let many = vec![null.as_fd(); 253];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
    let refused = sendmsg(&flooding, &[IoSlice::new(&[0, 1, 0, 0, 0, 0])], &mut control, SendFlags::NOSIGNAL);
    println!("253 descriptors to a socket that takes none: {refused:?}");
    // The others.
    let mut sockets: Vec<FrameSocket> = (0..996).map(|_| FrameSocket::new(connect())).collect();
    for round in 0..20u16 {
        let _ = dripping.write_all(&[0]);
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.send(round, &vec![number as u8; number], SOON).unwrap();
        }
        for (number, socket) in sockets.iter_mut().enumerate() {
            let message = socket.receive(SOON).unwrap().unwrap();
            assert_eq!((message.tag, message.payload.len()), (round, number));
        }
    }
    assert!(fds() >= idle + 996);
    drop(sockets);
    drop((lying, flooding));
    let give_up = Instant::now() + SOON;
    // The dripping one is cut off by its deadline, not by us.
    while fds() != idle {
        assert!(Instant::now() < give_up, "{} descriptors instead of {idle}", fds());
        thread::sleep(Duration::from_millis(20));
    }
    println!("996 honest sockets lost nothing; the server's RSS is {} KiB", rss_of(&pid));
    drop(dripping);
    server.kill().unwrap();
    server.wait().unwrap();
    for file in [path.clone(), path.with_extension("sock.lock")] {
        let _ = std::fs::remove_file(file);
    }
}
