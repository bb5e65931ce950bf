//! Tag schemes: how an image's content becomes the tag of its name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
