//! What a pool tells `tracing`: a span for each job; events when a worker starts or ends, and when an item is tried again
//! or its time has passed. Without the feature `log` there is nothing here but the calls.
//!
//! What listens is the user's code and may use the pool. So what happens under the pool's lock is written into a
//! [`Diary`], and told when the lock is free: by the [`Teller`] that whoever takes the lock has made before, and by whoever
//! leads, before the next wait. Two threads may tell at once; each tells what it took in the order in which it happened.

/// Tells, when it is dropped, what has been written down meanwhile: made before the lock is taken, it goes after it.
#[derive(Debug)]
pub(crate) struct Teller<'diary>(&'diary Diary);

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        self.0.tell();
    }
}

impl Diary {
    pub(crate) fn teller(&self) -> Teller<'_> {
        Teller(self)
    }
}

#[cfg(feature = "log")]
pub(crate) use told::{Diary, Span};
#[cfg(not(feature = "log"))]
pub(crate) use untold::{Diary, Span};

#[cfg(not(feature = "log"))]
mod untold {
    use crate::error::TaskError;
    use std::process::ExitStatus;
    use std::sync::Arc;

    /// What has happened and was not told yet.
    #[derive(Debug, Default)]
    pub(crate) struct Diary {}

    impl Diary {
        pub(crate) fn has_some(&self) -> bool {
            false
        }

        pub(crate) fn tell(&self) {}

        pub(crate) fn worker_starts(&self, _name: &str) {}

        pub(crate) fn worker_ended(&self, _name: &str, _pid: u32, _status: Option<ExitStatus>) {}
    }

    /// The span of a job.
    #[derive(Debug)]
    pub(crate) struct Span {}

    impl Span {
        pub(crate) fn of_job(_diary: &Arc<Diary>, _job: u64, _function: &'static str) -> Span {
            Span {}
        }

        pub(crate) fn retried(&self, _item: usize, _attempts: u32, _pid: Option<u32>) {}

        pub(crate) fn failed(&self, _item: usize, _error: &TaskError) {}
    }
}

#[cfg(feature = "log")]
mod told {
    use crate::error::TaskError;
    use crate::task::guard;
    use parking_lot::Mutex;
    use std::process::ExitStatus;
    use std::sync::Arc;
    use tracing::Level;
    use tracing::level_filters::LevelFilter;

    /// What has happened and was not told yet.
    #[derive(Debug, Default)]
    pub(crate) struct Diary {
        entries: Mutex<Vec<Entry>>,
    }

    #[derive(Debug)]
    enum Entry {
        WorkerStarts {
            name: String,
        },
        WorkerEnded {
            name: String,
            pid: u32,
            status: Option<ExitStatus>,
        },
        JobOpened(Arc<Named>),
        Retried {
            job: Arc<Named>,
            item: usize,
            attempts: u32,
            pid: Option<u32>,
        },
        Failed {
            job: Arc<Named>,
            item: usize,
            error: TaskError,
        },
        JobClosed {
            _last: Arc<Named>,
        },
    }

    /// A job, and its span once that is made. It goes with the last entry that names it.
    #[derive(Debug)]
    struct Named {
        job: u64,
        function: &'static str,
        span: Mutex<Option<tracing::Span>>,
    }

    impl Named {
        /// Its span, made where no lock is held: whoever listens may come back here. Of two, one is let go.
        fn span(&self) -> tracing::Span {
            let known = self.span.lock().clone();
            known.unwrap_or_else(|| {
                let (job, function) = (self.job, self.function);
                let made = tracing::debug_span!("job", job, function);
                let mut span = self.span.lock();
                span.get_or_insert_with(|| made.clone()).clone()
            })
        }
    }

    impl Diary {
        pub(crate) fn has_some(&self) -> bool {
            !self.entries.lock().is_empty()
        }

        /// Tells what there is. Called without any lock of the pool's.
        pub(crate) fn tell(&self) {
            let entries = std::mem::take(&mut *self.entries.lock());
            for entry in entries {
                // A panic of what listens is printed, as one of a callback is, and stops no work.
                let _panic = guard(move || entry.tell());
            }
        }

        /// Writes down what somebody may listen to. This asks nobody but a number that `tracing` keeps.
        fn write(&self, level: Level, entry: impl FnOnce() -> Entry) {
            if level <= LevelFilter::current() {
                self.entries.lock().push(entry());
            }
        }

        pub(crate) fn worker_starts(&self, name: &str) {
            let name = || name.to_owned();
            self.write(Level::DEBUG, || Entry::WorkerStarts { name: name() });
        }

        pub(crate) fn worker_ended(&self, name: &str, pid: u32, status: Option<ExitStatus>) {
            let name = || name.to_owned();
            self.write(Level::INFO, || Entry::WorkerEnded {
                name: name(),
                pid,
                status,
            });
        }
    }

    impl Entry {
        fn tell(self) {
            match self {
                Entry::WorkerStarts { name } => tracing::debug!(worker = name, "worker starts"),
                Entry::WorkerEnded { name, pid, status } => {
                    let status = status.map(|status| status.to_string());
                    tracing::info!(worker = name, pid, status, "worker has ended");
                }
                Entry::JobOpened(job) => drop(job.span()),
                Entry::Retried {
                    job,
                    item,
                    attempts,
                    pid,
                } => {
                    tracing::info!(parent: &job.span(), item, attempts, pid, "item is tried again");
                }
                Entry::Failed { job, item, error } => {
                    let (pid, span) = (error.pid(), job.span());
                    if error.is_timeout() {
                        tracing::warn!(parent: &span, item, pid, "item has timed out");
                    } else {
                        tracing::debug!(parent: &span, item, pid, %error, "item has failed");
                    }
                }
                // With the last entry its span is closed, which is told as well.
                Entry::JobClosed { .. } => {}
            }
        }
    }

    /// The span of a job.
    #[derive(Debug)]
    pub(crate) struct Span {
        diary: Arc<Diary>,
        job: Arc<Named>,
    }

    impl Span {
        pub(crate) fn of_job(diary: &Arc<Diary>, job: u64, function: &'static str) -> Span {
            let job = Arc::new(Named {
                job,
                function,
                span: Mutex::new(None),
            });
            diary.write(Level::DEBUG, || Entry::JobOpened(Arc::clone(&job)));
            Span {
                diary: Arc::clone(diary),
                job,
            }
        }

        /// An item has failed and is tried again.
        pub(crate) fn retried(&self, item: usize, attempts: u32, pid: Option<u32>) {
            self.diary.write(Level::INFO, || Entry::Retried {
                job: Arc::clone(&self.job),
                item,
                attempts,
                pid,
            });
        }

        /// An item has failed.
        pub(crate) fn failed(&self, item: usize, error: &TaskError) {
            let level = if error.is_timeout() {
                Level::WARN
            } else {
                Level::DEBUG
            };
            self.diary.write(level, || Entry::Failed {
                job: Arc::clone(&self.job),
                item,
                error: error.clone(),
            });
        }
    }

    impl Drop for Span {
        fn drop(&mut self) {
            self.diary.write(Level::ERROR, || Entry::JobClosed {
                _last: Arc::clone(&self.job),
            });
        }
    }
}
