//! The steps that there are, as the source has them.

use std::collections::BTreeSet;
use std::fs;
use walkdir::WalkDir;

/// The name of each step in `src/`; fails where two have the same name.
pub(crate) fn in_source() -> BTreeSet<String> {
    let mut steps = BTreeSet::new();
    for entry in WalkDir::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")) {
        let entry = entry.unwrap();
        if entry
            .path()
            .extension()
            .is_none_or(|extension| extension != "rs")
        {
            continue;
        }
        for line in fs::read_to_string(entry.path()).unwrap().lines() {
            let code = line.split("//").next().unwrap();
            for name in code.split("step!(\"").skip(1) {
                let name = name.split('"').next().unwrap();
                assert!(steps.insert(name.to_owned()), "two steps are called {name}");
            }
        }
    }
    steps
}
