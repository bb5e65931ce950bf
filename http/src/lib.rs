//! HTTP for imagespec: one client over the system trust store, retries with jitter, verified downloads.
