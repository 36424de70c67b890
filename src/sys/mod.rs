//! Floor 0: the only unsafe code of the crate.

pub(crate) mod socket;
