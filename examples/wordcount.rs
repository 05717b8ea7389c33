//! Counts the words in every text file under the directories given, and in the files given; without
//! arguments, under the current directory.
//!
//! A word is a run of alphabetic characters (Unicode's), in lower case. A text file is one that is
//! UTF-8 to the end. What cannot be walked, read or decoded stops nothing: for such a file the
//! function returns an `Err`, a result like any other, and the line `skipped` counts them and names
//! the first 20. Directories called `.git` or `target` are left out unless given as an argument;
//! symbolic links are not followed.
//!
//! See the totals, the ten most frequent words, and the time that the same work took with 1 worker
//! and with one for each CPU. Each time is of a second round, when the workers are up and the files
//! are in the page cache. Where there is little to count, handing the files over outweighs counting
//! them and the ratio falls below 1.
//!
//! ```text
//! cargo run --release --example wordcount
//! cargo run --release --example wordcount -- DIR FILE..
//! ```

use std::cmp::Reverse;
use std::collections::HashMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use multiprocess::Pool;
use serde::{Deserialize, Serialize};
use walkdir::{DirEntry, WalkDir};

const USAGE: &str = "usage: wordcount [DIR|FILE]..";
const TOP_WORDS: usize = 10;
/// How many skipped files are named; the rest is a number.
const SKIPPED_NAMES: usize = 20;

/// What a worker sends back for one file. All words travel in one `String`, which costs the parent
/// one allocation instead of one for each word.
#[derive(Serialize, Deserialize)]
struct FileCount {
    bytes: usize,
    /// One a line, each once.
    words: String,
    /// How often, in the same order.
    counts: Vec<u64>,
}

#[derive(Default, PartialEq)]
struct Totals {
    files: usize,
    bytes: usize,
    words: HashMap<String, u64>,
    skipped: Vec<Skipped>,
}

#[derive(PartialEq)]
struct Skipped {
    path: PathBuf,
    reason: String,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if arguments
        .iter()
        .any(|given| given == "--help" || given == "-h")
    {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(option) = arguments.iter().find(|given| is_option(given)) {
        eprintln!("wordcount: unknown option {}", option.to_string_lossy());
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    }
    if arguments.is_empty() {
        arguments.push(".".into());
    }

    let (files, unwalked) = walk(&arguments);
    let workers = multiprocess::available_parallelism();
    let (totals, time_alone) = timed(1, &files)?;
    let (totals_shared, time_shared) = timed(workers, &files)?;
    if totals != totals_shared {
        return Err("1 worker and all workers disagree: did a file change meanwhile?".into());
    }

    report(&totals, &unwalked);
    println!("1 worker: {:.1} ms", milliseconds(time_alone));
    if workers > 1 {
        let ratio = time_alone.as_secs_f64() / time_shared.as_secs_f64();
        println!("{workers} workers: {:.1} ms", milliseconds(time_shared));
        println!("ratio: {ratio:.2}");
    }
    Ok(ExitCode::SUCCESS)
}

fn is_option(argument: &OsStr) -> bool {
    argument.as_encoded_bytes().starts_with(b"-")
}

/// Every file to count, in a fixed order, and what could not be walked.
fn walk(roots: &[OsString]) -> (Vec<PathBuf>, Vec<Skipped>) {
    let (mut files, mut unwalked) = (Vec::new(), Vec::new());
    for root in roots {
        let walk = WalkDir::new(root)
            .follow_root_links(false)
            .sort_by_file_name();
        for entry in walk.into_iter().filter_entry(|entry| !is_left_out(entry)) {
            match entry {
                Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
                Ok(entry) if entry.file_type().is_dir() || entry.depth() > 0 => {}
                Ok(entry) => unwalked.push(Skipped {
                    path: entry.into_path(),
                    reason: "neither a file nor a directory".to_owned(),
                }),
                Err(error) => unwalked.push(Skipped::unwalked(root, &error)),
            }
        }
    }
    (files, unwalked)
}

fn is_left_out(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    entry.depth() > 0 && entry.file_type().is_dir() && (name == ".git" || name == "target")
}

/// Counts twice with so many workers and times the second round.
fn timed(workers: usize, files: &[PathBuf]) -> Result<(Totals, Duration), Box<dyn Error>> {
    let pool = Pool::builder().workers(workers).build()?;
    count(&pool, files)?;
    let start = Instant::now();
    let totals = count(&pool, files)?;
    Ok((totals, start.elapsed()))
}

/// Counts each file in some worker and adds the results up here.
fn count(pool: &Pool, files: &[PathBuf]) -> Result<Totals, Box<dyn Error>> {
    // As `OsString`: serde refuses a `PathBuf` whose name is not UTF-8.
    let names = files.iter().map(|path| path.clone().into_os_string());
    let counts = pool.map(names.collect::<Vec<_>>(), count_file)?;

    let mut totals = Totals::default();
    for (path, count) in files.iter().zip(counts) {
        match count {
            Ok(count) => totals.add(count),
            Err(reason) => totals.skipped.push(Skipped {
                path: path.clone(),
                reason,
            }),
        }
    }
    Ok(totals)
}

/// Counts one file. Runs in a worker.
fn count_file(path: OsString) -> Result<FileCount, String> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => "not UTF-8".to_owned(),
        _ => error.to_string(),
    })?;

    // Each spelling is put into lower case once, not as often as it occurs.
    let mut spellings: HashMap<&str, u64> = HashMap::new();
    for run in text.split(|c: char| !c.is_alphabetic()) {
        *spellings.entry(run).or_default() += 1;
    }
    spellings.remove("");
    let mut words: HashMap<String, u64> = HashMap::new();
    for (spelling, count) in spellings {
        *words.entry(spelling.to_lowercase()).or_default() += count;
    }

    let (words, counts): (Vec<String>, Vec<u64>) = words.into_iter().unzip();
    Ok(FileCount {
        bytes: text.len(),
        words: words.join("\n"),
        counts,
    })
}

