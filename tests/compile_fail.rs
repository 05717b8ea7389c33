//! What the compiler must refuse, and what it must then say. `TRYBUILD=overwrite` writes the expected messages anew; read
//! them before committing them.

mod common;

use std::fs;
use std::path::Path;

#[test]
fn functions_that_capture_and_values_that_cannot_travel_are_refused() {
    let cases = trybuild::TestCases::new();
    // One that passes makes trybuild build instead of check: a capture is noticed when the function is instantiated.
    cases.pass("tests/ui/pass.rs");
    cases.compile_fail("tests/ui/*_captures*.rs");
    cases.compile_fail("tests/ui/item_*.rs");
    cases.compile_fail("tests/ui/*_not_portable.rs");
}

/// The messages, as they were accepted.
fn messages(named: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let mut messages = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of cases") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.extension().is_some_and(|extension| extension == "rs") && named(&name) {
            let message = fs::read_to_string(path.with_extension("stderr"));
            messages.push((
                name,
                message.expect("its message, written with TRYBUILD=overwrite"),
            ));
        }
    }
    messages
}

#[test]
fn the_message_about_a_capture_says_what_to_write_instead() {
    let messages = messages(|name| name.contains("_captures"));
    assert!(messages.len() >= 8, "{messages:?}");
    for (name, message) in messages {
        let remedy = match &name {
            name if name.starts_with("process") => "spawn((",
            name if name.starts_with("closure") => "Closure::with(",
            _ => ".with(",
        };
        assert!(
            message.contains(remedy),
            "{name} names {remedy:?}:\n{message}"
        );
        assert!(
            message.contains("captur"),
            "{name} says what is wrong:\n{message}"
        );
        assert!(
            message.contains(&format!("tests/ui/{name}.rs")),
            "{name} says where:\n{message}"
        );
    }
}

#[test]
fn the_message_about_a_value_names_portable_or_serde() {
    for (name, message) in messages(|name| name.ends_with("_not_portable")) {
        assert!(
            message.contains("Serialize") || message.contains("Portable"),
            "{name}:\n{message}"
        );
    }
}
