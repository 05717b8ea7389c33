//! A deserializer that bounds how many elements it hands out, around one that believes any length.
//!
//! The decoder counts up to whatever length stands in front of a sequence. Elements that take bytes end with the bytes, but
//! elements that take none do not: eight bytes could keep a process busy for years, or fill its memory. So every element of
//! a sequence or map is paid for out of one budget for the whole value: its bytes, and [`EMPTY_ELEMENTS_MAX`] beyond.
//!
//! Likewise one byte is enough for one more level of a type that contains itself, and each level takes stack; who runs out
//! of that is killed. So a value may go as deep as the stack of this thread allows, less a reserve. Each type that contains
//! itself does so by way of an option, an enum, a sequence or a map: there it is looked how deep this thread has got.
//!
//! All else is passed on as it is. Elements are paid for in advance, some at a time, so that a long sequence of small ones
//! is decoded no slower.

use crate::sys::stack;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::cell::Cell;
use std::fmt;
use std::ops::Range;

/// How many elements that take no bytes one value may have.
pub(crate) const EMPTY_ELEMENTS_MAX: u64 = 1 << 20;

/// How many elements are paid for at a time.
const ADVANCE: u64 = 64;

/// What is left to pay elements with, and where this thread is not to go.
#[derive(Debug)]
pub(crate) struct Budget {
    elements: Cell<u64>,
    reserve: Range<usize>,
}

impl Budget {
    /// Pays for the elements of a value of `bytes` bytes.
    pub(crate) fn of(bytes: usize) -> Budget {
        Budget {
            elements: Cell::new((bytes as u64).saturating_add(EMPTY_ELEMENTS_MAX)),
            reserve: stack::reserve(),
        }
    }

    /// Whether there is stack for one more level.
    #[inline]
    fn check_depth<E: Error>(&self) -> Result<(), E> {
        if self.reserve.contains(&stack::here()) {
            return Err(E::custom(
                "it is nested deeper than the stack of this thread allows",
            ));
        }
        Ok(())
    }
}

/// Wraps a deserializer, a visitor, an access or a seed, so that what it leads to is wrapped as well.
pub(crate) struct Bounded<'b, T> {
    inner: T,
    budget: &'b Budget,
    /// Of a visitor: whether what it visits has a length of its own. That of a tuple or a struct stands in its type.
    counts: bool,
}

impl<'b, T> Bounded<'b, T> {
    pub(crate) fn new(inner: T, budget: &'b Budget) -> Bounded<'b, T> {
        Bounded {
            inner,
            budget,
            counts: false,
        }
    }

    fn wrap<U>(&self, inner: U) -> Bounded<'b, U> {
        Bounded::new(inner, self.budget)
    }

    fn elements<A>(&self, inner: A) -> Elements<'b, A> {
        Elements {
            inner,
            budget: self.budget,
            counts: self.counts,
            paid: 0,
        }
    }

    fn wrap_counted<V>(&self, visitor: V) -> Bounded<'b, V> {
        Bounded {
            counts: true,
            ..self.wrap(visitor)
        }
    }
}

/// The elements of one sequence or map, tuple or struct.
struct Elements<'b, A> {
    inner: A,
    budget: &'b Budget,
    counts: bool,
    /// How many are paid for and have not been handed out.
    paid: u64,
}

impl<A> Elements<'_, A> {
    /// No more than can be paid for: somebody may ask for memory on the word of it.
    fn capped(&self, hint: Option<usize>) -> Option<usize> {
        let left = self.budget.elements.get().saturating_add(self.paid);
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        hint.map(|hint| if self.counts { hint.min(most) } else { hint })
    }

    #[inline]
    fn pay<E: Error>(&mut self) -> Result<(), E> {
        if !self.counts {
            return Ok(());
        }
        if self.paid == 0 {
            let left = self.budget.elements.get();
            self.paid = left.min(ADVANCE);
            self.budget.elements.set(left - self.paid);
            if self.paid == 0 {
                return Err(E::custom("it has more elements than bytes to make them of"));
            }
        }
        self.paid -= 1;
        Ok(())
    }
}

impl<A> Drop for Elements<'_, A> {
    fn drop(&mut self) {
        self.budget
            .elements
            .set(self.budget.elements.get() + self.paid);
    }
}

