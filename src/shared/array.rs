//! `Array`: many values of plain data that any process reads and changes.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::shared::twin::{Locked, Twin};
use crate::shm::Slot;
use crate::sync::allocate;
use crate::sys::robust;
use bytemuck::{Pod, cast_slice, cast_slice_mut};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

/// Holds a fixed number of values of plain data that threads of any process read and change, one at a time.
///
/// No `&[T]` can lead to memory that another process can write, so [`lock`](Array::lock) gives a copy, which is written back if
/// it was changed: **it takes time in proportion to the whole array**, about a millisecond for 8 MiB, twice if it is
/// changed, and a large array needs its memory twice once it has been changed so. [`read`](Array::read),
/// [`write`](Array::write), [`get`](Array::get) and [`set`](Array::set) take time in proportion to what they touch. Data that
/// does not change belongs into a [`SharedSlice`](crate::SharedSlice), which costs nothing to read.
///
/// When a process dies, or is killed, with the lock held, nobody hangs: the next one has it, and what the dead one had not
/// given back is not there. Only [`write`](Array::write) may have been done in part; then each value is the old or the new
/// one, if its size divides 8.
///
/// Clones, in this process and in others, are the same array.
///
/// # Examples
///
/// ```
/// use multiprocess::{Array, Pool};
///
/// let squares: Array<u64> = Array::new(100)?;
/// let pool = Pool::builder().workers(2).build()?;
/// pool.with(squares.clone()).map(0..100_usize, |squares, n| squares.set(n, (n * n) as u64))?;
/// assert_eq!(squares.get(9), Some(81));
///
/// let mut all = squares.lock();
/// all.reverse();
/// drop(all);
/// assert_eq!(squares.get(0), Some(99 * 99));
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Array<T> {
    slot: Slot,
    len: usize,
    holds: PhantomData<Arc<[T]>>,
}

/// Holds the lock of an [`Array`], and a copy of its values. When it is dropped, the array is as the copy is, at once. A copy
/// that was not changed is not written back, nor is one in whose time the thread began to panic.
///
/// # Examples
///
/// ```
/// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
/// let mut guard = array.lock();
/// guard.reverse();
/// drop(guard);
/// assert_eq!(array.to_vec(), [3, 2, 1]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[must_use = "the lock is given back when this is dropped"]
pub struct ArrayGuard<'a, T: Pod> {
    values: Vec<T>,
    is_changed: bool,
    /// Was already when this was made, in the destructor of something else.
    was_panicking: bool,
    locked: Locked<'a>,
}

