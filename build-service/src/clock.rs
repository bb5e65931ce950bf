//! Time and names.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default().as_millis();
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// A new name that nobody guesses; later ones are greater.
pub(crate) fn identifier() -> String {
    format!("{:012x}{:016x}", now(), rand::random::<u64>())
}
