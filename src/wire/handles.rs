//! Handles inside values: the descriptors that ride along with a value's bytes.
//!
//! Serde knows bytes only. So a scope is open on this thread while a value is encoded for a message of this crate: each
//! handle in it leaves its descriptors there and writes their places among them. While a value is decoded, another scope
//! hands them out by these places. Without a scope, which is what a foreign serializer finds, a handle refuses.
//!
//! | | the handle's `Serialize` | then |
//! |---|---|---|
//! | a handle that is shared | leaves a reference to its descriptors | they are sent; the kernel makes copies of them |
//! | a handle that moves | gives up its insides, and leaves word of how to take them back | [`Enclosed::depart`]: they are gone; dropped: they come back |
//!
//! A place that leads nowhere is an error of the value in which it stands.

use crate::sys::shared::SharedFd;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

const NO_SCOPE: &str = "a handle means something to processes of this program only: it travels in their messages, and has no \
                        other form";

const NO_DESCRIPTOR: &str = "a handle came without its descriptors: this process may open no more (RLIMIT_NOFILE), too many \
                             were on their way at once, or what sent it has gone wrong";

/// What rides along with one encoded value; most have nothing.
#[derive(Default)]
pub(crate) struct Enclosed(Option<Box<Contents>>);

#[derive(Default)]
struct Contents {
    descriptors: Vec<Arc<SharedFd>>,
    undo: Vec<Box<dyn FnOnce() + Send>>,
}

enum Scope {
    Leaving(Enclosed),
    Arriving(Vec<Arc<SharedFd>>),
}

thread_local! {
    /// A value that is encoded may encode another one meanwhile, for another message.
    static SCOPES: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
}

impl Enclosed {
    /// The descriptors, while it is not certain yet that the value leaves.
    #[inline]
    pub(crate) fn descriptors(&self) -> &[Arc<SharedFd>] {
        self.0
            .as_deref()
            .map_or(&[], |contents| &contents.descriptors)
    }

    /// The value has left: what moved with it does not come back.
    #[inline]
    pub(crate) fn depart(self) -> Vec<Arc<SharedFd>> {
        self.0.map_or_else(Vec::new, |contents| contents.depart())
    }

    /// Whether a handle moves with it, as one does that is in one process at a time.
    #[inline]
    pub(crate) fn has_moved(&self) -> bool {
        self.0
            .as_deref()
            .is_some_and(|contents| !contents.undo.is_empty())
    }

    fn contents(&mut self) -> &mut Contents {
        self.0.get_or_insert_default()
    }
}

impl Contents {
    fn depart(mut self) -> Vec<Arc<SharedFd>> {
        self.undo.clear();
        std::mem::take(&mut self.descriptors)
    }
}

impl Drop for Contents {
    /// The value stays after all: handles that had moved get their insides back.
    fn drop(&mut self) {
        // What comes back is to be nobody else's.
        self.descriptors.clear();
        for undo in self.undo.drain(..).rev() {
            undo();
        }
    }
}

impl fmt::Debug for Enclosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enclosed")
            .field("descriptors", &self.descriptors())
            .finish_non_exhaustive()
    }
}

/// Closes the scope again when the code in it panics.
struct Open;

impl Open {
    fn new(scope: Scope) -> Open {
        SCOPES.with(|scopes| scopes.borrow_mut().push(scope));
        Open
    }

    fn close(self) -> Option<Scope> {
        std::mem::forget(self);
        SCOPES.with(|scopes| scopes.borrow_mut().pop())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Not under the borrow: what moved comes back now, which runs code of its own.
        let _left = SCOPES.with(|scopes| scopes.borrow_mut().pop());
    }
}

/// Runs `encode`; the handles that it encodes leave their descriptors in what is returned.
///
/// # Errors
///
/// Those of `encode`. Handles that had moved get their insides back, as they do when it panics.
#[inline]
pub(crate) fn collect<E>(encode: impl FnOnce() -> Result<(), E>) -> Result<Enclosed, E> {
    let open = Open::new(Scope::Leaving(Enclosed::default()));
    let result = encode();
    let enclosed = match open.close() {
        Some(Scope::Leaving(enclosed)) => enclosed,
        _ => Enclosed::default(),
    };
    result.map(|()| enclosed)
}

/// Runs `decode`; the handles that it decodes take their descriptors from these. What none of them takes is closed.
#[inline]
pub(crate) fn hand_out<R>(descriptors: Vec<Arc<SharedFd>>, decode: impl FnOnce() -> R) -> R {
    let open = Open::new(Scope::Arriving(descriptors));
    let result = decode();
    let _not_taken = open.close();
    result
}

