//! The connection of a client, made anew where it is gone and that is wanted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::register::closed;
use super::session::Session;
use super::shared::Shared;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::CallError;
use crate::rpc::message::number::HANDSHAKE;
use crate::stream::FrameSocket;

/// How long connecting to a server with a full backlog goes on before it is found out whether this client was closed.
const SLICE: Duration = Duration::from_millis(20);

impl Shared {
    /// The connection, made anew if it is gone and that is wanted. `None`: somebody else is at it.
    pub(super) fn session(&self, deadline: Deadline) -> Result<Option<Arc<Session>>, CallError> {
        let current = self.current();
        if current.is_alive() {
            return Ok(Some(current));
        }
        let Some(path) = self.way_back().filter(|_| !self.is_closed()) else {
            self.register.check()?;
            return Err(self.gone());
        };
        let Some(_reconnecting) = self.reconnecting.try_lock() else { return Ok(None) };
        let current = self.current();
        if current.is_alive() {
            // Somebody else was at it just now.
            return Ok(Some(current));
        }
        let until = deadline.capped(HANDSHAKE);
        let session = Session::begin(self.connect(path, until)?, &self.config, &self.register, until)?;
        self.replace_session(Arc::clone(&session));
        self.counters.reconnects.fetch_add(1, Ordering::Relaxed);
        self.lacks.clear();
        Ok(Some(session))
    }

    /// The connection is gone, and is not made anew.
    #[cold]
    fn gone(&self) -> CallError {
        let what = match &self.path {
            Some(path) => format!("the connection to the server at {} is gone", path.display()),
            None => "the connection to the server is gone".to_owned(),
        };
        Error::new(ErrorKind::PeerGone, what).into()
    }

    /// Where to connect anew, if that is wanted.
    pub(super) fn way_back(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| self.config.reconnect)
    }

    /// Connects, unless the client is closed meanwhile.
    fn connect(&self, path: &Path, mut deadline: Deadline) -> Result<FrameSocket> {
        loop {
            match FrameSocket::connect_resolved(path, deadline.capped(SLICE)) {
                Err(_) if self.is_closed() => return Err(closed()),
                Err(error) if error.kind() == ErrorKind::Timeout => {
                    if deadline.resolve().is_some_and(|until| Instant::now() >= until) {
                        return Err(error);
                    }
                }
                connected => return connected,
            }
        }
    }
}
