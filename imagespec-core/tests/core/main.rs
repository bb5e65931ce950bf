//! What a declaration means: from spec to plan, over real files.

mod dockerfile;
mod errors;
mod flytekit;
mod ignore;
mod logins;
mod plan;
mod spec;
mod support;
mod tag;
