//! A server in another language that breaks the rules of calls, one by one: what the client makes of it.

#[path = "hostile_ends.rs"]
mod ends;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flipcall::rpc::{CallError, Client, ClientConfig, ClientCounters};

use super::PATIENCE;
use ends::{End, check_violation, rule_of};

/// What the server can be asked for.
const ECHO: u16 = 1;
const ATTACK: u16 = 2;
const ARM: u16 = 3;
const NAMES: u16 = 4;
const WAYS: u16 = 5;

/// The largest answer that the attacked accept; the server knows it.
const MAXIMUM: u32 = 2 << 20;
/// A call that lasts longer hangs its client.
pub const BOUND: Duration = Duration::from_secs(10);

/// The one attack on OPEN that takes its call's time.
const SILENCE: &str = "OPEN: it stops instead of a greeting";

/// `tests/rpc_server.py`; it ends with its standard input.
struct Server {
    child: Child,
    path: PathBuf,
}

impl Server {
    /// `None`: there is no python3.
    fn start(name: &str) -> Option<Self> {
        Self::at(std::env::temp_dir().join(format!("flipcall-hostile-{}-{name}.sock", std::process::id())))
    }

    fn at(path: PathBuf) -> Option<Self> {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut command = Command::new("python3");
        command.arg(format!("{root}/tests/rpc_server.py")).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none() => {
                eprintln!("skipped: no python3: {error}");
                return None;
            }
            Err(error) => panic!("python3: {error}"),
        };
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        Some(Self { child, path })
    }

    fn client(&self, config: ClientConfig) -> Client {
        Client::connect(&self.path, config, PATIENCE).unwrap()
    }

    /// The attacks of these groups.
    fn attacks(&self, groups: &[&str]) -> Vec<String> {
        let client = self.client(ClientConfig::new().base_protocol());
        let names = |group: &&str| client.call::<_, Vec<String>>(NAMES, *group, PATIENCE).unwrap();
        let names: Vec<String> = groups.iter().flat_map(names).collect();
        assert!(names.len() >= groups.len());
        names
    }

    /// Has the next HELLO or OPEN attacked.
    fn arm(&self, attack: &str) {
        self.client(ClientConfig::new().base_protocol()).call::<_, ()>(ARM, attack, PATIENCE).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn echo(client: &Client, size: usize, what: &str) {
    let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    let back = client.call::<_, Vec<u8>>(ECHO, &bytes, BOUND).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(back == bytes, "after {what}: {} bytes for {size}: {:?}", back.len(), &back[..back.len().min(50)]);
}

#[test]
fn its_honest_side_is_a_server_on_every_transport() {
    let Some(server) = Server::start("honest") else { return };
    let window = ClientConfig::new;
    let page = || window().window(4096);
    let cases = [
        (window(), &[(100, "window"), (300_000, "parts"), (3 << 20, "parts")][..]),
        (window().extensions(false), &[(100, "window"), (300_000, "bulk"), (3 << 20, "bulk")]),
        (page(), &[(0, "window"), (10_000, "parts"), (3 << 20, "bulk")]),
        (page().extensions(false), &[(0, "window"), (10_000, "bulk"), (3 << 20, "bulk")]),
        (window().window(0), &[(0, "socket"), (3 << 20, "socket")]),
        (window().base_protocol(), &[(0, "socket"), (3 << 20, "socket")]),
    ];
    for (config, sizes) in cases {
        let client = server.client(config);
        for &(size, way) in sizes {
            echo(&client, size, way);
            assert_eq!(client.call::<_, Vec<String>>(WAYS, &(), PATIENCE).unwrap(), [way], "{size} bytes");
        }
        assert!(client.counters().channels_opened <= 1);
    }
}

/// A client that is attacked.
struct Attacked {
    client: Client,
    /// Whether its calls are on the base connection, which ends where a channel does.
    is_base: bool,
    name: &'static str,
}

impl Attacked {
    fn each(server: &Server) -> [Self; 5] {
        let config = || ClientConfig::new().max_message(MAXIMUM).reconnect(true);
        let attacked = |name, config, is_base| Self { client: server.client(config), is_base, name };
        [
            attacked("window", config(), false),
            attacked("page", config().window(4096), false),
            attacked("page without parts", config().window(4096).extensions(false), false),
            attacked("socket channel", config().window(0), false),
            attacked("base connection", config().base_protocol(), true),
        ]
    }

    fn groups(&self) -> &'static [&'static str] {
        match self.name {
            "window" | "page" => &["any", "descriptors", "window", "parts", "halves"],
            "page without parts" => &["any", "descriptors", "window", "parts"],
            "socket channel" => &["any", "descriptors", "rights", "socket"],
            _ => &["any", "socket"],
        }
    }

    /// Makes a call of type ATTACK, and looks at what it leaves behind.
    fn attack(&self, attack: &str, rule: &str, call: impl FnOnce(&Client, Duration) -> Result<Vec<u8>, CallError>) {
        let what = format!("{}: {attack}", self.name);
        let (end, before, begun) = (End::of(attack), self.client.counters(), Instant::now());
        end.check(&what, rule, call(&self.client, end.deadline()));
        assert!(begun.elapsed() < BOUND, "{what}: {:?}", begun.elapsed());
        self.expect_service(&what, before, end.ends_channel());
    }

    /// The next call is served, on another channel if that one ended.
    fn expect_service(&self, what: &str, before: ClientCounters, ended: bool) {
        echo(&self.client, 5000, what);
        let now = self.client.counters();
        let (opened, anew) = (now.channels_opened - before.channels_opened, now.reconnects - before.reconnects);
        if self.is_base {
            assert_eq!((opened, anew), (0, u64::from(ended)), "{what}");
        } else {
            assert_eq!((opened, anew), (u64::from(ended), 0), "{what}");
            assert_eq!(now.fallbacks, before.fallbacks, "{what}");
        }
    }

    fn call(&self, attack: &str, rule: &str, padding: usize) {
        let request = (attack, vec![0u8; padding]);
        self.attack(attack, rule, |client, deadline| client.call(ATTACK, &request, deadline));
    }

    fn stream(&self, attack: &str) {
        self.attack(attack, rule_of(attack), |client, deadline| {
            let mut stream = client.stream(ATTACK, &(attack, ""), deadline)?;
            let chunks: Result<Vec<_>, _> = stream.by_ref().collect();
            assert!(stream.end::<()>().is_err(), "{attack}: it never ended");
            chunks.map(|chunks| chunks.concat())
        });
    }
}