impl<T: Pod> Array<T> {
    /// Makes an array of `len` values, whose bytes are all zero.
    ///
    /// # Errors
    ///
    /// Where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::<f64>::new(2)?;
    /// assert_eq!(array.to_vec(), [0.0, 0.0]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new(len: usize) -> Result<Array<T>> {
        let room = Array::<T>::room_for(len).ok_or_else(|| {
            let why = format!("{len} values are more than there is memory for");
            Error::refused("cannot make a shared array", why)
        })?;
        Ok(Array {
            slot: allocate("shared array", room)?,
            len,
            holds: PhantomData,
        })
    }

    /// Copies a slice into shared memory.
    ///
    /// # Errors
    ///
    /// As [`Array::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// assert_eq!(array.to_vec(), [1, 2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn from_slice(values: &[T]) -> Result<Array<T>> {
        let array = Array::new(values.len())?;
        array.write(0, values);
        Ok(array)
    }

    /// Returns how many values it has.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// assert_eq!(array.len(), 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether it has none.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// assert!(!array.is_empty());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Waits until nobody else holds the lock, and holds it, with a copy of all values.
    ///
    /// # Panics
    ///
    /// Where this thread holds it already: it would wait for itself.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// array.lock()[1] = 7;
    /// assert_eq!(*array.lock(), [1, 7, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn lock(&self) -> ArrayGuard<'_, T> {
        self.guard(self.hold())
    }

    /// As [`lock`](Array::lock), at once or not at all.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// let guard = array.lock();
    /// assert!(array.try_lock().is_none());
    /// drop(guard);
    /// assert!(array.try_lock().is_some());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn try_lock(&self) -> Option<ArrayGuard<'_, T>> {
        Some(self.guard(self.twin().try_lock()?))
    }

    /// As [`lock`](Array::lock), but waits for no longer than `limit`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// let guard = array.lock();
    /// assert!(array.lock_timeout(Duration::from_millis(1)).is_none());
    /// drop(guard);
    /// assert!(array.lock_timeout(Duration::from_millis(1)).is_some());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn lock_timeout(&self, limit: Duration) -> Option<ArrayGuard<'_, T>> {
        let locked = self.twin().lock(Deadline::after(limit))?;
        Some(self.guard(locked))
    }

    /// Returns the value at `index`; `None` past the end. Waits for who holds the lock.
    ///
    /// # Panics
    ///
    /// As [`lock`](Array::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// assert_eq!((array.get(2), array.get(3)), (Some(3), None));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn get(&self, index: usize) -> Option<T> {
        if index >= self.len {
            return None;
        }
        let mut value = [T::zeroed()];
        self.read(index, &mut value);
        Some(value[0])
    }

    /// Replaces the value at `index`. Waits for who holds the lock.
    ///
    /// # Panics
    ///
    /// Where the array ends before; as [`lock`](Array::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// array.set(0, 7);
    /// assert_eq!(array.get(0), Some(7));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn set(&self, index: usize, value: T) {
        self.write(index, &[value]);
    }

    /// Copies the values from the index `start` on to `out`. Waits for who holds the lock.
    ///
    /// # Panics
    ///
    /// Where the array ends before; as [`lock`](Array::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1_u8, 2, 3])?;
    /// let mut two = [0; 2];
    /// array.read(1, &mut two);
    /// assert_eq!(two, [2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn read(&self, start: usize, out: &mut [T]) {
        self.check(start, out.len());
        self.hold()
            .read(start * size_of::<T>(), cast_slice_mut(out));
    }

    /// Copies `values` to the index `start` and those behind it, in place. Waits for who holds the lock.
    ///
    /// # Panics
    ///
    /// Where the array ends before; as [`lock`](Array::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// array.write(1, &[8, 9]);
    /// assert_eq!(array.to_vec(), [1, 8, 9]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn write(&self, start: usize, values: &[T]) {
        self.check(start, values.len());
        self.hold()
            .write(start * size_of::<T>(), cast_slice(values));
    }

    /// Returns a copy of all values. Waits for who holds the lock.
    ///
    /// # Panics
    ///
    /// As [`lock`](Array::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiprocess::Array::from_slice(&[1, 2, 3])?;
    /// assert_eq!(array.to_vec(), [1, 2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn to_vec(&self) -> Vec<T> {
        let mut values = bytemuck::zeroed_vec(self.len);
        self.read(0, &mut values);
        values
    }

    fn hold(&self) -> Locked<'_> {
        loop {
            assert!(
                !self.twin().is_locked_by_this_thread(),
                "this thread holds the lock of the array already"
            );
            // Without a deadline it is had.
            if let Some(locked) = self.twin().lock(Deadline::NEVER) {
                return locked;
            }
        }
    }

    fn guard<'a>(&'a self, locked: Locked<'a>) -> ArrayGuard<'a, T> {
        let mut values = bytemuck::zeroed_vec(self.len);
        locked.read(0, cast_slice_mut(&mut values));
        ArrayGuard {
            values,
            is_changed: false,
            was_panicking: std::thread::panicking(),
            locked,
        }
    }

    fn check(&self, start: usize, count: usize) {
        let end = start.checked_add(count);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{count} values from {start} are past the end of an array of {}",
            self.len
        );
    }

    fn twin(&self) -> Twin<'_> {
        Twin::at(&self.slot, self.len * size_of::<T>())
    }

    fn room_for(len: usize) -> Option<usize> {
        const {
            assert!(
                size_of::<T>() > 0,
                "values that take no memory cannot be shared"
            );
        }
        Twin::room_for(len.checked_mul(size_of::<T>())?)
    }
}

impl<T: Pod> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T: Pod> DerefMut for ArrayGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.is_changed = true;
        &mut self.values
    }
}

impl<T: Pod> Drop for ArrayGuard<'_, T> {
    fn drop(&mut self) {
        let is_sound = self.was_panicking || !std::thread::panicking();
        // A copy that a fork has made is its parent's.
        if self.is_changed && is_sound && self.locked.is_held_by_this_thread() {
            self.locked.publish(cast_slice(&self.values));
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T> Clone for Array<T> {
    /// Makes another handle of the same array.
    fn clone(&self) -> Self {
        Array {
            slot: self.slot.clone(),
            len: self.len,
            holds: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array")
            .field("of", &std::any::type_name::<T>())
            .field("len", &self.len)
            .finish()
    }
}

impl<T> Serialize for Array<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.slot, self.len as u64).serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Array<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (slot, len) = <(Slot, u64)>::deserialize(deserializer)?;
        let len = usize::try_from(len).map_err(D::Error::custom)?;
        if Array::<T>::room_for(len) != Some(slot.len()) {
            return Err(D::Error::custom("an array came that is another's"));
        }
        robust::prepare().map_err(D::Error::custom)?;
        Ok(Array {
            slot,
            len,
            holds: PhantomData,
        })
    }
}
