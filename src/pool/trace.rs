//! What a pool tells `tracing`: a span for each job; events when a worker starts or ends, and when an item is tried again
//! or its time has passed. Without the feature `log` there is nothing here but the calls.

use std::process::ExitStatus;

/// The span of a job.
#[derive(Debug)]
pub(crate) struct Span {
    #[cfg(feature = "log")]
    span: tracing::Span,
}

#[cfg(not(feature = "log"))]
impl Span {
    pub(crate) fn of_job(_job: u64, _function: &'static str) -> Span {
        Span {}
    }

    pub(crate) fn retried(&self, _item: usize, _attempts: u32, _pid: Option<u32>) {}

    pub(crate) fn failed(&self, _item: usize, _error: &crate::error::TaskError) {}
}

#[cfg(not(feature = "log"))]
pub(crate) fn worker_starts(_name: &str) {}

#[cfg(not(feature = "log"))]
pub(crate) fn worker_ended(_name: &str, _pid: u32, _status: Option<ExitStatus>) {}

#[cfg(feature = "log")]
impl Span {
    pub(crate) fn of_job(job: u64, function: &'static str) -> Span {
        Span {
            span: tracing::debug_span!("job", job, function),
        }
    }

    /// An item has failed and is tried again.
    pub(crate) fn retried(&self, item: usize, attempts: u32, pid: Option<u32>) {
        tracing::info!(parent: &self.span, item, attempts, pid, "item is tried again");
    }

    /// An item has failed.
    pub(crate) fn failed(&self, item: usize, error: &crate::error::TaskError) {
        let pid = error.pid();
        if error.is_timeout() {
            tracing::warn!(parent: &self.span, item, pid, "item has timed out");
        } else {
            tracing::debug!(parent: &self.span, item, pid, %error, "item has failed");
        }
    }
}

#[cfg(feature = "log")]
pub(crate) fn worker_starts(name: &str) {
    tracing::debug!(worker = name, "worker starts");
}

#[cfg(feature = "log")]
pub(crate) fn worker_ended(name: &str, pid: u32, status: Option<ExitStatus>) {
    let status = status.map(|status| status.to_string());
    tracing::info!(worker = name, pid, status, "worker has ended");
}
