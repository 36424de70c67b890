//! Structs as messages.

/// Declares structs that can be sent: each gets [`Encode`](crate::rpc::codec::Encode) and
/// [`Decode`](crate::rpc::codec::Decode), its fields one after the other.
///
/// A struct may have one lifetime, with which its fields borrow from the message.
///
/// ```
/// use flipcall::rpc::codec::{List, from_bytes, to_bytes};
///
/// flipcall::message! {
///     /// What is known about a file.
///     #[derive(Debug, PartialEq)]
///     pub struct FileInfo {
///         /// Its name.
///         pub name: String,
///         /// Its size in bytes.
///         pub size: i64,
///     }
///
///     /// A write, which borrows its bytes.
///     pub struct Write<'a> {
///         pub handle: u64,
///         pub data: &'a [u8],
///     }
/// }
///
/// let files = List(vec![FileInfo { name: "a".into(), size: 3 }]);
/// assert_eq!(from_bytes::<List<FileInfo>>(&to_bytes(&files))?, files);
/// let bytes = to_bytes(&Write { handle: 1, data: b"xyz" });
/// assert_eq!(from_bytes::<Write>(&bytes)?.data, b"xyz");
/// # Ok::<(), flipcall::rpc::codec::DecodeError>(())
/// ```
#[macro_export]
macro_rules! message {
    () => {};
    ($(#[$attribute:meta])* $visible:vis struct $name:ident {
        $($(#[$note:meta])* $seen:vis $field:ident: $kind:ty),* $(,)?
    } $($more:tt)*) => {
        $(#[$attribute])*
        $visible struct $name { $($(#[$note])* $seen $field: $kind),* }
        impl $crate::rpc::codec::Encode for $name {
            #[inline]
            #[allow(unused_variables, reason = "a struct without fields")]
            fn encode(&self, encoder: &mut $crate::rpc::codec::Encoder<'_>) {
                $($crate::rpc::codec::Encode::encode(&self.$field, encoder);)*
            }
        }
        impl<'de> $crate::rpc::codec::Decode<'de> for $name {
            #[inline]
            #[allow(unused_variables, reason = "a struct without fields")]
            fn decode(
                decoder: &mut $crate::rpc::codec::Decoder<'de>,
            ) -> ::std::result::Result<Self, $crate::rpc::codec::DecodeError> {
                decoder.nested(|decoder| {
                    ::std::result::Result::Ok(Self { $($field: $crate::rpc::codec::Decode::decode(decoder)?),* })
                })
            }
        }
        $crate::message!($($more)*);
    };
    ($(#[$attribute:meta])* $visible:vis struct $name:ident<$life:lifetime> {
        $($(#[$note:meta])* $seen:vis $field:ident: $kind:ty),* $(,)?
    } $($more:tt)*) => {
        $(#[$attribute])*
        $visible struct $name<$life> { $($(#[$note])* $seen $field: $kind),* }
        impl<$life> $crate::rpc::codec::Encode for $name<$life> {
            #[inline]
            fn encode(&self, encoder: &mut $crate::rpc::codec::Encoder<'_>) {
                $($crate::rpc::codec::Encode::encode(&self.$field, encoder);)*
            }
        }
        impl<$life> $crate::rpc::codec::Decode<$life> for $name<$life> {
            #[inline]
            fn decode(
                decoder: &mut $crate::rpc::codec::Decoder<$life>,
            ) -> ::std::result::Result<Self, $crate::rpc::codec::DecodeError> {
                decoder.nested(|decoder| {
                    ::std::result::Result::Ok(Self { $($field: $crate::rpc::codec::Decode::decode(decoder)?),* })
                })
            }
        }
        $crate::message!($($more)*);
    };
}
