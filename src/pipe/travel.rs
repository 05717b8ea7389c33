//! How the two sides of a lane move to another process, inside a value.
//!
//! An end is encoded by taking it out of its handle: what it has sent and received so far, the beginning of a long message,
//! descriptors that have arrived, and its own descriptors go along, so nothing is lost and nobody here can use it meanwhile.
//! If the value does not leave after all, it is put back.
//!
//! What was encoded may be decoded more than once: a pool sends captures and an initializer's arguments to each worker, and an item
//! again after a crash. One of these has the end, the first that claims it (see `shm::ring`); for each other, decoding fails.

use crate::pipe::failure::Failure;
use crate::pipe::incoming::{Long, Receiving, ReceivingParts};
use crate::pipe::inlet::Inlet;
use crate::pipe::outlet::{Outlet, Sending, SendingParts};
use crate::shm::{Lane, Lanes};
use crate::sys::memory::SealedMemory;
use crate::sys::poll::is_nonblocking;
use crate::sys::step::step;
use crate::wire::handles::{self, Descriptor};
use crate::wire::rights::{Inbox, Kept};
use parking_lot::Mutex;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

#[derive(Serialize, Deserialize)]
struct SendingForm {
    memory: Descriptor,
    socket: Descriptor,
    event: Descriptor,
    is_back: bool,
    tail: u64,
    sleep: u64,
    claim: u64,
    letters: u64,
    owes_cut: bool,
}

#[derive(Serialize, Deserialize)]
struct ReceivingForm {
    memory: Descriptor,
    socket: Descriptor,
    event: Descriptor,
    is_back: bool,
    head: u64,
    sleep: u64,
    claim: u64,
    letters: u64,
    kept: Vec<Kept<Descriptor>>,
    long: Option<Long>,
    owes_bell: bool,
}

fn lane(is_back: bool) -> Lane {
    if is_back { Lane::Back } else { Lane::Forth }
}

/// Finds the lanes in memory that has arrived. Only the mappings are kept of it, and `memory` itself, to move on.
fn lanes(memory: &OwnedFd, event: &OwnedFd) -> io::Result<Lanes> {
    if !is_nonblocking(event.as_fd()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no event came with a pipe",
        ));
    }
    Lanes::attach(SealedMemory::adopt(memory.try_clone()?)?)
}

/// Encodes `form` and has `undo` put `side` back, should the value not leave.
fn leave<T: Send + 'static, S: Serializer>(
    serializer: S,
    form: &impl Serialize,
    side: T,
    undo: impl FnOnce(T) + Send + 'static,
) -> Result<S::Ok, S::Error> {
    let side = Arc::new(Mutex::new(Some((side, undo))));
    let put_back = {
        let side = Arc::clone(&side);
        move || {
            if let Some((side, undo)) = { side.lock().take() } {
                undo(side);
            }
        }
    };
    if let Err(why) = handles::on_return(put_back.clone()) {
        put_back();
        return Err(S::Error::custom(why));
    }
    form.serialize(serializer)
}

/// Encodes the sending side by moving it.
pub(crate) fn send_away<S: Serializer>(
    outlet: &Arc<Outlet>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let sending = outlet.depart().map_err(refused)?;
    step!("pipe::travel::outlet_out");
    let parts = sending.parts();
    let form = SendingForm {
        memory: Descriptor(parts.memory),
        socket: Descriptor(parts.socket),
        event: Descriptor(parts.event),
        is_back: parts.lane == Lane::Back,
        tail: parts.tail,
        sleep: parts.sleep,
        claim: parts.claim,
        letters: parts.letters,
        owes_cut: parts.owes_cut,
    };
    let outlet = Arc::clone(outlet);
    leave(serializer, &form, sending, move |sending| {
        outlet.come_back(sending);
    })
}

/// Decodes a sending side that has moved here.
pub(crate) fn arriving_outlet<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Outlet, D::Error> {
    let form = SendingForm::deserialize(deserializer)?;
    step!("pipe::travel::outlet_read");
    let parts = SendingParts {
        socket: form.socket.0,
        event: form.event.0,
        lane: lane(form.is_back),
        tail: form.tail,
        sleep: form.sleep,
        claim: form.claim,
        letters: form.letters,
        owes_cut: form.owes_cut,
        memory: form.memory.0,
    };
    lanes(&parts.memory, &parts.event)
        .and_then(|lanes| Sending::new(&lanes, parts))
        .inspect(|_| step!("pipe::travel::outlet_in"))
        .map(Outlet::new)
        .map_err(D::Error::custom)
}

/// Encodes the receiving side by moving it.
pub(crate) fn receive_elsewhere<S: Serializer>(
    inlet: &Arc<Inlet>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let (receiving, inbox) = inlet.depart().map_err(refused)?;
    let parts = receiving.parts();
    let (letters, kept) = inbox.into_parts();
    let kept: Vec<Kept<Descriptor>> = kept
        .into_iter()
        .map(|(letter, some)| {
            let some = some.map(|some| some.into_iter().map(Descriptor::from).collect());
            (letter, some)
        })
        .collect();
    let form = ReceivingForm {
        memory: Descriptor(parts.memory),
        socket: Descriptor(parts.socket),
        event: Descriptor(parts.event),
        is_back: parts.lane == Lane::Back,
        head: parts.head,
        sleep: parts.sleep,
        claim: parts.claim,
        letters,
        kept: kept.clone(),
        long: parts.long,
        owes_bell: parts.owes_bell,
    };
    let inlet = Arc::clone(inlet);
    leave(serializer, &form, receiving, move |receiving| {
        inlet.come_back(receiving, Inbox::resume(letters, owned(kept)));
    })
}

/// Decodes a receiving side that has moved here.
pub(crate) fn arriving_inlet<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Inlet, D::Error> {
    let form = ReceivingForm::deserialize(deserializer)?;
    step!("pipe::travel::inlet_read");
    let inbox = Inbox::resume(form.letters, owned(form.kept));
    let parts = ReceivingParts {
        socket: form.socket.0,
        event: form.event.0,
        lane: lane(form.is_back),
        head: form.head,
        sleep: form.sleep,
        claim: form.claim,
        long: form.long,
        owes_bell: form.owes_bell,
        memory: form.memory.0,
    };
    lanes(&parts.memory, &parts.event)
        .and_then(|lanes| Receiving::new(&lanes, parts))
        .inspect(|_| step!("pipe::travel::inlet_in"))
        .map(|receiving| Inlet::new(receiving, inbox))
        .map_err(D::Error::custom)
}

fn owned(kept: Vec<Kept<Descriptor>>) -> Vec<Kept> {
    let bare = |some: Vec<Descriptor>| some.into_iter().map(|Descriptor(one)| one).collect();
    kept.into_iter()
        .map(|(letter, some)| (letter, some.map(bare)))
        .collect()
}

fn refused<E: serde::ser::Error>(failure: Failure) -> E {
    E::custom(failure)
}
