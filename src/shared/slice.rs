//! `SharedSlice`: plain data that never changes again, read in place by any number of processes.

use crate::error::{Error, Result};
use crate::sys::frozen::{draft, freeze};
use crate::sys::limits;
use crate::sys::shared::{Content, SharedFd};
use crate::sys::step::step;
use crate::wire::handles::Descriptor;
use bytemuck::Pod;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// How many bytes [`SharedSlice::from_fn`] makes before it writes them.
const PORTION: usize = 64 << 10;

/// Holds a slice of plain data that any number of processes read in place: it is written once, sealed by the kernel against
/// any change, and then travels as a descriptor.
///
/// It derefs to `&[T]`. Clones, in this process and in others, are the same memory; it goes when the last of them has gone,
/// however it went. A process maps it once as long as it holds a clone, however often it is sent there. It may be made in
/// a worker and returned.
///
/// Making one copies the data once, into fresh memory. Sending one copies nothing, whatever its length. A pool's worker that has
/// it already is not even sent the descriptor; nor is one that had it for a call before, which keeps it mapped for the next: for a
/// few calls without it, and no longer than it sleeps for ten milliseconds. Reading costs a page fault for each 2 MiB the first
/// time it is mapped, where the kernel has large pages for it (Linux 6.1 or later), and else for each 64 KiB or so. What is not
/// read costs nothing.
///
/// `T` is plain data ([`bytemuck::Pod`]): numbers, arrays of them, and structs that derive it.
///
/// # Examples
///
/// ```
/// use multiprocess::{Pool, SharedSlice};
///
/// let prices = SharedSlice::from_fn(100_000, |day| day as f64)?;
/// let pool = Pool::builder().workers(2).build()?;
/// let sums = pool
///     .with(prices.clone())
///     .map([0, 50_000], |prices, start| prices[start..start + 10].iter().sum::<f64>())?;
/// assert_eq!(sums, [45.0, 500_045.0]);
/// assert_eq!(prices.len(), 100_000);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct SharedSlice<T> {
    content: Content,
    holds: PhantomData<Arc<[T]>>,
}

impl<T: Pod> SharedSlice<T> {
    /// Copies a slice into shared memory.
    ///
    /// # Errors
    ///
    /// Where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let slice = multiprocess::SharedSlice::from_slice(&[1_u32, 2, 3])?;
    /// assert_eq!(*slice, [1, 2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn from_slice(values: &[T]) -> Result<SharedSlice<T>> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        SharedSlice::write(bytes.len() as u64, |file| file.write_all(bytes))
    }

    /// Makes a slice of `len` values, the value of each from its index, without holding them all twice.
    ///
    /// # Errors
    ///
    /// Where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let squares = multiprocess::SharedSlice::from_fn(4, |n| (n * n) as u64)?;
    /// assert_eq!(*squares, [0, 1, 4, 9]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn from_fn(len: usize, mut value: impl FnMut(usize) -> T) -> Result<SharedSlice<T>> {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        SharedSlice::write(bytes, |file| {
            let at_once = (PORTION / size_of::<T>()).max(1);
            let mut portion: Vec<T> = Vec::with_capacity(at_once.min(len));
            for start in (0..len).step_by(at_once) {
                portion.clear();
                portion.extend((start..len.min(start + at_once)).map(&mut value));
                file.write_all(bytemuck::cast_slice(&portion))?;
            }
            Ok(())
        })
    }

    /// Copies a file into shared memory: its bytes are the values, as this machine has them in memory.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or does not hold whole values; where the system has no memory or no descriptor
    /// left.
    ///
    /// # Examples
    ///
    /// ```
    /// let path = std::env::temp_dir().join(format!("numbers-{}", std::process::id()));
    /// std::fs::write(&path, [1_u16, 2].map(u16::to_ne_bytes).concat()).unwrap();
    /// let numbers = multiprocess::SharedSlice::<u16>::from_file(&path)?;
    /// assert_eq!(*numbers, [1, 2]);
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<SharedSlice<T>> {
        let path = path.as_ref();
        let operation = || format!("cannot share what is in {}", path.display());
        let read = |error| Error::io(operation(), error);
        let source = File::open(path).map_err(|error| failed(operation(), error))?;
        let bytes = source.metadata().map_err(read)?.len();
        // Whoever writes past what a file may have is killed, and this one may have grown, or not say how long it is.
        let mut source = source.take(limits::file_size());
        let fill = |target: &mut File| {
            io::copy(&mut source, target)?;
            if source.limit() == 0 && source.get_mut().read(&mut [0])? > 0 {
                return Err(limits::too_large_a_file());
            }
            Ok(())
        };
        let content = keep(bytes, fill).map_err(|error| failed(operation(), error))?;
        let len = content.bytes().len();
        SharedSlice::of(content).ok_or_else(|| {
            let size = size_of::<T>();
            let why = format!("its {len} bytes are no whole number of values of {size} bytes");
            Error::refused(operation(), why)
        })
    }

    fn write(bytes: u64, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<SharedSlice<T>> {
        let failed = |error| failed("cannot make a shared slice", error);
        let content = keep(bytes, fill).map_err(failed)?;
        SharedSlice::of(content).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }

    /// `None` where the memory holds no whole number of values.
    fn of(content: Content) -> Option<SharedSlice<T>> {
        const {
            assert!(
                size_of::<T>() > 0,
                "values that take no memory cannot be shared"
            );
        }
        let bytes = content.bytes();
        if !bytes.is_empty() {
            bytemuck::try_cast_slice::<u8, T>(bytes).ok()?;
        }
        Some(SharedSlice {
            content,
            holds: PhantomData,
        })
    }
}

