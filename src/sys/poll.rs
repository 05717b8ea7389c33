//! Waiting for descriptors: for a few of them with `poll`, for a pool's with `epoll`, and waking such a wait.

use crate::deadline::Deadline;
use crate::sys::descriptor::above_streams;
use crate::sys::errno::retry;
use crate::sys::shared::SharedFd;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Blocks until one of `descriptors` is readable or closed, or `deadline` passes; tells which are.
pub(crate) fn readable<const N: usize>(
    descriptors: [BorrowedFd<'_>; N],
    deadline: Deadline,
) -> io::Result<[bool; N]> {
    let mut polled = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    retry(|| nix::poll::poll(&mut polled, timeout(deadline)))?;
    Ok(polled.map(|descriptor| descriptor.any().unwrap_or(true)))
}

/// Blocks until `process`, a pidfd, was collected, by whomever, or `deadline` passes; tells whether it was. Kernels before
/// 6.15 do not tell.
pub(crate) fn collected(process: BorrowedFd<'_>, deadline: Deadline) -> io::Result<bool> {
    // What is not asked for is told nevertheless: the hang-up.
    let mut polled = [PollFd::new(process, PollFlags::empty())];
    retry(|| nix::poll::poll(&mut polled, timeout(deadline)))?;
    Ok(polled[0].any().unwrap_or(true))
}

/// As [`collected`], or until `other` is readable; tells which.
pub(crate) fn collected_or_readable(
    process: BorrowedFd<'_>,
    other: BorrowedFd<'_>,
    deadline: Deadline,
) -> io::Result<[bool; 2]> {
    let mut polled = [
        PollFd::new(process, PollFlags::empty()),
        PollFd::new(other, PollFlags::POLLIN),
    ];
    retry(|| nix::poll::poll(&mut polled, timeout(deadline)))?;
    Ok(polled.map(|descriptor| descriptor.any().unwrap_or(true)))
}

/// Blocks until something can be written to `descriptor`, or its peer is gone.
pub(crate) fn writable(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLOUT)];
    retry(|| nix::poll::poll(&mut polled, PollTimeout::NONE))?;
    Ok(())
}

/// Blocks until something can be written to `descriptor`, its peer is gone, or `deadline` passes.
pub(crate) fn writable_until(descriptor: BorrowedFd<'_>, deadline: Deadline) -> io::Result<()> {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLOUT)];
    retry(|| nix::poll::poll(&mut polled, timeout(deadline)))?;
    Ok(())
}

/// Blocks until any of `descriptors` is readable or closed, or `deadline` passes.
pub(crate) fn any_readable(descriptors: &[BorrowedFd<'_>], deadline: Deadline) -> io::Result<()> {
    let mut polled: Vec<PollFd<'_>> = descriptors
        .iter()
        .map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN))
        .collect();
    retry(|| nix::poll::poll(&mut polled, timeout(deadline)))?;
    Ok(())
}

/// Whether the peer of a socket is gone. Takes nothing from it.
pub(crate) fn is_hung_up(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    retry(|| nix::poll::poll(&mut polled, PollTimeout::ZERO))?;
    let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    Ok(polled[0]
        .revents()
        .is_none_or(|events| events.intersects(hung_up)))
}

/// Milliseconds, rounded up, so that a wait never ends before its deadline.
fn timeout(deadline: Deadline) -> PollTimeout {
    match deadline.remaining() {
        None => PollTimeout::NONE,
        Some(left) => {
            let rounded = left
                .saturating_add(Duration::from_nanos(999_999))
                .as_millis();
            PollTimeout::try_from(rounded).unwrap_or(PollTimeout::MAX)
        }
    }
}