/// Passes methods of a deserializer on, with the visitor wrapped.
macro_rules! pass_on {
    ($wrap:ident: $($method:ident)*) => { $(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.$wrap(visitor);
            self.inner.$method(visitor)
        }
    )* };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    pass_on! { wrap_counted: deserialize_any deserialize_seq deserialize_map deserialize_ignored_any }

    pass_on! { wrap:
        deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_option deserialize_unit
        deserialize_identifier
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.wrap(visitor);
        self.inner.deserialize_unit_struct(name, visitor)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.wrap(visitor);
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.wrap(visitor);
        self.inner.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.wrap(visitor);
        self.inner.deserialize_tuple_struct(name, len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.wrap(visitor);
        self.inner.deserialize_struct(name, fields, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.wrap(visitor);
        self.inner.deserialize_enum(name, variants, visitor)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Passes methods of a visitor on that are given a plain value.
macro_rules! visit_plain {
    ($($method:ident($kind:ty))*) => { $(
        #[inline]
        fn $method<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )* };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    visit_plain! {
        visit_bool(bool) visit_char(char)
        visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128)
        visit_f32(f32) visit_f64(f64)
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.budget.check_depth()?;
        let deserializer = self.wrap(deserializer);
        self.inner.visit_some(deserializer)
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        if self.counts {
            self.budget.check_depth()?;
        }
        let elements = self.elements(elements);
        self.inner.visit_seq(elements)
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.budget.check_depth()?;
        let elements = self.elements(elements);
        self.inner.visit_map(elements)
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, variants: A) -> Result<V::Value, A::Error> {
        self.budget.check_depth()?;
        let variants = self.wrap(variants);
        self.inner.visit_enum(variants)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.pay()?;
        self.inner
            .next_element_seed(Bounded::new(seed, self.budget))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.capped(self.inner.size_hint())
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.pay()?;
        self.inner.next_key_seed(Bounded::new(seed, self.budget))
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Bounded::new(seed, self.budget))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.capped(self.inner.size_hint())
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'b, A> {
    type Error = A::Error;
    type Variant = Bounded<'b, A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let seed = self.wrap(seed);
        let budget = self.budget;
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Bounded::new(variant, budget)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.newtype_variant_seed(seed)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::EMPTY_ELEMENTS_MAX;
    use crate::wire::codec::{decode, encode};
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;
    use std::fmt::Debug;
    use std::marker::PhantomData;

    fn assert_comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let mut bytes = Vec::new();
        encode(value, &mut bytes).unwrap();
        assert_eq!(&decode::<T>(&bytes).unwrap(), value);
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Default)]
    struct Hollow {
        nothing: (),
        none: PhantomData<String>,
        array: [(); 3],
        byte: u8,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    enum Shape {
        Unit,
        New(Vec<()>),
        Tuple(u8, Vec<Hollow>),
        Struct { map: BTreeMap<u8, Vec<()>> },
    }

    #[test]
    fn values_of_every_shape_come_back() {
        let shapes = vec![
            Shape::Unit,
            Shape::New(vec![(); 1000]),
            Shape::Tuple(1, vec![Hollow::default(); 3]),
            Shape::Struct {
                map: (0..9).map(|at| (at, vec![(); 9])).collect(),
            },
        ];
        assert_comes_back(&(shapes, Some("text".to_owned()), 'x', 1.5f32, -7i128, true));
    }

    #[test]
    fn what_a_type_alone_makes_long_costs_nothing() {
        assert_comes_back(&vec![Hollow::default(); 3 << 20]);
        assert_comes_back(&vec![Vec::<u8>::new(); 1 << 20]);
        assert_comes_back(&vec![(); EMPTY_ELEMENTS_MAX as usize]);
    }

    #[test]
    fn elements_that_take_no_bytes_end() {
        let lengths = [EMPTY_ELEMENTS_MAX + 9, 1 << 40, u64::MAX >> 1, u64::MAX];
        for length in lengths {
            assert!(decode::<Vec<()>>(&length.to_le_bytes()).is_err());
            assert!(decode::<BTreeMap<(), ()>>(&length.to_le_bytes()).is_err());
        }
        let mut nested = 1000u64.to_le_bytes().to_vec();
        nested.extend((0..1000).flat_map(|_| EMPTY_ELEMENTS_MAX.to_le_bytes()));
        assert!(decode::<Vec<Vec<()>>>(&nested).is_err());
    }

    /// Contains itself; one byte for each level.
    #[derive(Debug, Serialize, Deserialize)]
    struct Chain(Option<Box<Chain>>);

    #[derive(Debug, Serialize, Deserialize)]
    struct Tree(Vec<Tree>);

    #[test]
    fn a_value_goes_as_deep_as_the_stack_allows_and_no_deeper() {
        let within = |size: usize| {
            let thread = std::thread::Builder::new().stack_size(size);
            let depths = thread.spawn(|| {
                let reaches = |depth: usize| {
                    let mut bytes = vec![1; depth];
                    bytes.push(0);
                    decode::<Chain>(&bytes).is_ok()
                };
                let deepest = (0..24).take_while(|&power| reaches(1 << power)).last();
                assert!(!reaches(8 << 20));
                let mut bytes = 1_u64.to_le_bytes().repeat(1 << 20);
                bytes.extend(0_u64.to_le_bytes());
                assert!(decode::<Tree>(&bytes).is_err());
                deepest
            });
            depths.unwrap().join().unwrap().unwrap()
        };
        let (small, large) = (within(512 << 10), within(16 << 20));
        assert!(
            small >= 5 && large > small,
            "2^{small} and 2^{large} levels"
        );
    }
}
