//! Wheels that the tests make.

use std::io::{self, BufWriter, Read, Seek, Write as _};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use zip::write::SimpleFileOptions;

/// Pairs of a path in the wheel and its content.
type Files<'a> = [(&'a str, &'a [u8])];

/// Bytes that do not compress, the same every time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(7).fill_bytes(&mut bytes);
    bytes
}

/// Writes a sound wheel of version 1 into a folder.
pub(crate) fn wheel(folder: &Path, name: &str, files: &Files<'_>) -> PathBuf {
    write(folder, name, |zip| {
        for (path, content) in files {
            zip.start_file(*path, options())?;
            zip.write_all(content)?;
        }
        Ok(())
    })
}

/// Writes a wheel with one file of so many bytes, which compress well, but not like a bomb.
pub(crate) fn large(folder: &Path, name: &str, size: u64) -> PathBuf {
    write(folder, name, |zip| {
        zip.start_file(format!("{name}/large.bin"), options().large_file(true))?;
        let mut block = noise(16 << 10);
        block.resize(512 << 10, 0);
        for _ in 0..size / block.len() as u64 {
            zip.write_all(&block)?;
        }
        Ok(())
    })
}

/// What a wheel says of itself.
pub(crate) fn metadata(name: &str) -> String {
    format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
}

fn options() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_level(Some(1))
}

fn write(
    folder: &Path,
    name: &str,
    fill: impl FnOnce(&mut zip::ZipWriter<BufWriter<fs_err::File>>) -> zip::result::ZipResult<()>,
) -> PathBuf {
    let path = folder.join(format!("{name}-1-py3-none-any.whl"));
    let wheel = BufWriter::new(fs_err::File::create(&path).expect("a file"));
    let mut zip = zip::ZipWriter::new(wheel);
    fill(&mut zip).expect("files");
    let metadata = metadata(name);
    for (file, text) in [
        ("METADATA", metadata.as_str()),
        ("WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"),
        ("RECORD", ""),
    ] {
        zip.start_file(format!("{name}-1.dist-info/{file}"), options())
            .expect("a file");
        zip.write_all(text.as_bytes()).expect("a file");
    }
    zip.finish().expect("a wheel");
    path
}

/// The SHA-256 of a file, in hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> String {
    let mut file = fs_err::File::open(path).expect("a file");
    let (digest, _) = imagespec_core::digest::Digest::of_reader(&mut file).expect("a digest");
    digest.hex()
}

/// The whole of a gzip file, member after member.
pub(crate) fn unpacked(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs_err::File::open(path)?;
    let mut bytes = Vec::new();
    let mut magic = [0; 2];
    let read = file.read(&mut magic)?;
    file.rewind()?;
    if read == 2 && magic == [0x1f, 0x8b] {
        flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes)?;
    } else {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
