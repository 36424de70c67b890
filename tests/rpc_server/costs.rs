//! Issue 13, B11: what costs a client little costs its server little.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use flipcall::ErrorKind;
use flipcall::rpc::{Client, ClientConfig};

use crate::attacker::account::{Holdings, cpu_time};
use crate::attacker::{Role, Stage, alone, command, many_descriptors, measured, promised_share};
use crate::frames::{ERROR, HELLO, OPEN, RESPONSE, answer, ask, frame, hello};
use crate::serving::{ADD, ECHO, PATIENCE, Served, eventually, memory, peak};

pub const ROLES: &[Role] = &[("greets a hostile server", greets_a_hostile_server)];

/// Connections of the attacks, within the quarter of one process.
const CROWD: usize = 120;
const MIB: u64 = 1 << 20;

#[test]
fn a_hello_of_many_extensions_costs_a_server_nothing() {
    let _alone = alone();
    let served = Served::start(PATIENCE);
    let before = served.peak();
    for extensions in [65, 16_384, (64 << 20) / 4 - 4] {
        let socket = UnixStream::connect(&served.path).unwrap();
        let (tag, status) = ask(&socket, HELLO, &hello(extensions));
        assert_eq!((tag, status[0]), (ERROR, 2), "{}", String::from_utf8_lossy(&status));
        // The connection stays as it was: of the base protocol.
        let (tag, sum) = ask(&socket, ADD, &[0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!((tag, sum[8]), (RESPONSE, 42));
    }
    let grown = served.peak() - before;
    measured("a server's memory for a HELLO of 64 MiB, in KiB", grown / 1024, "4096");
    assert!(grown < 16 * MIB, "{grown} bytes");
    let good = UnixStream::connect(&served.path).unwrap();
    assert_eq!(ask(&good, HELLO, &hello(64)).0, RESPONSE, "64 extensions are fine");
}

/// Connects to the path of its argument, and says what it took.
fn greets_a_hostile_server(stage: Stage) {
    let before = peak("self");
    let error = Client::connect(Path::new(&stage.argument), ClientConfig::new(), PATIENCE).expect_err("hostile");
    assert_eq!(error.kind(), ErrorKind::Violation, "{error:#}");
    stage.control.say(&(peak("self") - before).to_string());
}

#[test]
fn an_answer_to_a_hello_of_many_extensions_costs_a_client_nothing() {
    let _alone = alone();
    let path = std::env::temp_dir().join(format!("flipcall-hostile-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    for extensions in [65, 16_384, (64 << 20) / 4 - 5] {
        let (mut command, control) = command("greets a hostile server", path.to_str().unwrap(), &[]);
        let mut child = command.spawn().unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        assert_eq!(answer(&socket).0, HELLO);
        let payload = [&[0], &hello(extensions)[..]].concat();
        // The client hangs up as soon as it has seen enough.
        let _ = socket.write_all(&frame(RESPONSE, &payload));
        let grown: u64 = control.hear().parse().unwrap();
        assert!(grown < 16 * MIB, "{extensions} extensions: {grown} bytes");
        assert!(child.wait().unwrap().success());
    }
    let _ = std::fs::remove_file(path);
}

#[test]
fn unread_answers_with_descriptors_cost_little_and_end() {
    let _alone = alone();
    many_descriptors();
    let patience = Duration::from_secs(4);
    let served = Served::start(patience);
    // One more will be there: that of the watchdog.
    let before = Holdings::of(&served.id());
    let open_unread = |_| {
        let mut socket = UnixStream::connect(&served.path).unwrap();
        assert_eq!(ask(&socket, HELLO, &hello(0)).0, RESPONSE);
        // No deadline; a window of a page.
        socket.write_all(&frame(OPEN, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0])).unwrap();
        socket
    };
    let sockets: Vec<UnixStream> = (0..CROWD).map(open_unread).collect();
    std::thread::sleep(Duration::from_secs(1));
    let (begun, used) = (std::time::Instant::now(), cpu_time(&served.id()));
    std::thread::sleep(Duration::from_secs(2));
    let share = (cpu_time(&served.id()) - used).as_secs_f64() / begun.elapsed().as_secs_f64();
    promised_share("a server with 120 unread answers", share, 0.05);
    let took = eventually("they are ended, and nothing is left", || {
        let now = Holdings::of(&served.id());
        now.windows == 0 && now.descriptors <= before.descriptors + 1
    });
    measured("unread answers are ended, seconds later", took.as_secs_f32(), "4");
    drop(sockets);
}

/// Bytes of memory in use that are no window: those have a quota of their own.
fn buffers(pid: &str) -> u64 {
    memory(pid, "RssAnon:")
}

#[test]
fn idle_connections_keep_no_large_buffers() {
    let _alone = alone();
    many_descriptors();
    let served = Served::start(PATIENCE);
    for (name, config) in [
        ("base connections", ClientConfig::new().base_protocol()),
        ("socket channels", ClientConfig::new().window(0)),
        ("window channels", ClientConfig::new().window(1 << 20)),
        ("window channels without fragments", ClientConfig::new().extensions(false)),
    ] {
        let before = buffers(&served.id());
        let bytes = vec![7u8; 2_000_000];
        let call = |_| {
            let client = Client::connect(&served.path, config.clone(), PATIENCE).unwrap();
            // The first fits the largest window.
            for length in [1_000_000, 2_000_000] {
                let back: Vec<u8> = client.call(ECHO, &bytes[..length], PATIENCE).unwrap();
                assert_eq!(back.len(), length);
            }
            client
        };
        let clients: Vec<Client> = (0..60).map(call).collect();
        let most = 48 * MIB;
        eventually(&format!("60 idle {name} keep little"), || buffers(&served.id()) < before + most);
        measured(
            &format!("60 idle {name} keep, in KiB"),
            (buffers(&served.id()).saturating_sub(before)) / 1024,
            "49152",
        );
        drop(clients);
    }
}
