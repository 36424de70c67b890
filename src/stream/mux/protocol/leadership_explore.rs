//! Two programs, the reader thread and a peer, every order of steps: no byte stays unread, and no program that waits needs luck.
//!
//! Every step is what a thread does under the lock of the mux, or a sleep that ends. What must hold in every node:
//!
//! - the reader thread sleeps without an end only beside a program that is the leader;
//! - a byte in the socket is read whatever programs do next, even if they compute for ever: followed by nothing but what the kernel and
//!   the threads that already wait or run must do, every path empties the socket;
//! - and a follower is woken by a message for it without more than a short lease running out.

use std::collections::{HashMap, HashSet};

use super::leadership::{Leadership, ReaderSleep};

/// Messages that the peer sends in all, and at most at a time.
const MESSAGES: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Program {
    /// Computes, and holds nothing of the mux.
    Away,
    Leader,
    /// A leader that wakes a follower, for which it gives back the lock.
    Wakes,
    Follower,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reader {
    Awake,
    Asleep(ReaderSleep),
    /// The socket woke it, it is not the leader yet.
    Woken,
    Reads,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    leadership: Leadership<()>,
    reader: Reader,
    /// The eventfd by which the reader thread is called.
    called: bool,
    programs: [Program; 2],
    /// Whether the signal of each program was notified while it was a follower.
    notified: [bool; 2],
    /// Messages that were delivered and not taken.
    mail: [u8; 2],
    /// For whom the messages in the socket are.
    socket: Vec<usize>,
    sent: u8,
}

impl Node {
    fn first() -> Self {
        Self {
            leadership: Leadership::new(()),
            reader: Reader::Awake,
            called: false,
            programs: [Program::Away; 2],
            notified: [false; 2],
            mail: [0; 2],
            socket: Vec::new(),
            sent: 0,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    /// The leader reads one message and delivers it; for whom it was.
    fn read(&mut self) -> usize {
        let to = self.socket.remove(0);
        self.mail[to] += 1;
        self.notified[to] = self.programs[to] == Program::Follower;
        to
    }

    /// What programs and the peer may do, and need not.
    fn choices(&self) -> Vec<Self> {
        let mut next = Vec::new();
        for index in 0..2 {
            if self.sent < MESSAGES {
                next.push(self.with(|node| {
                    node.socket.push(index);
                    node.sent += 1;
                }));
            }
            if self.programs[index] == Program::Wakes {
                continue;
            }
            next.push(self.with(|node| match node.programs[index] {
                Program::Away if node.mail[index] > 0 => node.mail[index] -= 1,
                Program::Away if node.leadership.become_leader().is_some() => node.programs[index] = Program::Leader,
                Program::Away => {
                    node.leadership.add_follower();
                    node.programs[index] = Program::Follower;
                }
                // A deadline.
                _ => node.leave(index),
            }));
        }
        next
    }

    /// The program no longer waits.
    fn leave(&mut self, index: usize) {
        match self.programs[index] {
            Program::Leader => self.called |= self.leadership.step_down(()),
            Program::Follower => self.leadership.remove_follower(),
            Program::Away | Program::Wakes => {}
        }
        self.programs[index] = Program::Away;
        self.notified[index] = false;
    }

    /// What happens if nobody chooses anything. A lease that is not short runs out only if `patient`.
    fn duties(&self, patient: bool) -> Vec<Self> {
        let mut next = Vec::new();
        for index in 0..2 {
            if self.programs[index] == Program::Leader && !self.socket.is_empty() {
                next.push(self.with(|node| {
                    let to = node.read();
                    if to == index {
                        node.leave(index);
                    } else if node.notified[to] {
                        node.programs[index] = Program::Wakes;
                    }
                }));
            }
            if self.programs[index] == Program::Wakes {
                next.push(self.with(|node| {
                    node.called |= node.leadership.step_down_to_follower(());
                    node.programs[index] = Program::Follower;
                }));
            }
            if self.programs[index] == Program::Follower && self.notified[index] {
                next.push(self.with(|node| node.leave(index)));
            }
        }
        match self.reader {
            Reader::Awake => next.push(self.with(|node| node.reader = Reader::Asleep(node.leadership.next_sleep()))),
            Reader::Asleep(sleep) => {
                if self.called || sleep == ReaderSleep::ShortLease || (sleep == ReaderSleep::Lease && patient) {
                    next.push(self.with(|node| {
                        node.called = false;
                        node.reader = Reader::Awake;
                    }));
                }
                if sleep == ReaderSleep::OnSocket && !self.socket.is_empty() {
                    next.push(self.with(|node| node.reader = Reader::Woken));
                }
            }
            Reader::Woken => next.push(self.with(|node| {
                let is_leader = node.leadership.take_over().is_some();
                node.reader = if is_leader { Reader::Reads } else { Reader::Awake };
            })),
            Reader::Reads => next.push(self.with(|node| {
                if !node.socket.is_empty() {
                    node.read();
                }
                node.leadership.return_from_reading(());
                node.reader = Reader::Awake;
            })),
        }
        next
    }
}

/// What must come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Goal {
    /// Everything is read, if only when a lease has run out.
    AllRead,
    /// This program is woken if there is a message for it, without more than a short lease running out.
    Served(usize),
}

impl Goal {
    fn is_reached(self, node: &Node) -> bool {
        match self {
            Self::AllRead => node.socket.is_empty(),
            Self::Served(index) => {
                node.programs[index] != Program::Follower || node.notified[index] || !node.socket.contains(&index)
            }
        }
    }
}

/// Whether `goal` is reached on every path of duties: no path ends before, and none goes round in a circle.
fn leads_to(goal: Goal, node: &Node, known: &mut HashMap<(Node, Goal), Option<bool>>) -> bool {
    if goal.is_reached(node) {
        return true;
    }
    let key = (node.clone(), goal);
    match known.get(&key) {
        Some(Some(verdict)) => return *verdict,
        // A circle.
        Some(None) => return false,
        None => {}
    }
    known.insert(key.clone(), None);
    let next = node.duties(goal == Goal::AllRead);
    let verdict = !next.is_empty() && next.iter().all(|next| leads_to(goal, next, known));
    known.insert(key, Some(verdict));
    verdict
}

#[test]
fn every_order_of_steps_gets_every_message_read() {
    let mut seen = HashSet::new();
    let mut known = HashMap::new();
    let mut open = vec![Node::first()];
    while let Some(node) = open.pop() {
        if !seen.insert(node.clone()) {
            continue;
        }
        let has_leader = node.programs.iter().any(|program| matches!(program, Program::Leader | Program::Wakes));
        assert!(!(has_leader && node.reader == Reader::Reads), "two read: {node:?}");
        if node.reader == Reader::Asleep(ReaderSleep::UntilCalled) {
            assert!(has_leader || node.called, "asleep for good: {node:?}");
        }
        for goal in [Goal::AllRead, Goal::Served(0), Goal::Served(1)] {
            assert!(leads_to(goal, &node, &mut known), "{goal:?} is not reached from {node:?}");
        }
        open.extend(node.choices());
        open.extend(node.duties(true));
    }
    assert!(seen.len() > 1000, "{}", seen.len());
}
