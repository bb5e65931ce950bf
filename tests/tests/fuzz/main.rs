//! Every parser of what comes from elsewhere, under random damage. `cargo xtask soak` does this for long.

mod debian;
mod layers;
mod python;
mod text;

use std::path::{Path, PathBuf};

/// The folder of a target's corpus.
fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// Makes the checksums of all headers of a tar right.
fn checksums(mut tar: Vec<u8>) -> Vec<u8> {
    for block in tar
        .chunks_exact_mut(512)
        .filter(|block| block[257..262] == *b"ustar")
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}
