//! Deadlines and descriptors of calls whose payloads do not fit the window, from values that take their time or change their length.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::rpc::codec::{Encode, Encoder, from_bytes};
use flipcall::rpc::{CallError, Client, ClientConfig, Router, Server, Status};
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};

use super::PATIENCE;

const MS: Duration = Duration::from_millis(1);

/// More than a window's worth of bytes. The second time it pauses before the last of them, or writes only a few.
struct Odd {
    times: Cell<u32>,
    pause: Duration,
    shrinks: bool,
}

impl Odd {
    fn pausing(pause: Duration) -> Self {
        Self { times: Cell::new(0), pause, shrinks: false }
    }
}

impl Encode for Odd {
    fn encode(&self, encoder: &mut Encoder<'_>) {
        let is_second = self.times.replace(self.times.get() + 1) == 1;
        if is_second && self.shrinks {
            return encoder.bytes(&[1; 100]);
        }
        encoder.bytes(&vec![1; 200 << 10]);
        if is_second {
            std::thread::sleep(self.pause);
        }
        encoder.bytes(&vec![2; 100 << 10]);
    }
}

/// Runs `test` with a client whose long payloads go in parts, and with one where they go over the socket.
fn both_ways(test: impl Fn(&Client)) {
    for extensions in [true, false] {
        let mut router = Router::new();
        router.raw(1, |context, request, reply| {
            let pause = Duration::from_millis(request.len() as u64 / (300 << 10) * 2000);
            context.cancel_token().wait(pause);
            reply.send(context, &0u8)
        });
        router.raw(2, |context, request, reply| {
            let pause = u64::from(from_bytes::<u32>(request)?) * MS.as_millis() as u64;
            std::thread::sleep(Duration::from_millis(pause));
            reply.send_now(context, &Odd::pausing(Duration::from_millis(pause)))
        });
        router.raw_with_fds(3, |context, _, reply| {
            let file = context.take_fd().ok_or_else(|| Status::invalid_argument("a file is wanted"))?;
            let size = fstat(&file).map_err(std::io::Error::from)?.st_size as u64;
            reply.send(context, &size)
        });
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = std::thread::spawn(move || Server::new(router, Default::default()).serve_one(theirs));
        let client = Client::from_socket(ours, ClientConfig::new().extensions(extensions)).unwrap();
        client.call::<_, u8>(1, &0u8, PATIENCE).unwrap();
        test(&client);
        client.close();
        serving.join().unwrap().unwrap();
    }
}

/// The call fails with a timeout, and that by its deadline.
fn times_out<T>(deadline: Duration, call: impl FnOnce(Duration) -> Result<T, CallError>) {
    let begun = Instant::now();
    let error = call(deadline).err().map(|error| match error {
        CallError::Failed(error) => error.kind(),
        other => panic!("{other}"),
    });
    assert_eq!(
        (error, begun.elapsed() < deadline + 150 * MS),
        (Some(ErrorKind::Timeout), true),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_deadline_that_ends_a_transfer_at_the_server_is_a_timeout() {
    both_ways(|client| {
        let begun = Instant::now();
        let error = client.call::<_, u8>(1, &Odd::pausing(400 * MS), 200 * MS).unwrap_err();
        assert!(matches!(&error, CallError::Failed(error) if error.kind() == ErrorKind::Timeout), "{error}");
        assert!(begun.elapsed() >= 200 * MS);
    });
}

#[test]
fn the_time_that_a_request_took_is_not_given_again_to_its_answer() {
    both_ways(|client| times_out(500 * MS, |deadline| client.call::<_, u8>(1, &Odd::pausing(300 * MS), deadline)));
}

#[test]
fn the_time_that_an_answer_was_waited_for_is_not_given_again_to_its_payload() {
    both_ways(|client| {
        times_out(500 * MS, |deadline| client.call_with(2, &300u32, deadline, |payload| Ok(payload.len())));
    });
}

#[test]
fn the_descriptors_of_a_request_that_did_not_leave_are_not_those_of_the_next() {
    let file = |size| -> OwnedFd {
        let file = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, size).unwrap();
        file
    };
    both_ways(|client| {
        let shrinking = Odd { times: Cell::new(0), pause: Duration::ZERO, shrinks: true };
        client.call_with_fds::<_, u64>(3, &shrinking, &[file(1).as_fd()], PATIENCE).unwrap_err();
        let (size, _) = client.call_with_fds::<_, u64>(3, &0u8, &[file(2).as_fd()], PATIENCE).unwrap();
        assert_eq!(size, 2, "the file of another call");
    });
}
