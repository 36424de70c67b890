//! Limits that fit the descriptors which this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ServerConfig;

/// Descriptors of a connection: its socket and its client's pidfd.
const PER_CONNECTION: u64 = 2;

/// Descriptors of a channel: its socket, and while it opens the client's end and the window's file.
const PER_CHANNEL: u64 = 2;

/// Descriptors left to everything else: the program's own files, attachments under way, the watchdog.
const RESERVED: u64 = 128;

/// Raises the soft limit of descriptors to the hard one, and lowers the limits of `config` in proportion to what fits it.
pub(super) fn fit(config: &mut ServerConfig) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    if let Some(current) = current {
        lower(config, current);
    }
}

fn lower(config: &mut ServerConfig, descriptors: u64) {
    let (connections, channels) = (u64::from(config.connections), u64::from(config.channels_total));
    let wanted = connections * PER_CONNECTION + channels * PER_CHANNEL;
    let available = descriptors.saturating_sub(RESERVED).max(PER_CONNECTION + PER_CHANNEL);
    if wanted > available {
        let scaled = |count: u64| u32::try_from((count * available / wanted).max(1)).unwrap_or(u32::MAX);
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
}
