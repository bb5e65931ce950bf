//! From the archive of a distribution to a layer.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use imagespec_core::error::BuildError;
use imagespec_oci::layer::{EntryKind, LayerError, LayerReader, LayerWriter, Metadata, ReadError};

/// Where the distribution is in the image.
pub const HOME: &str = "/opt/python";
/// Version of what [`write()`] writes, part of the key of its layer.
pub const RECIPE: u32 = 1;

/// What every path of an archive begins with.
const ROOT: &str = "python";
/// Where it says that it is, and is not.
const BUILT_FOR: &str = "/install";
/// Entries of an archive, and bytes of their contents, at most.
const ENTRIES: usize = 200_000;
const BYTES: u64 = 4 << 30;
/// The largest file that says how extensions are compiled, in bytes.
const TEXT: u64 = 4 << 20;
/// The compilers of whoever made the distribution, and those of whoever uses it.
const COMPILERS: [(&str, &str); 4] = [
    ("clang", "cc"),
    ("clang++", "c++"),
    ("/tools/llvm/bin/llvm-ar", "ar"),
    ("llvm-ar", "ar"),
];

/// Why the archive of a distribution gives no layer.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    /// It cannot be read.
    #[error("cannot read the archive of Python")]
    Read(#[from] ReadError),
    /// The layer cannot be written.
    #[error("cannot write the layer of Python")]
    Write(#[from] LayerError),
    /// It is not what it should be.
    #[error("the archive of Python {problem}: `{entry}`")]
    Refused {
        /// What is wrong with it.
        problem: &'static str,
        /// Path of the entry.
        entry: String,
    },
}

impl From<io::Error> for StandaloneError {
    fn from(error: io::Error) -> Self {
        Self::Read(error.into())
    }
}

impl From<StandaloneError> for BuildError {
    fn from(error: StandaloneError) -> Self {
        Self::failed(error.to_string())
            .field("python_version")
            .caused_by_source_of(&error)
    }
}

/// Writes what is in an archive below [`HOME`], owned by root, without bytecode. What says how extensions are
/// compiled names the image's folders and the compilers there are.
pub fn write<W: Write>(archive: &Path, layer: &mut LayerWriter<W>) -> Result<(), StandaloneError> {
    let file = BufReader::new(fs_err::File::open(archive)?);
    let mut reader = LayerReader::new(MultiGzDecoder::new(file));
    let mut bytes = 0;
    let mut entries = 0;
    while let Some(entry) = reader.next_entry()? {
        let refused = |problem| StandaloneError::Refused {
            problem,
            entry: String::from_utf8_lossy(&entry.path).into_owned(),
        };
        bytes += entry.size;
        entries += 1;
        if entries > ENTRIES || bytes > BYTES {
            return Err(refused("is larger than any Python"));
        }
        let Some(path) = moved(&entry.path).ok_or_else(|| refused("has a path of no Python"))?
        else {
            continue;
        };
        let executable = entry.mode & 0o111 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        let metadata = Metadata::new(mode, 0);
        match entry.kind {
            EntryKind::Directory => {
                layer.directory(path.as_bytes(), &Metadata::new(0o755, 0))?;
            }
            EntryKind::Symlink if entry.target.starts_with(b"/") => {
                return Err(refused("has a link to somewhere else"));
            }
            EntryKind::Symlink => {
                layer.symlink(path.as_bytes(), &entry.target, &Metadata::new(0o777, 0))?;
            }
            EntryKind::Hardlink => {
                let target = moved(&entry.target).flatten();
                let target = target.ok_or_else(|| refused("has a link to somewhere else"))?;
                layer.hardlink(path.as_bytes(), target.as_bytes(), &metadata)?;
            }
            EntryKind::File if tells_of_compilers(&path) => {
                if entry.size > TEXT {
                    return Err(refused("has too much text"));
                }
                let mut text = String::new();
                reader.content().read_to_string(&mut text)?;
                let text = settled(&text);
                let size = text.len() as u64;
                layer.file(path.as_bytes(), &metadata, size, &mut text.as_bytes())?;
            }
            EntryKind::File => {
                layer.file(
                    path.as_bytes(),
                    &metadata,
                    entry.size,
                    &mut reader.content(),
                )?;
            }
            EntryKind::Fifo | EntryKind::Character(..) | EntryKind::Block(..) => {
                return Err(refused("has a special file"));
            }
        }
    }
    if entries == 0 {
        return Err(StandaloneError::Refused {
            problem: "is empty",
            entry: archive.display().to_string(),
        });
    }
    Ok(())
}

/// Where an entry goes, `Some(None)` for what is left out.
#[expect(clippy::option_option, reason = "refused, left out, or somewhere")]
fn moved(path: &[u8]) -> Option<Option<String>> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.trim_start_matches("./").trim_end_matches('/');
    let below = path.strip_prefix(ROOT)?;
    if below.is_empty() {
        return Some(None);
    }
    let below = below.strip_prefix('/')?;
    if below.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    let is_bytecode = below.split('/').any(|part| part == "__pycache__");
    let home = HOME.trim_start_matches('/');
    Some((!is_bytecode).then(|| format!("{home}/{below}")))
}

