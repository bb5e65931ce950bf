//! The builder as a program of its own, for whoever has the plain `imagespec`.

fn main() -> std::process::ExitCode {
    imagespec_core::serve::serve(&acme_builder::ENTRY, std::env::vars().collect())
}
