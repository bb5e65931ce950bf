//! Locks: which distributions an environment holds, with their hashes.
