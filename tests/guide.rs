//! The guide keeps to what is there: tests that it names exist, links lead somewhere, and no name of Python's is left out.
//! Its programs are run as doc tests.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backticks in the text, outside programs.
fn quoted(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose
        .flat_map(|part| part.split('`').skip(1).step_by(2))
        .collect()
}

/// Each `file: test` in the text, where there is a file of that name.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let pairs = quoted(text)
        .into_iter()
        .filter_map(|one| one.split_once(": "));
    pairs
        .filter(|(file, _)| {
            file.chars()
                .all(|letter| letter.is_ascii_lowercase() || letter == '_')
        })
        .collect()
}

/// What makes the test of this name there: `fn`, or a macro that makes one for each method; and the source from its name on.
fn definition<'source>(source: &'source str, test: &str) -> Option<(&'source str, &'source str)> {
    source.match_indices(test).find_map(|(at, _)| {
        let (before, behind) = (source[..at].trim_end(), &source[at + test.len()..]);
        let maker = before.rsplit(char::is_whitespace).next()?;
        let is_function = maker == "fn" && behind.starts_with("()");
        let is_made = maker.ends_with("!(") && behind.starts_with(',');
        (is_function || is_made).then_some((maker, behind))
    })
}

/// The source of a file of tests; nothing where there is none.
fn tests_in(file: &str) -> String {
    fs::read_to_string(root().join(format!("tests/{file}.rs"))).unwrap_or_default()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let text = read("docs/FAULTS.md");
    let tests = named_tests(&text);
    let missing: Vec<_> = tests
        .iter()
        .filter(|(file, test)| *test != "x" && definition(&tests_in(file), test).is_none())
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
    assert!(tests.len() > 50, "{}", tests.len());
}

/// Tests behind rows of these tables in which nobody waits for word of a fault, or for service after it.
const NOT_MEASURED: [&str; 13] = [
    "every_call_ends_rightly_while_workers_are_killed_and_stopped",
    "calls_that_wait_are_cancelled_and_never_run",
    "an_iterator_that_panics_ends_its_imap",
    "dropping_a_pool_terminates_it",
    "a_fork_of_the_application_has_no_part_in_its_pools",
    "a_fork_of_the_application_has_no_part_in_its_calls",
    "a_fork_within_the_input_of_a_map_has_no_part_in_it",
    "a_forked_copy_of_an_imap_leaves_the_workers_alone",
    "a_crate_outside_works_with_fat_lto_and_panics_that_abort",
    "a_daemon_is_ended_with_the_program",
    "a_non_daemon_is_waited_for_at_the_end_of_the_program",
    "a_non_daemon_runs_on_when_the_program_is_killed_and_a_daemon_does_not",
    "with_all_streams_closed_it_serves",
];

#[test]
fn every_fault_of_a_pool_and_of_the_program_is_measured() {
    let text = read("docs/FAULTS.md");
    let sections = ["A pool, and an item that misbehaves", "The program itself"];
    let is_asked = |section: &&str| sections.contains(&section.lines().next().unwrap());
    let mut rows = 0;
    for section in text.split("\n## ").filter(is_asked) {
        for (file, test) in named_tests(section) {
            let source = tests_in(file);
            let (maker, behind) = definition(&source, test).unwrap();
            let body = behind.split("\n}").next().unwrap();
            let is_row = maker.ends_with("fault_row!(") || body.contains("fault::row(");
            assert_ne!(is_row, NOT_MEASURED.contains(&test), "{file}: {test}");
            rows += usize::from(is_row);
        }
    }
    assert!(rows > 40, "{rows}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        documents.push(Path::new("docs").join(entry.unwrap().file_name()));
    }
    let mut broken = Vec::new();
    for document in documents
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
    {
        let text = read(document.to_str().unwrap());
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let path = document.parent().unwrap().join(file);
            let found = if file.is_empty() {
                Some(text.clone())
            } else {
                fs::read_to_string(root().join(path)).ok()
            };
            let is_there = found.is_some_and(|text| {
                section.is_empty() || headings(&text).contains(&section.to_owned())
            });
            if !is_there {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The sections of a document as a link names them.
fn headings(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
    lines
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-")
        })
        .collect()
}

/// The public names of `multiprocessing` (also of its classes), of the process pool of `concurrent.futures`, and of
/// `multiprocessing.shared_memory`, as Python 3.14 has them.
const PYTHON: &str = "
    Array AuthenticationError Barrier BoundedSemaphore BufferTooShort Condition Event JoinableQueue Lock Manager Pipe Pool
    Process ProcessError Queue RLock RawArray RawValue Semaphore SimpleQueue TimeoutError Value active_children
    allow_connection_pickling cpu_count current_process freeze_support get_all_start_methods get_context get_logger
    get_start_method log_to_stderr parent_process reducer set_executable set_forkserver_preload set_start_method

    authkey close daemon exitcode ident interrupt is_alive join kill name pid run sentinel start terminate

    apply apply_async imap imap_unordered map map_async starmap starmap_async initializer initargs maxtasksperchild context
    callback error_callback chunksize AsyncResult get ready successful wait IMapIterator ThreadPool MaybeEncodingError

    Connection closed fileno poll readable recv recv_bytes recv_bytes_into send send_bytes writable
    Client Listener accept address last_accepted answer_challenge deliver_challenge

    cancel_join_thread empty full get_nowait join_thread put put_nowait qsize task_done Full Empty

    acquire release locked get_value notify notify_all wait_for clear is_set set abort broken n_waiting parties reset
    BrokenBarrierError get_lock get_obj value raw copy synchronized

    SharedMemory ShareableList buf size track unlink count format index

    BaseManager SyncManager BaseProxy Token SharedMemoryManager RemoteError connect get_server register shutdown dict list Namespace

    FIRST_COMPLETED FIRST_EXCEPTION ALL_COMPLETED CancelledError BrokenExecutor BrokenProcessPool InvalidStateError Future
    Executor ProcessPoolExecutor ThreadPoolExecutor InterpreterPoolExecutor as_completed submit max_workers mp_context
    max_tasks_per_child terminate_workers kill_workers add_done_callback cancel cancelled done exception result running
    set_exception set_result set_running_or_notify_cancel
";

#[test]
fn no_name_of_pythons_is_left_out() {
    let text = read("docs/FROM_PYTHON.md");
    let (_, tables) = text.split_once("## Every name").unwrap();
    // The left column says what is Python's.
    let left: String = tables
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next())
        .collect();
    let words: Vec<&str> = quoted(&left)
        .into_iter()
        .flat_map(|name| name.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')))
        .collect();
    let missing: Vec<&str> = PYTHON
        .split_whitespace()
        .filter(|name| !words.contains(name))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/FROM_PYTHON.md: {missing:?}"
    );
}
