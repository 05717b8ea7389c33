//! What a job shows on standard error while it runs, if it is asked to: done and total, rate, time left, failures.
//!
//! Without the feature `progress` there is nothing here but the calls.

#[cfg(feature = "progress")]
use indicatif::{ProgressBar, ProgressStyle};

/// A job's bar; nothing where none was asked for or standard error is no terminal.
#[derive(Debug, Default)]
pub(crate) struct Bar {
    #[cfg(feature = "progress")]
    bar: Option<ProgressBar>,
    #[cfg(feature = "progress")]
    submitted: u64,
    #[cfg(feature = "progress")]
    failures: u64,
}

#[cfg(not(feature = "progress"))]
impl Bar {
    pub(crate) fn new(_label: Option<&str>, _total: Option<usize>) -> Bar {
        Bar::default()
    }

    pub(crate) fn submitted(&mut self, _items: usize) {}

    pub(crate) fn is_complete(&mut self) {}

    pub(crate) fn done(&mut self, _items: usize) {}

    pub(crate) fn failed(&mut self) {}
}

#[cfg(feature = "progress")]
impl Bar {
    pub(crate) fn new(label: Option<&str>, total: Option<usize>) -> Bar {
        let bar = label.map(|label| {
            let bar = match total {
                Some(total) => ProgressBar::new(total as u64).with_style(measured()),
                None => ProgressBar::new_spinner().with_style(endless()),
            };
            bar.with_prefix(label.to_owned())
        });
        Bar {
            // It draws on standard error, and is hidden where that is no terminal: then it need not be kept up to date.
            bar: bar.filter(|bar| !bar.is_hidden()),
            submitted: 0,
            failures: 0,
        }
    }

    pub(crate) fn submitted(&mut self, items: usize) {
        self.submitted += items as u64;
    }

    /// No more items will come: their number is known now.
    pub(crate) fn is_complete(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| bar.length().is_none()) {
            bar.set_style(measured());
            bar.set_length(self.submitted);
        }
    }

    pub(crate) fn done(&mut self, items: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(items as u64);
        }
    }

    pub(crate) fn failed(&mut self) {
        if let Some(bar) = &self.bar {
            self.failures += 1;
            bar.set_message(format!("{} failed", self.failures));
            bar.inc(1);
        }
    }
}

#[cfg(feature = "progress")]
impl Drop for Bar {
    /// Leaves the line as it is.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

#[cfg(feature = "progress")]
const MEASURED: &str = "{prefix} {wide_bar} {human_pos}/{human_len} {per_sec} {eta} left {msg}";
#[cfg(feature = "progress")]
const ENDLESS: &str = "{prefix} {spinner} {human_pos} {per_sec} {msg}";

#[cfg(feature = "progress")]
fn measured() -> ProgressStyle {
    style(MEASURED)
}

#[cfg(feature = "progress")]
fn endless() -> ProgressStyle {
    style(ENDLESS)
}

/// The templates are ours; one that indicatif does not take would be its own default.
#[cfg(feature = "progress")]
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(all(test, feature = "progress"))]
mod tests {
    use super::*;

    #[test]
    fn templates_are_what_indicatif_takes() {
        for template in [MEASURED, ENDLESS] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
        let mut bar = Bar::new(None, Some(3));
        bar.done(1);
        assert!(bar.bar.is_none(), "none was asked for");
    }
}
