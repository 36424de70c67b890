//! Which names a socket can have.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;

use flipcall::rpc::{Client, ClientConfig, Router, Server};
use flipcall::stream::{Access, FrameSocket, Listener};
use flipcall::{ErrorKind, Result};

use super::{PATIENCE, Place, again, has_passed, is_root, place_of_child, says};

/// Issue 13, B13.
#[test]
fn a_name_that_no_socket_can_have_is_an_error_with_the_limit() {
    let place = Place::new("limits");
    let (long, relative) = (place.join(&"x".repeat(108)), "y".repeat(108));
    let cases: [(&Path, &str); 7] = [
        (&long, " bytes"),
        (relative.as_ref(), "108 bytes"),
        ("".as_ref(), "empty"),
        ("/tmp/a\0b".as_ref(), "a byte that is 0"),
        ("@".as_ref(), "empty"),
        (&place.join("name/"), "directory"),
        ("/".as_ref(), "directory"),
    ];
    for (name, why) in cases {
        let client = Client::connect(name, ClientConfig::new(), PATIENCE).map(drop);
        let tried: [Result<()>; 3] =
            [Listener::bind(name, Access::Owner).map(drop), FrameSocket::connect(name, PATIENCE).map(drop), client];
        for result in tried {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:#}");
            says(error, &["107", why]);
        }
    }
    assert!(place.names().is_empty(), "{:?}", place.names());
}

/// Issue 13, B13: the working directory changes between bind and drop, and between connect and reconnect.
#[test]
fn a_relative_name_stays_what_it_was() {
    let place = Place::new("relative");
    has_passed(again("names::as_one_that_moves", &place.0).status().unwrap());
    assert_eq!(place.names(), ["elsewhere", "here"]);
}

#[test]
#[ignore = "the child of another test"]
fn as_one_that_moves() {
    let place = place_of_child();
    // Too deep for the absolute path of a socket: the relative one counts.
    let (here, elsewhere) = (place.join("here").join("d".repeat(100)), place.join("elsewhere"));
    std::fs::create_dir_all(&here).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    for directory in [place.join("here"), here] {
        std::env::set_current_dir(&directory).unwrap();
        let serve = || {
            let mut router = Router::new();
            router.unary(1, |_, number: u64| Ok(number + 1));
            let server = Server::new(router, Default::default());
            let (listener, handle) = (server.bind("a.sock").unwrap(), server.handle());
            (std::thread::spawn(move || server.serve(listener)), handle)
        };
        let (serving, handle) = serve();
        let client = Client::connect("a.sock", ClientConfig::new().reconnect(true), PATIENCE).unwrap();
        assert_eq!(client.call::<_, u64>(1, &1u64, PATIENCE).unwrap(), 2);
        std::env::set_current_dir(&elsewhere).unwrap();
        handle.close(PATIENCE);
        serving.join().unwrap().unwrap();
        assert!(!directory.join("a.sock").exists(), "the socket stayed");
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0, "a file appeared elsewhere");
        std::env::set_current_dir(&directory).unwrap();
        let (serving, handle) = serve();
        std::env::set_current_dir(&elsewhere).unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while client.call::<_, u64>(1, &1u64, PATIENCE).is_err() {
            assert!(std::time::Instant::now() < deadline, "it does not reconnect");
        }
        handle.close(PATIENCE);
        serving.join().unwrap().unwrap();
    }
}

fn abstract_name(what: &str) -> String {
    format!("@flipcall-{}-{what}", std::process::id())
}

/// Issue 13, B13.
#[test]
fn an_abstract_name_works_and_ends_with_its_listener() {
    let name = abstract_name("both");
    let listener = Listener::bind(&name, Access::Owner).unwrap();
    assert_eq!(listener.path(), Path::new(&name));
    says(Listener::bind(&name, Access::Owner).unwrap_err(), &[&name, "in use"]);
    let mut client = FrameSocket::connect(&name, PATIENCE).unwrap();
    let mut served = listener.accept_frames(PATIENCE).unwrap();
    client.send(7, b"a frame", PATIENCE).unwrap();
    assert_eq!(served.receive(PATIENCE).unwrap().unwrap().payload, b"a frame");
    drop(listener);
    assert_eq!(FrameSocket::connect(&name, PATIENCE).unwrap_err().kind(), ErrorKind::PeerGone);
    // The longest.
    let longest = format!("@{:x<107}", std::process::id());
    drop(Listener::bind(&longest, Access::Owner).unwrap());
    // A file of such a name has a directory.
    let place = Place::new("at");
    let file = place.join("@name");
    let listener = Listener::bind(&file, Access::Owner).unwrap();
    assert!(file.exists());
    drop(listener);
}

/// Issue 13, B13: an abstract name has no mode, so the listener looks at who connects.
#[test]
fn an_abstract_name_admits_whom_its_access_admits() {
    if !is_root() {
        return;
    }
    for (what, access, may) in [("owner", Access::Owner, false), ("everyone", Access::Everyone, true)] {
        let name = abstract_name(what);
        let listener = Listener::bind(&name, access).unwrap();
        let mut stranger = again("names::as_one_that_connects", name.as_ref()).uid(65534).gid(65534).spawn().unwrap();
        let accepted = listener.accept(if may { PATIENCE } else { std::time::Duration::from_secs(2) });
        assert_eq!(accepted.is_ok(), may, "{accepted:?}");
        drop(accepted);
        has_passed(stranger.wait().unwrap());
        let _ours = UnixStream::connect_addr(&address(&name)).unwrap();
        listener.accept(PATIENCE).unwrap();
    }
}

fn address(name: &str) -> std::os::unix::net::SocketAddr {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(&name[1..]).unwrap()
}

#[test]
#[ignore = "the child of another test"]
fn as_one_that_connects() {
    let name = place_of_child();
    let mut socket = UnixStream::connect_addr(&address(name.to_str().unwrap())).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(socket.read(&mut [0]).unwrap(), 0, "nobody says anything, and everybody hangs up");
}