/// The descriptors and threads of this process.
fn in_use() -> [usize; 2] {
    ["fd", "task"].map(|what| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count())
}

/// The most memory that this process had at a time, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn answers(server: &Server, clients: &[Attacked]) -> usize {
    let mut count = 0;
    for attacked in clients {
        for group in attacked.groups() {
            // Without the extension no part is looked at any further.
            let is_unknown = *group == "parts" && attacked.name == "page without parts";
            for attack in server.attacks(&[group]) {
                attacked.call(&attack, if is_unknown { "Flags(" } else { rule_of(&attack) }, 0);
                count += 1;
            }
        }
    }
    count
}

fn requests_and_streams(server: &Server, clients: &[Attacked]) -> usize {
    let mut count = 0;
    for attacked in &clients[..3] {
        let takes_parts = attacked.name != "page without parts";
        let groups: &[&str] = if takes_parts { &["requests", "continues"] } else { &["requests"] };
        for attack in server.attacks(groups) {
            // A few parts of either window; or more than a socket holds, or the bulk would have been sent before the attack.
            let padding = match attacked.name {
                "window" => 600_000,
                "page" => 12_000,
                _ => 8 << 20,
            };
            attacked.call(&attack, rule_of(&attack), padding);
            count += 1;
        }
    }
    for attacked in clients {
        let groups: &[&str] = if attacked.is_base { &["streams"] } else { &["streams", "streams with fds"] };
        for attack in server.attacks(groups) {
            attacked.stream(&attack);
            count += 1;
        }
    }
    count
}

fn handshakes(server: &Server) -> usize {
    let config = || ClientConfig::new().max_message(MAXIMUM);
    let hellos = server.attacks(&["hello"]);
    for attack in &hellos {
        server.arm(attack);
        let error = Client::connect(&server.path, config(), BOUND).map(drop).unwrap_err();
        check_violation(attack, rule_of(attack), &error);
    }
    let opens = server.attacks(&["open"]);
    for attack in &opens {
        let client = server.client(config());
        server.arm(attack);
        echo(&client, 5000, attack);
        let counters = client.counters();
        assert_eq!((counters.fallbacks, counters.channels_opened), (1, 1), "{attack}: a socket has to do");
    }
    let client = server.client(config());
    server.arm(SILENCE);
    End::Timeout.check(SILENCE, "", client.call::<_, Vec<u8>>(ECHO, "", End::Timeout.deadline()));
    echo(&client, 5000, SILENCE);
    assert_eq!(client.counters().fallbacks, 0, "{SILENCE}");
    let ends = server.attacks(&["open at all"]);
    for attack in &ends {
        let client = server.client(config().reconnect(true));
        server.arm(attack);
        End::of(attack).check(attack, rule_of(attack), client.call::<_, Vec<u8>>(ECHO, "", BOUND));
        echo(&client, 5000, attack);
        assert_eq!(client.counters().reconnects, 1, "{attack}");
    }
    hellos.len() + opens.len() + 1 + ends.len()
}

