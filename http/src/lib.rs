//! HTTP as all of `imagespec` speaks it: one client over the system's trust store and proxies, retries with
//! limits and jitter, answers of bounded size, downloads that are verified before anyone sees them.

mod client;
mod download;
mod error;
mod retry;

pub use client::Client;
pub use download::Expected;
pub use error::HttpError;
pub use retry::Retry;