fn failed(operation: impl Into<String>, error: io::Error) -> Error {
    limits::explained(operation, error)
}

/// Keeps what `fill` writes, which is as a rule so many bytes.
fn keep(bytes: u64, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Content> {
    let mut file = draft(bytes)?;
    fill(&mut file)?;
    step!("slice::make::filled");
    let frozen = SharedFd::of(freeze(file)?);
    step!("slice::make::frozen");
    Content::of(&frozen)
}

impl<T: Pod> Deref for SharedSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        let bytes = self.content.bytes();
        if bytes.is_empty() {
            // These stand at no page, so that they may not even be aligned.
            return &[];
        }
        // It fits: that was looked at when `self` was made, and it never changes.
        bytemuck::cast_slice(bytes)
    }
}

impl<T: Pod> AsRef<[T]> for SharedSlice<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T> Clone for SharedSlice<T> {
    /// Makes another handle of the same memory.
    fn clone(&self) -> Self {
        SharedSlice {
            content: self.content.clone(),
            holds: PhantomData,
        }
    }
}

impl<T> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.content.bytes().len() / size_of::<T>().max(1);
        f.debug_struct("SharedSlice")
            .field("of", &std::any::type_name::<T>())
            .field("len", &len)
            .finish()
    }
}

impl<T> Serialize for SharedSlice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Descriptor(Arc::clone(self.content.file())).serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for SharedSlice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = Descriptor::deserialize(deserializer)?;
        step!("slice::arrive::read");
        let refused = |why: &dyn fmt::Display| {
            D::Error::custom(format!("a shared slice came that is none: {why}"))
        };
        let content = Content::of(&file.0).map_err(|error| refused(&error))?;
        SharedSlice::of(content).ok_or_else(|| refused(&"it holds no whole number of values"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::SealedMemory;
    use crate::wire::{codec, handles};
    use std::os::fd::OwnedFd;

    fn arrives<T: Pod>(file: OwnedFd) -> Result<SharedSlice<T>, String> {
        handles::hand_out(vec![SharedFd::of(file)], || {
            codec::decode(&0_u64.to_le_bytes())
        })
    }

    fn copy<T>(slice: &SharedSlice<T>) -> OwnedFd {
        slice.content.file().try_clone().unwrap()
    }

    #[test]
    fn it_is_mapped_once_however_often_it_arrives() {
        let slice = SharedSlice::from_slice(&[1_u32, 2, 3]).unwrap();
        let again: SharedSlice<u32> = arrives(copy(&slice)).unwrap();
        assert_eq!(again.as_ptr(), slice.as_ptr());
        let file = copy(&slice);
        drop((slice, again));
        assert_eq!(*arrives::<u32>(file).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn what_could_still_change_is_refused() {
        let writable = SealedMemory::create(4096).unwrap();
        let error = arrives::<u8>(writable.into()).unwrap_err();
        assert!(error.contains("sealed"), "{error}");
        assert!(arrives::<u8>(File::open("/dev/null").unwrap().into()).is_err());
    }

    #[test]
    fn values_of_another_size_are_refused() {
        let slice = SharedSlice::from_slice(&[1_u16, 2, 3]).unwrap();
        assert!(arrives::<u32>(copy(&slice)).is_err());
        assert_eq!(arrives::<[u16; 3]>(copy(&slice)).unwrap()[0], [1, 2, 3]);
    }
}
