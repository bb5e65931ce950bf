//! Tag schemes: how an image's content becomes the tag of its name.

pub mod flytekit;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::BuildPlan;

/// How a tag is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TagScheme {
    /// The digest of the plan.
    #[default]
    Imagespec,
    /// The tag flytekit computes for the same declaration, bit for bit.
    Flytekit,
}

/// The canonical tag of a plan: the first 160 bits of its digest in lower-case base 32 (RFC 4648), 32 characters.
pub fn canonical(plan: &BuildPlan) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = plan.digest();
    let mut tag = String::with_capacity(32);
    for group in digest.as_bytes()[..20].chunks(5) {
        let number = group
            .iter()
            .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        tag.extend((0..8).rev().map(|place| {
            char::from(ALPHABET[usize::try_from((number >> (5 * place)) & 31).unwrap_or(0)])
        }));
    }
    tag
}
