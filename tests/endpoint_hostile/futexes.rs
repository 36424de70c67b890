//! Row 6: the peer plays tricks on the futex that our side sleeps on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::endpoint::{Connector, Endpoint, Options, WaitPolicy};

use crate::attacker::account::thread_cpu_time;
use crate::attacker::raw::{RawWindow, STATE, futex_lock_pi, futex_requeue, futex_wait, futex_wake};
use crate::attacker::{AGES, Peer, Role, Stage, alone, arena, full, median, next_window, promised, promised_share};

pub const ROLES: &[Role] = &[("attacks the futex", attacks_the_futex)];

const ATTACKS: [&str; 5] = ["silence", "requeue", "pi-lock", "crowd", "storm"];
/// What a shutdown may take, and a deadline be overshot by, under any attack.
const PROMPT: Duration = Duration::from_millis(10);
/// Threads of the crowd.
const CROWD: usize = 1000;
/// A word in the datagram, which our side never sleeps on.
const ELSEWHERE: usize = 64;
/// Threads that wake in a storm.
const WAKERS: usize = 2;

/// Set while an attack goes on, and what it counts.
#[derive(Default)]
struct Attack {
    over: AtomicBool,
    wakes: AtomicU64,
}

impl Attack {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }
}

/// Messages `WINDOW ATTACK`: shakes hands, says `attacking` once the attack is in place, and never answers a call. It ends when told,
/// with the number of wakes.
fn attacks_the_futex(stage: Stage) {
    while let Some((order, _)) = stage.control.listen() {
        let (index, name) = order.split_once(' ').expect("two fields");
        let window = stage.window(index.parse().expect("a number"));
        let attack = Attack::default();
        window.shake_hands_as_server();
        stage.control.expect("connected");
        std::thread::scope(|scope| {
            match name {
                "silence" => {}
                "requeue" => requeue(&window, &attack, scope),
                "pi-lock" => lock(&window),
                "crowd" => crowd(&window, &attack, scope),
                "storm" => storm(&window, &attack, scope),
                other => panic!("no attack is called {other}"),
            }
            stage.control.say("attacking");
            stage.control.expect("stop");
            attack.over.store(true, Ordering::Relaxed);
            let _ = futex_wake(window.word(STATE), i32::MAX as u32);
            stage.control.say(&attack.wakes.load(Ordering::Relaxed).to_string());
        });
    }
}

/// Moves the threads that sleep on the state word to another one, where no wake goes.
fn requeue<'a>(window: &'a RawWindow, attack: &'a Attack, scope: &'a Scope<'a, '_>) {
    scope.spawn(|| {
        while attack.goes_on() {
            futex_requeue(window.word(STATE), window.word(ELSEWHERE)).expect("FUTEX_REQUEUE");
            std::thread::sleep(Duration::from_micros(100));
        }
    });
}

/// Queues a thread for the state word as if it were a lock with priority inheritance: FUTEX_WAKE fails with EINVAL from then on. The
/// client holds control meanwhile, and does not look at the word.
fn lock(window: &RawWindow) {
    const OWNED_AND_WAITED_FOR: u32 = 1 << 31;
    // Two threads that outlive the scope: one owns the lock, one waits for it until this process ends.
    let word = window.leaked_word(STATE);
    std::thread::spawn(|| {
        futex_lock_pi(word).expect("nobody holds it");
        std::thread::park();
    });
    while word.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    std::thread::spawn(|| futex_lock_pi(word));
    while word.load(Ordering::Relaxed) & OWNED_AND_WAITED_FOR == 0 {
        std::thread::yield_now();
    }
    // The kernel says WAITERS a moment before the thread is in the queue.
    while futex_wake(word, 1).is_ok() {
        std::thread::yield_now();
    }
    word.store(0, Ordering::Release);
}

/// A thousand threads queue on the state word before our side does, and again whenever they are woken.
fn crowd<'a>(window: &'a RawWindow, attack: &'a Attack, scope: &'a Scope<'a, '_>) {
    let word = window.word(STATE);
    for _ in 0..CROWD {
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        let waits = || {
            while attack.goes_on() && word.load(Ordering::Relaxed) != 2 {
                let _ = futex_wait(word, word.load(Ordering::Relaxed), Duration::from_secs(60));
            }
        };
        thread.spawn_scoped(scope, waits).expect("a thread");
    }
    std::thread::sleep(Duration::from_millis(20));
}