/// Windows that are larger than what the client asked for: its maximum holds in them, too.
fn windows(server: &Server) -> usize {
    let attacks = server.attacks(&["over the maximum"]);
    for attack in &attacks {
        let client = server.client(ClientConfig::new().max_message(MAXIMUM));
        server.arm("OPEN: a window larger than asked");
        let ways = || client.call::<_, Vec<String>>(WAYS, &(), PATIENCE).unwrap();
        ways();
        echo(&client, 1 << 20, attack);
        assert_eq!(ways(), ["window"], "nothing else carries so much whole");
        End::Violation.check(attack, rule_of(attack), client.call::<_, Vec<u8>>(ATTACK, &(attack, ""), BOUND));
        echo(&client, 5000, attack);
    }
    attacks.len()
}

/// Issue 13, A4. A window that was refused is remembered, and not across a reconnect.
#[test]
fn a_refused_window_is_forgotten_when_the_client_connects_anew() {
    let Some(server) = Server::start("refused") else { return };
    let client = server.client(ClientConfig::new().reconnect(true));
    let ways = |client: &Client| client.call::<_, Vec<String>>(WAYS, &(), PATIENCE).unwrap();
    let attack = server.attacks(&["open"]).into_iter().find(|attack| attack.contains("sealed")).unwrap();
    server.arm(&attack);
    echo(&client, 100, &attack);
    std::thread::sleep(Duration::from_millis(500));
    echo(&client, 100, &attack);
    assert_eq!(ways(&client), ["socket"], "{attack}");
    assert_eq!((client.counters().fallbacks, client.counters().channels_opened), (1, 1), "{attack}");
    // Another channel of this connection is one without a window at once.
    let ends = server.attacks(&["socket"]).into_iter().find(|attack| End::of(attack) == End::Violation).unwrap();
    client.call::<_, Vec<u8>>(ATTACK, &(&ends, ""), BOUND).unwrap_err();
    echo(&client, 100, &ends);
    assert_eq!(ways(&client), ["socket"], "{ends}");
    assert_eq!((client.counters().fallbacks, client.counters().channels_opened), (2, 2), "{ends}");
    let path = server.path.clone();
    drop(server);
    let _server = Server::at(path).unwrap();
    echo(&client, 100, "a reconnect");
    assert_eq!(ways(&client), ["window"]);
    let counters = client.counters();
    assert_eq!((counters.fallbacks, counters.channels_opened, counters.reconnects), (2, 3, 1));
}

fn deaths(mut server: Server) -> usize {
    let attacks = server.attacks(&["deaths"]);
    for attack in &attacks {
        let client = server.client(ClientConfig::new().max_message(MAXIMUM).reconnect(true));
        End::Gone.check(attack, "", client.call::<_, Vec<u8>>(ATTACK, &(attack, ""), BOUND));
        let path = server.path.clone();
        drop(server);
        server = Server::at(path).unwrap();
        echo(&client, 5000, attack);
        assert_eq!(client.counters().reconnects, 1, "{attack}");
    }
    attacks.len()
}

/// Runs alone in its process: it counts what that has open and how much memory it took.
#[test]
#[ignore = "a_server_that_breaks_every_rule runs it"]
fn attacked() {
    let Some(server) = Server::start("attacks") else { return };
    // The thread that watches sockets for windows stays, with its epoll.
    echo(&server.client(ClientConfig::new()), 0, "nothing yet");
    drop(server);
    let used = in_use();
    let Some(server) = Server::start("attacks") else { return };
    let clients = Attacked::each(&server);
    clients.iter().for_each(|attacked| echo(&attacked.client, 1 << 20, attacked.name));
    let memory = peak();
    let count = answers(&server, &clients) + requests_and_streams(&server, &clients) + handshakes(&server);
    let count = count + windows(&server) + deaths(server);
    drop(clients);
    let give_up = Instant::now() + PATIENCE;
    let is_more = |now: [usize; 2]| now[0] > used[0] || now[1] > used[1];
    while is_more(in_use()) && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!is_more(in_use()), "descriptors and threads: {:?}, {used:?} before", in_use());
    let grown = peak().saturating_sub(memory);
    assert!(grown < 64 << 20, "{grown} bytes more");
    println!("{count} attacks held; {} KiB more than before", grown / 1024);
}

#[test]
fn a_server_that_breaks_every_rule() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "hostile_server::attacked", "--ignored", "--nocapture"]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}{err}", output.status);
    println!("{}", out.lines().find(|line| line.contains("attacks held")).unwrap_or(&err));
}
