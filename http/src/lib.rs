//! HTTP as all of `imagespec` speaks it: one client over the system's trust store and proxies, retries with
//! limits and jitter, answers of bounded size, downloads that are verified before anyone sees them.

mod body;
mod client;
mod download;
mod error;
mod retry;
mod trust;

pub use client::Client;
pub use download::{Download, Downloaded, Expected};
pub use error::{HttpError, Tls, redacted};
pub use retry::{Retry, Tries, worth_retrying};
