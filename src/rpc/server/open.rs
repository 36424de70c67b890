//! Makes the channels that a client opens.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::quota::{Kind, Lease};
use super::serve::Service;
use super::shared::{Connection, worth_telling};
use super::worker::Worker;
use crate::deadline::Deadline;
use crate::endpoint::{Acceptor, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::message::hello::Agreement;
use crate::rpc::message::number::HANDSHAKE;
use crate::rpc::message::open::{Open, Opened};
use crate::rpc::transport::{SocketTransport, WindowTransport};
use crate::rpc::{Code, Status};
use crate::stream::FrameSocket;
use crate::sys::thread;
use crate::window::{Window, page_size, seal_after_map};

/// A channel whose thread runs, and what its client gets of it.
pub(super) struct Channel {
    pub(super) opened: Opened,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) worker: Arc<Worker>,
}

/// Makes the channel that a client asks for, and starts its thread.
pub(super) fn channel(connection: &Arc<Connection>, agreement: Agreement, open: Open) -> Result<Channel, Status> {
    let length = open.granted(connection.shared.config.window, page_size());
    let wanted = [(Kind::Channel, 1), (Kind::WindowBytes, u64::from(length))];
    let lease = connection.shared.quotas.lease(connection.holder, &wanted)?;
    connection.check_room(u64::from(length))?;
    let made = match length {
        0 => socket_channel(connection, agreement, lease),
        length => window_channel(connection, agreement, length, lease),
    };
    made.map_err(|error| Status::new(Code::NoResource, format!("{error:#}")))
}

fn socket_pair(connection: &Connection) -> Result<(FrameSocket, OwnedFd)> {
    let (mut ours, theirs) = FrameSocket::pair()?;
    connection.prepare(&mut ours, true)?;
    Ok((ours, theirs.into()))
}

fn socket_channel(connection: &Arc<Connection>, agreement: Agreement, lease: Lease) -> Result<Channel> {
    let (ours, theirs) = socket_pair(connection)?;
    let worker = Arc::new(Worker::new(None, ours.shared(), 0));
    let service = {
        let transport = SocketTransport::new(ours, &connection.shared.budget);
        Service::new(transport, agreement, connection, &worker)
    };
    start(connection, &worker, lease, move || service.serve())?;
    Ok(Channel { opened: Opened { offset: 0, length: 0 }, fds: vec![theirs], worker })
}

fn window_channel(connection: &Arc<Connection>, agreement: Agreement, length: u32, lease: Lease) -> Result<Channel> {
    let (window, file, length) = Window::create(length)?;
    let (ours, theirs) = socket_pair(connection)?;
    let options = Options::new().policy(connection.shared.config.policy).watch_read_at_once(ours.shared());
    let acceptor = Acceptor::new(window, options)?;
    let worker = Arc::new(Worker::new(Some(acceptor.shutdown_handle()), ours.shared(), u64::from(length)));
    let shared = file.try_clone().map_err(|error| Error::system("duplicating the descriptor of a window", error))?;
    let (connection_of_thread, worker_of_thread) = (Arc::clone(connection), Arc::clone(&worker));
    start(connection, &worker, lease, move || {
        let endpoint = acceptor.greet(Deadline::after(HANDSHAKE))?;
        seal_after_map::seal(&shared)?;
        drop(shared);
        let budget = &connection_of_thread.shared.budget;
        let mut transport = WindowTransport::new(endpoint, ours, agreement.fragments(), budget);
        transport.set_patience(connection_of_thread.shared.config.patience);
        Service::new(transport, agreement, &connection_of_thread, &worker_of_thread).serve()
    })?;
    Ok(Channel { opened: Opened { offset: 0, length }, fds: vec![file, theirs], worker })
}

/// A channel that is registered. However its thread ends, it hangs up, and is gone from its connection before its lease is returned.
struct Registered {
    connection: Arc<Connection>,
    worker: Arc<Worker>,
    lease: Option<Lease>,
}

impl Registered {
    fn new(connection: &Arc<Connection>, worker: &Arc<Worker>, lease: Lease) -> Self {
        connection.add(worker);
        Self { connection: Arc::clone(connection), worker: Arc::clone(worker), lease: Some(lease) }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connection.shared.note_panic();
        self.worker.kill();
        self.connection.remove(&self.worker);
        self.lease = None;
        if self.worker.is_spared() {
            self.connection.end_unless_spared();
        }
    }
}

/// Starts the thread of a channel. When it ends, the channel is gone: its window unmapped, its socket hung up, its lease returned.
fn start(
    connection: &Arc<Connection>,
    worker: &Arc<Worker>,
    lease: Lease,
    serve: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let registered = Registered::new(connection, worker, lease);
    let run = move || {
        let shared = Arc::clone(&registered.connection.shared);
        // A thread that panics drops what it serves with first, and then this.
        let registered = registered;
        let ended = serve();
        drop(registered);
        if let Err(error) = ended {
            shared.note_end(worth_telling(error));
        }
    };
    let started = thread::spawn("flipcall-channel", run);
    started
        .map(|thread| connection.started(thread))
        .map_err(|error| Error::caused(ErrorKind::System, "starting the thread of a channel", error))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::ServerConfig;
    use super::super::quota::Holder;
    use super::super::shared::Shared;
    use super::*;
    use crate::rpc::Router;
    use crate::stream::Peer;

    /// Issue 13, A7: what nobody foresaw ends a channel as its client's end does.
    #[test]
    fn a_channel_whose_thread_panics_hangs_up_and_gives_back_what_it_had() {
        let shared = Arc::new(Shared::new(Router::new(), ServerConfig::new().channels_total(4)));
        let one = [(Kind::Channel, 1)];
        let (socket, _client) = FrameSocket::pair().unwrap();
        let peer = Peer::of(&socket).unwrap();
        let holder = Holder::new(&peer);
        let connection = Connection::new(&shared, &socket, Arc::new(peer), shared.quotas.lease(holder, &[]).unwrap());
        let (ours, mut theirs) = FrameSocket::pair().unwrap();
        let worker = Arc::new(Worker::new(None, ours.shared(), 0));
        let lease = shared.quotas.lease(holder, &one).unwrap();
        assert!(shared.quotas.lease(holder, &one).is_err(), "one process has a quarter");
        let serve = move || -> Result<()> {
            let _ours = ours;
            panic!("as asked")
        };
        start(&connection, &worker, lease, serve).unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "its client sees the end");
        connection.join_channels();
        assert!(connection.channels().is_empty());
        assert!(shared.quotas.lease(holder, &one).is_ok());
        assert_eq!(shared.counters.broken.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}
