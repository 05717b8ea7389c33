//! Numbers that are shared: CPython's `_TestValue`, `_TestArray`, `_TestSharedCTypes`.

use crate::common::every_method;
use multiprocess::{Array, Process, Value};

// CPython: _TestValue.test_value, test_getobj_getlock, _TestSharedCTypes.test_sharedctypes
every_method!(value, |method| {
    let whole = Value::new(7_i32).unwrap();
    let real = Value::new(1.0 / 3.0).unwrap();
    let pair = Value::new([3_i64, 2]).unwrap();
    let arguments = (whole.clone(), real.clone(), pair.clone());
    let child = Process::builder()
        .start_method(method)
        .spawn(arguments, |(whole, real, pair)| {
            let seen = (whole.get(), real.get(), pair.get());
            whole.fetch_add(7);
            real.set(-3.5);
            pair.update(|pair| pair.map(|part| part * 2));
            seen
        });
    assert_eq!(child.unwrap().join().unwrap(), (7, 1.0 / 3.0, [3, 2]));
    assert_eq!((whole.get(), real.get(), pair.get()), (14, -3.5, [6, 4]));
});

// CPython: _TestArray.test_array, test_getobj_getlock_obj
every_method!(array, |method| {
    let mut expected = [680, 626, 934, 821, 150, 233, 548, 982, 714, 831];
    let array = Array::from_slice(&expected).unwrap();
    assert_eq!(array.len(), expected.len());
    assert_eq!(array.to_vec(), expected);
    assert_eq!((array.get(9), array.get(10)), (Some(831), None));
    array.write(4, &[1, 2, 3, 4]);
    expected[4..8].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(array.to_vec(), expected);
    let child =
        Process::builder()
            .start_method(method)
            .spawn(array.clone(), |array: Array<i32>| {
                let mut numbers = array.lock();
                for place in 1..numbers.len() {
                    numbers[place] += numbers[place - 1];
                }
            });
    child.unwrap().join().unwrap();
    for place in 1..expected.len() {
        expected[place] += expected[place - 1];
    }
    assert_eq!(array.to_vec(), expected);
});

// CPython: _TestArray.test_array_from_size
#[test]
fn array_from_size() {
    for _ in 0..3 {
        let array = Array::<i32>::new(10).unwrap();
        assert_eq!(array.to_vec(), [0; 10]);
        array.write(0, &[7; 10]);
        assert_eq!(array.to_vec(), [7; 10]);
    }
}
