//! One job of one peer, measured on request: `peers PEER JOB` says `ready`, or `none` where it has nothing to measure;
//! then each line on its input says how many operations to do, and its answer is what one took, in nanoseconds, and
//! perhaps more as `key=value`. It ends with its input.
//!
//! `../run.py` has one of these for each peer and gives them their turns.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

#[path = "../../baseline/mod.rs"]
mod baseline;
#[cfg(feature = "iceoryx2")]
mod iceoryx;
#[cfg(feature = "ipc-channel")]
mod ipc;
mod limit;
mod ours;
#[cfg(feature = "procspawn")]
mod processes;
mod sample;
mod scaling;
mod threads;

use std::io::{BufRead, Write, stdin, stdout};

use sample::Measure;

fn main() {
    #[cfg(feature = "procspawn")]
    procspawn::init();
    if baseline::ourselves::play_role() {
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        #[cfg(feature = "ipc-channel")]
        [ipc::ROLE, job, server] => ipc::play(job, server),
        #[cfg(feature = "iceoryx2")]
        [iceoryx::ROLE, job, service] => iceoryx::play(job, service),
        #[cfg(feature = "procspawn")]
        [processes::FIRST_POOL] => println!("{}", processes::pool_answers_twice().as_nanos()),
        [peer, job] => answer(measure(peer, job)),
        _ => panic!("usage: peers PEER JOB"),
    }
}

fn measure(peer: &str, job: &str) -> Option<Measure> {
    match peer {
        "ours" => ours::measure(job).or_else(|| scaling::ours(job)),
        "ours_small" => ours::small(job),
        "limit" => limit::measure(job),
        "futex" => limit::futex(job),
        "socket" => limit::socket(job),
        "threads" => threads::measure(job).or_else(|| scaling::rayon(job)),
        #[cfg(feature = "procspawn")]
        "procspawn" => processes::measure(job),
        #[cfg(feature = "ipc-channel")]
        "ipc-channel" => ipc::measure(job),
        #[cfg(feature = "iceoryx2")]
        "iceoryx2" => iceoryx::measure(job),
        _ => None,
    }
}

fn answer(measure: Option<Measure>) {
    let Some(mut measure) = measure else {
        println!("none");
        return;
    };
    println!("ready");
    for line in stdin().lock().lines() {
        let sample = measure(line.unwrap().trim().parse().unwrap());
        println!("{sample}");
        stdout().flush().unwrap();
    }
}
