//! A listener from a descriptor.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use flipcall::ErrorKind;
use flipcall::process::{InheritedFds, pass_descriptor};
use flipcall::rpc::{Client, ClientConfig, Router, Server};
use flipcall::stream::Listener;

use super::{PATIENCE, Place, again, has_passed, says};

const NUMBER: &str = "STREAM_NAMES_NUMBER";

/// Issue 13, B13: as a service manager does it. The socket is its own: it serves a second process when the first has ended.
#[test]
fn a_listener_that_was_left_to_a_process_serves_and_goes_on_without_it() {
    let place = Place::new("inherited");
    let path = place.join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let mut command = again("descriptors::as_the_service", &place.0);
        let number = pass_descriptor(&mut command, &listener).unwrap();
        let mut service = command.env(NUMBER, number.to_string()).spawn().unwrap();
        let client = Client::connect(&path, ClientConfig::new(), PATIENCE).unwrap();
        assert_eq!(client.call::<_, u64>(1, &1u64, PATIENCE).unwrap(), 2);
        let _ = client.call::<_, ()>(2, &(), PATIENCE);
        drop(client);
        has_passed(service.wait().unwrap());
    }
    assert_eq!(place.names(), ["a.sock"], "it is its maker's");
}

#[test]
#[ignore = "the child of another test"]
fn as_the_service() {
    #[allow(unsafe_code, reason = "nobody else can state that they belong to nobody")]
    // SAFETY: what is inheritable in this process was left to it by its parent, and nothing owns it.
    let inherited = unsafe { InheritedFds::claim() };
    let number = std::env::var(NUMBER).unwrap().parse().unwrap();
    let listener = Listener::from_fd(inherited.take(number).unwrap()).unwrap();
    assert!(listener.path().ends_with("a.sock"), "{}", listener.path().display());
    let (ended, end) = std::sync::mpsc::channel();
    let mut router = Router::new();
    router.unary(1, |_, number: u64| Ok(number + 1));
    router.unary(2, move |_, ()| {
        let _ = ended.send(());
        Ok(())
    });
    let server = Server::new(router, Default::default());
    let handle = server.handle();
    let serving = std::thread::spawn(move || server.serve(listener));
    end.recv_timeout(PATIENCE).unwrap();
    handle.close(PATIENCE);
    serving.join().unwrap().unwrap();
}

/// Issue 13, B13.
#[test]
fn what_does_not_listen_is_an_error_that_says_what_it_is() {
    let cases: [(OwnedFd, &str); 5] = [
        (std::io::pipe().unwrap().0.into(), "no socket"),
        (TcpListener::bind("127.0.0.1:0").unwrap().into(), "no unix socket"),
        (UnixDatagram::unbound().unwrap().into(), "no stream socket"),
        (UnixStream::pair().unwrap().0.into(), "nobody said that it shall listen"),
        (std::fs::File::open("/dev/null").unwrap().into(), "no socket"),
    ];
    for (fd, why) in cases {
        let error = Listener::from_fd(fd).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        says(error, &[why]);
    }
}

#[test]
fn a_listener_without_a_name_has_none() {
    let name = format!("flipcall-{}-maker", std::process::id());
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = Listener::from_fd(UnixListener::bind_addr(&address).unwrap()).unwrap();
    assert_eq!(listener.path(), Path::new(&format!("@{name}")));
}
