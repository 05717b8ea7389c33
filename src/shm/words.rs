//! Bytes in shared memory, copied as words, so that another thread or process may do the same meanwhile: each word is then
//! the old one or the new one.

use std::sync::atomic::{AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();

/// Copies from the byte at `at` of `words` to `out`.
///
/// # Panics
///
/// Where there are fewer.
pub(crate) fn load(words: &[AtomicU64], at: usize, out: &mut [u8]) {
    let (first, inner) = (at / WORD, at % WORD);
    let head = out.len().min((WORD - inner) % WORD);
    let (start, rest) = out.split_at_mut(head);
    if !start.is_empty() {
        let bytes = words[first].load(Ordering::Relaxed).to_ne_bytes();
        start.copy_from_slice(&bytes[inner..][..head]);
    }
    let words = &words[first + usize::from(inner > 0)..];
    let mut whole = rest.chunks_exact_mut(WORD);
    let count = whole.len();
    for (chunk, word) in whole.by_ref().zip(&words[..count]) {
        chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    let end = whole.into_remainder();
    if !end.is_empty() {
        let bytes = words[count].load(Ordering::Relaxed).to_ne_bytes();
        end.copy_from_slice(&bytes[..end.len()]);
    }
}

/// Copies `bytes` to the byte at `at` of `words`. What stands beside them in the first and the last word is written as it
/// was just read, so that only one may write there at a time.
///
/// # Panics
///
/// Where there is no room.
pub(crate) fn store(words: &[AtomicU64], at: usize, bytes: &[u8]) {
    let (first, inner) = (at / WORD, at % WORD);
    let head = bytes.len().min((WORD - inner) % WORD);
    let (start, rest) = bytes.split_at(head);
    if !start.is_empty() {
        store_part(&words[first], inner, start);
    }
    let words = &words[first + usize::from(inner > 0)..];
    let whole = rest.chunks_exact(WORD);
    let (count, end) = (whole.len(), whole.remainder());
    for (chunk, word) in whole.zip(&words[..count]) {
        let mut bytes = [0; WORD];
        bytes.copy_from_slice(chunk);
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
    if !end.is_empty() {
        store_part(&words[count], 0, end);
    }
}

fn store_part(word: &AtomicU64, at: usize, part: &[u8]) {
    let mut bytes = word.load(Ordering::Relaxed).to_ne_bytes();
    bytes[at..][..part.len()].copy_from_slice(part);
    word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_is_copied_and_what_is_beside_it_stays() {
        for start in 0..=24 {
            for end in start..=24 {
                let words: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(u64::MAX)).collect();
                let bytes: Vec<u8> = (1..).take(end - start).collect();
                store(&words, start, &bytes);
                let mut all = [0; 24];
                load(&words, 0, &mut all);
                let mut expected = [0xff; 24];
                expected[start..end].copy_from_slice(&bytes);
                assert_eq!(all, expected);
                let mut part = vec![0; end - start];
                load(&words, start, &mut part);
                assert_eq!(part, bytes);
            }
        }
    }
}
