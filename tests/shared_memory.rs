//! `SharedMemory`: a block under a name, which any program of this user can open; and what happens when it misbehaves.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{each_method, each_method_alone, pool};
use multiprocess::{Process, SharedMemory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A name that no other test has.
fn fresh_name() -> String {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let serial = TAKEN.fetch_add(1, Ordering::Relaxed);
    format!("multiprocess-test-{}-{serial}", std::process::id())
}

fn file_of(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(name)
}

#[test]
fn what_is_written_under_a_name_is_read_under_it() {
    let name = fresh_name();
    let block = SharedMemory::create(&name, 1000).unwrap();
    let theirs = SharedMemory::open(&name).unwrap();
    assert_eq!((theirs.name(), theirs.len()), (&*name, 1000));
    let mut all = [1_u8; 1000];
    theirs.read(0, &mut all).unwrap();
    assert_eq!(all, [0; 1000]);
    block.write(990, b"0123456789").unwrap();
    theirs.write(1, &[0x0102_0304_u32]).unwrap();
    assert_eq!(block.read_value::<u32>(1).unwrap(), 0x0102_0304);
    assert_eq!(theirs.read_value::<[u8; 10]>(990).unwrap(), *b"0123456789");
    let mode = fs::metadata(file_of(&name)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let block = SharedMemory::create(&fresh_name(), 8).unwrap();
    block.write(8, &[0_u8; 0]).unwrap();
    for offset in [1, 8, 9, usize::MAX] {
        let error = block.write(offset, &[1_u64]).unwrap_err();
        assert!(error.to_string().contains("past its end"), "{error}");
        assert!(block.read(offset, &mut [1_u64]).is_err());
    }
    assert_eq!(block.read_value::<u64>(0).unwrap(), 0);
}

#[test]
fn names_and_lengths_that_cannot_be_are_refused() {
    let long = "x".repeat(256);
    for name in ["", ".", "..", "a/b", "/a", "a\0b", &long] {
        let error = SharedMemory::create(name, 8).unwrap_err();
        assert!(error.to_string().contains("cannot create"), "{error}");
        assert!(SharedMemory::open(name).is_err());
    }
    let name = fresh_name();
    assert!(SharedMemory::create(&name, 0).is_err());
    assert!(SharedMemory::create(&name, usize::MAX).is_err());
    assert!(!file_of(&name).exists());
}

#[test]
fn a_name_is_had_by_one_and_missed_where_nobody_has_it() {
    let name = fresh_name();
    let missing = SharedMemory::open(&name).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    let block = SharedMemory::create(&name, 8).unwrap();
    let taken = SharedMemory::create(&name, 8).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(libc::EEXIST));
    block.unlink().unwrap();
    let gone = block.unlink().unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ENOENT));
    let next = SharedMemory::create(&name, 8).unwrap();
    assert!(block.unlink().is_err(), "the name is another block's");
    drop(block);
    assert!(SharedMemory::open(&name).is_ok());
    drop(next);
    assert!(SharedMemory::open(&name).is_err());
}

#[test]
fn the_name_goes_with_the_last_handle_of_who_created_it() {
    let name = fresh_name();
    let block = SharedMemory::create(&name, 8).unwrap();
    drop(SharedMemory::open(&name).unwrap());
    drop(block.clone());
    assert!(file_of(&name).exists());
    let theirs = SharedMemory::open(&name).unwrap();
    drop(block);
    assert!(!file_of(&name).exists());
    theirs.write(0, &[7_u64]).unwrap();
    assert_eq!(theirs.read_value::<u64>(0).unwrap(), 7);

    let kept = SharedMemory::create(&name, 8).unwrap();
    kept.keep();
    drop(kept);
    SharedMemory::open(&name).unwrap().unlink().unwrap();
}

#[test]
fn the_name_goes_though_no_descriptor_is_left() {
    let test = "the_name_goes_though_no_descriptor_is_left";
    common::alone::in_own_process(test, common::LIMIT, || {
        let name = fresh_name();
        let block = SharedMemory::create(&name, 8).unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        drop(block);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(!file_of(&name).exists());
    });
}

#[test]
fn a_fork_leaves_the_name_to_its_parent() {
    let test = "a_fork_leaves_the_name_to_its_parent";
    common::alone::in_own_process(test, common::LIMIT, || {
        let name = fresh_name();
        let block = SharedMemory::create(&name, 8).unwrap();
        let file = file_of(&name);
        // What moves into the body is dropped in the fork first, then here.
        let code = common::unsafely::in_fork(move || {
            drop(block);
            assert!(file_of(&name).exists());
        });
        assert_eq!(code, 0);
        assert!(!file.exists());
    });
}

#[test]
fn a_block_that_somebody_makes_shorter_is_an_error_and_no_fault() {
    let name = fresh_name();
    let block = SharedMemory::create(&name, 1 << 20).unwrap();
    block.write(1 << 19, &[7_u8; 100]).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(file_of(&name))
        .unwrap();
    file.set_len(4096).unwrap();
    assert!(block.read_value::<u64>(1 << 19).is_err());
    assert!(block.read(0, &mut vec![0_u8; 4097]).is_err());
    assert!(block.write(1 << 19, &[1_u8]).is_err());
    assert_eq!(
        file.metadata().unwrap().len(),
        4096,
        "nor does it grow again"
    );
    assert_eq!(block.read_value::<u64>(4088).unwrap(), 0);
}

