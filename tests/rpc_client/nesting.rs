//! Services that call each other, deeper than there are channels.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use flipcall::Deadline;
use flipcall::rpc::{Client, ClientConfig, Router, Server, Status};

use super::PATIENCE;

const DOWN: u16 = 7;

/// A service that calls another until the depth is reached.
fn service(next: Arc<OnceLock<Client>>) -> Server {
    let mut router = Router::new();
    router.unary(DOWN, move |_, depth: u32| match depth {
        0 => Ok(0),
        _ => {
            let below: u32 =
                next.get().unwrap().call(DOWN, &(depth - 1), Deadline::NEVER).map_err(|error| match error {
                    flipcall::rpc::CallError::Status(status) => status,
                    error => Status::new(flipcall::rpc::Code::NoResource, format!("{error:#}")),
                })?;
            Ok(below + 1)
        }
    });
    Server::new(router, Default::default())
}

/// Issue 13, C23.
#[test]
fn calls_that_nest_deeper_than_the_channels_fail_with_words() {
    let clients = [Arc::new(OnceLock::new()), Arc::new(OnceLock::new())];
    let configs = [ClientConfig::new().channels(2), ClientConfig::new().channels(2)];
    for (at, config) in configs.into_iter().enumerate() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // The service that this client calls calls back by the other one.
        let server = service(Arc::clone(&clients[1 - at]));
        std::thread::spawn(move || server.serve_one(theirs));
        clients[at].set(Client::from_socket(ours, config).unwrap()).unwrap();
    }
    let outermost = clients[0].get().unwrap().clone();
    // Two levels for each client: what is just deep enough works.
    assert_eq!(outermost.call::<_, u32>(DOWN, &3u32, PATIENCE).unwrap(), 3);
    let begun = Instant::now();
    let error = outermost.call::<_, u32>(DOWN, &20u32, Deadline::NEVER).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let text = error.to_string();
    assert!(text.contains("calls that nest need a channel for each level"), "{text}");
    assert!(text.contains("all 2 channels"), "{text}");
    assert_eq!(outermost.call::<_, u32>(DOWN, &3u32, PATIENCE).unwrap(), 3, "it is as before");
    for client in &clients {
        client.get().unwrap().close();
    }
}
