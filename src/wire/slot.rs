//! A place in shared memory inside a value: its file rides along, and its offset and length are in the bytes.

use crate::shm::Slot;
use crate::wire::handles::Descriptor;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = Descriptor(self.file_for_sending());
        (file, self.offset() as u64, self.len() as u64).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (file, offset, len) = <(Descriptor, u64, u64)>::deserialize(deserializer)?;
        Slot::adopt(&file.0, offset, len)
            .map_err(|error| D::Error::custom(format!("shared memory came that is none: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::forks::apart;
    use crate::sys::shared::SharedFd;
    use crate::wire::{codec, handles};
    use std::sync::atomic::Ordering;

    #[test]
    fn objects_of_one_segment_bring_one_descriptor() {
        let _apart = apart::no_forks();
        let slots: Vec<Slot> = (0..100).map(|_| Slot::allocate(8).unwrap()).collect();
        let mut bytes = Vec::new();
        let enclosed = handles::collect(|| codec::encode(&slots, &mut bytes)).unwrap();
        // Two, where the segment was full in between.
        assert!(enclosed.descriptors().len() <= 2);
        let copies = enclosed.descriptors().iter();
        let copies = copies
            .map(|file| SharedFd::of(file.try_clone().unwrap()))
            .collect();
        let there: Vec<Slot> = handles::hand_out(copies, || codec::decode(&bytes)).unwrap();
        for (number, (ours, theirs)) in slots.iter().zip(&there).enumerate() {
            let word = |slot: &Slot| slot.mapping().word(slot.offset()).as_ptr();
            assert_eq!(word(ours), word(theirs));
            ours.mapping()
                .word(ours.offset())
                .store(number as u64, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_foreign_serializer_is_refused() {
        let slot = Slot::allocate(8).unwrap();
        assert!(serde_json::to_string(&slot).is_err());
    }
}
