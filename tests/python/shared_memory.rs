//! Blocks with a name: CPython's `_TestSharedMemory`.

use crate::common::alone::{in_own_process, test_path};
use crate::common::{LIMIT, each_method, each_method_alone, kill_hard};
use multiprocess::{Process, SharedMemory};

fn name(what: &str) -> String {
    format!("multiprocess-python-{what}-{}", std::process::id())
}

// CPython: _TestSharedMemory.test_shared_memory_basics
#[test]
fn shared_memory_basics() {
    let test = test_path(module_path!(), "shared_memory_basics");
    in_own_process(&test, LIMIT, || {
        let name = name("basics");
        let block = SharedMemory::create(&name, 512).unwrap();
        assert_eq!((block.name(), block.len()), (name.as_str(), 512));
        assert!(format!("{block:?}").contains(&name));
        block.write(0, &[42_u8]).unwrap();
        let also = SharedMemory::open(&name).unwrap();
        assert!(also.len() >= 512);
        assert_eq!(also.read_value::<u8>(0).unwrap(), 42);
        also.write(511, &[100_u8]).unwrap();
        assert_eq!(block.read_value::<u8>(511).unwrap(), 100);
        // Behind the end there is nothing.
        assert!(block.write(512, &[1_u8]).is_err());
        assert!(block.read_value::<u8>(512).is_err());
        // It exists already.
        assert!(SharedMemory::create(&name, 512).is_err());
        // Who has it open keeps it though its name is gone.
        block.unlink().unwrap();
        assert_eq!(also.read_value::<u8>(0).unwrap(), 42);
        assert!(SharedMemory::open(&name).is_err());
        // The name is gone once only.
        assert!(also.unlink().is_err());
    });
}

// CPython: _TestSharedMemory.test_invalid_shared_memory_creation, test_shared_memory_name_with_embedded_null
#[test]
fn invalid_shared_memory_creation() {
    assert!(SharedMemory::create(&name("empty"), 0).is_err());
    assert!(SharedMemory::create("a\0b", 10).is_err());
    assert!(SharedMemory::open("a\0b").is_err());
    assert!(SharedMemory::open(&name("nobody-made")).is_err());
}

// CPython: _TestSharedMemory.test_shared_memory_across_processes
each_method!(shared_memory_across_processes, |method| {
    let name = format!("{}-{method:?}", name("across"));
    let block = SharedMemory::create(&name, 10).unwrap();
    let builder = Process::builder().start_method(method);
    let process = builder.spawn(name, |name: String| {
        let block = SharedMemory::open(&name).unwrap();
        block.write(0, b"howdy").unwrap();
    });
    process.unwrap().join().unwrap();
    let mut bytes = [0; 5];
    block.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"howdy");
});

// CPython: _TestSharedMemory.test_shared_memory_pickle_unpickle, test_shared_memory_pickle_unpickle_dead_object: what has
// been sent stays usable, also where the name has been taken away meanwhile
each_method!(shared_memory_travels, |method| {
    let name = format!("{}-{method:?}", name("travels"));
    let block = SharedMemory::create(&name, 10).unwrap();
    block.write(0, &[7_u8]).unwrap();
    let back = Process::builder().start_method(method).spawn(
        SharedMemory::open(&name).unwrap(),
        |block: SharedMemory| {
            let seen: u8 = block.read_value(0).unwrap();
            block.write(0, &[seen + 1]).unwrap();
            block
        },
    );
    block.unlink().unwrap();
    let back = back.unwrap().join().unwrap();
    assert_eq!(
        (back.read_value::<u8>(0).unwrap(), back.name()),
        (8, name.as_str())
    );
});

// CPython: _TestSharedMemory.test_shared_memory_cleaned_after_process_termination, as far as it applies: nobody takes a
// block away whose maker was killed, and somebody else can
each_method_alone!(a_block_whose_maker_is_killed, |method| {
    let name = name("orphan");
    let builder = Process::builder().start_method(method);
    let process: multiprocess::Result<Process> = builder.spawn(name.clone(), |name: String| {
        let _block = SharedMemory::create(&name, 10).unwrap();
        kill_hard(std::process::id());
    });
    assert!(process.unwrap().join().unwrap_err().is_crash());
    SharedMemory::open(&name).unwrap().unlink().unwrap();
    assert!(SharedMemory::open(&name).is_err());
});

// CPython: _TestSharedMemory.test_shared_memory_untracking: who only opens it does not take it away when it ends
each_method_alone!(who_opens_a_block_does_not_take_it_away, |method| {
    let name = name("opened");
    let block = SharedMemory::create(&name, 10).unwrap();
    let builder = Process::builder().start_method(method);
    let process = builder.spawn(name.clone(), |name: String| {
        SharedMemory::open(&name)
            .unwrap()
            .write(3, &[9_u8])
            .unwrap();
    });
    process.unwrap().join().unwrap();
    assert_eq!(
        SharedMemory::open(&name)
            .unwrap()
            .read_value::<u8>(3)
            .unwrap(),
        9
    );
    drop(block);
    assert!(SharedMemory::open(&name).is_err());
});
