//! The end of a connection leaves nothing running: no thread of a channel outlives `serve_one`.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flipcall::rpc::{Client, ClientConfig, Router, Server};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a method goes on after its caller left.
const LINGER: Duration = Duration::from_millis(300);
/// Calls under way when the client leaves.
const CALLS: u32 = 4;

#[test]
fn serve_one_returns_after_the_last_thread_of_its_channels() {
    for config in [ClientConfig::new(), ClientConfig::new().window(0)] {
        let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut router = Router::new();
        let counts = (Arc::clone(&begun), Arc::clone(&ended));
        router.unary(1, move |context, ()| {
            counts.0.fetch_add(1, Ordering::SeqCst);
            assert!(context.cancel_token().wait(PATIENCE), "the client leaves");
            std::thread::sleep(LINGER);
            counts.1.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = std::thread::spawn(move || Server::new(router, Default::default()).serve_one(theirs));
        let client = Client::from_socket(ours, config).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..CALLS {
                scope.spawn(|| client.call::<_, ()>(1, &(), PATIENCE).unwrap_err());
            }
            while begun.load(Ordering::SeqCst) < CALLS {
                std::thread::yield_now();
            }
            client.close();
        });
        serving.join().unwrap().unwrap();
        assert_eq!(ended.load(Ordering::SeqCst), CALLS);
    }
}
