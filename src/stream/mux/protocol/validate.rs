//! The state table: what each frame of the peer means, or that it is a violation.
//!
//! | received for an id that is … | idle | opening | offered | open | resetting |
//! |---|---|---|---|---|---|
//! | OPEN | offered | violation | violation | violation | violation |
//! | ACCEPT · REFUSE | violation | open · idle | violation | violation | violation |
//! | data | violation | violation | violation | deliver | dropped |
//! | CREDIT | ignored | ignored | ignored | add | dropped |
//! | END | violation | violation | violation | peer ended | idle |
//! | RESET | ignored | ignored | violation | handle fails, idle | idle |

use super::control::{Control, MAX_CONTROL, Reason};
use super::state::{Channel, Event, FRAME_COST, Key, MAX_CREDIT, State, StateTable};
use crate::stream::frame::violation::{FrameViolation, MuxViolation};

impl StateTable {
    /// Validates a frame of the peer.
    pub(in crate::stream::mux) fn receive<'a>(
        &mut self,
        tag: u16,
        payload: &'a [u8],
    ) -> Result<Event<'a>, FrameViolation> {
        if tag == 0 {
            return Ok(self.receive_control(payload)?);
        }
        if self.peer_max_frame.is_none() {
            return Err(MuxViolation::NoHello.into());
        }
        let length = payload.len() as u32;
        if length > self.terms.max_frame {
            return Err(FrameViolation::TooLong { announced: length, maximum: self.terms.max_frame });
        }
        Ok(self.receive_data(tag, length)?)
    }

    fn receive_data(&mut self, id: u16, length: u32) -> Result<Event<'static>, MuxViolation> {
        let forbidden = Err(MuxViolation::Forbidden { id, operation: None });
        let Some(channel) = self.channels.get_mut(&id) else { return forbidden };
        match channel.state {
            State::Resetting => Ok(Event::Nothing),
            State::Open { peer_ended: false, .. } => {
                let cost = FRAME_COST + u64::from(length);
                channel.granted = channel.granted.checked_sub(cost).ok_or(MuxViolation::OverCredit(id))?;
                channel.held += cost;
                Ok(Event::Data(Key { id, generation: channel.generation }))
            }
            _ => forbidden,
        }
    }

    fn receive_control<'a>(&mut self, payload: &'a [u8]) -> Result<Event<'a>, MuxViolation> {
        if payload.len() > MAX_CONTROL {
            return Err(MuxViolation::Malformed);
        }
        let control = Control::decode(payload);
        let Some(peer_max_frame) = self.peer_max_frame else {
            let Control::Hello { max_frame, .. } = control? else { return Err(MuxViolation::NoHello) };
            self.peer_max_frame = Some(max_frame);
            return Ok(Event::Hello);
        };
        let least = u64::from(peer_max_frame) + FRAME_COST;
        let first_credit = |id, credit| match u64::from(credit) {
            credit if (least..=MAX_CREDIT).contains(&credit) => Ok(credit),
            _ => Err(MuxViolation::BadCredit(id)),
        };
        match control? {
            Control::Hello { .. } => Err(MuxViolation::SecondHello),
            Control::Open { id, credit, name } => {
                let credit = first_credit(id, credit)?;
                Ok(self.offered(id, credit)?.map_or(Event::Nothing, |key| Event::Offered(key, name)))
            }
            Control::Accept { id, credit } => {
                let credit = first_credit(id, credit)?;
                self.accepted(id, credit)
            }
            Control::Refuse { id, reason } => self.refused(id, reason),
            Control::Credit { id, add } => self.credited(id, add),
            Control::End { id } => self.peer_ended(id),
            Control::Reset { id, reason } => self.peer_reset(id, reason),
            Control::Goodbye { reason, text } => Ok(Event::Goodbye(reason, text)),
        }
    }

    fn offered(&mut self, id: u16, credit: u64) -> Result<Option<Key>, MuxViolation> {
        if self.channels.contains_key(&id) {
            return Err(MuxViolation::Forbidden { id, operation: Some(1) });
        }
        if id == 0 || (id % 2 == 1) == self.terms.initiator {
            return Err(MuxViolation::WrongParity(id));
        }
        let budget = u64::from(self.terms.max_channels) * u64::from(self.terms.credit);
        if self.offered >= self.terms.max_channels || self.lingering > budget {
            Control::Refuse { id, reason: Reason::TOO_MANY }.encode(&mut self.outgoing);
            return Ok(None);
        }
        self.offered += 1;
        Ok(Some(self.insert(id, State::Offered, credit)))
    }

    fn accepted(&mut self, id: u16, credit: u64) -> Result<Event<'static>, MuxViolation> {
        let forbidden = MuxViolation::Forbidden { id, operation: Some(2) };
        let channel = self.channels.get_mut(&id).ok_or(forbidden)?;
        let State::Opening { cancelled } = channel.state else { return Err(forbidden) };
        channel.state = State::Open { ended: false, peer_ended: false };
        channel.credit = credit;
        let key = Key { id, generation: channel.generation };
        let Some(reason) = cancelled else { return Ok(Event::Accepted(key)) };
        self.reset(key, reason);
        Ok(Event::Nothing)
    }

    fn refused(&mut self, id: u16, reason: Reason) -> Result<Event<'static>, MuxViolation> {
        match self.channels.get(&id) {
            Some(&Channel { state: State::Opening { .. }, generation, .. }) => {
                self.remove(id);
                Ok(Event::Refused(Key { id, generation }, reason))
            }
            _ => Err(MuxViolation::Forbidden { id, operation: Some(3) }),
        }
    }

    fn credited(&mut self, id: u16, add: u32) -> Result<Event<'static>, MuxViolation> {
        if add == 0 {
            return Err(MuxViolation::BadCredit(id));
        }
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(Event::Nothing) };
        if !matches!(channel.state, State::Open { .. }) {
            return Ok(Event::Nothing);
        }
        channel.credit += u64::from(add);
        if channel.credit > MAX_CREDIT {
            return Err(MuxViolation::BadCredit(id));
        }
        Ok(Event::Credit(Key { id, generation: channel.generation }))
    }

    fn peer_ended(&mut self, id: u16) -> Result<Event<'static>, MuxViolation> {
        let forbidden = MuxViolation::Forbidden { id, operation: Some(5) };
        let channel = self.channels.get_mut(&id).ok_or(forbidden)?;
        let key = Key { id, generation: channel.generation };
        match &mut channel.state {
            State::Resetting => {
                self.remove(id);
                Ok(Event::Nothing)
            }
            State::Open { ended, peer_ended: peer_ended @ false } => {
                *peer_ended = true;
                let idle = *ended;
                self.crediting.remove(&id);
                if idle {
                    self.remove(id);
                }
                Ok(Event::Ended(key))
            }
            _ => Err(forbidden),
        }
    }

    fn peer_reset(&mut self, id: u16, reason: Reason) -> Result<Event<'static>, MuxViolation> {
        let Some(channel) = self.channels.get(&id) else { return Ok(Event::Nothing) };
        let key = Key { id, generation: channel.generation };
        match channel.state {
            State::Opening { .. } => Ok(Event::Nothing),
            State::Offered => Err(MuxViolation::Forbidden { id, operation: Some(6) }),
            State::Resetting => {
                self.remove(id);
                Ok(Event::Nothing)
            }
            State::Open { ended, .. } => {
                if !ended {
                    Control::Reset { id, reason }.encode(&mut self.outgoing);
                }
                self.remove(id);
                Ok(Event::Reset(key, reason))
            }
        }
    }
}
