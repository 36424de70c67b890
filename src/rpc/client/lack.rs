//! Why there is no channel for a call, and how long the call waits for one.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::rpc::{CallError, Status, nesting};
use crate::sys::lock::lock;

/// How long a call from inside a handler waits while no channel gets free. It may wait for itself: a chain of calls that nest deeper than
/// there are channels stands still for ever.
const NESTED: Duration = Duration::from_secs(1);

/// How long a call without a deadline waits while no channel gets free.
const ENDLESS: Duration = Duration::from_secs(30);

/// How long a client pauses before it asks again for a channel that it could not have: at first, what is on its way out may only have to be
/// closed.
const PAUSE: Duration = Duration::from_millis(10);
/// How often it pauses so.
const SHORT_PAUSES: u32 = 2;
/// How long it pauses after that.
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no channel for a call now.
#[derive(Debug, Clone)]
pub(super) enum Lack {
    /// The client has as many as it may have.
    Channels,
    /// Another call is at it: it opens one, or connects.
    Opening,
    /// The base protocol has one connection, and somebody has it.
    Base,
    /// The server has no further one for this client.
    Server(Status),
    /// This process lacks what it takes.
    Own(Error),
}

impl Lack {
    /// The error of a call that waited for nothing. `limit`: the channels that the client may have.
    #[cold]
    fn error(&self, limit: usize, when: &str) -> Error {
        let text = |what: String| format!("no resource left: {what} {when}");
        let new = |what| Error::new(ErrorKind::NoResource, text(what));
        match self {
            Self::Channels => {
                new(format!("all {limit} channels of this client (`ClientConfig::channels`) were in use"))
            }
            Self::Opening => {
                new(format!("another call was still opening a channel (of {limit} that this client may have)"))
            }
            Self::Base => new("the server speaks the base protocol, and its one connection was in use".into()),
            Self::Server(status) => {
                let what = format!("the server had no further channel for this client (which may have {limit})");
                Error::caused(ErrorKind::NoResource, text(what), status.clone())
            }
            Self::Own(error) => {
                let what = format!("this process could not open a channel (of {limit} that this client may have)");
                Error::caused(ErrorKind::NoResource, text(what), error.clone())
            }
        }
    }
}

/// The last lack that asking again at once would not mend.
#[derive(Debug, Default)]
pub(super) struct Lacks(Mutex<Option<Noted>>);

#[derive(Debug)]
struct Noted {
    lack: Lack,
    /// In a row.
    times: u32,
    until: Instant,
}

impl Lacks {
    /// The lack, while nobody should ask again.
    pub(super) fn now(&self) -> Option<Lack> {
        let noted = lock(&self.0);
        noted.as_ref().filter(|noted| Instant::now() < noted.until).map(|noted| noted.lack.clone())
    }

    /// There is a lack.
    pub(super) fn note(&self, lack: &Lack) {
        let mut noted = lock(&self.0);
        let times = noted.as_ref().map_or(0, |noted| noted.times) + 1;
        let pause = if times <= SHORT_PAUSES { PAUSE } else { LONG_PAUSE };
        *noted = Some(Noted { lack: lack.clone(), times, until: Instant::now() + pause });
    }

    /// Whether it is more than what is on its way out.
    pub(super) fn is_lasting(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(|noted| noted.times >= SHORT_PAUSES)
    }

    /// There is none any more.
    pub(super) fn clear(&self) {
        *lock(&self.0) = None;
    }
}

/// How long a call waits for a channel: until its deadline, and not for ever if nothing moves.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Option<Instant>,
    /// How long nothing may move.
    still: Option<Duration>,
    moved: Instant,
    /// What the call waits for.
    lack: Lack,
    /// The channels that the client may have.
    limit: usize,
}

impl Patience {
    /// For a client that may have `limit` channels.
    pub(super) fn until(deadline: Option<Instant>, limit: usize) -> Self {
        let still = match deadline {
            _ if nesting::is_in_handler() => Some(NESTED),
            None => Some(ENDLESS),
            Some(_) => None,
        };
        Self { deadline, still, moved: Instant::now(), lack: Lack::Channels, limit }
    }

    /// A channel got free, even if another call has it.
    pub(super) fn moved(&mut self) {
        self.moved = Instant::now();
    }

    /// When the wait ends, as it stands.
    pub(super) fn end(&self) -> Instant {
        let still = self.still.map(|still| self.moved + still);
        still.into_iter().chain(self.deadline).min().unwrap_or(self.moved + ENDLESS)
    }

    /// The call waits for this, unless the wait is over.
    pub(super) fn check(&mut self, lack: Lack) -> Result<(), CallError> {
        self.lack = lack;
        self.over().map_or(Ok(()), Err)
    }

    /// The error of the call, once the wait is over.
    pub(super) fn over(&self) -> Option<CallError> {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Some(self.lack.error(self.limit, "until the deadline").into());
        }
        let still = self.still.filter(|still| now >= self.moved + *still)?;
        let when = format!("for {} s; calls that nest need a channel for each level", still.as_secs());
        Some(self.lack.error(self.limit, &when).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_what_lacks_and_the_limit() {
        let mut passed = Patience::until(Some(Instant::now()), 17);
        let lacks = [
            Lack::Channels,
            Lack::Opening,
            Lack::Server(Status::new(crate::rpc::Code::NoResource, "full")),
            Lack::Own(Error::new(ErrorKind::System, "no descriptors")),
        ];
        for lack in lacks {
            let CallError::Failed(error) = passed.check(lack).unwrap_err() else { panic!("no status came") };
            assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::NoResource, false));
            let text = error.to_string();
            assert!(text.starts_with("no resource left: ") && text.contains("17"), "{text}");
            assert!(text.ends_with("until the deadline"), "{text}");
        }
    }

    /// Issue 13, C23.
    #[test]
    fn a_call_from_a_handler_gives_up_when_nothing_moves() {
        let serving = nesting::Serving::begin();
        let mut nested = Patience::until(None, 1);
        assert!(nested.end() <= Instant::now() + NESTED);
        assert!(nested.check(Lack::Channels).is_ok());
        nested.moved -= NESTED;
        let error = nested.check(Lack::Channels).unwrap_err().to_string();
        assert!(error.contains("nest") && error.contains("all 1 channels"), "{error}");
        nested.moved();
        assert!(nested.check(Lack::Channels).is_ok(), "a channel got free meanwhile");
        drop(serving);
        assert!(Patience::until(None, 1).end() > Instant::now() + NESTED);
    }

    #[test]
    fn asking_again_becomes_rare() {
        let lacks = Lacks::default();
        assert!(lacks.now().is_none());
        let pause = || {
            lacks.note(&Lack::Opening);
            lock(&lacks.0).as_ref().unwrap().until - Instant::now()
        };
        let pauses = [pause(), pause(), pause()];
        assert!(pauses[1] <= PAUSE && pauses[2] > PAUSE && lacks.now().is_some(), "{pauses:?}");
        lacks.clear();
        assert!(lacks.now().is_none() && pause() <= PAUSE);
    }
}