impl Totals {
    fn add(&mut self, file: FileCount) {
        self.files += 1;
        self.bytes += file.bytes;
        for (word, count) in file.words.lines().zip(file.counts) {
            match self.words.get_mut(word) {
                Some(sum) => *sum += count,
                None => drop(self.words.insert(word.to_owned(), count)),
            }
        }
    }
}

impl Skipped {
    fn unwalked(root: &OsStr, error: &walkdir::Error) -> Skipped {
        Skipped {
            path: error.path().unwrap_or(Path::new(root)).to_owned(),
            reason: error
                .io_error()
                .map_or_else(|| error.to_string(), io::Error::to_string),
        }
    }
}

fn report(totals: &Totals, unwalked: &[Skipped]) {
    println!("files: {}", totals.files);
    println!("bytes: {}", totals.bytes);
    println!(
        "words: {} ({} different)",
        totals.words.values().sum::<u64>(),
        totals.words.len()
    );
    println!(
        "skipped: {}",
        summary(unwalked.iter().chain(&totals.skipped).collect())
    );

    let mut ranking: Vec<(&String, &u64)> = totals.words.iter().collect();
    ranking.sort_by_key(|&(word, count)| (Reverse(count), word));
    println!("top words:");
    for (word, count) in ranking.into_iter().take(TOP_WORDS) {
        println!("{count:>10}  {word}");
    }
}

/// `2 (a.png: not UTF-8; b: Permission denied (os error 13))`, or `0`.
fn summary(skipped: Vec<&Skipped>) -> String {
    let mut names: Vec<String> = skipped
        .iter()
        .take(SKIPPED_NAMES)
        .map(|Skipped { path, reason }| format!("{}: {reason}", path.display()))
        .collect();
    if skipped.len() > SKIPPED_NAMES {
        names.push(format!("and {} more", skipped.len() - SKIPPED_NAMES));
    }
    match skipped.len() {
        0 => "0".to_owned(),
        number => format!("{number} ({})", names.join("; ")),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
