//! Serde types as payloads.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A serde value in the postcard format, to the end of the message. Both sides have to agree on it: services with peers in other
/// languages use the codec's own types.
///
/// A value that serde cannot serialize, such as a map that does not know its length, is sent as no bytes. A receiver refuses that, unless
/// its type takes no bytes either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postcard<T>(pub T);

impl<T: Serialize> Encode for Postcard<T> {
    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.raw(&postcard::to_allocvec(&self.0).unwrap_or_default());
    }
}

impl<'a, T: DeserializeOwned> Decode<'a> for Postcard<T> {
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        match postcard::take_from_bytes(decoder.rest()) {
            Ok((value, [])) => Ok(Self(value)),
            Ok(_) => Err(DecodeError::TrailingBytes),
            Err(_) => Err(DecodeError::Invalid),
        }
    }
}
