//! The wire format of common types.

use super::{Decode, DecodeError, Decoder, Encode, Encoder};

macro_rules! primitive {
    ($($name:ident),*) => {$(
        impl Encode for $name {
            #[inline]
            fn encode(&self, encoder: &mut Encoder<'_>) {
                encoder.$name(*self);
            }
        }
        impl<'a> Decode<'a> for $name {
            #[inline]
            fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
                decoder.$name()
            }
        }
    )*};
}

primitive!(u8, u16, u32, u64, i32, i64, bool);

macro_rules! encode {
    ($($kind:ty: $method:ident),*) => {$(
        impl Encode for $kind {
            #[inline]
            fn encode(&self, encoder: &mut Encoder<'_>) {
                encoder.$method(self);
            }
        }
    )*};
}

encode!(str: str, String: str, [u8]: bytes, Vec<u8>: bytes, [&str]: strs, [String]: strs, Vec<&str>: strs, Vec<String>: strs);

impl<T: Encode + ?Sized> Encode for &T {
    #[inline]
    fn encode(&self, encoder: &mut Encoder<'_>) {
        T::encode(self, encoder);
    }
}

macro_rules! decode {
    ($($kind:ty: $decoder:ident => $value:expr),*) => {$(
        impl<'a> Decode<'a> for $kind {
            #[inline]
            fn decode($decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
                $value
            }
        }
    )*};
}

/// A string of its own.
#[inline]
fn owned(decoder: &mut Decoder<'_>) -> Result<String, DecodeError> {
    let text = decoder.str()?;
    decoder.charge_copy(text.len())?;
    Ok(text.to_owned())
}

/// Bytes of the length in front of a string.
const STRING_LEAST: usize = 4;

decode! {
    &'a str: decoder => decoder.str(),
    String: decoder => owned(decoder),
    &'a [u8]: decoder => decoder.bytes(),
    Vec<u8>: decoder => {
        let bytes = decoder.bytes()?;
        decoder.charge_copy(bytes.len())?;
        Ok(bytes.to_vec())
    },
    Vec<&'a str>: decoder => decoder.items(STRING_LEAST, Decoder::str),
    Vec<String>: decoder => decoder.items(STRING_LEAST, owned)
}

/// A `u32` count and the items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct List<T>(pub Vec<T>);

impl<T: Encode> Encode for List<T> {
    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.count(self.0.len());
        for item in &self.0 {
            item.encode(encoder);
        }
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for List<T> {
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        decoder.items(0, T::decode).map(Self)
    }
}

/// Bytes to the end of the message, without a length in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(pub &'a [u8]);

impl Encode for Raw<'_> {
    #[inline]
    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.raw(self.0);
    }
}

impl<'a> Decode<'a> for Raw<'a> {
    #[inline]
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self(decoder.rest()))
    }
}

macro_rules! tuple {
    ($($name:ident),*) => {
        impl<$($name: Encode),*> Encode for ($($name,)*) {
            #[inline]
            #[allow(non_snake_case, unused_variables, reason = "a type's name is its field's; the empty tuple has none")]
            fn encode(&self, encoder: &mut Encoder<'_>) {
                let ($($name,)*) = self;
                $($name.encode(encoder);)*
            }
        }
        impl<'a, $($name: Decode<'a>),*> Decode<'a> for ($($name,)*) {
            #[inline]
            #[allow(unused_variables, clippy::unused_unit, reason = "the empty tuple reads nothing")]
            fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
                Ok(($($name::decode(decoder)?,)*))
            }
        }
    };
}

tuple!();
tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);
tuple!(A, B, C, D, E, F, G);
tuple!(A, B, C, D, E, F, G, H);
