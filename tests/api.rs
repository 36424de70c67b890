//! What the public types promise to threads: the compiler holds it.

use std::fmt::Debug;
use std::os::fd::AsFd;

use flipcall::rpc::{self, codec};
use flipcall::{Blame, Deadline, Error, ErrorKind, endpoint, process, stream, stream::mux, window};

fn both<T: Send + Sync>() {}
fn send<T: Send>() {}
fn shown<T: Debug>() {}
fn has_descriptor<T: AsFd>() {}

/// Names each type once: it may be sent to another thread and shared with one, and shows itself with `{:?}`.
macro_rules! send_sync_debug {
    ($($kind:ty),* $(,)?) => { $(both::<$kind>(); shown::<$kind>();)* };
}

#[test]
fn every_type_can_be_sent_and_shared() {
    send_sync_debug!(Deadline, Error, ErrorKind, Blame);
    send_sync_debug!(process::ChildProcess, process::InheritedFds);
    send_sync_debug!(window::Allocator, window::Window, window::WindowDescriptor, window::Refusal, window::Seals);
    send_sync_debug!(
        endpoint::Acceptor,
        endpoint::Connector,
        endpoint::Counters,
        endpoint::DatagramReader<'_>,
        endpoint::DatagramWriter<'_>,
        endpoint::Endpoint,
        endpoint::Finished,
        endpoint::Greeting,
        endpoint::Inherited,
        endpoint::Interrupted<endpoint::Endpoint>,
        endpoint::Options,
        endpoint::ShutdownHandle,
        endpoint::Spawned,
        endpoint::StateViolation,
        endpoint::WaitPolicy,
        endpoint::Waiting,
    );
    send_sync_debug!(
        stream::Access,
        stream::Attachments,
        stream::BufferedWriter,
        stream::FrameDecoder,
        stream::Frame<'_>,
        stream::FrameSocket,
        stream::Header,
        stream::Listener,
        stream::Message<'_>,
        stream::MissingFd,
        stream::MuxViolation,
        stream::NonBlockingReader,
        stream::Peer,
        stream::SocketShutdown,
        stream::Step<'_>,
        stream::FrameViolation,
        stream::WithFd,
    );
    send_sync_debug!(
        mux::Bridge,
        mux::ByteReader,
        mux::ByteWriter,
        mux::Channel,
        mux::ChannelReceiver,
        mux::ChannelSender,
        mux::Ended,
        mux::Mux,
        mux::MuxConfig,
        mux::Offer,
        mux::PlainMux,
        mux::Reason,
        mux::Role,
    );
    send_sync_debug!(
        rpc::Answered,
        rpc::CallError,
        rpc::CallViolation,
        rpc::CancelToken,
        rpc::Chunks<'_>,
        rpc::Client,
        rpc::ClientConfig,
        rpc::ClientCounters,
        rpc::Code,
        rpc::Context<'_>,
        rpc::Reply<'_>,
        rpc::Router,
        rpc::Server,
        rpc::ServerConfig,
        rpc::ServerCounters,
        rpc::ServerHandle,
        rpc::Status,
        rpc::Stream,
        codec::DecodeError,
        codec::Decoder<'_>,
        codec::List<u8>,
        codec::Raw<'_>,
    );
    #[cfg(feature = "postcard")]
    send_sync_debug!(codec::Postcard<u8>);
}

/// An encoder borrows whatever takes its bytes, and a type that sends itself while it is encoded is no use.
#[test]
fn an_encoder_stays_on_its_thread_and_shows_itself() {
    shown::<codec::Encoder<'_>>();
}

#[test]
fn what_holds_a_descriptor_lends_it() {
    has_descriptor::<rpc::CancelToken>();
    has_descriptor::<process::ChildProcess>();
    has_descriptor::<window::Allocator>();
    has_descriptor::<window::WindowDescriptor<'_>>();
    has_descriptor::<stream::FrameSocket>();
    has_descriptor::<mux::Mux>();
    has_descriptor::<mux::PlainMux>();
    has_descriptor::<stream::Listener>();
}

#[test]
fn errors_are_errors_of_the_standard_library() {
    fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
    is_error::<Error>();
    is_error::<endpoint::Interrupted<endpoint::Endpoint>>();
    is_error::<endpoint::StateViolation>();
    is_error::<window::Refusal>();
    is_error::<stream::FrameViolation>();
    is_error::<stream::MuxViolation>();
    is_error::<rpc::CallError>();
    is_error::<rpc::CallViolation>();
    is_error::<rpc::Status>();
    is_error::<codec::DecodeError>();
    send::<std::io::Error>();
}

/// A reader who knows gVisor's package finds what he looks for in the search of the documentation.
#[test]
fn every_name_of_gvisors_package_is_an_alias() {
    let go = [
        "Connect",
        "Data",
        "DataCap",
        "Destroy",
        "Init",
        "NewEndpoint",
        "NewReader",
        "NewWriter",
        "PacketWindowAllocator",
        "PacketWindowDescriptor",
        "PacketWindowLengthForDataCap",
        "RecvFirst",
        "SendLast",
        "SendRecv",
        "SendRecvFast",
        "Shutdown",
    ];
    let mut sources = String::new();
    for folder in ["src/endpoint", "src/window"] {
        for entry in std::fs::read_dir(folder).unwrap() {
            sources.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
        }
    }
    for name in go {
        assert!(sources.contains(&format!("doc(alias = \"{name}\")")), "{name} is no alias of anything");
    }
}
