//! What all of them have in common: a place in shared memory, and who holds it.

use crate::error::Result;
use crate::shm::Slot;
use crate::sys::{identity, limits, robust};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Makes a place of `len` zeros for `what`, which a message about failing names.
pub(crate) fn allocate(what: &str, len: usize) -> Result<Slot> {
    robust::prepare()
        .and_then(|()| Slot::allocate(len))
        .map_err(|error| limits::explained(format!("cannot make a {what}"), error))
}

/// Takes in a place that must be one of `len` bytes.
pub(crate) fn arrive<'de, D: Deserializer<'de>>(
    deserializer: D,
    len: usize,
) -> Result<Slot, D::Error> {
    let slot = Slot::deserialize(deserializer)?;
    if slot.len() != len {
        return Err(D::Error::custom("shared memory came that is another's"));
    }
    robust::prepare().map_err(D::Error::custom)?;
    Ok(slot)
}

/// Who holds something, for a person to read. The number comes from shared memory and may be any.
pub(crate) struct Owner(pub(crate) Option<u32>);

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tid) = self.0 else {
            return f.write_str("None");
        };
        match identity::process_of_thread(tid) {
            Some((pid, name)) if pid == tid => write!(f, "{name} (pid {pid})"),
            Some((pid, name)) => write!(f, "{name} (pid {pid}, thread {tid})"),
            None => write!(f, "thread {tid}, which is not there"),
        }
    }
}
