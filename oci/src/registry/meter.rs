//! How far a blob is.

/// Turns how far one blob is into further bytes, also when it has to start again.
pub(super) struct Meter<'a> {
    reached: std::sync::atomic::AtomicU64,
    progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl<'a> Meter<'a> {
    pub(super) fn new(progress: &'a (dyn Fn(u64) + Send + Sync)) -> Self {
        Self {
            reached: 0.into(),
            progress,
        }
    }

    pub(super) fn reach(&self, done: u64) {
        let before = self
            .reached
            .fetch_max(done, std::sync::atomic::Ordering::Relaxed);
        if done > before {
            (self.progress)(done - before);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn bytes_that_are_sent_again_count_once() {
        let total = AtomicU64::new(0);
        let progress = |bytes| {
            total.fetch_add(bytes, Ordering::Relaxed);
        };
        let meter = Meter::new(&progress);
        for done in [3, 7, 2, 7, 10] {
            meter.reach(done);
        }
        assert_eq!(total.load(Ordering::Relaxed), 10);
    }
}
