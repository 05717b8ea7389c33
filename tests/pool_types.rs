//! What may travel through a pool: plain vectors, strings, structs, tuples, nothing, functions and closures.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{each_method, pool};
use multiprocess::Closure;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

const MIB: usize = 1 << 20;

each_method!(plain_vectors_of_every_kind_arrive_as_sent, |method| {
    let pool = pool(method, 2);
    let words: Vec<u64> = (0..MIB as u64)
        .map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .collect();
    assert!(pool.apply(words.clone(), |words| words).unwrap() == words);
    let floats = vec![
        0.0,
        -0.0,
        f64::MIN_POSITIVE,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e300,
    ];
    assert_eq!(pool.apply(floats.clone(), |floats| floats).unwrap(), floats);
    assert!(pool.apply(vec![f32::NAN], |floats| floats).unwrap()[0].is_nan());
    assert_eq!(
        pool.apply(vec![i8::MIN, -1, 0, i8::MAX], |bytes| bytes)
            .unwrap(),
        [i8::MIN, -1, 0, i8::MAX]
    );
    assert_eq!(
        pool.apply(vec![true, false], |flags| flags).unwrap(),
        [true, false]
    );
    assert_eq!(
        pool.apply(vec!['ß', '\u{10FFFF}'], |letters| letters)
            .unwrap(),
        ['ß', '\u{10FFFF}']
    );
    assert_eq!(pool.apply(u128::MAX, |wide| wide).unwrap(), u128::MAX);
    let empty: Vec<u64> = Vec::new();
    assert_eq!(pool.apply(empty.clone(), |words| words).unwrap(), empty);
});

each_method!(strings_need_no_annotation, |method| {
    let pool = pool(method, 2);
    let lines: Vec<String> = "one\nthree\n\nfür alle"
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(
        pool.map(lines.clone(), |line| line.len()).unwrap(),
        [3, 5, 0, 9]
    );
    assert_eq!(
        pool.map(lines, |line| line.to_uppercase()).unwrap(),
        ["ONE", "THREE", "", "FÜR ALLE"]
    );
});

each_method!(function_items_travel_as_closures_do, |method| {
    fn predecessor(number: u32) -> Option<u32> {
        number.checked_sub(1)
    }
    fn generic<T: ToString>(value: T) -> String {
        value.to_string()
    }
    let pool = pool(method, 2);
    assert_eq!(pool.map([2, 0], predecessor).unwrap(), [Some(1), None]);
    assert_eq!(pool.map([2, 3], generic::<u32>).unwrap(), ["2", "3"]);
    assert_eq!(pool.map([true], generic::<bool>).unwrap(), ["true"]);
    assert_eq!(
        pool.map(["a".to_owned()], String::into_bytes).unwrap(),
        [b"a"]
    );
});

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Polygon {
        corners: Vec<(i32, i32)>,
        label: Option<String>,
    },
    Group(Vec<Shape>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Scene {
    shapes: HashMap<String, Shape>,
    parent: Option<Box<Scene>>,
    verdict: Result<u8, String>,
    limit: Duration,
    unit: (),
}

each_method!(structs_of_enums_maps_and_options_travel, |method| {
    let polygon = Shape::Polygon {
        corners: vec![(0, -1), (i32::MAX, 7)],
        label: Some("déjà".to_owned()),
    };
    let group = Shape::Group(vec![
        Shape::Nothing,
        polygon.clone(),
        Shape::Group(Vec::new()),
        Shape::Circle(0.5),
    ]);
    let inner = Scene {
        shapes: HashMap::from([("p".to_owned(), polygon), (String::new(), Shape::Nothing)]),
        parent: None,
        verdict: Err("no".to_owned()),
        limit: Duration::from_nanos(1),
        unit: (),
    };
    let outer = Scene {
        shapes: HashMap::from([("g".to_owned(), group)]),
        parent: Some(Box::new(inner.clone())),
        verdict: Ok(3),
        limit: Duration::MAX,
        unit: (),
    };
    let scenes = vec![inner, outer];
    let results = pool(method, 2)
        .map(scenes.clone(), |scene| (scene.shapes.len(), scene))
        .unwrap();
    assert_eq!(results, [(2, scenes[0].clone()), (1, scenes[1].clone())]);
});

each_method!(a_function_of_several_arguments_takes_a_tuple, |method| {
    fn volume(width: u32, height: u32, depth: u32) -> u32 {
        width * height * depth
    }
    let boxes = [(1, 2, 3), (4, 5, 6)];
    assert_eq!(
        pool(method, 2)
            .map(boxes, |(w, h, d)| volume(w, h, d))
            .unwrap(),
        [6, 120]
    );
});

each_method!(items_without_size_are_counted, |method| {
    let pool = pool(method, 2);
    assert_eq!(pool.map(vec![(); 1000], |()| ()).unwrap(), vec![(); 1000]);
    assert_eq!(
        pool.imap(vec![(); 1000], |()| ())
            .filter(Result::is_ok)
            .count(),
        1000
    );
    assert_eq!(pool.map(vec![(); 3], |()| 7).unwrap(), [7, 7, 7]);
    assert_eq!(pool.map([1, 2, 3], |_: u8| ()).unwrap(), [(), (), ()]);
});

each_method!(closures_are_values_that_travel, |method| {
    let pool = pool(method, 2);
    let closures: Vec<Closure<u32, u32>> = vec![
        Closure::new(|number| number + 1),
        Closure::with(10, |by, number| number * by),
        Closure::new(u32::count_ones),
    ];
    assert_eq!(closures[1].call(7), 70);
    assert_eq!(
        pool.map(closures, |closure| closure.call(7)).unwrap(),
        [8, 70, 3]
    );
    // And back: a worker makes one, this process calls it.
    let made = pool
        .apply("worker ".to_owned(), |name| {
            Closure::with(name, |name: &String, n: u32| format!("{name}{n}"))
        })
        .unwrap();
    assert_eq!(made.call(3), "worker 3");
});