/// Wakes our side as fast as it can.
fn storm<'a>(window: &'a RawWindow, attack: &'a Attack, scope: &'a Scope<'a, '_>) {
    for _ in 0..WAKERS {
        scope.spawn(|| {
            while attack.goes_on() {
                let _ = futex_wake(window.word(STATE), 1);
                attack.wakes.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Connects and lets the attack begin.
fn attacked(peer: &Peer, index: u32, attack: &str, client: Connector) -> Endpoint {
    peer.control.say(&format!("{index} {attack}"));
    let endpoint = client.connect(AGES).expect("the handshake is honest");
    peer.control.say("connected");
    peer.control.expect("attacking");
    endpoint
}

#[test]
fn a_shutdown_returns_at_once_under_every_attack() {
    let _alone = alone();
    let rounds = if full() { 100 } else { 7 };
    for attack in ATTACKS {
        let arena = arena(rounds);
        let peer = Peer::start("attacks the futex", "", &[arena.fd()]);
        let (mut shutdowns, mut returns, mut failed_wakes) = (Vec::new(), Vec::new(), 0);
        for index in 0..rounds {
            let policy = if index % 2 == 0 { WaitPolicy::Park } else { WaitPolicy::Adaptive };
            let client = Connector::new(next_window(&arena), Options::new().policy(policy)).unwrap();
            let mut endpoint = attacked(&peer, index, attack, client);
            let handle = endpoint.shutdown_handle();
            let caller = std::thread::spawn(move || (endpoint.send_recv(0, AGES).unwrap_err().kind(), Instant::now()));
            std::thread::sleep(Duration::from_millis(15));
            let start = Instant::now();
            handle.shut_down();
            shutdowns.push(start.elapsed());
            let (kind, returned) = caller.join().unwrap();
            assert_eq!(kind, ErrorKind::LocalShutdown, "{attack}");
            returns.push(returned.duration_since(start));
            failed_wakes += handle.counters().wakes_failed;
            peer.control.ask("stop");
        }
        let (shutdown, returned) = (median(&mut shutdowns), median(&mut returns));
        promised(&format!("{attack}: shutdown"), shutdown, PROMPT);
        promised(&format!("{attack}: the blocked call returns after"), returned, PROMPT);
        assert!(*returns.last().unwrap() < AGES / 2, "{attack}: {returns:?}");
        // The flip's wake and the shutdown's fail where a lock was put on the word: counted, and no error.
        let expected = if attack == "pi-lock" { u64::from(rounds) * 2 } else { 0 };
        assert_eq!(failed_wakes, expected, "{attack}");
    }
}

#[test]
fn a_deadline_holds_under_every_attack() {
    const DEADLINE: Duration = Duration::from_millis(100);
    let _alone = alone();
    let rounds = if full() { 50 } else { 5 };
    for attack in ATTACKS {
        let arena = arena(rounds);
        let peer = Peer::start("attacks the futex", "", &[arena.fd()]);
        let mut late = Vec::new();
        for index in 0..rounds {
            let client = Connector::new(next_window(&arena), Options::new()).unwrap();
            let mut endpoint = attacked(&peer, index, attack, client);
            let start = Instant::now();
            assert_eq!(endpoint.send_recv(0, DEADLINE).unwrap_err().kind(), ErrorKind::Timeout, "{attack}");
            late.push(start.elapsed().checked_sub(DEADLINE).expect("not before the deadline"));
            peer.control.ask("stop");
        }
        let late = median(&mut late);
        promised(&format!("{attack}: past the deadline"), late, PROMPT);
    }
}

#[test]
fn a_wake_storm_costs_little_of_a_core() {
    let _alone = alone();
    let length = Duration::from_secs(if full() { 5 } else { 2 });
    let arena = arena(2);
    let peer = Peer::start("attacks the futex", "", &[arena.fd()]);
    for (index, policy) in [(0, WaitPolicy::Park), (1, WaitPolicy::Adaptive)] {
        let client = Connector::new(next_window(&arena), Options::new().policy(policy)).unwrap();
        let mut endpoint = attacked(&peer, index, "storm", client);
        let (start, used) = (Instant::now(), thread_cpu_time());
        assert_eq!(endpoint.send_recv(0, length).unwrap_err().kind(), ErrorKind::Timeout);
        let (share, took) = ((thread_cpu_time() - used).as_secs_f64() / length.as_secs_f64(), start.elapsed());
        let wakes: f64 = peer.control.ask("stop").parse().expect("a number");
        let rate = wakes / took.as_secs_f64();
        assert!(rate > 100_000.0, "only {rate:.0} wakes a second: no storm");
        promised_share(&format!("storm of {rate:.0} wakes/s, {policy:?}: CPU"), share, 0.05);
    }
}