#[test]
fn an_empty_one_cannot_be_opened() {
    let name = fresh_name();
    fs::write(file_of(&name), b"").unwrap();
    let refused = SharedMemory::open(&name);
    fs::remove_file(file_of(&name)).unwrap();
    assert!(refused.unwrap_err().to_string().contains("is empty"));
}

each_method_alone!(a_handle_and_a_name_lead_to_the_same_block, |method| {
    let name = fresh_name();
    let block = SharedMemory::create(&name, 4096).unwrap();
    let process =
        Process::builder()
            .start_method(method)
            .spawn(block.clone(), |block: SharedMemory| {
                let by_name = SharedMemory::open(block.name()).unwrap();
                by_name.write(0, &[3.5_f64]).unwrap();
                let seen = block.read_value::<f64>(0).unwrap();
                drop(block);
                (seen, by_name)
            });
    let (seen, back) = process.unwrap().join().unwrap();
    assert_eq!((seen, back.name(), back.len()), (3.5, &*name, 4096));
    assert_eq!(block.read_value::<f64>(0).unwrap(), 3.5);
    drop(back);
    assert!(file_of(&name).exists(), "only who created it takes it away");
});

each_method!(workers_fill_a_block_each_its_own_part, |method| {
    let block = SharedMemory::create(&fresh_name(), 100 * 8).unwrap();
    pool(method, 2)
        .with(block.clone())
        .map(0..100_u64, |block, n| {
            block.write(n as usize * 8, &[n]).unwrap()
        })
        .unwrap();
    let mut numbers = [0_u64; 100];
    block.read(0, &mut numbers).unwrap();
    assert!(numbers.into_iter().eq(0..100));
});

/// Runs Python, if this machine has one.
fn python(code: &str, name: &str) -> Option<Output> {
    let output = Command::new("python3").args(["-c", code, name]).output();
    match output {
        Ok(output) => Some(output),
        Err(_) => {
            println!("skipped: there is no python3");
            None
        }
    }
}

fn assert_ran(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What Python must not do at its end: take away a name that it has only opened.
const LEAVE_THE_NAME: &str = "
import sys, struct
from multiprocessing import shared_memory, resource_tracker
def leave(block):
    resource_tracker.unregister(block._name, 'shared_memory')
";

#[test]
fn python_opens_a_block_of_ours_under_its_name() {
    let block = SharedMemory::create(&fresh_name(), 64).unwrap();
    block.write(8, &[1.5_f64, -2.5]).unwrap();
    let code = format!(
        "{LEAVE_THE_NAME}
block = shared_memory.SharedMemory(sys.argv[1])
leave(block)
print(block.name, block.size, *struct.unpack_from('=2d', block.buf, 8))
block.buf[0:5] = b'hello'
block.close()"
    );
    let Some(output) = python(&code, block.name()) else {
        return;
    };
    let said = assert_ran(&output);
    assert_eq!(said, format!("{} 64 1.5 -2.5", block.name()));
    assert_eq!(block.read_value::<[u8; 5]>(0).unwrap(), *b"hello");
}

#[test]
fn we_open_a_block_of_pythons_under_its_name() {
    let name = fresh_name();
    let code = format!(
        "{LEAVE_THE_NAME}
block = shared_memory.SharedMemory(sys.argv[1], create=True, size=24)
leave(block)
struct.pack_into('=3q', block.buf, 0, 1, -2, 3)
block.close()"
    );
    let Some(output) = python(&code, &name) else {
        return;
    };
    assert_ran(&output);
    let block = SharedMemory::open(&name).unwrap();
    assert_eq!((block.name(), block.len()), (&*name, 24));
    assert_eq!(block.read_value::<[i64; 3]>(0).unwrap(), [1, -2, 3]);
    block.unlink().unwrap();
}

#[test]
fn numpy_sees_the_numbers() {
    let block = SharedMemory::create(&fresh_name(), 1000 * 8).unwrap();
    let numbers: Vec<f64> = (0..1000).map(f64::from).collect();
    block.write(0, &numbers).unwrap();
    let code = format!(
        "{LEAVE_THE_NAME}
try:
    import numpy
except ImportError:
    print('none')
    sys.exit()
block = shared_memory.SharedMemory(sys.argv[1])
leave(block)
array = numpy.ndarray((1000,), dtype=numpy.float64, buffer=block.buf)
print(array.sum())
array *= 2
del array
block.close()"
    );
    let Some(output) = python(&code, block.name()) else {
        return;
    };
    let said = assert_ran(&output);
    if said == "none" {
        println!("skipped: this python3 has no numpy");
        return;
    }
    assert_eq!(said, "499500.0");
    assert_eq!(block.read_value::<f64>(999 * 8).unwrap(), 1998.0);
}
