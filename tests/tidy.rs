//! The project's own rules, which no other tool checks: layers, one door for `unsafe`, headers, versions.
//!
//! Each rule is a function from a [`Tree`] to a list of `path:line: what; what to do instead`. The tests
//! at the front hold this project to the rules, those at the end show on samples that each rule can fail.
//!
//! The scanner knows tokens, not Rust. It sees no path inside a string (`#[serde(with = "crate::..")]`)
//! and nothing that a macro puts together, and it reads the code of every `cfg` but `test`.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::{env, fs, io};

use serde_json::{Value, json};

/// Files, and folders with a `/` at the end, that may say `unsafe` beside `src/sys/`; each with its reason.
const UNSAFE_BESIDE_SYS: &[(&str, &str)] = &[
    (
        "benches/baseline/",
        "what we are compared with is bare system calls",
    ),
    (
        "examples/crash_isolation.rs",
        "C functions are what it is about",
    ),
    ("examples/survive.rs", "C functions are what it is about"),
    ("tests/common/unsafely.rs", "misfortunes are arranged here"),
];

/// Crates that only a part of `src` may name.
const DOORS: &[(&str, &str)] = &[
    ("libc", "src/sys/"),
    ("nix", "src/sys/"),
    ("bincode", "src/wire/codec.rs"),
];

/// What the path of a developer's machine begins with; only this file may name them.
const MACHINE_PATHS: &[&str] = &["/work/", "/root/", "/home/"];

const RUST_FOLDERS: &[&str] = &["src/", "tests/", "examples/", "benches/"];

/// What edition 2024 needs.
const OLDEST_RUST: Version = (1, 85, 0);

#[test]
fn modules_use_only_what_is_declared_above_them() {
    assert_none(layers(&project()));
}

#[test]
fn unsafe_stands_in_sys_only() {
    assert_none(one_door_for_unsafe(&project(), UNSAFE_BESIDE_SYS));
}

#[test]
fn system_crates_and_the_codec_have_one_door_each() {
    assert_none(one_door_for_crates(&project()));
}

#[test]
fn every_rust_file_opens_by_saying_what_it_is() {
    assert_none(headers(&project()));
}

#[test]
fn every_test_program_counts_what_it_leaves() {
    assert_none(no_census(&project()));
}

#[test]
fn paths_start_at_the_crate_and_not_at_super() {
    assert_none(no_super(&project()));
}

#[test]
fn the_code_has_no_let_chains() {
    assert_none(no_let_chains(&project()));
}

#[test]
fn no_file_names_a_path_of_a_developers_machine() {
    assert_none(no_machine_paths(&project()));
}

#[test]
fn the_change_log_has_the_current_version() {
    assert_none(change_log(&project(), env!("CARGO_PKG_VERSION")));
}

/// Optional dependencies are there only if something was built with all features before, as `.ci/run`
/// does. Without them their needs are unknown, and the declared version may lie above what is found.
#[test]
fn the_rust_version_is_what_the_dependencies_need() {
    let declared = env!("CARGO_PKG_RUST_VERSION");
    let violation = match cargo_metadata(&["--all-features"]) {
        Ok(everything) => rust_version(declared, &everything, Dependencies::All),
        Err(_) => match cargo_metadata(&[]) {
            Ok(part) => rust_version(declared, &part, Dependencies::WithoutOptional),
            Err(message) => Some(message),
        },
    };
    assert_none(violation.into_iter().collect());
}

fn project() -> Tree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Tree::read(root).unwrap_or_else(|error| panic!("cannot read {}: {error}", root.display()))
}

#[track_caller]
fn assert_none(violations: Vec<String>) {
    let count = violations.len();
    assert!(
        violations.is_empty(),
        "{count} violations:\n{}",
        violations.join("\n")
    );
}

// The rules.

/// Imports go down the list of modules in `lib.rs`, and down the list of children within a module.
fn layers(tree: &Tree) -> Vec<String> {
    let modules = Modules::of(tree);
    let mut violations = Vec::new();
    if !tree.files.contains_key("src/lib.rs") {
        let missing = "src/lib.rs:1: is missing; write it, with the layers declared bottom first";
        violations.push(missing.to_owned());
    }
    for (file, text) in tree.rust_files(&["src/"]) {
        let own = module_path(file);
        if !modules.is_declared(&own) {
            let way_out = "declare it where its siblings are, or delete it";
            violations.push(format!("{file}:1: belongs to no module; {way_out}"));
        } else if !modules.is_test(&own) {
            for (path, line) in crate_paths(&tokens(text)) {
                if let Some(fault) = modules.fault(&own, &path) {
                    let path = path.join("::");
                    violations.push(format!("{file}:{line}: names `crate::{path}`, {fault}"));
                }
            }
        }
    }
    violations
}

