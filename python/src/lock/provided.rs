//! Distributions that are there already, whoever installed them: they count as long as they fit what is asked for.

use std::io::{self, Write as _};
use std::path::Path;

use pep440_rs::Version;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::normalised;

/// The folder that stands for the distributions, relative to the folder of a resolution.
const FOLDER: &str = ".imagespec-provided";
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

    /// What it is, for the key of an answer.
    pub(super) fn identity(&self) -> String {
        format!("{}=={}\n{}", self.name, self.version, self.metadata)
    }

    /// Whether a version of a package is this one.
    fn is(&self, name: &str, version: Option<&str>) -> bool {
        let version = version.and_then(|version| version.parse::<Version>().ok());
        self.name == normalised(name) && version.as_ref() == Some(&self.version)
    }

    /// A wheel that has the distribution's metadata and nothing else, so that a resolver finds it where no index has
    /// it.
    fn write(&self, folder: &Path) -> io::Result<()> {
        let title = format!("{}-{}", self.name.replace('-', "_"), self.version);
        let file = fs_err::File::create(folder.join(format!("{title}-py3-none-any.whl")))?;
        let mut wheel = ZipWriter::new(file);
        let files = [
            ("METADATA", self.metadata.as_str()),
            (
                "WHEEL",
                "Wheel-Version: 1.0\nGenerator: imagespec\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            ),
            ("RECORD", ""),
        ];
        for (name, text) in files {
            let name = format!("{title}.dist-info/{name}");
            wheel.start_file(name, SimpleFileOptions::default())?;
            wheel.write_all(text.as_bytes())?;
        }
        wheel.finish()?;
        Ok(())
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
    let mut constraints = String::new();
    for one in all {
        one.write(&wheels)?;
        constraints.push_str(&format!("{}=={}\n", one.name, one.version));
    }
    fs_err::write(folder.join(CONSTRAINTS), constraints)
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
