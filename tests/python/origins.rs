//! The table in `README.md` keeps to what is there, here and in CPython.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows: a class, its tests, and where they are asked here.
fn rows() -> Vec<(String, Vec<String>, String)> {
    let text = fs::read_to_string(tests().join("python/README.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let tests = quoted(cells[2]).map(str::to_owned).collect();
        (cells[1].replace('`', ""), tests, cells[3].to_owned())
    })
    .collect()
}

fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

/// Whether a test of this name is there: a function, or what a macro makes one of.
fn defines(source: &str, test: &str) -> bool {
    source.match_indices(test).any(|(at, _)| {
        let (before, behind) = (source[..at].trim_end(), &source[at + test.len()..]);
        let is_function = before.ends_with("fn") && behind.starts_with("()");
        is_function || (before.ends_with("!(") && behind.starts_with(','))
    })
}

#[test]
fn each_row_names_tests_that_exist_or_says_why_there_is_none() {
    for (class, _, here) in rows() {
        let named: Vec<_> = quoted(&here)
            .filter_map(|one| one.split_once(": "))
            .collect();
        for (file, test) in &named {
            let source = fs::read_to_string(tests().join(format!("{file}.rs"))).unwrap_or_default();
            assert!(defines(&source, test), "{class}: no test {file}: {test}");
        }
        let is_reason = here.strip_prefix("no: ").is_some_and(|why| why.len() > 10);
        assert!(
            is_reason || !named.is_empty(),
            "{class}: {here:?} says nothing"
        );
    }
}

#[test]
fn no_test_of_the_python_that_is_here_is_left_out() {
    const LIST: &str = "
import ast, glob, os, test
folder = os.path.dirname(test.__file__)
files = glob.glob(folder + '/_test_multiprocessing.py') + glob.glob(folder + '/test_concurrent_futures*')
files += glob.glob(folder + '/test_concurrent_futures/*')
for file in filter(lambda file: file.endswith('.py'), files):
    for one in ast.parse(open(file).read()).body:
        for member in one.body if isinstance(one, ast.ClassDef) else []:
            if isinstance(member, ast.FunctionDef) and member.name.startswith('test'):
                print(one.name, member.name)
";
    let output = Command::new("python3").args(["-c", LIST]).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        println!("skipped, since there is no Python with its tests");
        return;
    };
    let rows = rows();
    let known: BTreeSet<(&str, &str)> = rows
        .iter()
        .flat_map(|(class, tests, _)| tests.iter().map(|test| (class.as_str(), test.as_str())))
        .collect();
    let text = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let left_out: Vec<_> = theirs.iter().filter(|one| !known.contains(one)).collect();
    assert!(left_out.is_empty(), "without a row: {left_out:?}");
    println!("{} of Python's tests, {} rows", theirs.len(), known.len());
}