/// Whether a file says how extensions are compiled.
fn tells_of_compilers(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is = |ending: &str| name.ends_with(ending);
    name.starts_with("_sysconfigdata_") && is(".py")
        || name.starts_with("_sysconfig_vars_") && is(".json")
        || path.contains("/lib/pkgconfig/") && is(".pc")
        || path.contains("/config-") && name == "Makefile"
}

/// The text with the folders and compilers of the image.
fn settled(text: &str) -> String {
    let mut settled = String::with_capacity(text.len());
    let is_word = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    let mut rest = text;
    while !rest.is_empty() {
        let start = rest.find(is_word).unwrap_or(rest.len());
        settled.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        settled.push_str(&word(&rest[..end]));
        rest = &rest[end..];
    }
    settled
}

/// A word, which is a path, a program or an option with a path: `-I/install/include`.
fn word(word: &str) -> String {
    if let Some((_, ours)) = COMPILERS.iter().find(|(theirs, _)| *theirs == word) {
        return (*ours).to_owned();
    }
    let (option, path) = ["-I", "-L"]
        .iter()
        .find_map(|option| Some((*option, word.strip_prefix(option)?)))
        .unwrap_or(("", word));
    match path.strip_prefix(BUILT_FOR) {
        Some(below) if below.is_empty() || below.starts_with('/') => {
            format!("{option}{HOME}{below}")
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use imagespec_core::context::Compression;
    use imagespec_oci::layer::contract_parents;

    use super::*;

    /// Writes the layer of an archive of one entry.
    fn of(
        path: &str,
        kind: tar::EntryType,
        target: &str,
        size: u64,
    ) -> Result<(), StandaloneError> {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().expect("ustar").name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        if !target.is_empty() {
            header.set_link_name_literal(target).expect("a target");
        }
        header.set_cksum();
        let folder = tempfile::tempdir().expect("a folder");
        let archive = folder.path().join("archive.tar.gz");
        let file = fs_err::File::create(&archive).expect("a file");
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(header.as_bytes()).expect("a header");
        packed.write_all(&[0; 1024]).expect("an end");
        packed.finish().expect("an archive");
        let mut layer =
            LayerWriter::new(Vec::new(), Compression::Gzip, contract_parents).expect("a layer");
        write(&archive, &mut layer)
    }

    #[test]
    fn what_is_no_python_is_refused() {
        use tar::EntryType as Type;
        of("python/bin/python3", Type::Symlink, "python3.12", 0).expect("a layer");
        for (path, kind, target, size) in [
            ("python/../etc/passwd", Type::Regular, "", 0),
            ("other/bin/python", Type::Regular, "", 0),
            ("pythonic", Type::Regular, "", 0),
            ("/python/bin/python", Type::Regular, "", 0),
            ("python/bin/python", Type::Symlink, "/bin/sh", 0),
            ("python/bin/python", Type::Link, "etc/shadow", 0),
            ("python/bin/python", Type::Fifo, "", 0),
            ("python/lib/a", Type::Regular, "", BYTES + 1),
            ("python/lib/a", Type::Regular, "", 1 << 20),
            (
                "python/lib/_sysconfigdata_a.py",
                Type::Regular,
                "",
                TEXT + 1,
            ),
        ] {
            assert!(
                of(path, kind, target, size).is_err(),
                "{path} {target} {size}"
            );
        }
    }

    #[test]
    fn what_says_how_to_compile_speaks_of_the_image() {
        for (theirs, ours) in [
            ("'CC': 'clang -pthread'", "'CC': 'cc -pthread'"),
            ("\"AR\": \"/tools/llvm/bin/llvm-ar\"", "\"AR\": \"ar\""),
            ("clang++ -I/install/include", "c++ -I/opt/python/include"),
            ("--prefix=/install'", "--prefix=/opt/python'"),
            ("/install /install/lib", "/opt/python /opt/python/lib"),
            ("/usr/bin/install -c", "/usr/bin/install -c"),
            ("/installed clangd", "/installed clangd"),
        ] {
            assert_eq!(settled(theirs), ours);
        }
    }
}
