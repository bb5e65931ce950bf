//! OCI images: everything of `imagespec` that touches an OCI byte, and nothing of Python or Debian.

pub mod layer;