/// In the `Serialize` of a handle that moves: has `undo` run if the value does not leave after all.
///
/// # Errors
///
/// Where no message of this crate is being encoded; then nothing may move.
pub(crate) fn on_return(undo: impl FnOnce() + Send + 'static) -> Result<(), &'static str> {
    SCOPES.with(|scopes| match scopes.borrow_mut().last_mut() {
        Some(Scope::Leaving(enclosed)) => {
            enclosed.contents().undo.push(Box::new(undo));
            Ok(())
        }
        _ => Err(NO_SCOPE),
    })
}

/// A descriptor of a handle: encoded, it is a place among those that ride along. Several handles may share one.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor(pub(crate) Arc<SharedFd>);

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Descriptor {
        Descriptor(SharedFd::of(descriptor))
    }
}

impl From<Arc<SharedFd>> for Descriptor {
    fn from(descriptor: Arc<SharedFd>) -> Descriptor {
        Descriptor(descriptor)
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = SCOPES.with(|scopes| match scopes.borrow_mut().last_mut() {
            Some(Scope::Leaving(enclosed)) => {
                let descriptors = &mut enclosed.contents().descriptors;
                let known = descriptors
                    .iter()
                    .position(|known| Arc::ptr_eq(known, &self.0));
                Some(known.unwrap_or_else(|| {
                    descriptors.push(Arc::clone(&self.0));
                    descriptors.len() - 1
                }))
            }
            _ => None,
        });
        (place.ok_or_else(|| S::Error::custom(NO_SCOPE))? as u64).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let place = u64::deserialize(deserializer)?;
        SCOPES.with(|scopes| match scopes.borrow().last() {
            Some(Scope::Arriving(descriptors)) => usize::try_from(place)
                .ok()
                .and_then(|place| descriptors.get(place))
                .map(|descriptor| Descriptor(Arc::clone(descriptor)))
                .ok_or_else(|| D::Error::custom(NO_DESCRIPTOR)),
            _ => Err(D::Error::custom(NO_SCOPE)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor::null_device;
    use crate::wire::codec;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn descriptor() -> Descriptor {
        null_device().unwrap().into()
    }

    fn copies(enclosed: &Enclosed) -> Vec<Arc<SharedFd>> {
        let copy = |descriptor: &Arc<SharedFd>| SharedFd::of(descriptor.try_clone().unwrap());
        enclosed.descriptors().iter().map(copy).collect()
    }

    #[test]
    fn descriptors_ride_along_each_once_and_are_found_by_their_place() {
        let (one, other) = (descriptor(), descriptor());
        let value = vec![one.clone(), other, one];
        let mut bytes = Vec::new();
        let enclosed = collect(|| codec::encode(&value, &mut bytes)).unwrap();
        assert_eq!(enclosed.descriptors().len(), 2);
        let back: Vec<Descriptor> = hand_out(copies(&enclosed), || codec::decode(&bytes)).unwrap();
        assert!(Arc::ptr_eq(&back[0].0, &back[2].0) && !Arc::ptr_eq(&back[0].0, &back[1].0));
    }

    #[test]
    fn without_a_scope_a_handle_refuses() {
        let error = serde_json::to_string(&descriptor()).unwrap_err();
        assert!(error.to_string().contains("handle"), "{error}");
        assert!(codec::encode(&descriptor(), &mut Vec::new()).is_err());
        assert!(codec::decode::<Descriptor>(&[0; 8]).is_err());
        assert!(on_return(|| ()).is_err());
    }

    #[test]
    fn a_place_that_leads_nowhere_is_an_error() {
        for place in [1, u64::MAX] {
            let bytes = place.to_le_bytes();
            let one = vec![SharedFd::of(null_device().unwrap())];
            assert!(hand_out(one, || codec::decode::<Descriptor>(&bytes)).is_err());
        }
    }

    #[test]
    fn what_moved_comes_back_unless_the_value_leaves() {
        static BACK: AtomicUsize = AtomicUsize::new(0);
        fn count() {
            BACK.fetch_add(1, Ordering::Relaxed);
        }
        let moving = || on_return(count);
        let back = || BACK.swap(0, Ordering::Relaxed);
        collect(moving).unwrap().depart();
        assert_eq!(back(), 0);
        drop(collect(moving).unwrap());
        assert_eq!(back(), 1);
        collect(|| moving().and(Err("another field"))).unwrap_err();
        assert_eq!(back(), 1);
        std::panic::catch_unwind(|| {
            let _never = collect(|| -> Result<(), &str> {
                moving().unwrap();
                panic!("in another field")
            });
        })
        .unwrap_err();
        assert_eq!(back(), 1);
        assert!(on_return(|| ()).is_err(), "the scope is closed");
    }
}
