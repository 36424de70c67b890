//! Typed calls, through a window and over a socket. Without a payload a call carries a number each way, else bytes.
//!
//! The calls have no deadline: with one, the server reads the clock once for each call, which the protocol demands. The client spins
//! in a window; the server adapts, since it waits between the batches too, where a spinner would disturb the other rows.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flipcall::Deadline;
use flipcall::endpoint::WaitPolicy;
use flipcall::rpc::codec::from_bytes;
use flipcall::rpc::{Client, ClientConfig, Router, Server, ServerConfig};

use super::halves::{Answerer, Caller, Inherited, Prepared, Preparing, payload_bytes, work};
use super::kind::Transport;
use crate::outcome::{Fallible, Outcome};

/// Number in, number out.
const NUMBER: u16 = 1;
/// Bytes in, bytes out.
const BYTES: u16 = 2;

struct RpcCaller {
    socket: Option<OwnedFd>,
    client: Option<Client>,
    config: ClientConfig,
    payload: Vec<u8>,
    answer: Vec<u8>,
}

pub(super) fn prepare(transport: Transport, link: &mut Preparing<'_>, payload: u32) -> Fallible<Prepared> {
    let (ours, theirs) = UnixStream::pair()?;
    let numbers = vec![link.pass(theirs)?];
    let config = ClientConfig::new().policy(WaitPolicy::Spin);
    let config = match transport {
        Transport::RpcSocket => config.window(0),
        Transport::RpcBulk => config.extensions(false),
        _ => config,
    };
    let payload = payload_bytes(payload);
    let caller = RpcCaller { socket: Some(ours.into()), client: None, config, payload, answer: Vec::new() };
    Ok(Prepared { caller: Box::new(caller), numbers })
}

impl Caller for RpcCaller {
    fn begin(&mut self) -> Outcome {
        if let Some(socket) = self.socket.take() {
            self.client = Some(Client::from_socket(socket, self.config.clone())?);
        }
        Ok(())
    }

    fn call(&mut self) -> Outcome {
        let Some(client) = &self.client else { return Err("a call before the handshake".into()) };
        if self.payload.is_empty() {
            client.call::<_, u64>(NUMBER, &7u64, Deadline::NEVER)?;
            return Ok(());
        }
        let mut answer = std::mem::take(&mut self.answer);
        client.call_with(BYTES, &self.payload, Deadline::NEVER, |fields| {
            answer.clear();
            answer.extend_from_slice(from_bytes(fields)?);
            Ok(())
        })?;
        self.answer = answer;
        Ok(())
    }
}

/// The server answers on threads of its own, and thinks for as many nanoseconds as this says.
struct RpcAnswerer(Arc<AtomicU64>);

pub(super) fn answer(link: &Inherited<'_>) -> Fallible<Box<dyn Answerer>> {
    let mut router = Router::new();
    let think = Arc::new(AtomicU64::new(0));
    let [of_numbers, of_bytes] = [Arc::clone(&think), Arc::clone(&think)];
    router.unary(NUMBER, move |_, number: u64| {
        work(Duration::from_nanos(of_numbers.load(Ordering::Relaxed)));
        Ok(number.wrapping_add(1))
    });
    router.raw(BYTES, move |context, request, reply| {
        work(Duration::from_nanos(of_bytes.load(Ordering::Relaxed)));
        reply.send_now(context, &from_bytes::<&[u8]>(request)?)
    });
    let server = Server::new(router, ServerConfig::new());
    let socket = link.descriptor(0)?;
    std::thread::spawn(move || server.serve_one(socket));
    Ok(Box::new(RpcAnswerer(think)))
}

impl Answerer for RpcAnswerer {
    fn answer(&mut self, _count: u64, think: Duration) -> Outcome {
        self.0.store(u64::try_from(think.as_nanos())?, Ordering::Relaxed);
        Ok(())
    }
}
