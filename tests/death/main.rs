//! A kill at every step: one process is killed at each step of each protocol, and everybody else must get what is promised.
//!
//! The steps stand in `src/` (`step!("..")`) and are there only with `--cfg multiprocess_death`; without it this file is empty.
//! Each module has the tables of one protocol: who dies, at which step, and how much of what it did has happened then. See
//! docs/TESTING.md.
#![cfg(multiprocess_death)]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod barrier;
mod board;
mod case;
mod condition;
mod fork;
mod link;
mod lock;
mod monitor;
mod pipe;
mod pool;
mod process;
mod queue;
mod queue_handles;
mod queue_news;
mod scope;
mod shared;
mod spare;
mod steps;
mod unowned;

use case::Row;
use std::collections::BTreeSet;

/// Every table of every module.
const TABLES: &[&[&[Row]]] = &[
    queue::TABLES,
    queue_handles::TABLES,
    queue_news::TABLES,
    pipe::TABLES,
    link::TABLES,
    lock::TABLES,
    unowned::TABLES,
    condition::TABLES,
    barrier::TABLES,
    shared::TABLES,
    monitor::TABLES,
    process::TABLES,
    fork::TABLES,
    spare::TABLES,
    scope::TABLES,
    pool::TABLES,
];

fn rows() -> impl Iterator<Item = &'static Row> {
    TABLES.iter().copied().flatten().copied().flatten()
}

#[test]
fn every_step_has_a_row_and_every_row_a_step() {
    let steps = steps::in_source();
    let in_rows: BTreeSet<String> = rows().map(|row| row.step.to_owned()).collect();
    let without_row: Vec<_> = steps.difference(&in_rows).collect();
    let without_step: Vec<_> = in_rows.difference(&steps).collect();
    assert!(
        without_row.is_empty() && without_step.is_empty(),
        "steps at which nobody is killed: {without_row:#?}\nrows without a step: {without_step:#?}"
    );
    let kills: u32 = rows().map(|row| row.passings * row.methods).sum();
    println!(
        "steps={} rows={} kills={kills}",
        steps.len(),
        rows().count()
    );
}
