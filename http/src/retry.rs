//! When to try again, and how long to wait before.

use std::time::{Duration, SystemTime};

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
    /// How long an answer may be on its way, and how long its body may take for 64 KiB or its rest.
    pub patience: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            tries: 5,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(20),
            patience: Duration::from_mins(1),
        }
    }
}

impl Retry {
    /// How long to wait after try number `tried` (from 1), or `None` when that was the last.
    pub fn wait(&self, tried: u32, headers: Option<&HeaderMap>) -> Option<Duration> {
        if tried >= self.tries {
            return None;
        }
        let doubled = self.first_wait.saturating_mul(1 << (tried - 1).min(16));
        let jittered = doubled.mul_f64(rand::rng().random_range(0.5..=1.0));
        let asked = headers.and_then(|headers| retry_after(headers, SystemTime::now()));
        Some(asked.unwrap_or(jittered).min(self.longest_wait))
    }

    /// The tries of one request, none of them made yet.
    pub const fn tries(self) -> Tries {
        Tries {
            retry: self,
            tried: 0,
        }
    }
}

/// The tries of one request.
#[derive(Debug)]
pub struct Tries {
    retry: Retry,
    tried: u32,
}

impl Tries {
    /// After a try that failed: waits before the next, as long as the answer's `headers` ask for. `false`, at
    /// once, says that there is none left.
    pub async fn again(&mut self, headers: Option<&HeaderMap>) -> bool {
        self.tried += 1;
        match self.retry.wait(self.tried, headers) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                true
            }
            None => false,
        }
    }

    /// Counts anew: a try that failed has brought the whole nearer.
    pub const fn advanced(&mut self) {
        self.tried = 0;
    }
}

/// How long a server asks to wait: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Whether a later try may succeed where this answer did not.
pub fn worth_retrying(response: &Response) -> bool {
    matches!(
        response.status(),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    ) || (response.status().is_server_error() && response.status() != StatusCode::NOT_IMPLEMENTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, value.parse().expect("a header"))])
    }

    #[test]
    fn waits_grow_are_bounded_and_end() {
        let retry = Retry {
            tries: 3,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(2),
            ..Retry::default()
        };
        let first = retry.wait(1, None).expect("a second try");
        assert!(first >= Duration::from_millis(500) && first <= Duration::from_secs(1));
        assert!(retry.wait(2, None).expect("a third try") >= Duration::from_secs(1));
        assert_eq!(retry.wait(3, None), None);
    }

    #[test]
    fn a_server_may_ask_for_patience_within_bounds() {
        let retry = Retry::default();
        assert_eq!(
            retry.wait(1, Some(&after("3"))),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            retry.wait(1, Some(&after("3600"))),
            Some(retry.longest_wait)
        );
    }

    #[test]
    fn a_server_may_name_the_time() {
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        let then = httpdate::parse_http_date(date).expect("a date");
        let seconds = Duration::from_secs;
        for (now, wait) in [
            (then - seconds(7), seconds(7)),
            (then + seconds(7), seconds(0)),
        ] {
            assert_eq!(retry_after(&after(date), now), Some(wait));
        }
        assert_eq!(retry_after(&after("soon"), then), None);
    }

    #[tokio::test]
    async fn tries_are_counted_from_what_was_achieved_last() {
        let retry = Retry {
            tries: 2,
            first_wait: Duration::ZERO,
            ..Retry::default()
        };
        let mut tries = retry.tries();
        assert!(tries.again(None).await);
        tries.advanced();
        assert!(tries.again(None).await);
        assert!(!tries.again(None).await);
    }
}
