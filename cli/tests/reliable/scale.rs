//! How much is done, and the seed of what is random.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// How often the command is killed.
pub(crate) fn kills() -> u64 {
    number("IMAGESPEC_TEST_KILLS").unwrap_or(10)
}

/// How large the large wheel is, in GiB.
pub(crate) fn gib() -> u64 {
    number("IMAGESPEC_TEST_GIB").unwrap_or(1)
}

/// A seed, and what follows from it for one test.
pub(crate) fn seed(test: u64) -> (u64, StdRng) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH);
    let chosen = || now().map_or(0, |now| u64::from(now.subsec_micros()));
    let seed = number("IMAGESPEC_TEST_SEED").unwrap_or_else(chosen);
    (seed, StdRng::seed_from_u64(seed.wrapping_add(test << 32)))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
