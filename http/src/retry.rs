//! When to try again, and how long to wait before.

use std::time::Duration;

use rand::Rng as _;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

/// How often, and how patiently, a request is tried.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Tries in all, at least 1.
    pub tries: u32,
    /// Wait before the second try; doubled before each further one, halved to whole at random.
    pub first_wait: Duration,
    /// The longest wait, also of those a server asks for.
    pub longest_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            tries: 5,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(20),
        }
    }
}

impl Retry {
    /// How long to wait after try number `tried` (from 1), or `None` when that was the last.
    pub fn wait(&self, tried: u32, headers: Option<&HeaderMap>) -> Option<Duration> {
        if tried >= self.tries {
            return None;
        }
        let asked = headers
            .and_then(|headers| headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let doubled = self.first_wait.saturating_mul(1 << (tried - 1).min(16));
        let jittered = doubled.mul_f64(rand::rng().random_range(0.5..=1.0));
        Some(asked.unwrap_or(jittered).min(self.longest_wait))
    }
}

/// Whether a later try may succeed where this answer did not.
pub(crate) fn worth_retrying(response: &Response) -> bool {
    matches!(
        response.status(),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    ) || (response.status().is_server_error() && response.status() != StatusCode::NOT_IMPLEMENTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_bounded_and_end() {
        let retry = Retry {
            tries: 3,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(2),
        };
        let first = retry.wait(1, None).expect("a second try");
        assert!(first >= Duration::from_millis(500) && first <= Duration::from_secs(1));
        assert!(retry.wait(2, None).expect("a third try") >= Duration::from_secs(1));
        assert_eq!(retry.wait(3, None), None);
    }

    #[test]
    fn a_server_may_ask_for_patience_within_bounds() {
        let retry = Retry::default();
        let after = |seconds: &'static str| {
            HeaderMap::from_iter([(RETRY_AFTER, seconds.parse().expect("a header"))])
        };
        assert_eq!(
            retry.wait(1, Some(&after("3"))),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            retry.wait(1, Some(&after("3600"))),
            Some(retry.longest_wait)
        );
    }
}
