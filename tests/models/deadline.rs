//! Deadlines that pass at any moment at which their thread sleeps, or never.

use crate::kernel;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(bool);

impl Deadline {
    pub(crate) const NEVER: Deadline = Deadline(false);

    pub(crate) fn after(_limit: Duration) -> Deadline {
        Deadline(true)
    }

    pub(crate) fn or_after(self, limit: Duration) -> Deadline {
        Deadline::after(limit)
    }

    pub(crate) fn is_never(self) -> bool {
        !self.0
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0 && kernel::has_expired()
    }

    pub(crate) fn remaining(self) -> Option<Duration> {
        let left = if self.has_passed() { 0 } else { 1 };
        self.0.then(|| Duration::from_secs(left))
    }
}