fn one_door_for_unsafe(tree: &Tree, exceptions: &[(&str, &str)]) -> Vec<String> {
    let says_unsafe = |token: &Token<'_>| token.text == "unsafe";
    let mut violations = at_tokens(tree, RUST_FOLDERS, |file, tokens| {
        let is_allowed = file.starts_with("src/sys/")
            || exceptions
                .iter()
                .any(|(place, _reason)| file.starts_with(place));
        (says_unsafe(&tokens[0]) && !is_allowed)
            .then(|| "says `unsafe`; put a safe function into src/sys and call it".to_owned())
    });
    for (place, _reason) in exceptions {
        let mut files = tree
            .rust_files(RUST_FOLDERS)
            .filter(|(file, _)| file.starts_with(place));
        if !files.any(|(_, text)| tokens(text).iter().any(says_unsafe)) {
            let way_out = "take it off the list in tests/tidy.rs";
            violations.push(format!("{place}:1: says no `unsafe`; {way_out}"));
        }
    }
    violations
}

fn one_door_for_crates(tree: &Tree) -> Vec<String> {
    at_tokens(tree, &["src/"], |file, tokens| {
        let (name, door) = DOORS.iter().find(|(name, _)| *name == tokens[0].text)?;
        (!file.starts_with(door))
            .then(|| format!("names `{name}`; put a function into {door} and call it"))
    })
}

fn headers(tree: &Tree) -> Vec<String> {
    tree.rust_files(RUST_FOLDERS)
        .filter(|(file, text)| !file.starts_with("tests/ui/") && !text.starts_with("//!"))
        .map(|(file, _)| format!("{file}:1: does not open with `//!`; say what the file is"))
        .collect()
}

/// `tests/common` has each program counted as it starts and as it exits. Models are no processes.
fn no_census(tree: &Tree) -> Vec<String> {
    let is_program = |file: &str| {
        let inner = file.strip_prefix("tests/").unwrap_or_default();
        let is_main = inner
            .split_once('/')
            .is_none_or(|(_, rest)| rest == "main.rs");
        is_main && !inner.starts_with("models/")
    };
    tree.rust_files(&["tests/"])
        .filter(|(file, _)| is_program(file))
        .filter(|(_, text)| {
            !tokens(text)
                .windows(3)
                .any(|three| starts_with(three, &["mod", "common", ";"]))
        })
        .map(|(file, _)| {
            format!("{file}:1: has no `mod common;`; without it nobody counts what it leaves")
        })
        .collect()
}

fn no_super(tree: &Tree) -> Vec<String> {
    let modules = Modules::of(tree);
    at_tokens(tree, &["src/"], |file, tokens| {
        let is_fault = starts_with(tokens, &["super", "::"]) && !tokens[0].in_tests;
        (is_fault && !modules.is_test(&module_path(file)))
            .then(|| "says `super::`; import from a module above, with `crate::`".to_owned())
    })
}

fn no_let_chains(tree: &Tree) -> Vec<String> {
    at_tokens(tree, &["src/"], |_, tokens| {
        let is_fault = matches!(tokens[0].text, "if" | "while") && is_let_chain(&tokens[1..]);
        let message = "chains `let` with `&&`, which needs Rust 1.88; nest, or use `let .. else`";
        is_fault.then(|| message.to_owned())
    })
}

/// Asks `fault` about each token and those that follow it.
fn at_tokens(
    tree: &Tree,
    folders: &'static [&str],
    fault: impl Fn(&str, &[Token<'_>]) -> Option<String>,
) -> Vec<String> {
    let mut violations = Vec::new();
    for (file, text) in tree.rust_files(folders) {
        let tokens = tokens(text);
        for (at, token) in tokens.iter().enumerate() {
            if let Some(message) = fault(file, &tokens[at..]) {
                violations.push(format!("{file}:{}: {message}", token.line));
            }
        }
    }
    violations
}

fn no_machine_paths(tree: &Tree) -> Vec<String> {
    let mut violations = Vec::new();
    for (file, text) in tree
        .files
        .iter()
        .filter(|(file, _)| *file != "tests/tidy.rs")
    {
        for (line, number) in text.lines().zip(1..) {
            for path in MACHINE_PATHS.iter().filter(|path| names_root(line, path)) {
                let way_out = "make the path relative, or take it from the environment";
                violations.push(format!("{file}:{number}: names `{path}`; {way_out}"));
            }
        }
    }
    violations
}

/// Whether a path in `line` begins with `path`; those in `$OUT/work/` and `example.org/home/` do not.
fn names_root(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || "_-.~}".contains(before))
    })
}

