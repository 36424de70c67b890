//! Checking a channel out for a call when the thread's preferred one is not there.

use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::failure::Failure;
use super::lack::{Lack, Patience};
use super::open;
use super::pool::{Found, Slot};
use super::quarantine;
use super::register::Registered;
use super::shared::Shared;
use super::windows;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::rpc::message::number::OPEN;
use crate::rpc::{CallError, trace};

/// A channel that one call has for itself.
pub(super) enum Checkout<'a> {
    /// In its slot of the pool.
    Slot(Slot<'a>),
    /// Out of the pool: the base connection of the base protocol.
    Own(Box<Channel>),
}

impl Checkout<'_> {
    pub(super) fn channel(&mut self) -> Option<&mut Channel> {
        match self {
            Self::Slot(slot) => slot.as_deref_mut(),
            Self::Own(channel) => Some(channel),
        }
    }

    /// The channel, out of its slot.
    pub(super) fn into_channel(self) -> Option<Box<Channel>> {
        match self {
            Self::Slot(mut slot) => slot.take(),
            Self::Own(channel) => Some(channel),
        }
    }
}

/// How long a call spends at most on replacing a channel that works, but has no window.
const REPLACE: Duration = Duration::from_millis(100);

impl Shared {
    /// Finds an idle channel, opens one, or waits for one. The deadline is absolute.
    ///
    /// # Errors
    /// The call was not sent.
    pub(super) fn check_out(self: &Arc<Self>, mut deadline: Deadline) -> Result<Checkout<'_>, CallError> {
        let until = deadline.resolve();
        let mut waiting: Option<(_, Patience)> = None;
        loop {
            self.register.check()?;
            let lack = match self.pool.find() {
                Found::Idle(mut slot) => {
                    self.replace_stopgap(&mut slot, deadline);
                    return Ok(Checkout::Slot(slot));
                }
                Found::Empty(slot) => match (self.grow(slot, deadline), &waiting) {
                    (Ok(Ok(checkout)), _) => return Ok(checkout),
                    (Ok(Err(lack)), _) => lack,
                    // It is what lacked before that took the time.
                    (Err(error), Some((_, patience))) if error.is_timeout() => {
                        return Err(patience.over().unwrap_or(error));
                    }
                    (Err(error), _) => return Err(error),
                },
                Found::Busy => Lack::Channels,
            };
            // The first wait is for what was released before anybody waited: it is short.
            let (waiter, patience) =
                waiting.get_or_insert_with(|| (self.pool.waiter(), Patience::until(until, self.register.limit())));
            patience.check(lack)?;
            if waiter.wait(patience.end()) {
                patience.moved();
            }
        }
    }

    /// Opens a channel in an empty slot, if that can be had now.
    fn grow<'a>(
        self: &'a Arc<Self>,
        mut slot: Slot<'a>,
        deadline: Deadline,
    ) -> Result<Result<Checkout<'a>, Lack>, CallError> {
        let Some(session) = self.session(deadline)? else { return Ok(Err(Lack::Opening)) };
        if !session.agreement.is_version1() {
            return Ok(Channel::of_base(&session).map(Checkout::Own).ok_or(Lack::Base));
        }
        if let Some(lack) = self.lacks.now() {
            return Ok(Err(lack));
        }
        let Some(registered) = self.register.channel() else { return Ok(Err(Lack::Channels)) };
        let Some(mut base) = Channel::of_base(&session) else { return Ok(Err(Lack::Opening)) };
        let lack = match self.open(&mut base, registered, deadline) {
            Ok(channel) => {
                self.lacks.clear();
                self.give_back(base);
                *slot = Some(channel);
                return Ok(Ok(Checkout::Slot(slot)));
            }
            Err(Failure::Call(CallError::Status(status))) if open::is_full(&status) => Lack::Server(status),
            Err(Failure::Call(CallError::Failed(error))) if windows::is_lack(&error) => Lack::Own(error),
            Err(failure) => return Err(self.not_opened(base, failure)),
        };
        drop(slot);
        self.lacks.note(&lack);
        self.give_back(base);
        Ok(Err(lack))
    }

    /// Opens a channel: with a window, or without one where none can be had.
    fn open(&self, base: &mut Channel, registered: Registered, deadline: Deadline) -> Result<Box<Channel>, Failure> {
        let windows = &Arc::clone(&base.session).windows;
        let (mut is_stopgap, mut missed) = (false, None);
        if self.config.window > 0 && windows.may_come() {
            match open::open(base, self.config.window, &self.config, &registered, deadline) {
                Ok(channel) => {
                    let channel = self.opened(channel, registered);
                    if channel.has_window() {
                        windows.came();
                    } else {
                        // An honest server that lacks something refuses; this one knows no windows.
                        windows.never_come();
                        trace::fell_back(&Error::new(ErrorKind::Unsupported, "the server gives no windows"));
                    }
                    return Ok(channel);
                }
                Err(Failure::Call(CallError::Failed(error))) if error.kind() != ErrorKind::Timeout => {
                    self.register.check().map_err(Failure::Lost)?;
                    match windows::is_lasting(&error) {
                        true => windows.never_come(),
                        false => is_stopgap = true,
                    }
                    missed = Some(error);
                }
                // The server may have enough for a channel, and not for a window.
                Err(Failure::Call(CallError::Status(status))) if open::is_full(&status) && self.lacks.is_lasting() => {
                    is_stopgap = true;
                    missed = Some(Error::caused(ErrorKind::NoResource, "the server has no room for a window", status));
                }
                Err(failure) => return Err(failure),
            }
        }
        let channel = open::open(base, 0, &self.config, &registered, deadline)?;
        // Told once it is so: where not even a socket can be had, this is tried again.
        missed.iter().for_each(trace::fell_back);
        let mut channel = self.opened(channel, registered);
        channel.stopgap_until = is_stopgap.then(|| windows.missed()).flatten();
        Ok(channel)
    }

    /// What a call brings for which no channel was opened, and what that means for the base connection.
    #[cold]
    fn not_opened(self: &Arc<Self>, base: Box<Channel>, failure: Failure) -> CallError {
        match failure {
            Failure::Call(error) => {
                self.give_back(base);
                error
            }
            Failure::Unsent(error) | Failure::Lost(error) => {
                base.session.end();
                error.into()
            }
            Failure::TimedOut => {
                quarantine::set_aside(self, base, OPEN, quarantine::BASE_PATIENCE);
                Error::new(ErrorKind::Timeout, "no channel was opened by the deadline").into()
            }
        }
    }

    /// Puts a channel with a window in the place of one that has none by bad luck, once it is time to try. The call goes on with what is there
    /// then.
    fn replace_stopgap(self: &Arc<Self>, slot: &mut Slot<'_>, deadline: Deadline) {
        let Some(channel) = slot.as_deref_mut().filter(|channel| channel.is_stopgap_over()) else { return };
        let session = Arc::clone(&channel.session);
        if !session.windows.may_come() {
            channel.stopgap_until = None;
            return;
        }
        channel.stopgap_until = session.windows.missed();
        let Some(mut base) = Channel::of_base(&session) else { return };
        let registered = self.register.uncounted();
        let limit = deadline.left().map_or(REPLACE, |left| REPLACE.min(left / 2));
        match open::open(&mut base, self.config.window, &self.config, &registered, Deadline::after(limit)) {
            Ok(fresh) if fresh.has_window() => {
                let mut fresh = self.opened(fresh, registered);
                if let (Some(new), Some(old)) = (&mut fresh.registered, &mut channel.registered) {
                    new.replace(old);
                }
                session.windows.came();
                **slot = Some(fresh);
            }
            Err(Failure::Call(CallError::Failed(error))) if windows::is_lasting(&error) => {
                session.windows.never_come();
                channel.stopgap_until = None;
            }
            Ok(_) | Err(Failure::Call(_)) => {}
            Err(failure) => return drop(self.not_opened(base, failure)),
        }
        self.give_back(base);
    }

    /// Returns a channel that is in order.
    pub(super) fn return_channel(&self, checkout: Checkout<'_>) {
        match checkout {
            Checkout::Own(channel) => self.give_back(channel),
            Checkout::Slot(slot) => {
                drop(slot);
                self.pool.released();
            }
        }
    }

    /// Drops a channel that is over.
    pub(super) fn discard(&self, checkout: Checkout<'_>, error: &Error) {
        trace::poisoned(error);
        if let Some(channel) = checkout.into_channel() {
            channel.shut_down();
        }
        self.pool.released();
    }
}
