//! The mux without input and output: which frame is allowed when, and how much credit each side has. Here is what a program does; what a
//! peer sends is validated in `validate.rs`.
//!
//! The state of an id, for one side; an id that is not in the table is idle:
//!
//! ```text
//!            open()                ACCEPT
//!   idle ────────────▶ opening ─────────────▶ open ──── END sent and END received ───▶ idle
//!    │  ▲                 │ REFUSE            │  │
//!    │  └─────────────────┘                   │  └─── RESET received (answered unless END was sent) ───▶ idle
//!    │ OPEN               accept()            │
//!    └────▶ offered ──────────────────────────┘  reset() ─▶ resetting ── END or RESET received ───▶ idle
//!              │ refuse()                                    (at once if the peer's END had come)
//!              └──────────▶ idle
//! ```
//!
//! Why no frame of one use of an id is taken for another's: an id becomes idle for its opener only when it has sent its last word
//! (END or RESET) and received the peer's, so nothing of that use is under way towards it but CREDIT and RESET, which an idle or
//! opening id ignores; and everything it sent is in front of the next OPEN in the same stream. `explore.rs` walks through every
//! order of events between two of these.

use std::collections::{BTreeMap, BTreeSet};

use super::control::{Control, Reason};

/// What a data frame costs besides its length: it pays for the bookkeeping of an empty one.
pub(in crate::stream::mux) const FRAME_COST: u64 = 16;

/// The largest sum of unspent credit that a peer may grant for a channel.
pub(in crate::stream::mux) const MAX_CREDIT: u64 = 1 << 31;

/// Bytes of control frames that may wait for a peer that does not read; then it is cut off.
pub(in crate::stream::mux) const MAX_UNSENT_CONTROL: usize = 256 * 1024;

/// What a side announces and grants. Checked where it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::stream::mux) struct Terms {
    /// Whether this side opens odd ids.
    pub(in crate::stream::mux) initiator: bool,
    /// The largest data payload accepted, in bytes.
    pub(in crate::stream::mux) max_frame: u32,
    /// How many channels the peer may have open here.
    pub(in crate::stream::mux) max_channels: u16,
    /// The credit of a new channel.
    pub(in crate::stream::mux) credit: u32,
}

/// A use of an id: a late handle never reaches a new channel of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::stream::mux) struct Key {
    pub(in crate::stream::mux) id: u16,
    pub(in crate::stream::mux) generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::stream::mux) enum State {
    Opening { cancelled: Option<Reason> },
    Offered,
    Open { ended: bool, peer_ended: bool },
    Resetting,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::stream::mux) struct Channel {
    pub(in crate::stream::mux) generation: u64,
    pub(in crate::stream::mux) state: State,
    /// What we may still send.
    pub(in crate::stream::mux) credit: u64,
    /// What the peer may still send.
    pub(in crate::stream::mux) granted: u64,
    /// What the peer sent and nobody consumed.
    pub(in crate::stream::mux) held: u64,
    /// What was consumed and not granted again.
    pub(in crate::stream::mux) owed: u64,
}

/// What a received frame means for the program.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::stream::mux) enum Event<'a> {
    /// Nothing that a handle could notice.
    Nothing,
    /// The peer's HELLO: channels may be opened.
    Hello,
    /// The peer offers a channel.
    Offered(Key, &'a str),
    /// Our channel is open.
    Accepted(Key),
    /// Our channel was refused.
    Refused(Key, Reason),
    /// The frame's payload is for this channel.
    Data(Key),
    /// More may be sent.
    Credit(Key),
    /// The peer sends no more on this channel.
    Ended(Key),
    /// The channel failed.
    Reset(Key, Reason),
    /// The peer ends the mux.
    Goodbye(Reason, &'a str),
}

/// One side of a mux.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::stream::mux) struct StateTable {
    pub(in crate::stream::mux) terms: Terms,
    /// The peer's maximum data frame, once its HELLO came.
    pub(in crate::stream::mux) peer_max_frame: Option<u32>,
    pub(in crate::stream::mux) channels: BTreeMap<u16, Channel>,
    pub(in crate::stream::mux) generation: u64,
    /// Channels that the peer opened and that are not idle.
    pub(in crate::stream::mux) offered: u16,
    /// Unconsumed data of uses whose id is idle already.
    pub(in crate::stream::mux) lingering: u64,
    /// Encoded control frames to send.
    pub(in crate::stream::mux) outgoing: Vec<u8>,
    /// Channels that owe their peer credit worth sending.
    pub(in crate::stream::mux) crediting: BTreeSet<u16>,
}

