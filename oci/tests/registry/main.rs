//! The client against a real registry, and against everything that may stand between.

mod answers;
mod download;
mod existing;
mod faults;
mod images;
mod proxy;
mod resume;
mod server;
mod sharing;
mod tls;
mod tokens;
mod whole;
