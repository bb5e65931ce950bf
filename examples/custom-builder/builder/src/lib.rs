//! A builder of one's own, as small as a builder can honestly be: `noop` makes nothing. The image is the base
//! image itself, for teams whose images come from elsewhere and whose tasks only have to name them.

mod backend;

pub use backend::{ENTRY, Noop};
