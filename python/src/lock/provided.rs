//! Distributions that are there already, whoever installed them: they count as long as they fit what is asked for.

use std::io::{self, Cursor, Read as _, Write as _};
use std::path::Path;

use pep440_rs::Version;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::normalised;

/// The folder that stands for the distributions, relative to the folder of a resolution.
const FOLDER: &str = ".imagespec-provided";
/// The most that is read of a distribution's metadata, in bytes.
const METADATA: u64 = 1 << 20;
/// The file that says that they should stay as they are.
const CONSTRAINTS: &str = ".imagespec-provided.txt";

/// A distribution that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provided {
    /// Its name, normalised.
    name: String,
    version: Version,
    /// The header of its metadata (PEP 566).
    metadata: String,
}

impl Provided {
    /// A distribution; `None` for one whose name or version no resolver understands.
    pub fn new(name: &str, version: &str, metadata: &str) -> Option<Self> {
        let usual = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let valid = !name.is_empty() && name.chars().all(usual);
        Some(Self {
            name: valid.then(|| normalised(name))?,
            version: version.parse().ok()?,
            metadata: metadata.to_owned(),
        })
    }

    /// Those whose wheels are in a folder.
    pub fn read(folder: &Path) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some((title, _)) = name.split_once("-py3-none-any.whl") else {
                continue;
            };
            let Some((name, version)) = title.split_once('-') else {
                continue;
            };
            let mut wheel = ZipArchive::new(fs_err::File::open(&path)?)?;
            let mut metadata = String::new();
            wheel
                .by_name(&format!("{title}.dist-info/METADATA"))?
                .take(METADATA)
                .read_to_string(&mut metadata)?;
            all.extend(Self::new(name, version, &metadata));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// `name==version`, as uv writes it.
    pub fn pin(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }

    /// What it is, for the key of an answer.
    pub(super) fn identity(&self) -> String {
        format!("{}\n{}", self.pin(), self.metadata)
    }

    /// Whether a version of a package is this one.
    fn is(&self, name: &str, version: Option<&str>) -> bool {
        let version = version.and_then(|version| version.parse::<Version>().ok());
        self.name == normalised(name) && version.as_ref() == Some(&self.version)
    }

    /// A wheel that has the distribution's metadata and nothing else, so that a resolver finds it where no index has
    /// it: the name of its file, and its bytes.
    pub fn wheel(&self) -> io::Result<(String, Vec<u8>)> {
        let title = format!("{}-{}", self.name.replace('-', "_"), self.version);
        let mut wheel = ZipWriter::new(Cursor::new(Vec::new()));
        let files = [
            ("METADATA", self.metadata.as_str()),
            (
                "WHEEL",
                "Wheel-Version: 1.0\nGenerator: imagespec\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            ),
        ];
        let name = |file: &str| format!("{title}.dist-info/{file}");
        let listed = ["METADATA", "WHEEL", "RECORD"].map(|file| name(file) + ",,\n");
        for (file, text) in files.into_iter().chain([("RECORD", &*listed.concat())]) {
            wheel.start_file(name(file), SimpleFileOptions::default())?;
            wheel.write_all(text.as_bytes())?;
        }
        let bytes = wheel.finish()?.into_inner();
        Ok((format!("{title}-py3-none-any.whl"), bytes))
    }
}

/// Whether a version of a package is there already.
pub(super) fn is_provided(all: &[Provided], name: &str, version: Option<&str>) -> bool {
    all.iter().any(|one| one.is(name, version))
}

/// Puts distributions where a resolver that works in `folder` finds them.
pub(super) fn write(all: &[Provided], folder: &Path) -> io::Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let wheels = folder.join(FOLDER);
    fs_err::create_dir_all(&wheels)?;
    for one in all {
        let (name, bytes) = one.wheel()?;
        fs_err::write(wheels.join(name), bytes)?;
    }
    let pins = all.iter().map(|one| one.pin() + "\n");
    fs_err::write(folder.join(CONSTRAINTS), pins.collect::<String>())
}

/// The arguments by which a resolver knows of them; `stay` demands that they stay as they are.
pub(super) fn arguments(all: &[Provided], stay: bool) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let mut arguments = vec![format!("--find-links={FOLDER}")];
    if stay {
        arguments.push(format!("--constraints={CONSTRAINTS}"));
    }
    arguments
}
