//! Serde types as payloads.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::limited::{Account, Limited};
use super::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A serde value in the postcard format, to the end of the message. Both sides have to agree on it: services with peers in other
/// languages use the codec's own types.
///
/// A value that serde cannot serialize, such as a map that does not know its length, is sent as no bytes. A receiver refuses that, unless
/// its type takes no bytes either.
///
/// A value may be 64 structs (enums, tuples), 64 lists (maps) and 64 options deep, and take 32 times the bytes of its message, and 64 KiB: see
/// [`codec`](crate::rpc::codec). Elements, entries of maps, strings, and what is larger than its place, as in a box, are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postcard<T>(pub T);

impl<T: Serialize> Encode for Postcard<T> {
    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.raw(&postcard::to_allocvec(&self.0).unwrap_or_default());
    }
}

impl<'a, T: DeserializeOwned> Decode<'a> for Postcard<T> {
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let bytes = decoder.rest();
        let mut account = Account::new(bytes.len());
        let mut deserializer = postcard::Deserializer::from_bytes(bytes);
        let value = T::deserialize(Limited::new::<T>(&mut deserializer, &mut account));
        match (value, deserializer.finalize()) {
            (Ok(value), Ok([])) => Ok(Self(value)),
            (Ok(_), _) => Err(DecodeError::TrailingBytes),
            (Err(_), _) => Err(account.exceeded().unwrap_or(DecodeError::Invalid)),
        }
    }
}