fn change_log(tree: &Tree, version: &str) -> Vec<String> {
    let text = tree.files.get("CHANGELOG.md").map_or("", String::as_str);
    let mut headings = text.lines().filter_map(|line| line.strip_prefix("## "));
    if headings.any(|heading| heading.split_whitespace().next() == Some(version)) {
        return Vec::new();
    }
    let way_out = format!("add `## {version} — unreleased` and why to upgrade");
    vec![format!(
        "CHANGELOG.md:1: has no heading for {version}; {way_out}"
    )]
}

/// Which dependencies `cargo metadata` was able to tell about.
#[derive(Clone, Copy, PartialEq)]
enum Dependencies {
    All,
    WithoutOptional,
}

fn rust_version(declared: &str, metadata: &Value, known: Dependencies) -> Option<String> {
    let (greatest, package) = greatest_rust_version(metadata);
    let stands = match known {
        Dependencies::All => version(declared) == greatest,
        Dependencies::WithoutOptional => version(declared) >= greatest,
    };
    let (major, minor, patch) = greatest;
    let way_out = "declare that, or depend on another version";
    (!stands).then(|| {
        let needed = format!("{package} needs {major}.{minor}.{patch}");
        format!("Cargo.toml:1: `rust-version` is {declared}, but {needed}; {way_out}")
    })
}

/// The greatest among the normal and build dependencies and theirs, and who needs it.
fn greatest_rust_version(metadata: &Value) -> (Version, String) {
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let root = metadata["resolve"]["root"].as_str().unwrap_or("");
    let mut greatest = (OLDEST_RUST, "edition 2024".to_owned());
    let (mut seen, mut ahead) = (BTreeSet::from([root]), vec![root]);
    while let Some(id) = ahead.pop() {
        let package = packages[id];
        if let (true, Some(needed)) = (id != root, package["rust_version"].as_str()) {
            let name = format!("{} {}", package["name"], package["version"]).replace('"', "");
            greatest = greatest.max((version(needed), name));
        }
        for dependency in list(&nodes[id]["deps"]) {
            let counts = list(&dependency["dep_kinds"]).any(|kind| kind["kind"] != "dev");
            let id = dependency["pkg"].as_str().unwrap_or("");
            if counts && seen.insert(id) {
                ahead.push(id);
            }
        }
    }
    greatest
}

fn by_id(entries: &Value) -> BTreeMap<&str, &Value> {
    list(entries)
        .map(|entry| (entry["id"].as_str().unwrap_or(""), entry))
        .collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

type Version = (u64, u64, u64);

/// Reads `1.85` or `1.85.1`.
fn version(text: &str) -> Version {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Asks for this platform only: the packages of others may not be there, and none is downloaded.
fn cargo_metadata(features: &[&str]) -> Result<Value, String> {
    let abi = if cfg!(target_env = "musl") {
        "musl"
    } else {
        "gnu"
    };
    let platform = format!("{}-unknown-linux-{abi}", env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", &platform])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(|error| format!("cannot run {}: {error}", env!("CARGO")))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata failed: {reason}"));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

// The module tree.

/// The text files of a project, by path from its root.
struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads everything below `root` that is text, except what git and cargo keep there.
    fn read(root: &Path) -> io::Result<Tree> {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let (path, kind) = (entry.path(), entry.file_type()?);
                if path.ends_with("target") || path.ends_with(".git") {
                    continue;
                } else if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    if let Ok(text) = String::from_utf8(fs::read(&path)?) {
                        let name = path.strip_prefix(root).unwrap_or(&path);
                        files.insert(name.to_string_lossy().into_owned(), text);
                    }
                }
            }
        }
        Ok(Tree { files })
    }

    fn rust_files(&self, folders: &'static [&str]) -> impl Iterator<Item = (&str, &str)> {
        let is_wanted = |file: &str| {
            file.ends_with(".rs") && folders.iter().any(|folder| file.starts_with(folder))
        };
        let files = self
            .files
            .iter()
            .map(|(file, text)| (file.as_str(), text.as_str()));
        files.filter(move |(file, _)| is_wanted(file))
    }
}