/// A set of descriptors that is waited for as one; each has a number of the caller's.
#[derive(Debug)]
pub(crate) struct Watch {
    epoll: Epoll,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Watch> {
        let Epoll(descriptor) = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Watch {
            epoll: Epoll(above_streams(descriptor)?),
        })
    }

    /// Watches `descriptor` until it is removed: closing it is not enough, where a forked process holds it as well.
    pub(crate) fn add(&self, descriptor: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        Ok(self
            .epoll
            .add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, number))?)
    }

    /// Watches one that was added for room to write as well, or no more.
    pub(crate) fn also_for_room(
        &self,
        descriptor: BorrowedFd<'_>,
        number: u64,
        room: bool,
    ) -> io::Result<()> {
        let flags = if room {
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT
        } else {
            EpollFlags::EPOLLIN
        };
        let mut event = EpollEvent::new(flags, number);
        Ok(self.epoll.modify(descriptor, &mut event)?)
    }

    /// Readable when one of the watched ones is: sets can be watched as well.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Watches `descriptor` no more.
    pub(crate) fn remove(&self, descriptor: BorrowedFd<'_>) {
        // It fails only where the descriptor was not watched.
        let _not_watched = self.epoll.delete(descriptor);
    }

    /// Blocks until a descriptor is readable or closed, or `deadline` passes; puts the numbers into `ready`.
    pub(crate) fn wait(&self, ready: &mut Vec<u64>, deadline: Deadline) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let count = retry(|| self.epoll.wait(&mut events, timeout(deadline)))?;
        ready.clear();
        ready.extend(events[..count].iter().map(EpollEvent::data));
        Ok(())
    }
}

/// A descriptor that any thread can make readable, to wake one that waits.
#[derive(Debug)]
pub(crate) struct Wake {
    event: OwnedFd,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Wake> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags)?;
        Ok(Wake {
            event: above_streams(event.into())?,
        })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Makes it readable. Fails only where it already is.
    pub(crate) fn ring(&self) {
        ring_event(self.event.as_fd());
    }

    /// Makes it unreadable again.
    pub(crate) fn clear(&self) {
        clear_event(self.event.as_fd());
    }
}

impl From<Wake> for OwnedFd {
    fn from(wake: Wake) -> OwnedFd {
        wake.event
    }
}

/// As [`Wake::ring`], for one that came from elsewhere.
pub(crate) fn ring_event(event: BorrowedFd<'_>) {
    let _already_readable = nix::unistd::write(event, &1u64.to_ne_bytes());
}

/// As [`Wake::clear`], for one that came from elsewhere.
pub(crate) fn clear_event(event: BorrowedFd<'_>) {
    let _nothing_there = nix::unistd::read(event, &mut [0; 8]);
}

/// Whether reading and writing never block.
pub(crate) fn is_nonblocking(descriptor: BorrowedFd<'_>) -> bool {
    let flags = nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_GETFL);
    flags.is_ok_and(|flags| flags & libc::O_NONBLOCK != 0)
}

/// A descriptor that is readable as long as its count, which any process that has it changes, is not 0.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    event: Arc<SharedFd>,
}

impl Counter {
    pub(crate) fn new() -> io::Result<Counter> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_SEMAPHORE;
        let event = EventFd::from_flags(flags)?;
        Ok(Counter::adopt(SharedFd::of(above_streams(event.into())?)))
    }

    /// Takes a descriptor that came from elsewhere, whatever it is.
    pub(crate) fn adopt(event: Arc<SharedFd>) -> Counter {
        Counter { event }
    }

    pub(crate) fn handle(&self) -> &Arc<SharedFd> {
        &self.event
    }

    /// Counts up. It fails only where the count is as high as it gets, or where the descriptor is no such counter.
    pub(crate) fn add(&self, count: u64) {
        let _full = retry(|| nix::unistd::write(&self.event, &count.to_ne_bytes()));
    }

    /// Counts down by one; returns false where it was 0.
    pub(crate) fn take(&self) -> bool {
        retry(|| nix::unistd::read(&self.event, &mut [0; 8])).is_ok_and(|len| len == 8)
    }
}
