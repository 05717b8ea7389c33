//! `Value`, `Array`, `SharedSlice`, and the places of small objects: whoever writes, makes or receives is killed at each step.
//!
//! What is promised: a value is as it was or as it was to be; what others have stays as it is.

use crate::case::Then::{Done, Either, Undone};
use crate::case::{Row, SOON, at, deaths, each, result_of};
use multiprocess::{Array, Lock, Queue, SharedSlice, Value};

pub(crate) const TABLES: &[&[Row]] = &[
    VALUE_WRITER,
    ARRAY_WRITER,
    ARRAY_WRITER_IN_PLACE,
    SLICE_MAKER,
    SLICE_RECEIVER,
    PLACE_MAKER,
    PLACE_RECEIVER,
];

const VALUE_WRITER: &[Row] = &[
    at("word::take::taken", Undone),
    at("twin::lock::held", Undone),
    at("twin::publish::copied", Undone),
    at("twin::publish::raised", Done),
    at("word::give::unlinked", Done),
    at("word::give::given", Done),
];

deaths!(who_sets_a_value, VALUE_WRITER, |case| {
    let value = Value::new([0_u64; 16]).unwrap();
    let writer = case.victim(value.clone(), |value: Value<[u64; 16]>| value.set([1; 16]));
    case.assert_killed(writer);
    assert_eq!(value.get(), [u64::from(case.is_done()); 16]);
    let other = case.other(value.clone(), |value: Value<[u64; 16]>| {
        value.update(|old| old.map(|one| one + 2));
    });
    result_of(other);
    assert_eq!(value.get(), [2 + u64::from(case.is_done()); 16]);
});

const ARRAY_WRITER: &[Row] = &[
    at("twin::lock::held", Undone),
    at("twin::publish::copied", Undone),
    at("twin::publish::raised", Done),
    at("word::give::given", Done),
];

deaths!(who_changes_an_array, ARRAY_WRITER, |case| {
    let array = Array::from_slice(&[0_u64; 100]).unwrap();
    let writer = case.victim(array.clone(), |array: Array<u64>| array.lock().fill(1));
    case.assert_killed(writer);
    assert!(array.lock_timeout(SOON).is_some());
    assert_eq!(array.to_vec(), vec![u64::from(case.is_done()); 100]);
    let other = case.other(array.clone(), |array: Array<u64>| array.set(7, 7));
    result_of(other);
    assert_eq!(array.get(7), Some(7));
});

const ARRAY_WRITER_IN_PLACE: &[Row] = &[at("twin::write::written", Done)];

deaths!(who_writes_into_an_array, ARRAY_WRITER_IN_PLACE, |case| {
    let array = Array::from_slice(&[0_u64; 100]).unwrap();
    let writer = case.victim(array.clone(), |array: Array<u64>| array.write(10, &[1; 10]));
    case.assert_killed(writer);
    assert!(array.lock_timeout(SOON).is_some());
    let mut expected = vec![0; 100];
    expected[10..20].fill(1);
    assert_eq!(array.to_vec(), expected);
    array.set(0, 7);
    assert_eq!(array.get(0), Some(7));
});

const SLICE_MAKER: &[Row] = &[
    at("slice::make::filled", Undone),
    at("slice::make::frozen", Undone),
    at("queue::put::body", Undone),
    at("queue::put::published", Done),
];

deaths!(who_makes_a_slice, SLICE_MAKER, |case| {
    let slices = Queue::new().unwrap();
    let maker = case.victim(slices.clone(), |slices: Queue<SharedSlice<u32>>| {
        slices
            .put(SharedSlice::from_slice(&[7; 5000]).unwrap())
            .unwrap();
    });
    case.assert_killed(maker);
    match slices.try_get() {
        Ok(slice) => assert!(case.is_done() && *slice == [7; 5000]),
        Err(error) => assert!(!case.is_done() && error.is_empty(), "{error}"),
    }
    slices
        .put_timeout(SharedSlice::from_slice(&[8; 10]).unwrap(), SOON)
        .unwrap();
    assert_eq!(*slices.get_timeout(SOON).unwrap(), [8; 10]);
});

const SLICE_RECEIVER: &[Row] = &[at("slice::arrive::read", Undone)];

deaths!(who_is_given_a_slice, SLICE_RECEIVER, |case| {
    let (slices, slice) = (
        Queue::new().unwrap(),
        SharedSlice::from_slice(&[7; 5000]).unwrap(),
    );
    slices.put(slice.clone()).unwrap();
    let receiver = case.victim(slices.clone(), |slices: Queue<SharedSlice<u32>>| {
        slices.get().unwrap().len()
    });
    case.assert_killed(receiver);
    assert_eq!(*slice, [7; 5000]);
    let other = case.other(slice, |slice: SharedSlice<u32>| slice.iter().sum::<u32>());
    assert_eq!(result_of(other), 35_000);
});

const PLACE_MAKER: &[Row] = &[at("arena::begin::made", Undone)];

deaths!(who_makes_a_small_object, PLACE_MAKER, |case| {
    let locks = Queue::new().unwrap();
    let maker = case.victim(locks.clone(), |locks: Queue<Lock<u32>>| {
        locks.put(Lock::new(7).unwrap()).unwrap();
    });
    case.assert_killed(maker);
    assert!(locks.try_get().unwrap_err().is_empty());
    locks.put_timeout(Lock::new(8).unwrap(), SOON).unwrap();
    assert_eq!(*locks.get_timeout(SOON).unwrap().lock().unwrap(), 8);
});

const PLACE_RECEIVER: &[Row] = &[each("arena::adopt::mapped", 2, Either)];

deaths!(who_is_given_small_objects, PLACE_RECEIVER, |case| {
    let locks = Queue::new().unwrap();
    let sent = [(); 2].map(|()| Lock::new(7_u32).unwrap());
    for lock in &sent {
        locks.put(lock.clone()).unwrap();
    }
    let receiver = case.victim(locks.clone(), |locks: Queue<Lock<u32>>| {
        let _both = [(); 2].map(|()| locks.get().unwrap());
    });
    case.assert_killed(receiver);
    for lock in sent {
        *lock.lock().unwrap() += 1;
        let other = case.other(lock, |lock: Lock<u32>| *lock.lock().unwrap());
        assert_eq!(result_of(other), 8);
    }
});
