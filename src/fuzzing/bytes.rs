//! An input of the fuzzer, read from front to back as numbers and pieces. Behind its end there are zeros.

/// What is left of the input.
#[derive(Clone, Debug)]
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Bytes<'a> {
        Bytes(input)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `len` bytes.
    pub(crate) fn piece(&mut self, len: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        piece
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.piece(usize::MAX)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.piece(1).first().copied().unwrap_or(0)
    }

    /// A number below `end`, which is at most 65,536.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = if end <= 256 {
            usize::from(self.byte())
        } else {
            usize::from(self.byte()) | usize::from(self.byte()) << 8
        };
        number % end
    }

    pub(crate) fn word(&mut self) -> u64 {
        let mut word = [0; 8];
        let piece = self.piece(8);
        word[..piece.len()].copy_from_slice(piece);
        u64::from_le_bytes(word)
    }

    /// A word that a program that has gone wrong, or one that means ill, would write where `before` stands.
    pub(crate) fn hostile_word(&mut self, before: u64) -> u64 {
        let kind = self.byte();
        match kind % 8 {
            0 => self.word(),
            1 => u64::from(self.byte()),
            2 => u64::MAX - u64::from(self.byte()),
            3 => before ^ 1 << (self.byte() % 64),
            4 => before.wrapping_add(u64::from(self.byte()) << (kind >> 3)),
            5 => before.wrapping_sub(u64::from(self.byte()) << (kind >> 3)),
            6 => before.wrapping_add(8),
            _ => 1 << (self.byte() % 64),
        }
    }
}
