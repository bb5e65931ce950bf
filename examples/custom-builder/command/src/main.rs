//! `imagespec`, with one builder more.

use acme_builder as _;

fn main() -> std::process::ExitCode {
    imagespec_cli::main()
}