/// `src/pool/dispatch.rs` is `["pool", "dispatch"]`, `src/pool/mod.rs` is `["pool"]`, `src/lib.rs` `[]`.
fn module_path(file: &str) -> Vec<&str> {
    let name = file.trim_start_matches("src/").trim_end_matches(".rs");
    let name = name.strip_suffix("/mod").unwrap_or(name);
    if name == "lib" {
        Vec::new()
    } else {
        name.split('/').collect()
    }
}

/// Which modules each module declares, in their order.
struct Modules<'a> {
    children: BTreeMap<Vec<&'a str>, Vec<&'a str>>,
    tests: BTreeSet<Vec<&'a str>>,
}

impl<'a> Modules<'a> {
    fn of(tree: &'a Tree) -> Modules<'a> {
        let mut modules = Modules {
            children: BTreeMap::new(),
            tests: BTreeSet::new(),
        };
        for (file, text) in tree.rust_files(&["src/"]) {
            let path = module_path(file);
            for (name, in_tests) in declared_modules(&tokens(text)) {
                if in_tests {
                    modules.tests.insert([&path[..], &[name]].concat());
                }
                modules.children.entry(path.clone()).or_default().push(name);
            }
        }
        modules
    }

    fn position(&self, parent: &[&str], child: &str) -> Option<usize> {
        self.children
            .get(parent)?
            .iter()
            .position(|name| *name == child)
    }

    /// Whether there is a way down to a module from `lib.rs`.
    fn is_declared(&self, module: &[&str]) -> bool {
        (0..module.len()).all(|at| self.position(&module[..at], module[at]).is_some())
    }

    fn is_test(&self, module: &[&str]) -> bool {
        (1..=module.len()).any(|length| self.tests.contains(&module[..length]))
    }

    /// Says what is wrong with module `own` naming `crate::path`.
    fn fault(&self, own: &[&str], path: &[&str]) -> Option<String> {
        let is_module = |at: &usize| self.position(&path[..*at], path[*at]).is_some();
        let target = &path[..(0..path.len()).take_while(is_module).count()];
        let shared = own
            .iter()
            .zip(target)
            .take_while(|(own, target)| own == target)
            .count();
        if shared == own.len() {
            return None; // Its own items, or its children's.
        }
        if target.is_empty() {
            let fault = "which is no module of src/lib.rs; import from the module that defines it";
            return Some(fault.to_owned());
        }
        if shared == target.len() {
            let parent = target.join("::");
            return Some(format!(
                "which is its parent's; import from a child of {parent}"
            ));
        }
        let (parent, own_name, target_name) = (&own[..shared], own[shared], target[shared]);
        let is_below = self.position(parent, target_name) > self.position(parent, own_name);
        is_below.then(|| {
            let order = format!("but {target_name} is declared below {own_name}");
            format!("{order}; move what both need into a module above, or change the order")
        })
    }
}

/// The `mod name;` and `mod name {` at the top level of a file, with whether they are for tests.
fn declared_modules<'a>(tokens: &[Token<'a>]) -> Vec<(&'a str, bool)> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let (mut declared, mut depth) = (Vec::new(), 0);
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "mod" if depth == 0 && matches!(text(at + 2), ";" | "{") => {
                declared.push((tokens[at + 1].text, token.in_tests));
            }
            _ => {}
        }
    }
    declared
}

/// Every path behind a `crate::`, and its line; a `use` with braces counts as several.
///
/// Left out are tests, `crate::a_macro!`, and `pub(in crate::..)`, which imports nothing.
fn crate_paths<'a>(tokens: &[Token<'a>]) -> Vec<(Vec<&'a str>, usize)> {
    let mut paths = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let is_path = !token.in_tests && starts_with(&tokens[at..], &["crate", "::"]);
        let is_visibility = at > 1 && starts_with(&tokens[at - 2..], &["(", "in"]);
        let is_macro = tokens.get(at + 3).is_some_and(|next| next.text == "!");
        if is_path && !is_visibility && !is_macro {
            collect_paths(tokens, at + 2, &[], &mut paths);
        }
    }
    paths
}

