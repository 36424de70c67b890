//! How late things are noticed: a deadline that passed, a client that died, a server that died. Each is repeated, and the median and the
//! worst are printed; what is asserted only tells late from never.

use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::rpc::{CallError, Client, ClientConfig};

use super::peer::{Echo, PATIENCE};
use super::transports;

/// What is late.
const LATE: Duration = Duration::from_secs(1);

fn times() -> usize {
    if std::env::var_os("FLIPCALL_FULL").is_some() { 25 } else { 3 }
}

/// Prints and checks how late something was noticed.
fn report(what: &str, mut late: Vec<Duration>) {
    late.sort();
    let (median, worst) = (late[late.len() / 2], late[late.len() - 1]);
    println!("{what}: median {median:?}, worst of {} {worst:?}", late.len());
    assert!(median < LATE, "{what}: {late:?}");
}

#[test]
fn a_deadline_is_reported_soon_after_it_passed() {
    const DEADLINE: Duration = Duration::from_millis(20);
    let echo = Echo::start(&[]);
    for (name, config, _) in transports() {
        let client = echo.client(config);
        assert_eq!(client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).unwrap(), 2);
        let late = (0..times()).map(|_| {
            let begun = Instant::now();
            let error = client.call::<_, ()>(3, &60u32, DEADLINE).unwrap_err();
            let took = begun.elapsed();
            assert!(error.is_timeout() && took >= DEADLINE, "{name}: {error} after {took:?}");
            // The handler's answer comes first, so that the next call finds its channel.
            std::thread::sleep(Duration::from_millis(60));
            took - DEADLINE
        });
        report(&format!("{name}: a timeout past its deadline"), late.collect());
    }
}

#[test]
fn a_dead_server_is_noticed_and_reconnected_to() {
    let mut echo = Echo::start(&[]);
    let (mut windows, mut sockets) = (Vec::new(), Vec::new());
    for _ in 0..times() {
        windows.push(a_server_dies(&mut echo, ClientConfig::new()));
        sockets.push(a_server_dies(&mut echo, ClientConfig::new().window(0)));
    }
    report("window: a dead server", windows);
    report("socket: a dead server", sockets);
}

/// How late a call notices that its server died.
fn a_server_dies(echo: &mut Echo, config: ClientConfig) -> Duration {
    let client = echo.client(config.clone().reconnect(true));
    let plain = echo.client(config);
    for client in [&client, &plain] {
        assert_eq!(client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).unwrap(), 2);
    }
    let waiting = {
        let client = client.clone();
        std::thread::spawn(move || (client.call::<_, ()>(3, &60_000u32, PATIENCE), Instant::now()))
    };
    std::thread::sleep(Duration::from_millis(100));
    let killed = Instant::now();
    echo.kill();
    let (answer, at) = waiting.join().unwrap();
    let error = answer.unwrap_err();
    assert!(matches!(&error, CallError::Failed(error) if error.kind() == ErrorKind::PeerGone), "{error:?}");
    assert!(!plain.is_alive());
    assert!(client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).is_err(), "there is no server");
    echo.restart();
    assert_eq!(client.call::<_, u64>(2, &(2u64, 2u64), PATIENCE).unwrap(), 4);
    assert_eq!(client.counters().reconnects, 1);
    assert!(plain.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).is_err(), "nobody asked it to reconnect");
    at - killed
}

/// The base connection is everybody's: a call that panics on it must not leave the others waiting for it.
#[test]
fn a_panic_in_a_values_own_code_keeps_nobody_waiting() {
    let echo = Echo::start(&[]);
    for reconnect in [false, true] {
        let client = echo.client(ClientConfig::new().base_protocol().reconnect(reconnect));
        let theirs = client.clone();
        let panicking = move || theirs.call_with::<_, ()>(2, &(1u64, 1u64), PATIENCE, |_| panic!("on purpose"));
        assert!(std::thread::spawn(panicking).join().is_err());
        match client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE) {
            Ok(sum) => assert!(reconnect && sum == 2),
            Err(CallError::Failed(error)) => assert!(!reconnect && error.kind() == ErrorKind::PeerGone, "{error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The server of the cancel test runs in this process, so that the handler's view can be asserted; its client is another process,
/// which is killed.
#[test]
fn a_killed_client_fires_the_cancel_token() {
    let path = std::env::temp_dir().join(format!("flipcall-cancel-{}.sock", std::process::id()));
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut router = flipcall::rpc::Router::new();
    router.unary(3, move |context, _: u32| {
        sender.send(None).unwrap();
        let cancelled = context.cancel_token().wait(PATIENCE);
        sender.send(Some((cancelled, Instant::now()))).unwrap();
        Ok(())
    });
    let server = flipcall::rpc::Server::new(router, Default::default());
    let listener = server.bind(&path).unwrap();
    let handle = server.handle();
    let serving = std::thread::spawn(move || server.serve(listener));
    let [mut sockets, mut windows] = [Vec::new(), Vec::new()];
    for turn in 0..2 * times() {
        let (window, late) = if turn % 2 == 0 { ("0", &mut sockets) } else { ("262144", &mut windows) };
        let mut client = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "timing::as_a_client_that_is_killed", "--ignored"])
            .env("FLIPCALL_TEST_PATH", &path)
            .env("FLIPCALL_TEST_WINDOW", window)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        assert!(receiver.recv_timeout(PATIENCE).unwrap().is_none());
        let killed = Instant::now();
        client.kill().unwrap();
        let (cancelled, at) = receiver.recv_timeout(PATIENCE).unwrap().unwrap();
        client.wait().unwrap();
        assert!(cancelled);
        late.push(at - killed);
    }
    report("socket: a cancel token", sockets);
    report("window: a cancel token", windows);
    assert!(handle.close(PATIENCE));
    serving.join().unwrap().unwrap();
    assert!(!path.exists());
}

/// The second process of the test above.
#[test]
#[ignore = "is started by another test"]
fn as_a_client_that_is_killed() {
    let (Some(path), Ok(window)) = (std::env::var_os("FLIPCALL_TEST_PATH"), std::env::var("FLIPCALL_TEST_WINDOW"))
    else {
        return;
    };
    let config = ClientConfig::new().window(window.parse().unwrap());
    let client = Client::connect(path, config, PATIENCE).unwrap();
    let _ = client.call::<_, ()>(3, &0u32, PATIENCE);
}
