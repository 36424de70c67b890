//! Limits that fit the descriptors which this process may have.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::config::ServerConfig;
use crate::error::{Error, Result};
use crate::sys::limits;

/// Descriptors of a connection: its socket and its client's pidfd.
const PER_CONNECTION: u64 = 2;

/// Descriptors of a channel: its socket, and while it opens the client's end and the window's file.
const PER_CHANNEL: u64 = 2;

/// Descriptors left to everything else: the program's own files, attachments under way, the watchdog.
const RESERVED: u64 = 128;

/// Descriptors that a process may have where its limit cannot be read: the soft limit that most systems start programs with.
const USUAL: u64 = 1024;

/// Raises this process's soft limit of open descriptors (`RLIMIT_NOFILE`) to its hard limit, and returns the limit that now holds:
/// `u64::MAX` if there is none.
///
/// A server needs up to two descriptors for each connection and each channel, and most systems start programs with a soft limit of 1,024.
/// The limit is the whole process's, and every program that the process starts later inherits it, so the library does not change it
/// unless asked. A program that uses `select` cannot have descriptors over 1,023: it should not call this, nor start such a program after
/// it. Call it before [`Server::new`](super::Server::new), which reads the limit once.
///
/// # Errors
/// [`System`](crate::ErrorKind::System) if the kernel or the policy that this process runs under refuses the new limit. The old one holds
/// then.
///
/// ```
/// use flipcall::rpc::{Router, Server, raise_descriptor_limit};
///
/// let descriptors = raise_descriptor_limit()?;
/// let server = Server::new(Router::new(), Default::default());
/// assert!(u64::from(server.config().get_connections()) <= descriptors);
/// # Ok::<(), flipcall::Error>(())
/// ```
pub fn raise_descriptor_limit() -> Result<u64> {
    let limit = limits::get(Resource::Nofile)
        .map_err(|error| Error::system("cannot read the limit of open descriptors", error))?;
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).map_err(|errno| Error::system(refused(limit), errno))?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cold]
fn refused(limit: Rlimit) -> String {
    let number = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    format!("raising the limit of open descriptors from {} to {}", number(limit.current), number(limit.maximum))
}

/// Lowers the limits of `config` in proportion to what fits the descriptors that this process may have.
pub(super) fn fit(config: &mut ServerConfig) {
    let descriptors = limits::get(Resource::Nofile).map_or(Some(USUAL), |limits| limits.current);
    if let Some(descriptors) = descriptors {
        lower(config, descriptors);
    }
}

fn lower(config: &mut ServerConfig, descriptors: u64) {
    let (connections, channels) = (u64::from(config.connections), u64::from(config.channels_total));
    let wanted = connections * PER_CONNECTION + channels * PER_CHANNEL;
    let available = descriptors.saturating_sub(RESERVED).max(PER_CONNECTION + PER_CHANNEL);
    if wanted > available {
        let scaled = |count: u64| u32::try_from((count * available / wanted).max(count.min(1))).unwrap_or(u32::MAX);
        (config.connections, config.channels_total) = (scaled(connections), scaled(channels));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_shrink_to_what_fits_and_stay_where_it_does() {
        let mut config = ServerConfig::new();
        lower(&mut config, 1 << 20);
        assert_eq!((config.connections, config.channels_total), (512, 512));
        lower(&mut config, 1024);
        assert_eq!((config.connections, config.channels_total), (224, 224));
        lower(&mut config, 0);
        assert_eq!((config.connections, config.channels_total), (1, 1));
    }

    #[test]
    fn a_server_without_channels_stays_without() {
        let mut config = ServerConfig::new().connections(u32::MAX).channels_total(0);
        lower(&mut config, 1024);
        assert_eq!((config.connections, config.channels_total), (448, 0));
    }
}
