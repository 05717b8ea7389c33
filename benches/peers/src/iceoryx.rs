//! iceoryx2, to a process that is this program once more. Both sides poll. What travels is not copied out on arrival.

use std::hint::spin_loop;
use std::process::{Child, Command};
use std::time::Instant;

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use crate::sample::{Measure, all, each};

/// The argument with which this program is the other side.
pub(crate) const ROLE: &str = "--other-side-of-iceoryx2";

/// Bytes are acknowledged in batches, of which two fit into a subscriber's buffer: a publisher that finds it full loses a
/// message now and then, and both sides would wait for ever.
const BATCH: u64 = 16;

type Numbers = (
    Publisher<ipc::Service, u64, ()>,
    Subscriber<ipc::Service, u64, ()>,
);

struct Peer {
    node: Node<ipc::Service>,
    service: String,
    numbers: Numbers,
    child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn measure(job: &str) -> Option<Measure> {
    match job {
        "pipe_rtt" => {
            let peer = start("echo");
            each(move || {
                peer.numbers.0.send_copy(7).unwrap();
                assert_eq!(receive(&peer.numbers.1), 8);
            })
        }
        "pipe_u64" => {
            let peer = start("numbers");
            all(move |count| {
                let start = Instant::now();
                peer.numbers.0.send_copy(count).unwrap();
                (0..count).for_each(|at| _ = peer.numbers.0.send_copy(at).unwrap());
                assert_eq!(receive(&peer.numbers.1), count);
                start.elapsed()
            })
        }
        "pipe_1k" => bytes("bytes", 1 << 10),
        "pipe_1m" => bytes("bytes", 1 << 20),
        _ => None,
    }
}

fn bytes(job: &str, size: usize) -> Option<Measure> {
    let peer = start(job);
    let service = bytes_service(&peer.node, &peer.service);
    let publisher = service
        .publisher_builder()
        .initial_max_slice_len(size)
        .create()
        .unwrap();
    let message = vec![1_u8; size];
    // The other side has its subscriber when it answers.
    peer.numbers.0.send_copy(0).unwrap();
    assert_eq!(receive(&peer.numbers.1), 0);
    all(move |count| {
        let _service = &service;
        let start = Instant::now();
        peer.numbers.0.send_copy(count).unwrap();
        for at in 1..=count {
            let sample = publisher.loan_slice_uninit(size).unwrap();
            sample.write_from_slice(&message).send().unwrap();
            // Of the batch before: this one need not have arrived.
            if at % BATCH == 0 && at > BATCH {
                receive(&peer.numbers.1);
            }
        }
        if count >= BATCH {
            receive(&peer.numbers.1);
        }
        assert_eq!(receive(&peer.numbers.1), count);
        start.elapsed()
    })
}

type Bytes =
    iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], ()>;

fn bytes_service(node: &Node<ipc::Service>, service: &str) -> Bytes {
    let name = format!("{service}/bytes");
    let builder = node
        .service_builder(&name.as_str().try_into().unwrap())
        .publish_subscribe::<[u8]>();
    builder
        .enable_safe_overflow(false)
        .subscriber_max_buffer_size(2 * BATCH as usize)
        .open_or_create()
        .unwrap()
}

fn numbers(node: &Node<ipc::Service>, service: &str, there: &str, back: &str) -> Numbers {
    let open = |direction: &str| {
        let name = format!("{service}/{direction}");
        let builder = node
            .service_builder(&name.as_str().try_into().unwrap())
            .publish_subscribe::<u64>();
        builder
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(1024)
            .open_or_create()
            .unwrap()
    };
    let publisher = open(there).publisher_builder().create().unwrap();
    let subscriber = open(back).subscriber_builder().create().unwrap();
    (publisher, subscriber)
}

fn receive(subscriber: &Subscriber<ipc::Service, u64, ()>) -> u64 {
    loop {
        match subscriber.receive().unwrap() {
            Some(sample) => return *sample.payload(),
            None => spin_loop(),
        }
    }
}

fn start(job: &str) -> Peer {
    let node = NodeBuilder::new().create::<ipc::Service>().unwrap();
    let service = format!("peers-{}", std::process::id());
    let numbers = numbers(&node, &service, "there", "back");
    let child = Command::new("/proc/self/exe")
        .args([ROLE, job, &service])
        .spawn()
        .unwrap();
    // It says that it is there.
    assert_eq!(receive(&numbers.1), 0);
    Peer {
        node,
        service,
        numbers,
        child,
    }
}

/// Is the other side, until it is killed, or until this one is gone.
pub(crate) fn play(job: &str, service: &str) {
    let node = NodeBuilder::new().create::<ipc::Service>().unwrap();
    let (publisher, subscriber) = numbers(&node, service, "back", "there");
    let bytes = (job == "bytes").then(|| {
        let service = bytes_service(&node, service);
        let subscriber = service.subscriber_builder().create().unwrap();
        (service, subscriber)
    });
    let parent = std::os::unix::process::parent_id();
    publisher.send_copy(0).unwrap();
    let mut idle = 0_u64;
    loop {
        let Some(first) = subscriber.receive().unwrap() else {
            idle += 1;
            // A poller takes a whole processor; between two measurements it is not to.
            if idle > 100_000 {
                std::thread::sleep(std::time::Duration::from_micros(200));
                if std::os::unix::process::parent_id() != parent {
                    return;
                }
            }
            continue;
        };
        idle = 0;
        let count = *first.payload();
        drop(first);
        match (job, &bytes) {
            ("echo", _) => _ = publisher.send_copy(count + 1).unwrap(),
            (_, None) => {
                (0..count).for_each(|at| assert_eq!(receive(&subscriber), at));
                publisher.send_copy(count).unwrap();
            }
            (_, Some((_, bytes))) => {
                for at in 1..=count {
                    while bytes.receive().unwrap().is_none() {
                        spin_loop();
                    }
                    if at % BATCH == 0 {
                        publisher.send_copy(at).unwrap();
                    }
                }
                publisher.send_copy(count).unwrap();
            }
        }
    }
}
