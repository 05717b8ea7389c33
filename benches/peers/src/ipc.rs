//! ipc-channel, to a process that is this program once more.

use std::process::{Child, Command};
use std::time::Instant;

use ipc_channel::ipc::{
    IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender, IpcSharedMemory, bytes_channel,
    channel,
};
use serde::{Deserialize, Serialize};

use crate::ours::NUMBERS;
use crate::sample::{Measure, all, each};

/// The argument with which this program is the other side.
pub(crate) const ROLE: &str = "--other-side-of-ipc-channel";

#[derive(Debug, Serialize, Deserialize)]
struct Ends {
    numbers: IpcSender<u64>,
    bytes: IpcBytesSender,
    blocks: IpcSender<IpcSharedMemory>,
    back: IpcReceiver<u64>,
}

struct Peer {
    ends: Ends,
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
        "pipe_rtt" | "pipe_rtt_one" => {
            let Peer { ends, .. } = &*Box::leak(Box::new(start("echo")));
            each(|| {
                ends.numbers.send(7).unwrap();
                assert_eq!(ends.back.recv().unwrap(), 8);
            })
        }
        "pipe_u64" => {
            let peer = start("numbers");
            all(move |count| {
                let start = Instant::now();
                peer.ends.numbers.send(count).unwrap();
                (0..count).for_each(|at| peer.ends.numbers.send(at).unwrap());
                assert_eq!(peer.ends.back.recv().unwrap(), count);
                start.elapsed()
            })
        }
        "pipe_1k" => bytes(1 << 10),
        "pipe_1m" => bytes(1 << 20),
        "slice_over" => block("length", NUMBERS * 8),
        "slice_read" => block("sum", (0..NUMBERS).sum()),
        _ => None,
    }
}

fn bytes(size: usize) -> Option<Measure> {
    let peer = start("bytes");
    let message = vec![1; size];
    all(move |count| {
        let start = Instant::now();
        peer.ends.numbers.send(count).unwrap();
        (0..count).for_each(|_| peer.ends.bytes.send(&message).unwrap());
        assert_eq!(peer.ends.back.recv().unwrap(), count);
        start.elapsed()
    })
}

fn block(job: &str, expected: u64) -> Option<Measure> {
    let peer = start(job);
    let numbers: Vec<u8> = (0..NUMBERS).flat_map(u64::to_ne_bytes).collect();
    let block = IpcSharedMemory::from_bytes(&numbers);
    each(move || {
        peer.ends.blocks.send(block.clone()).unwrap();
        assert_eq!(peer.ends.back.recv().unwrap(), expected);
    })
}

fn start(job: &str) -> Peer {
    let (server, name) = IpcOneShotServer::<Ends>::new().unwrap();
    let child = Command::new("/proc/self/exe")
        .args([ROLE, job, &name])
        .spawn()
        .unwrap();
    let (_receiver, ends) = server.accept().unwrap();
    Peer { ends, child }
}

/// Is the other side, until this one is gone.
pub(crate) fn play(job: &str, server: &str) {
    let (numbers, number) = channel::<u64>().unwrap();
    let (bytes, message) = bytes_channel().unwrap();
    let (blocks, block) = channel::<IpcSharedMemory>().unwrap();
    let (answer, back) = channel::<u64>().unwrap();
    let ends = Ends {
        numbers,
        bytes,
        blocks,
        back,
    };
    IpcSender::connect(server.to_owned())
        .unwrap()
        .send(ends)
        .unwrap();
    let sum = |block: &[u8]| -> u64 {
        block
            .chunks_exact(8)
            .map(|eight| u64::from_ne_bytes(eight.try_into().unwrap()))
            .sum()
    };
    loop {
        let answered = match job {
            "echo" => number.recv().ok().map(|number| number + 1),
            "length" => block.recv().ok().map(|block| block.len() as u64),
            "sum" => block.recv().ok().map(|block| sum(&block)),
            "numbers" => number.recv().ok().inspect(|count| {
                (0..*count).for_each(|at| assert_eq!(number.recv().unwrap(), at));
            }),
            _ => number.recv().ok().inspect(|count| {
                (0..*count).for_each(|_| drop(message.recv().unwrap()));
            }),
        };
        if answered.is_none_or(|answered| answer.send(answered).is_err()) {
            return;
        }
    }
}
