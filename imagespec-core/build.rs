//! Present because `links` in the manifest asks for a build script: two versions of this crate in one
//! program are then an error of Cargo's, instead of builders that register where nobody looks.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