/// Reads the path or braces at `at`, which stand behind `prefix`, and returns where they end.
fn collect_paths<'a>(
    tokens: &[Token<'a>],
    at: usize,
    prefix: &[&'a str],
    paths: &mut Vec<(Vec<&'a str>, usize)>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    if text(at) == "{" {
        let mut at = at + 1;
        while !matches!(text(at), "}" | "") {
            at = collect_paths(tokens, at, prefix, paths);
            while !matches!(text(at), "," | "}" | "") {
                at += 1; // `as another_name`
            }
            at += usize::from(text(at) == ",");
        }
        return at + 1;
    }
    let path = [prefix, &[text(at).trim_start_matches("r#")]].concat();
    let goes_on =
        text(at + 2).starts_with(|next: char| next.is_alphabetic() || "_{*".contains(next));
    if text(at + 1) == "::" && goes_on {
        return collect_paths(tokens, at + 2, &path, paths);
    }
    paths.push((path, tokens.get(at).map_or(0, |token| token.line)));
    at + 1
}

// The scanner.

/// A word, a number, an operator, or `"` for any string or character.
struct Token<'a> {
    text: &'a str,
    line: usize,
    /// Stands in a `#[cfg(test)]` module.
    in_tests: bool,
}

/// Splits source text into tokens, without comments and without what stands in literals.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, text) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with("/*") {
            (block_comment(rest), None)
        } else if first.is_whitespace() {
            (first.len_utf8(), None)
        } else if let Some(length) = string(rest).or_else(|| character(rest)) {
            (length, Some("\""))
        } else {
            let length = word(rest)
                .or_else(|| operator(rest))
                .unwrap_or(first.len_utf8());
            (length, Some(&rest[..length]))
        };
        tokens.extend(text.map(|text| Token {
            text,
            line,
            in_tests: false,
        }));
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    mark_tests(&mut tokens);
    tokens
}

/// The length of a block comment, with those inside it.
fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        let step = &text.as_bytes()[at..];
        if step.starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if step.starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of the string literal that `text` begins with: `".."`, `r#".."#`, with `b` or `c` before.
