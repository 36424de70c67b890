//! What `{:?}` shows of a client: numbers, and nothing of what it carried.

use std::fmt;

use super::{Client, Stream};

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Client");
        if let Some(path) = &self.shared.path {
            shown.field("path", path);
        }
        shown.field("closed", &self.shared.is_closed()).field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("ended", &self.has_ended()).finish_non_exhaustive()
    }
}
