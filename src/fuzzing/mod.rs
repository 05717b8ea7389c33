//! Doors for the fuzz targets in `fuzz/`. Each takes any bytes, does what another process could have us do with them, and
//! panics where that breaks a promise. They are built for fuzzing and for unit tests, which put the corpora through them.

#![allow(clippy::unwrap_used, reason = "a failure is what is looked for")]

mod bytes;
mod codec;
mod dispatcher;
mod frames;
mod handles;
mod handshake;
mod rings;

pub use codec::codec;
pub use dispatcher::dispatcher;
pub use frames::frames;
pub use handles::handles;
pub use handshake::handshake;
pub use rings::rings;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// The inputs that are checked in for a target, put through its door.
    fn replay(target: &str, door: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/corpora")
            .join(target);
        let mut inputs = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            door(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "no inputs for {target}");
    }

    macro_rules! corpus {
        ($name:ident, $door:ident) => {
            #[test]
            fn $name() {
                replay(stringify!($door), $door);
            }
        };
    }

    corpus!(the_corpus_of_codec_keeps_its_promises, codec);
    corpus!(the_corpus_of_dispatcher_keeps_its_promises, dispatcher);
    corpus!(the_corpus_of_frames_keeps_its_promises, frames);
    corpus!(the_corpus_of_handles_keeps_its_promises, handles);
    corpus!(the_corpus_of_handshake_keeps_its_promises, handshake);
    corpus!(the_corpus_of_rings_keeps_its_promises, rings);
}
