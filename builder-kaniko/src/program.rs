//! This very program as what an image is made of: its file, and the libraries that it was started with.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use imagespec_core::digest::{Digest, Framed};
use imagespec_oci::layer::{LayerError, LayerWriter};
use imagespec_oci::store::BlobWriter;

use crate::tools::file;

/// Where all of it is in the image.
pub(crate) const HOME: &str = "/imagespec/program";
/// Where the program is below that.
const PROGRAM: &str = "bin/imagespec";
/// Where its libraries are.
const LIBRARIES: &str = "lib";
/// Type of the part of an ELF file that names its loader.
const INTERPRETER: u32 = 3;

/// The files of the program, by where they go.
#[derive(Debug)]
pub(crate) struct Program {
    files: BTreeMap<String, PathBuf>,
    /// Its loader among them, which whatever image it runs in need not have.
    loader: Option<String>,
    key: Digest,
}

impl Program {
    /// The program of a file, which is the one that runs now. One that is linked statically has no libraries.
    pub(crate) fn find(own: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::from([(PROGRAM.to_owned(), own.to_owned())]);
        let mut started = None;
        if let Some(loader) = loader(own)? {
            let maps = fs_err::read_to_string("/proc/self/maps")?;
            for library in libraries(&maps) {
                if let Some(name) = library.file_name().and_then(|name| name.to_str()) {
                    files.insert(format!("{LIBRARIES}/{name}"), library.clone());
                }
            }
            let name = loader.rsplit('/').next().unwrap_or_default();
            let path = format!("{LIBRARIES}/{name}");
            started = Some(path.clone());
            files.insert(path, loader.into());
        }
        let paths: Vec<_> = files.values().map(PathBuf::as_path).collect();
        let key = key("imagespec-executor", &paths)?;
        Ok(Self {
            files,
            loader: started,
            key,
        })
    }

    /// How it is started.
    pub(crate) fn command(&self) -> Vec<String> {
        let program = format!("{HOME}/{PROGRAM}");
        match &self.loader {
            Some(loader) => vec![
                format!("{HOME}/{loader}"),
                "--library-path".to_owned(),
                format!("{HOME}/{LIBRARIES}"),
                program,
            ],
            None => vec![program],
        }
    }

    /// Tells it from others.
    pub(crate) const fn key(&self) -> Digest {
        self.key
    }

    /// Writes the files.
    pub(crate) fn write(&self, layer: &mut LayerWriter<BlobWriter>) -> Result<(), LayerError> {
        self.files.iter().try_for_each(|(path, from)| {
            let path = format!("{}/{path}", HOME.trim_start_matches('/'));
            file(layer, &path, from, true)
        })
    }
}

/// Tells files from others of their names without reading them.
pub(crate) fn key(what: &str, files: &[&Path]) -> io::Result<Digest> {
    let mut key = Framed::new(what);
    for file in files {
        let metadata = fs_err::metadata(file)?;
        let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH);
        let modified = modified.map_or(0, |modified| modified.as_nanos());
        key.text(&file.to_string_lossy())
            .number(metadata.len())
            .text(&modified.to_string());
    }
    Ok(key.finish())
}

/// The libraries among what is mapped into a process: `address perms offset device inode path`.
fn libraries(maps: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let at = line.find('/')?;
        let path = Path::new(&line[at..]);
        let name = path.file_name()?.to_str()?;
        let is_library = name.split('.').skip(1).any(|part| part == "so");
        is_library.then(|| path.to_owned())
    };
    let mut found: Vec<_> = maps.lines().filter_map(path).collect();
    found.sort();
    found.dedup();
    found
}

/// The loader that a program of 64 bits names, if it names one.
fn loader(program: &Path) -> io::Result<Option<String>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let unknown = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut file = fs_err::File::open(program)?;
    let mut head = [0; 64];
    file.read_exact(&mut head)?;
    if head[..6] != *b"\x7fELF\x02\x01" {
        return Err(unknown("it is no program of 64 bits for Linux"));
    }
    let number = |bytes: &[u8]| {
        let bytes = bytes.iter().rev();
        bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (at, size, count) = (
        number(&head[32..40]),
        number(&head[54..56]),
        number(&head[56..58]),
    );
    for index in 0..count {
        let mut part = [0; 56];
        file.seek(SeekFrom::Start(at + index * size))?;
        file.read_exact(&mut part)?;
        if number(&part[..4]) != u64::from(INTERPRETER) {
            continue;
        }
        file.seek(SeekFrom::Start(number(&part[8..16])))?;
        let mut path = Vec::new();
        file.take(number(&part[32..40]).min(4096))
            .read_to_end(&mut path)?;
        path.retain(|byte| *byte != 0);
        let path = String::from_utf8(path)
            .ok()
            .filter(|path| path.starts_with('/'));
        return path
            .map(Some)
            .ok_or_else(|| unknown("it names no loader by its path"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_now_is_found_with_its_libraries() {
        let own = std::env::current_exe().expect("a file");
        let program = Program::find(&own).expect("the program");
        assert_eq!(program.files[PROGRAM], own);
        let names: Vec<_> = program.files.keys().collect();
        let has_c = names.iter().any(|name| name.contains("libc.so.6"));
        assert!(
            has_c && names.iter().any(|name| name.contains("/ld-")),
            "{names:?}"
        );
        let error = Program::find(Path::new("/etc/passwd")).expect_err("no program");
        assert_eq!(error.to_string(), "it is no program of 64 bits for Linux");
    }

    #[test]
    fn libraries_are_told_from_other_files() {
        let maps = "7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/libc.so.6\n\
                    7f01-7f02 rw-p 00000000 08:01 12 /usr/lib/libc.so.6\n\
                    7f02-7f03 rw-p 00000000 08:01 13 /usr/share/locale.archive\n\
                    7f03-7f04 rw-p 00000000 00:00 0 [heap]\n";
        assert_eq!(libraries(maps), [Path::new("/usr/lib/libc.so.6")]);
    }
}