fn string(text: &str) -> Option<usize> {
    let quoted = text.strip_prefix(['b', 'c']).unwrap_or(text);
    if let Some(raw) = quoted.strip_prefix('r') {
        let body = raw.trim_start_matches('#');
        let end = format!("\"{}", "#".repeat(raw.len() - body.len()));
        let body = body.strip_prefix('"')?;
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(text.len() - body.len() + length);
    }
    let body = quoted.strip_prefix('"')?;
    let mut is_escaped = false;
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(text.len() - body.len() + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The length of the character literal that `text` begins with; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let mut characters = body.chars();
    let first = characters.next()?;
    let skipped = if first == '\\' {
        1 + characters.next()?.len_utf8()
    } else {
        first.len_utf8()
    };
    let end = body[skipped..].find('\'')?;
    (first == '\\' || end == 0).then_some(1 + skipped + end + 1)
}

/// The length of the word or number that `text` begins with.
fn word(text: &str) -> Option<usize> {
    let plain = text.strip_prefix("r#").unwrap_or(text);
    let length = plain
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(plain.len());
    (length > 0).then_some(text.len() - plain.len() + length)
}

/// The length of an operator that must not be taken for two.
fn operator(text: &str) -> Option<usize> {
    let operators = ["..=", "::", "&&", "||", "==", "=>", "<=", ">=", "!=", "->"];
    Some(
        operators
            .iter()
            .find(|operator| text.starts_with(**operator))?
            .len(),
    )
}

fn mark_tests(tokens: &mut [Token<'_>]) {
    for start in 0..tokens.len() {
        let is_test = starts_with(&tokens[start..], &["#", "[", "cfg", "(", "test", ")", "]"])
            || starts_with(
                &tokens[start..],
                &["#", "[", "cfg", "(", "all", "(", "test", ","],
            )
            || starts_with(
                &tokens[start..],
                &[
                    "#", "[", "cfg", "(", "any", "(", "test", ",", "fuzzing", ")",
                ],
            );
        if !is_test {
            continue;
        }
        let mut at = start;
        while starts_with(&tokens[at..], &["#", "["]) {
            at = closing(tokens, at + 1) + 1;
        }
        if starts_with(&tokens[at..], &["pub"]) {
            at += 1;
            if starts_with(&tokens[at..], &["("]) {
                at = closing(tokens, at) + 1;
            }
        }
        if starts_with(&tokens[at..], &["mod"]) {
            let is_inline = tokens.get(at + 2).is_some_and(|token| token.text == "{");
            let end = if is_inline {
                closing(tokens, at + 2)
            } else {
                at + 2
            };
            tokens
                .iter_mut()
                .take(end + 1)
                .skip(start)
                .for_each(|token| token.in_tests = true);
        }
    }
}

/// Where the bracket at `open` is closed; the end, if it is not.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 1 => return at,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len() - 1
}

fn starts_with(tokens: &[Token<'_>], texts: &[&str]) -> bool {
    tokens.len() >= texts.len()
        && tokens
            .iter()
            .zip(texts)
            .all(|(token, text)| token.text == *text)
}

/// Whether the condition at the front of `tokens` has both a `let` and a `&&` outside all brackets.
///
/// The condition ends at its block. Braces in a pattern and those of a `match` or `unsafe` do not open
/// that block, and a `&&` that follows no operand takes a reference twice.
fn is_let_chain(tokens: &[Token<'_>]) -> bool {
    let (mut has_let, mut has_and, mut in_pattern) = (false, false, false);
    let (mut depth, mut inner_blocks, mut previous) = (0, 0, "if");
    for token in tokens {
        match token.text {
            "{" if depth == 0 && !in_pattern && inner_blocks == 0 => break,
            ")" | "]" | "}" | "=>" | ";" | "," if depth == 0 => break,
            "{" if depth == 0 && !in_pattern => (depth, inner_blocks) = (1, inner_blocks - 1),
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ if depth > 0 => {}
            "let" => (has_let, in_pattern) = (true, true),
            "=" => in_pattern = false,
            "match" | "unsafe" => inner_blocks += 1,
            "&&" => has_and |= ends_operand(previous),
            _ => {}
        }
        previous = token.text;
    }
    has_let && has_and
}

fn ends_operand(text: &str) -> bool {
    let is_keyword = matches!(text, "let" | "match" | "return" | "if" | "while");
    !is_keyword && text.ends_with(|last: char| last.is_alphanumeric() || "_)]}?\"".contains(last))
}

// That each rule can fail.

/// Two layers, of which the upper one has two children.
const LAYERED: &str = "
--- src/lib.rs
mod low;
#[macro_use]
pub mod high;
pub use high::Thing;
--- src/low.rs
//! Imports nothing.
--- src/high/mod.rs
mod first;
mod second;
pub use second::Thing;
use crate::high::{Mine, first::{One, *}, second};
fn f() { crate::low::g() }
--- src/high/first.rs
use crate::low::{self, Two as Too};
--- src/high/second.rs
use crate::{high::first::One, low::Two};
";

/// A tree from text in which `--- path` begins a file; the last one of a name counts.
fn sample(text: &str) -> Tree {
    let mut files = BTreeMap::new();
    for file in text.split("--- ").skip(1) {
        let (path, text) = file.split_once('\n').unwrap_or((file, ""));
        files.insert(path.to_owned(), text.to_owned());
    }
    Tree { files }
}

/// Holds the rule to finding those lines of a sample that end with `//~`, and no others.
#[track_caller]
fn assert_finds_marked(rule: impl Fn(&Tree) -> Vec<String>, text: &str) {
    let tree = sample(text);
    let mut expected = BTreeSet::new();
    for (file, text) in &tree.files {
        let marked = text
            .lines()
            .zip(1..)
            .filter(|(line, _)| line.ends_with("//~"));
        expected.extend(marked.map(|(_, number)| format!("{file}:{number}")));
    }
    let place = |violation: &String| violation.split(": ").next().unwrap_or("").to_owned();
    let found: BTreeSet<String> = rule(&tree).iter().map(place).collect();
    assert_eq!(found, expected, "found on the left, marked on the right");
}

#[test]
fn imports_from_above_from_itself_and_from_children_are_allowed() {
    assert_finds_marked(layers, LAYERED);
    assert_finds_marked(layers, &LAYERED.replace("high/mod.rs", "high.rs"));
}

#[test]
fn an_import_from_below_is_found_in_every_form() {
    let text = "--- src/low.rs
use crate::high; //~
use crate::high::Thing; //~
pub(crate) use crate::high::*; //~
use crate::{low::Own, high::second::Thing}; //~
use crate::{
    low::Own,
    high::first::{
        One as Uno, //~
        r#Two, //~
    },
    low::Other,
};
fn f() { crate::high::run() } //~
fn f() { crate::high::run::<crate::low::Own>() } //~
fn f() { for thing in crate::high::all() {} } //~
fn f<'a>(c: char) -> bool { c == '\"' || crate::high::run('\\'') } //~
impl crate::high::Run for u8 {} //~
type T = Vec<crate::high::first::One>; //~
macro_rules! m { () => { $crate::high::run() } } //~
#[cfg(test)]
use crate::high; //~
#[cfg(not(test))]
mod real { use crate::high; } //~
";
    assert_finds_marked(layers, &format!("{LAYERED}{text}"));
}

#[test]
fn a_child_names_neither_its_parents_items_nor_later_siblings() {
    let text = "--- src/high/first.rs
use crate::high::first::Own;
use crate::high::Thing; //~
use crate::high::second::Thing; //~
use crate::high::*; //~
";
    assert_finds_marked(layers, &format!("{LAYERED}{text}"));
}

#[test]
fn what_is_reexported_at_the_root_is_not_named_there() {
    let text = "--- src/high/second.rs
use crate::Thing; //~
use crate::{low::A, Other}; //~
fn f() { crate::run() } //~
use crate::*; //~
";
    assert_finds_marked(layers, &format!("{LAYERED}{text}"));
}

#[test]
fn comments_strings_macros_visibilities_and_tests_may_name_anything() {
    let text = "--- src/low.rs
/// [`crate::high`]
// use crate::high;
/* /* */ use crate::high; */
fn f() { crate::a_macro!(\"crate::high::x\", r#\"\"crate::high::x\"#) }
pub(in crate::high) fn g() {}
#[cfg(test)]
#[allow(dead_code)]
pub(crate) mod tests {
    use crate::high;
    fn f() { if true {} use crate::Thing; }
}
use crate::high; //~
#[cfg(all(test, target_os = \"linux\"))]
mod more;
--- src/low/more.rs
use crate::high;
use super::*;
";
    assert_finds_marked(layers, &format!("{LAYERED}{text}"));
}

#[test]
fn a_file_that_no_module_declares_and_a_missing_root_are_found() {
    let text = "--- src/high/third.rs
//! Its parent does not declare it. //~
--- src/task/mod.rs
mod guard; //~
--- src/task/guard.rs
use crate::low::Own; //~
";
    assert_finds_marked(layers, &format!("{LAYERED}{text}"));
    assert_eq!(layers(&sample("")).len(), 1);
}

#[test]
fn unsafe_outside_sys_is_found_and_its_namesakes_are_not() {
    let text = "
--- src/sys/map.rs
unsafe fn f() {}
--- src/system.rs
unsafe fn f() {} //~
--- src/lib.rs
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]
//! unsafe
/* unsafe /* */ unsafe */
const A: (&str, &[u8]) = (\"unsafe \\\" unsafe\", b\"unsafe\");
const B: (&str, char) = (r##\"unsafe \"# unsafe\"##, '\"'); // unsafe
fn f() { unsafe { g() } } //~
#[unsafe(no_mangle)] fn f() {} //~
unsafe impl Send for T {} //~
#[cfg(test)]
mod tests { fn f() { unsafe { g() } } } //~
--- tests/pool.rs
unsafe fn f() {} //~
";
    assert_finds_marked(|tree| one_door_for_unsafe(tree, &[]), text);
}

#[test]
fn an_exception_for_unsafe_holds_while_it_is_used() {
    let exceptions = [
        ("benches/bare/", "what we compare with"),
        ("examples/crash.rs", "it crashes"),
    ];
    let text = "
--- benches/bare/fork.rs
unsafe fn f() {}
--- benches/bare/mod.rs
mod fork;
--- benches/start.rs
unsafe fn f() {} //~
--- examples/crash.rs
fn f() {} // unsafe no longer //~
";
    assert_finds_marked(|tree| one_door_for_unsafe(tree, &exceptions), text);
}

#[test]
fn a_crate_named_outside_its_door_is_found() {
    let text = "
--- src/sys/fork.rs
use libc::c_int;
use nix::unistd;
use bincode as b; //~
--- src/wire/codec.rs
use bincode::config;
--- src/wire/mod.rs
//! Over bincode.
use {std::io, nix}; //~
type T = ::libc::c_int; //~
const LIBC: &str = \"libc::c_int\";
--- benches/start.rs
use nix::unistd;
";
    assert_finds_marked(one_door_for_crates, text);
}

#[test]
fn a_program_without_a_census_is_found() {
    let text = "
--- src/lib.rs
--- tests/one.rs
mod common;
--- tests/two.rs
// mod common; //~
mod uncommon;
--- tests/common/mod.rs
mod census;
--- tests/three/main.rs
#[path = \"../common/mod.rs\"]
mod common;
--- tests/four/main.rs
mod other; //~
--- tests/four/other.rs
--- tests/models/main.rs
mod other;
--- tests/ui/pass.rs
fn main() {}
";
    assert_finds_marked(no_census, text);
}

#[test]
fn a_file_without_a_header_is_found() {
    let text = "
--- src/lib.rs
//! Top.
--- src/low.rs
/// Not that. //~
mod x;
--- tests/common/mod.rs
// Nor that. //~
//! Too late.
--- tests/ui/capture.rs
fn main() {}
--- examples/wordcount.rs
use std::io; //~
--- benches/pool.rs
fn main() {} //~
--- README.md
No Rust.
";
    assert_finds_marked(headers, text);
}

#[test]
fn super_is_found_outside_tests() {
    let text = "--- src/low.rs
pub(super) fn f() {}
use super::g; //~
fn h() { super::super::g() } //~
#[cfg(test)]
mod tests { use super::*; }
";
    assert_finds_marked(no_super, &format!("{LAYERED}{text}"));
}

#[test]
fn let_chains_are_found_and_other_conditions_are_not() {
    let text = "--- src/lib.rs
if let Some(x) = y && x > 1 {} //~
if ready && let Some(x) = y {} //~
if let Some(x) = f(|a| { a }) && let Ok(z) = x {} //~
if let Point { x, .. } = p && x == 0 {} //~
while let Some(x) = stack.pop() //~
    && x != 0 {}
if a {} else if let 1..=5 = b && c {} //~
if let Some(x) = match y { Z { .. } => 1 } && x {} //~
if let \"a\" = b[0] && c? {} //~
if let Some(x) = y { if a && b {} }
if let Some(x) = (a && b).then(f) {}
if let Some(&&x) = y.find(|&&z| z && w) {}
if let &&x = &&y {}
if a && b { let c = d; }
while a && b {}
let c = d;
let Some(x) = y else { return a && b };
match a { Some(b) if b && c => d, _ => { let e = f; } }
if matches!(a, Some(b) if b && c) { let d = e; }
if let Some(x) = unsafe { y() } { z(x && w) }
// if let Some(x) = y && x {}
";
    assert_finds_marked(no_let_chains, text);
}

#[test]
fn a_machines_path_is_found_in_any_file() {
    let text = "
--- README.md
See https://example.org/home/page, or the folder home/page.
Run it in /home/me. //~
--- .ci/run
cd \"$OUT/work/\"
cd \"/work/main\" //~
--- docs/DESIGN.md
file:///root/x //~
--- tests/tidy.rs
/root/
";
    assert_finds_marked(no_machine_paths, text);
}

#[test]
fn a_change_log_without_the_version_is_found() {
    let found =
        |text: &str| change_log(&sample(&format!("--- CHANGELOG.md\n{text}")), "0.2.0").len();
    assert_eq!(found("# Changes\n\n## 0.2.0 — unreleased\n\n## 0.1.0\n"), 0);
    assert_eq!(found("# Changes\n\n## 0.2.0-rc.1\n\n## 0.1.0\n0.2.0\n"), 1);
    assert_eq!(change_log(&sample(""), "0.2.0").len(), 1);
}

#[test]
fn a_rust_version_other_than_the_dependencies_need_is_found() {
    let mut metadata = json!({
        "packages": [
            {"id": "us", "name": "us", "version": "0.1.0", "rust_version": "1.99"},
            {"id": "old", "name": "old", "version": "1.0.0", "rust_version": null},
            {"id": "deep", "name": "deep", "version": "1.0.0", "rust_version": "1.86.1"},
            {"id": "tool", "name": "tool", "version": "1.0.0", "rust_version": "1.90"}
        ],
        "resolve": {"root": "us", "nodes": [
            {"id": "us", "deps": [
                {"pkg": "old", "dep_kinds": [{"kind": "dev"}, {"kind": null}]},
                {"pkg": "tool", "dep_kinds": [{"kind": "dev"}]}
            ]},
            {"id": "old", "deps": [{"pkg": "deep", "dep_kinds": [{"kind": "build"}]}]},
            {"id": "deep", "deps": []},
            {"id": "tool", "deps": []}
        ]}
    });
    let is_found =
        |declared, metadata: &Value, known| rust_version(declared, metadata, known).is_some();
    assert!(!is_found("1.86.1", &metadata, Dependencies::All));
    assert!(is_found("1.86", &metadata, Dependencies::All));
    assert!(is_found("1.87", &metadata, Dependencies::All));
    assert!(is_found("1.85", &metadata, Dependencies::WithoutOptional));
    assert!(!is_found("1.87", &metadata, Dependencies::WithoutOptional));

    metadata["resolve"]["nodes"][0]["deps"] = json!([]);
    assert!(is_found("1.84", &metadata, Dependencies::All));
    assert!(!is_found("1.85", &metadata, Dependencies::All));
}
