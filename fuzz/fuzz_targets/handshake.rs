//! Puts the fuzzer's inputs through the door of the same name in `src/fuzzing/`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| multiprocess::fuzzing::handshake(input));
