//! A value that is short enough to stand with who has it, and one of a batch that waits for others to travel with.
//!
//! Ten thousand calls under way are ten thousand arguments and results. What is allocated by one thread and freed by
//! another costs more than all else that is done to a number on its way.

use crate::wire::batch::{Batch, Lane};

/// How many bytes stand in place.
const FEW: usize = 23;

/// A few bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Few {
    len: u8,
    bytes: [u8; FEW],
}

impl Few {
    /// Keeps a copy of `bytes`; `None` where these are too many.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Option<Few> {
        let mut few = Few {
            len: u8::try_from(bytes.len()).ok()?,
            bytes: [0; FEW],
        };
        few.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(few)
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// One value on its way, until it travels with others in a batch.
#[derive(Debug)]
pub(crate) enum Single {
    Few(Lane, Few),
    Batch(Box<Batch>),
}

impl Single {
    /// A value with a batch of its own.
    pub(crate) fn of(batch: Batch) -> Single {
        let is_bare = batch.count() == 1 && batch.descriptors(0..1).is_empty();
        match Few::of(batch.slice(0..batch.count())) {
            Some(few) if is_bare && batch.lane() != Lane::Whole => Single::Few(batch.lane(), few),
            _ => Single::Batch(Box::new(batch)),
        }
    }

    /// A batch that begins with it.
    pub(crate) fn into_batch(self) -> Batch {
        match self {
            Single::Few(lane, few) => {
                let mut batch = Batch::empty(lane);
                batch.append_bytes(few.bytes());
                batch
            }
            Single::Batch(batch) => *batch,
        }
    }

    /// Whether it can stand behind the values of `batch`.
    pub(crate) fn can_join(&self, batch: &Batch) -> bool {
        let lane = match self {
            Single::Few(lane, _) => *lane,
            Single::Batch(own) => own.lane(),
        };
        let has_moved = matches!(self, Single::Batch(own) if own.has_moved());
        lane == batch.lane() && lane != Lane::Whole && !has_moved && !batch.has_moved()
    }

    /// Puts it behind the values of `batch`, which it [can join](Single::can_join).
    pub(crate) fn join(self, batch: &mut Batch) {
        match self {
            Single::Few(_, few) => batch.append_bytes(few.bytes()),
            Single::Batch(own) => batch.append_batch(*own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch::{Frames, split_frame};
    use crate::wire::handles::Enclosed;

    #[test]
    fn a_few_bytes_are_kept_and_more_are_not() {
        for len in [0, 1, FEW] {
            let bytes = vec![7; len];
            assert_eq!(Few::of(&bytes).unwrap().bytes(), bytes);
        }
        assert!(Few::of(&[7; FEW + 1]).is_none());
        assert!(Few::of(&[7; 256]).is_none());
    }

    #[test]
    fn short_and_long_values_stand_in_one_batch_as_they_came() {
        let framed = |len: usize| {
            let mut frames = Frames::default();
            let packed = frames.push(|out| {
                out.resize(out.len() + len, len as u8);
                Ok(Enclosed::default())
            });
            packed.unwrap();
            Single::of(Batch::framed(frames))
        };
        let lens = [0, 15, 16, 3, 100];
        let mut singles = lens.iter().map(|&len| framed(len));
        let mut batch = singles.next().unwrap().into_batch();
        for single in singles {
            assert!(single.can_join(&batch));
            single.join(&mut batch);
        }
        assert_eq!(batch.count(), lens.len());
        for (place, len) in lens.into_iter().enumerate() {
            let mut part = batch.slice(place..place + 1);
            assert_eq!(split_frame(&mut part).unwrap().0, vec![len as u8; len]);
        }
        let number = || Single::of(Batch::numbers(2, 1, Box::new(vec![7_u16])));
        let whole = || Single::of(Batch::whole(Box::new(vec![1_u8])));
        assert!(!number().can_join(&batch) && !whole().can_join(&batch));
        assert!(number().can_join(&number().into_batch()));
        assert!(!whole().can_join(&whole().into_batch()));
    }
}