impl StateTable {
    /// A side that has said HELLO.
    pub(in crate::stream::mux) fn new(terms: Terms) -> Self {
        let mut outgoing = Vec::new();
        Control::Hello { max_frame: terms.max_frame, max_channels: terms.max_channels }.encode(&mut outgoing);
        Self {
            terms,
            peer_max_frame: None,
            channels: BTreeMap::new(),
            generation: 0,
            offered: 0,
            lingering: 0,
            outgoing,
            crediting: BTreeSet::new(),
        }
    }

    /// The largest data payload that the peer accepts; `None` before its HELLO.
    pub(in crate::stream::mux) fn peer_max_frame(&self) -> Option<u32> {
        self.peer_max_frame
    }

    /// The state of a use, `None` once its id is idle.
    pub(in crate::stream::mux) fn state(&self, key: Key) -> Option<State> {
        self.channel(key).map(|channel| channel.state)
    }

    /// Moves all control frames that are due to `out`.
    pub(in crate::stream::mux) fn take_outgoing(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.outgoing);
        for id in std::mem::take(&mut self.crediting) {
            if let Some(channel) = self.channels.get_mut(&id) {
                // Consumed bytes were granted before, so this fits 32 bits.
                let add = std::mem::take(&mut channel.owed);
                channel.granted += add;
                Control::Credit { id, add: add as u32 }.encode(out);
            }
        }
    }

    /// Whether control frames are due.
    pub(in crate::stream::mux) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty() || !self.crediting.is_empty()
    }

    /// Bytes of control frames that are due, without credit, which is bounded by itself.
    pub(in crate::stream::mux) fn outgoing_bytes(&self) -> usize {
        self.outgoing.len()
    }

    /// Opens the lowest idle id of our parity; `None`: all are in use.
    pub(in crate::stream::mux) fn open(&mut self, name: &str) -> Option<Key> {
        let first = if self.terms.initiator { 1 } else { 2 };
        let id = (first..=u16::MAX).step_by(2).find(|id| !self.channels.contains_key(id))?;
        let credit = self.terms.credit;
        Control::Open { id, credit, name }.encode(&mut self.outgoing);
        Some(self.insert(id, State::Opening { cancelled: None }, 0))
    }

    /// Accepts an offered channel. `false`: it is gone.
    pub(in crate::stream::mux) fn accept(&mut self, key: Key) -> bool {
        let credit = self.terms.credit;
        let Some(channel) = self.channel_mut(key).filter(|channel| channel.state == State::Offered) else {
            return false;
        };
        channel.state = State::Open { ended: false, peer_ended: false };
        Control::Accept { id: key.id, credit }.encode(&mut self.outgoing);
        true
    }

    /// Refuses an offered channel.
    pub(in crate::stream::mux) fn refuse(&mut self, key: Key, reason: Reason) {
        if self.state(key) == Some(State::Offered) {
            Control::Refuse { id: key.id, reason }.encode(&mut self.outgoing);
            self.remove(key.id);
        }
    }

    /// What a data frame on this channel may cost now; `None`: nothing may be sent on it any more.
    pub(in crate::stream::mux) fn credit(&self, key: Key) -> Option<u64> {
        let channel = self.channel(key)?;
        matches!(channel.state, State::Open { ended: false, .. }).then_some(channel.credit)
    }

    /// Pays for a data frame of `length` bytes, which the caller sends after [`take_outgoing`](Self::take_outgoing) and before any
    /// later control frame. `false`: it may not be sent.
    pub(in crate::stream::mux) fn spend(&mut self, key: Key, length: usize) -> bool {
        let cost = FRAME_COST + length as u64;
        if self.peer_max_frame.is_none_or(|max| length as u64 > u64::from(max))
            || self.credit(key).is_none_or(|credit| credit < cost)
        {
            return false;
        }
        self.channel_mut(key).map(|channel| channel.credit -= cost).is_some()
    }

    /// A frame of `length` bytes of this use was consumed or thrown away.
    pub(in crate::stream::mux) fn consume(&mut self, key: Key, length: usize) {
        let cost = FRAME_COST + length as u64;
        let (enough, half) = (u64::from(self.terms.max_frame) + FRAME_COST, u64::from(self.terms.credit) / 2);
        let Some(channel) = self.channel_mut(key) else {
            self.lingering -= cost;
            return;
        };
        channel.held -= cost;
        if !matches!(channel.state, State::Open { peer_ended: false, .. }) {
            return;
        }
        channel.owed += cost;
        if channel.owed >= half.max(1) || (channel.held == 0 && channel.granted < enough) {
            self.crediting.insert(key.id);
        }
    }

    /// Ends our direction.
    pub(in crate::stream::mux) fn end(&mut self, key: Key) {
        let Some(channel) = self.channel_mut(key) else { return };
        let State::Open { ended: ended @ false, peer_ended } = &mut channel.state else { return };
        *ended = true;
        let idle = *peer_ended;
        Control::End { id: key.id }.encode(&mut self.outgoing);
        if idle {
            self.remove(key.id);
        }
    }

    /// Gives the channel up, whatever its state is.
    pub(in crate::stream::mux) fn reset(&mut self, key: Key, reason: Reason) {
        let Some(channel) = self.channel_mut(key) else { return };
        match channel.state {
            State::Opening { cancelled: None } => channel.state = State::Opening { cancelled: Some(reason) },
            State::Opening { .. } | State::Resetting => {}
            State::Offered => self.refuse(key, reason),
            State::Open { peer_ended, .. } => {
                channel.state = State::Resetting;
                self.crediting.remove(&key.id);
                Control::Reset { id: key.id, reason }.encode(&mut self.outgoing);
                if peer_ended {
                    self.remove(key.id);
                }
            }
        }
    }

    pub(in crate::stream::mux) fn insert(&mut self, id: u16, state: State, credit: u64) -> Key {
        self.generation += 1;
        let (generation, granted) = (self.generation, u64::from(self.terms.credit));
        self.channels.insert(id, Channel { generation, state, credit, granted, held: 0, owed: 0 });
        Key { id, generation }
    }

    /// The id becomes idle.
    pub(in crate::stream::mux) fn remove(&mut self, id: u16) {
        self.crediting.remove(&id);
        if let Some(channel) = self.channels.remove(&id) {
            self.lingering += channel.held;
            if (id % 2 == 1) != self.terms.initiator {
                self.offered -= 1;
            }
        }
    }

    /// State, credit, granted and held of an id, for the exploration.
    #[cfg(test)]
    pub(in crate::stream::mux) fn id_state(&self, id: u16) -> Option<(State, u64, u64, u64)> {
        self.channels.get(&id).map(|channel| (channel.state, channel.credit, channel.granted, channel.held))
    }

    fn channel(&self, key: Key) -> Option<&Channel> {
        self.channels.get(&key.id).filter(|channel| channel.generation == key.generation)
    }

    fn channel_mut(&mut self, key: Key) -> Option<&mut Channel> {
        self.channels.get_mut(&key.id).filter(|channel| channel.generation == key.generation)
    }
}
