//! A descriptor that many have, and what this process has mapped of its file, which lives as long.
//!
//! A file is mapped once in a process, however many descriptors of it arrive; and whoever keeps a descriptor, to be used again, keeps
//! what is mapped by it: the next one who wants it asks the kernel nothing.
//!
//! | | who wants what is in the file of a descriptor |
//! |---|---|
//! | it is mapped by that one | has it |
//! | by another one | has it with that other one, which stays for it; the first is not needed |
//! | by none | maps it by this one |
//! | by none, and another thread maps it as well | has what the quicker one has mapped |

use crate::sys::file::{Identity, identity};
use crate::sys::frozen::Frozen;
use crate::sys::known::Known;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

/// A descriptor, as it travels in values and is kept for later ones.
#[derive(Debug)]
pub(crate) struct SharedFd {
    descriptor: OwnedFd,
    mapped: OnceLock<Mapped>,
}

#[derive(Debug)]
struct Mapped {
    identity: Identity,
    content: Frozen,
}

/// The descriptors whose files are mapped in this process.
static KNOWN: Known<SharedFd> = Known::new();

impl SharedFd {
    /// Keeps a descriptor for many.
    pub(crate) fn of(descriptor: OwnedFd) -> Arc<SharedFd> {
        Arc::new(SharedFd {
            descriptor,
            mapped: OnceLock::new(),
        })
    }
}

impl Deref for SharedFd {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        &self.descriptor
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for SharedFd {
    fn drop(&mut self) {
        if let Some(mapped) = self.mapped.get() {
            KNOWN.forget(mapped.identity);
        }
    }
}

/// What is in a frozen memory file, with the descriptor that keeps it mapped. To get at it takes one load.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    bytes: NonNull<[u8]>,
    file: Arc<SharedFd>,
}

// SAFETY: it gives access to the descriptor and, by shared reference, to bytes that never change: it may go where these may.
unsafe impl Send for Content {}
// SAFETY: as above.
unsafe impl Sync for Content {}

impl Content {
    /// What is in a file, which may be any: one that the kernel would let anybody change is refused.
    #[inline]
    pub(crate) fn of(file: &Arc<SharedFd>) -> io::Result<Content> {
        match Content::mapped_by(file) {
            Some(content) => Ok(content),
            None => Content::find_or_map(file),
        }
    }

    #[inline]
    fn mapped_by(file: &Arc<SharedFd>) -> Option<Content> {
        let mapped = file.mapped.get()?;
        Some(Content {
            bytes: NonNull::from(mapped.content.bytes()),
            file: Arc::clone(file),
        })
    }

    #[cold]
    fn find_or_map(file: &Arc<SharedFd>) -> io::Result<Content> {
        let identity = identity(file)?;
        let known = match KNOWN.find(identity) {
            Some(known) => known,
            None => {
                let content = Frozen::map(file)?;
                let mapped = Mapped { identity, content };
                // One that is mapped is known: it was not, or it would have been found.
                let note = |fresh: &SharedFd| drop(fresh.mapped.set(mapped));
                KNOWN.enter(identity, Arc::clone(file), note)
            }
        };
        Content::mapped_by(&known).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The bytes, from the start of a page.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: lent by the `Frozen` in `file`, which stays there, mapped, as long as that lives: once set it is never changed.
        unsafe { self.bytes.as_ref() }
    }

    /// The descriptor that it is mapped by.
    pub(crate) fn file(&self) -> &Arc<SharedFd> {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::frozen::{draft, freeze};
    use std::io::Write;
    use std::sync::Barrier;

    fn frozen() -> Arc<SharedFd> {
        let mut file = draft(5).unwrap();
        file.write_all(b"hello").unwrap();
        SharedFd::of(freeze(file).unwrap())
    }

    fn another(file: &Arc<SharedFd>) -> Arc<SharedFd> {
        SharedFd::of(file.try_clone().unwrap())
    }

    #[test]
    fn it_is_mapped_as_long_as_its_descriptor_is_there() {
        let file = frozen();
        let first = Content::of(&file).unwrap();
        let address = first.bytes().as_ptr();
        assert_eq!(first.bytes(), b"hello");
        drop(first);
        let identity = identity(&file).unwrap();
        assert!(KNOWN.has(identity));
        assert_eq!(Content::of(&file).unwrap().bytes().as_ptr(), address);
        drop(file);
        assert!(!KNOWN.has(identity));
    }

    #[test]
    fn what_is_mapped_by_another_descriptor_is_not_mapped_again() {
        let file = frozen();
        let (other, third) = (another(&file), another(&file));
        let content = Content::of(&file).unwrap();
        assert!(Arc::ptr_eq(Content::of(&other).unwrap().file(), &file));
        assert!(other.mapped.get().is_none());
        drop((file, content));
        // It went with the descriptor by which it was mapped; the next one maps it.
        let content = Content::of(&other).unwrap();
        assert!(Arc::ptr_eq(content.file(), &other));
        drop(other);
        assert!(Arc::ptr_eq(
            Content::of(&third).unwrap().file(),
            content.file()
        ));
        assert_eq!(content.bytes(), b"hello");
    }

    #[test]
    fn threads_that_map_it_at_once_have_the_same() {
        for round in 0..200 {
            let file = frozen();
            let identity = identity(&file).unwrap();
            // By one descriptor, or by one each.
            let files = [0; 4].map(|_| match round % 2 {
                0 => Arc::clone(&file),
                _ => another(&file),
            });
            let start = Barrier::new(files.len());
            let contents = std::thread::scope(|scope| {
                let threads = files.each_ref().map(|file| {
                    scope.spawn(|| {
                        start.wait();
                        Content::of(file).unwrap()
                    })
                });
                threads.map(|thread| thread.join().unwrap())
            });
            let address = contents[0].bytes().as_ptr();
            assert!(contents.iter().all(|one| one.bytes().as_ptr() == address));
            let mapped = files.iter().filter(|file| file.mapped.get().is_some());
            assert_eq!(mapped.count(), if round % 2 == 0 { 4 } else { 1 });
            drop((files, contents, file));
            assert!(!KNOWN.has(identity));
        }
    }

    #[test]
    fn what_can_change_is_refused() {
        let device = SharedFd::of(crate::sys::descriptor::null_device().unwrap());
        assert!(Content::of(&device).is_err());
        let open = SharedFd::of(draft(0).unwrap().into());
        assert!(Content::of(&open).is_err());
        assert!(!KNOWN.has(identity(&open).unwrap()));
    }
}
