//! A serde deserializer around another that holds what it makes to [`Limits`].
//!
//! Serde gives a type's own code the lead, so everything that can contain something is wrapped: the visitors that wait for it, the access
//! that they are given, and the seeds that they hand back.

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::error::DecodeError;
use super::limits::{Limits, Nesting, SERDE_FACTOR, memory_of_list};

/// Bytes that an entry of a map takes besides twice its key and value: nodes and tables are half full at worst.
const ENTRY_OVERHEAD: usize = 16;

/// The allowance of a message, and what was exceeded first.
pub(super) struct Account {
    limits: Limits,
    /// Bytes of the message: no list has more items that take room in it.
    bytes: usize,
    exceeded: Option<DecodeError>,
}

impl Account {
    pub(super) fn new(bytes: usize) -> Self {
        Self { limits: Limits::new(bytes, SERDE_FACTOR), bytes, exceeded: None }
    }

    /// What was exceeded, if anything was: serde's errors do not tell.
    pub(super) fn exceeded(&self) -> Option<DecodeError> {
        self.exceeded
    }

    fn note<E: Error>(&mut self, result: Result<(), DecodeError>) -> Result<(), E> {
        result.map_err(|error| {
            self.exceeded = Some(error);
            E::custom(error)
        })
    }

    fn charge<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        let result = self.limits.charge(bytes);
        self.note(result)
    }

    fn charge_copy<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.charge(memory_of_list::<u8>(bytes, SERDE_FACTOR))
    }

    fn enter<E: Error>(&mut self, what: Nesting) -> Result<(), E> {
        let result = self.limits.enter(what);
        self.note(result)
    }
}

/// The wrapper around a deserializer, a visitor, an access or a seed.
pub(super) struct Limited<'l, T> {
    inner: T,
    account: &'l mut Account,
    /// Bytes of memory that are there for the value already: those of its place in what it lies in. A value that takes more has been
    /// given a place of its own, in a box.
    place: usize,
    /// Whether each element is charged for, as in a list. The fields of a struct have their place in it.
    elements: bool,
    /// Whether an element came.
    begun: bool,
}

impl<'l, T> Limited<'l, T> {
    /// The wrapper of what makes a `V`.
    pub(super) fn new<V>(inner: T, account: &'l mut Account) -> Self {
        Self { inner, account, place: size_of::<V>(), elements: false, begun: false }
    }

    fn charge_box<V, E: Error>(&mut self) -> Result<(), E> {
        if size_of::<V>() <= self.place { Ok(()) } else { self.account.charge_copy(size_of::<V>()) }
    }
}

macro_rules! leaves {
    ($($method:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

macro_rules! texts {
    ($($method:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            let Self { inner, account, place, .. } = self;
            inner.$method(Limited { inner: visitor, account, place, elements: false, begun: false })
        }
    )*};
}

macro_rules! nests {
    ($($what:ident: $method:ident($($name:ident: $kind:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, $($name: $kind,)* visitor: V) -> Result<V::Value, Self::Error> {
            self.charge_box::<V::Value, _>()?;
            self.account.enter(Nesting::$what)?;
            let place = self.place.max(size_of::<V::Value>());
            let elements = matches!(Nesting::$what, Nesting::List);
            let visitor = Limited { inner: visitor, account: &mut *self.account, place, elements, begun: false };
            let value = self.inner.$method($($name,)* visitor);
            self.account.limits.leave(Nesting::$what);
            value
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Limited<'_, D> {
    type Error = D::Error;

    leaves!(deserialize_bool, deserialize_char, deserialize_unit, deserialize_f32, deserialize_f64);
    leaves!(deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64, deserialize_i128);
    leaves!(deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64, deserialize_u128);
    leaves!(deserialize_any, deserialize_identifier, deserialize_ignored_any);
    texts!(deserialize_str, deserialize_string, deserialize_bytes, deserialize_byte_buf);
    nests! {
        Option: deserialize_option();
        List: deserialize_seq();
        List: deserialize_map();
        Struct: deserialize_tuple(length: usize);
        Struct: deserialize_newtype_struct(name: &'static str);
        Struct: deserialize_tuple_struct(name: &'static str, length: usize);
        Struct: deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        Struct: deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! copies {
    ($($method:ident($kind:ty)),*) => {$(
        fn $method<E: Error>(self, value: $kind) -> Result<Self::Value, E> {
            self.account.charge_copy(value.len())?;
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Limited<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.expecting(formatter)
    }

    copies!(visit_str(&str), visit_borrowed_str(&'de str), visit_string(String));
    copies!(visit_bytes(&[u8]), visit_borrowed_bytes(&'de [u8]), visit_byte_buf(Vec<u8>));

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let Limited { inner: visitor, account, place, elements, .. } = self;
        visitor.visit_some(Limited { inner, account, place, elements, begun: false })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let Limited { inner: visitor, account, place, elements, .. } = self;
        visitor.visit_newtype_struct(Limited { inner, account, place, elements, begun: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Limited { inner: visitor, account, place, elements, .. } = self;
        visitor.visit_seq(Limited { inner, account, place, elements, begun: false })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Limited { inner: visitor, account, place, elements, .. } = self;
        visitor.visit_map(Limited { inner, account, place, elements, begun: false })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Limited { inner: visitor, account, place, elements, .. } = self;
        visitor.visit_enum(Limited { inner, account, place, elements, begun: false })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = Limited::new::<S::Value>(seed, self.account);
        if !self.elements {
            return self.inner.next_element_seed(seed);
        }
        // An element is charged before it is made, the first with the list's allocation; what no element followed is given back.
        let memory = match size_of::<S::Value>() {
            size if self.begun && size > 0 => size,
            _ => memory_of_list::<S::Value>(1, SERDE_FACTOR),
        };
        self.begun = true;
        seed.account.charge(memory)?;
        let element = self.inner.next_element_seed(seed)?;
        if element.is_none() {
            self.account.limits.give_back(memory);
        }
        Ok(element)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|hint| hint.min(self.account.bytes))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let key = self.inner.next_key_seed(Limited::new::<S::Value>(seed, self.account))?;
        if key.is_some() {
            self.account.charge(2 * size_of::<S::Value>() + ENTRY_OVERHEAD)?;
        }
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.account.charge(2 * size_of::<S::Value>())?;
        self.inner.next_value_seed(Limited::new::<S::Value>(seed, self.account))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|hint| hint.min(self.account.bytes))
    }
}

impl<'l, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Limited<'l, A> {
    type Error = A::Error;
    type Variant = Limited<'l, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let Self { inner, account, place, elements, .. } = self;
        let (name, inner) = inner.variant_seed(seed)?;
        Ok((name, Limited { inner, account, place, elements, begun: false }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let Self { inner, account, place, elements, .. } = self;
        inner.newtype_variant_seed(Limited { inner: seed, account, place, elements, begun: false })
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        let Self { inner, account, place, elements, .. } = self;
        inner.tuple_variant(length, Limited { inner: visitor, account, place, elements, begun: false })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let Self { inner, account, place, elements, .. } = self;
        inner.struct_variant(fields, Limited { inner: visitor, account, place, elements, begun: false })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Limited<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let Self { inner: seed, account, place, elements, .. } = self;
        seed.deserialize(Limited { inner, account, place, elements, begun: false })
    }
}
