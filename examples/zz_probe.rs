//! Probe.
use multiprocess::Pipe;
use std::time::Instant;
fn main() {
    let (a, b) = Pipe::<u64>::pair().unwrap();
    for _ in 0..3 {
        let n = 100_000u64;
        let t = Instant::now();
        for i in 0..n {
            a.send(i).unwrap();
        }
        let s = t.elapsed();
        let t = Instant::now();
        for i in 0..n {
            assert_eq!(b.recv().unwrap(), i);
        }
        let r = t.elapsed();
        println!(
            "send {:.1} ns, recv {:.1} ns",
            s.as_nanos() as f64 / n as f64,
            r.as_nanos() as f64 / n as f64
        );
    }
    let t = Instant::now();
    for _ in 0..100_000 {
        std::hint::black_box(Instant::now());
    }
    println!("now {:.1}", t.elapsed().as_nanos() as f64 / 1e5);
    let t = Instant::now();
    for _ in 0..100_000 {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
    println!("fence {:.1}", t.elapsed().as_nanos() as f64 / 1e5);
}
