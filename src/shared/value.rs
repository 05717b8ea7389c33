//! `Value`: one piece of plain data that any process reads and changes.

use crate::deadline::Deadline;
use crate::error::Result;
use crate::shared::twin::Twin;
use crate::shm::Slot;
use crate::sync::{allocate, arrive};
use bytemuck::{Pod, bytes_of, bytes_of_mut};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// What fits into one word is one; anything else is kept twice.
const WORD: usize = size_of::<u64>();

/// Holds one value of plain data that threads of any process read and change.
///
/// Each call is one step for all others: no value is ever seen half-written, and no change is lost. That holds if a process
/// dies in the middle of a call, too: then the value is as it was before, or as it is after. What takes 8 bytes or fewer is
/// changed by atomic instructions; a larger value is written beside the old one, which it then replaces.
///
/// Clones, in this process and in others, are the same value.
///
/// `T` is plain data ([`bytemuck::Pod`]): numbers, arrays of them, and structs that derive it.
///
/// # Examples
///
/// ```
/// use multiprocess::{Pool, Value};
///
/// let counter = Value::new(0_u64)?;
/// let longest = Value::new([0_u32; 4])?;
/// let pool = Pool::builder().workers(2).build()?;
/// pool.with((counter.clone(), longest.clone())).map(0..100_u32, |(counter, longest), n| {
///     counter.fetch_add(1);
///     longest.update(|mut four| {
///         let slot = &mut four[n as usize % 4];
///         *slot = n.max(*slot);
///         four
///     });
/// })?;
/// assert_eq!(counter.get(), 100);
/// assert_eq!(longest.get(), [96, 97, 98, 99]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Value<T> {
    slot: Slot,
    holds: PhantomData<Arc<T>>,
}

/// The integers: what [`Value::fetch_add`] and its like work on.
///
/// # Examples
///
/// ```
/// fn count_down<T: multiprocess::Integer>(value: &multiprocess::Value<T>, by: T) -> T {
///     value.fetch_sub(by)
/// }
/// assert_eq!(count_down(&multiprocess::Value::new(7_u16)?, 2), 7);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub trait Integer: Pod + sealed::Sealed {
    #[doc(hidden)]
    fn plus(self, other: Self) -> Self;
    #[doc(hidden)]
    fn minus(self, other: Self) -> Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! integers {
    ($($integer:ident)*) => { $(
        impl sealed::Sealed for $integer {}
        impl Integer for $integer {
            #[inline]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
        }
    )* };
}
integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

impl<T: Pod> Value<T> {
    /// Places a value in shared memory.
    ///
    /// # Errors
    ///
    /// Where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let half = multiprocess::Value::new(0.5)?;
    /// assert_eq!(half.get(), 0.5);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new(value: T) -> Result<Value<T>> {
        let made = Value {
            slot: allocate("shared value", Value::<T>::ROOM)?,
            holds: PhantomData,
        };
        made.set(value);
        Ok(made)
    }

    /// Returns the value.
    ///
    /// # Examples
    ///
    /// ```
    /// let value = multiprocess::Value::new([1_u64, 2, 3])?;
    /// assert_eq!(value.get(), [1, 2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn get(&self) -> T {
        match self.word() {
            Some(word) => from_word(word.load(SeqCst)),
            None => self.load().1,
        }
    }

    /// Replaces the value.
    ///
    /// # Examples
    ///
    /// ```
    /// let value = multiprocess::Value::new(1)?;
    /// value.set(2);
    /// assert_eq!(value.get(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn set(&self, value: T) {
        match self.word() {
            Some(word) => word.store(to_word(value), SeqCst),
            None => {
                self.swap(value);
            }
        }
    }

    /// Replaces the value; returns what it was before.
    ///
    /// # Examples
    ///
    /// ```
    /// let value = multiprocess::Value::new(1)?;
    /// assert_eq!(value.swap(2), 1);
    /// assert_eq!(value.get(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn swap(&self, value: T) -> T {
        match self.word() {
            Some(word) => from_word(word.swap(to_word(value), SeqCst)),
            None => self.update(|_| value),
        }
    }

    /// Replaces the value by what `change` makes of it; returns what it was before.
    ///
    /// Others wait for nothing meanwhile. So when one of them was quicker, `change` is called again, with what it left:
    /// `change` is to do nothing else than to compute. If it panics, the value stays.
    ///
    /// # Examples
    ///
    /// ```
    /// let value = multiprocess::Value::new(1.5)?;
    /// assert_eq!(value.update(|v| v * 2.0), 1.5);
    /// assert_eq!(value.get(), 3.0);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn update(&self, mut change: impl FnMut(T) -> T) -> T {
        let Some(word) = self.word() else {
            return self.update_large(change);
        };
        let mut before = word.load(SeqCst);
        loop {
            let after = to_word(change(from_word(before)));
            match word.compare_exchange_weak(before, after, SeqCst, SeqCst) {
                Ok(_) => return from_word(before),
                Err(now) => before = now,
            }
        }
    }

    fn update_large(&self, mut change: impl FnMut(T) -> T) -> T {
        loop {
            let (version, before) = self.load();
            let after = change(before);
            // Without a deadline it is had.
            if let Some(locked) = self.twin().lock(Deadline::NEVER) {
                if locked.version() == version {
                    locked.publish(bytes_of(&after));
                    return before;
                }
            }
        }
    }

    /// A larger value and its version.
    fn load(&self) -> (u64, T) {
        let mut value = T::zeroed();
        let version = self.twin().load(bytes_of_mut(&mut value));
        (version, value)
    }

    #[inline]
    fn word(&self) -> Option<&AtomicU64> {
        let is_word = const { size_of::<T>() <= WORD };
        is_word.then(|| self.slot.mapping().word(self.slot.offset()))
    }

    fn twin(&self) -> Twin<'_> {
        Twin::at(&self.slot, size_of::<T>())
    }

    /// How long its place is. A type that is too large for two copies has none that could be had.
    const ROOM: usize = if size_of::<T>() <= WORD {
        WORD
    } else {
        match Twin::room_for(size_of::<T>()) {
            Some(room) => room,
            None => usize::MAX,
        }
    };
}

