//! The sandbox's first process as a program of its own, for tests and for programs that cannot re-execute
//! themselves.

fn main() -> std::process::ExitCode {
    imagespec_sandbox::init()
}
