//! What one side keeps for the other: what is named is there.

use crate::kernel::{WHOLE, explore, start};
use crate::loan::{lend, let_go, take_back};
use crate::memory::Mapping;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const MARK: u64 = 7;

// Places of the words, the last of which stands for the ring: how many messages have named it.
const HELD: usize = 0;
const LENT: usize = 8;
const SHOWN: usize = 16;

#[derive(Clone)]
struct Words(Arc<Mapping>);

impl Words {
    fn lend(&self) -> bool {
        let held = || self.0.word(HELD).load(Acquire);
        lend(self.0.word(LENT), held, MARK)
    }
}

struct Holder {
    words: Words,
    is_there: bool,
    borrowed: u64,
}

impl Holder {
    fn receive(&mut self) {
        let shown = self.words.0.word(SHOWN).load(Acquire);
        assert!(
            shown == self.borrowed || self.is_there,
            "what is named is not there"
        );
        self.borrowed = shown;
    }

    fn let_go(&mut self) {
        let Words(words) = &self.words;
        let lent = || words.word(LENT).load(Acquire);
        if self.is_there && let_go(words.word(HELD), lent, MARK, self.borrowed) {
            self.is_there = false;
        }
    }
}

fn model(lender: impl FnOnce(Words) + Clone + Send + Sync + 'static) {
    explore(WHOLE, move || {
        let words = Words(Arc::new(Mapping::new(24)));
        words.0.word(HELD).store(MARK, Relaxed);
        let (theirs, lender) = (words.clone(), lender.clone());
        let other = start(2, move || lender(theirs));
        let mut holder = Holder {
            words,
            is_there: true,
            borrowed: 0,
        };
        for _ in 0..2 {
            holder.let_go();
            holder.receive();
        }
        other.join().unwrap();
        holder.receive();
        holder.let_go();
        assert!(!holder.is_there, "it is kept though nothing is on its way");
    });
}

#[test]
fn what_is_named_is_there_and_what_nobody_names_goes() {
    model(|words| {
        let mut named = 0;
        for _ in 0..3 {
            if words.lend() {
                named += 1;
                words.0.word(SHOWN).store(named, Release);
            }
        }
    });
}

#[test]
fn what_is_not_named_after_all_goes_as_well() {
    model(|words| {
        if words.lend() {
            take_back(words.0.word(LENT));
        }
        if words.lend() {
            words.0.word(SHOWN).store(1, Release);
        }
    });
}