impl<T: Integer> Value<T> {
    /// Adds to the value, wrapping around at the end of its type, as `std`'s atomics do; returns what it was before.
    ///
    /// # Examples
    ///
    /// ```
    /// let value = multiprocess::Value::new(255_u8)?;
    /// assert_eq!(value.fetch_add(2), 255);
    /// assert_eq!(value.get(), 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn fetch_add(&self, other: T) -> T {
        match self.whole_word() {
            Some(word) => from_word(word.fetch_add(to_word(other), SeqCst)),
            None => self.update(|value| value.plus(other)),
        }
    }

    /// Subtracts from the value, wrapping around; returns what it was before.
    ///
    /// # Examples
    ///
    /// ```
    /// let value = multiprocess::Value::new(1_u8)?;
    /// assert_eq!(value.fetch_sub(2), 1);
    /// assert_eq!(value.get(), 255);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn fetch_sub(&self, other: T) -> T {
        match self.whole_word() {
            Some(word) => from_word(word.fetch_sub(to_word(other), SeqCst)),
            None => self.update(|value| value.minus(other)),
        }
    }

    /// Where the value takes up all of its word, so that the processor can add to it in one step.
    #[inline]
    fn whole_word(&self) -> Option<&AtomicU64> {
        self.word().filter(|_| size_of::<T>() == WORD)
    }
}

impl<T: Integer + Ord> Value<T> {
    /// Replaces the value by `other` if that is greater; returns what it was before.
    ///
    /// # Examples
    ///
    /// ```
    /// let highest = multiprocess::Value::new(3)?;
    /// highest.fetch_max(7);
    /// highest.fetch_max(5);
    /// assert_eq!(highest.get(), 7);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn fetch_max(&self, other: T) -> T {
        self.update(|value| value.max(other))
    }

    /// Replaces the value by `other` if that is smaller; returns what it was before.
    ///
    /// # Examples
    ///
    /// ```
    /// let lowest = multiprocess::Value::new(3)?;
    /// lowest.fetch_min(1);
    /// lowest.fetch_min(2);
    /// assert_eq!(lowest.get(), 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn fetch_min(&self, other: T) -> T {
        self.update(|value| value.min(other))
    }
}

#[inline]
fn to_word<T: Pod>(value: T) -> u64 {
    let mut bytes = [0; WORD];
    bytes[..size_of::<T>()].copy_from_slice(bytes_of(&value));
    u64::from_ne_bytes(bytes)
}

#[inline]
fn from_word<T: Pod>(word: u64) -> T {
    let mut value = T::zeroed();
    bytes_of_mut(&mut value).copy_from_slice(&word.to_ne_bytes()[..size_of::<T>()]);
    value
}

impl<T> Clone for Value<T> {
    /// Makes another handle of the same value.
    fn clone(&self) -> Self {
        Value {
            slot: self.slot.clone(),
            holds: PhantomData,
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Value").field(&self.get()).finish()
    }
}

impl<T> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.slot.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Value {
            slot: arrive(deserializer, Value::<T>::ROOM)?,
            holds: PhantomData,
        })
    }
}
