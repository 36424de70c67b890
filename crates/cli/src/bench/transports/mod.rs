//! The ways in which two processes can call each other, each in two halves: the caller in the benchmark's process, and the answerer in
//! its peer. Every call carries the payload there and back, and each side copies it in and out.

mod bare;
mod halves;
mod kernel;
mod kind;
mod rpc;
mod window;

pub(super) use halves::{Answerer, Caller, Inherited, Prepared, Preparing, window_length};
pub(super) use kind::Transport;

use crate::outcome::Fallible;

/// Makes the caller's half, and whatever `command` has to inherit for the other one.
pub(super) fn prepare(transport: Transport, link: &mut Preparing<'_>, payload: u32) -> Fallible<Prepared> {
    match transport {
        Transport::BareSpin | Transport::BareCopy => bare::spin(link, payload),
        Transport::BareFutex => bare::futex(link, payload),
        Transport::WindowAdaptive | Transport::WindowSpin | Transport::WindowPark => {
            window::prepare(transport, link, payload)
        }
        Transport::Pipe => kernel::pipe(link, payload),
        Transport::Eventfd => kernel::eventfd(link, payload),
        Transport::UnixStream | Transport::UnixSeqpacket => kernel::socket(transport, link, payload),
        Transport::RpcWindow | Transport::RpcBulk | Transport::RpcSocket => rpc::prepare(transport, link, payload),
    }
}

/// Makes the answerer's half from the numbers of [`Prepared`].
pub(super) fn answerer(transport: Transport, link: &Inherited<'_>) -> Fallible<Box<dyn Answerer>> {
    match transport {
        Transport::BareSpin | Transport::BareCopy => bare::answer_spin(link),
        Transport::BareFutex => bare::answer_futex(link),
        Transport::WindowAdaptive | Transport::WindowSpin | Transport::WindowPark => window::answer(transport, link),
        Transport::Pipe => kernel::answer_pipe(link),
        Transport::Eventfd => kernel::answer_eventfd(link),
        Transport::UnixStream | Transport::UnixSeqpacket => kernel::answer_socket(link),
        Transport::RpcWindow | Transport::RpcBulk | Transport::RpcSocket => rpc::answer(link),
    }
}
