//! The `imagespec` command.

fn main() -> std::process::ExitCode {
    imagespec_cli::main()
}
