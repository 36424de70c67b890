//! What a method does behind its answer: descriptors that are attached too late, or to a stream, and errors that come after the end.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use flipcall::rpc::codec::from_bytes;
use flipcall::rpc::{CallError, Client, ClientConfig, Code, Context, Router, Server, Status};

use super::PATIENCE;

const LARGE: usize = 3 << 20;

fn file() -> Result<OwnedFd, Status> {
    Ok(std::io::stderr().as_fd().try_clone_to_owned()?)
}

fn attach(context: &mut Context<'_>) -> Result<(), Status> {
    context.attach(file()?)
}

/// Runs `test` with a client on every transport.
fn every_way(test: impl Fn(&Client)) {
    let configs = [ClientConfig::new(), ClientConfig::new().extensions(false), ClientConfig::new().window(0)];
    for config in configs {
        let mut router = Router::new();
        // Answers with so many bytes, and attaches one descriptor before and one after it.
        router.raw_with_fds(1, |context, request, reply| {
            let (count, at_once): (u32, bool) = from_bytes(request)?;
            attach(context)?;
            let bytes = vec![7u8; count as usize];
            let answered = if at_once { reply.send_now(context, &bytes[..]) } else { reply.send(context, &bytes[..]) };
            attach(context)?;
            answered
        });
        // A stream with descriptors that it cannot carry, which fails after its end if it is told to.
        router.streaming(2, |context, request, mut chunks| {
            attach(context)?;
            chunks.send(&1u8)?;
            let answered = chunks.end(&2u8)?;
            if from_bytes(request)? { Err(Status::new(Code::Io, "too late")) } else { Ok(answered) }
        });
        let server = Server::new(router, Default::default());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = std::thread::spawn(move || server.serve_one(theirs));
        let client = Client::from_socket(ours, config).unwrap();
        test(&client);
        assert_eq!(client.counters().channels_opened, 1, "the channel stayed in order");
        drop(client);
        serving.join().unwrap().unwrap();
    }
}

#[test]
fn a_descriptor_that_is_attached_behind_the_answer_stays_here() {
    every_way(|client| {
        for (count, at_once) in [(5, false), (5, true), (LARGE, false), (LARGE, true)].repeat(3) {
            let request = (u32::try_from(count).unwrap(), at_once);
            let (bytes, fds): (Vec<u8>, _) = client.call_with_fds(1, &request, &[], PATIENCE).unwrap();
            assert_eq!((bytes.len(), fds.len()), (count, 1), "at once: {at_once}");
        }
    });
}

#[test]
fn a_stream_has_one_end_and_no_descriptors() {
    every_way(|client| {
        for fails in [false, true].repeat(3) {
            let mut stream = client.stream(2, &fails, PATIENCE).unwrap();
            let chunks: Result<Vec<_>, CallError> = stream.by_ref().collect();
            match chunks {
                Ok(chunks) => {
                    assert_eq!(chunks, [[1]]);
                    assert_eq!(stream.end::<u8>().unwrap(), 2);
                }
                // In a window the end had not left yet.
                Err(error) => assert!(fails && error.status().unwrap().code == Code::Io),
            }
            let (bytes, fds): (Vec<u8>, _) = client.call_with_fds(1, &(5u32, false), &[], PATIENCE).unwrap();
            assert_eq!((bytes.len(), fds.len()), (5, 1), "what followed is as it should be");
        }
    });
}
