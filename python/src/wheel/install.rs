//! Where the files of a wheel go, and how they get into a layer.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};
use std::path::Path;

use crc32fast::Hasher as Crc;
use imagespec_core::contract::{USER_ID, VENV};
use imagespec_core::digest::Digest;
use imagespec_oci::layer::{Deflated, LayerWriter, Metadata};
use pep508_rs::PackageName;
use sha2::{Digest as _, Sha256};

use super::metadata::{entry_points, header, names_interpreter};
use super::record::Record;
use super::zip::{Entry, Method, Zip};
use super::{EntryPoint, WheelError};

/// The largest of the small files of a wheel, in bytes.
const SMALL: u64 = 32 << 20;
/// From how many compressed bytes on a file is passed through in any wheel. Below, its header and what it has
/// in common with its neighbours weigh more than compressing it again.
const PASS_FROM: u64 = 12 * 1024;
/// From how many on it is where the wheel is large enough to bear that.
const PASS_FROM_IN_LARGE: u64 = 1024;
/// From how many bytes of files on a wheel is large; which part of them passing may cost, and what each file
/// that is passed costs, in bytes: two headers and two trailers of gzip, a header of tar, and lost context.
const LARGE: u64 = 2 << 20;
const PASSING_SHARE: u64 = 50;
const PASSING_COST: u64 = 400;
/// What `INSTALLER` says.
const INSTALLER: &str = "imagespec";

/// The virtual environment that wheels are installed into.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    /// `3.11`.
    pub python: String,
}

impl Layout {
    /// `site-packages`, relative to the root of the image.
    pub fn site_packages(&self) -> String {
        format!(
            "{}/lib/python{}/site-packages",
            VENV.trim_start_matches('/'),
            self.python
        )
    }

    fn scheme(&self, scheme: &str, name: &PackageName) -> Option<String> {
        let venv = VENV.trim_start_matches('/');
        Some(match scheme {
            "purelib" | "platlib" => self.site_packages(),
            "scripts" => format!("{venv}/bin"),
            "data" => venv.to_owned(),
            "headers" => format!("{venv}/include/site/python{}/{name}", self.python),
            _ => return None,
        })
    }
}

/// An open wheel, its structure checked.
#[derive(Debug)]
pub struct Wheel {
    zip: Zip,
    name: PackageName,
    distribution: String,
    version: String,
    dist_info: String,
    record: Record,
    entry_points: Vec<EntryPoint>,
}

/// A Python module of a wheel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module {
    /// Where it goes, relative to the root of the image.
    pub path: String,
    entry: usize,
}

/// One file of a wheel and where it goes.
struct Placed<'a> {
    entry: &'a Entry,
    target: String,
    script: bool,
}

impl Placed<'_> {
    /// Its permission bits.
    const fn mode(&self) -> u32 {
        if self.script || self.entry.executable {
            0o755
        } else {
            0o644
        }
    }
}

impl Wheel {
    /// Opens the wheel in a file. Its digest has been verified by whoever fetched it; all else is checked here
    /// and while it is written.
    pub fn open(path: &Path) -> Result<Self, WheelError> {
        let zip = Zip::open(fs_err::File::open(path)?)?;
        let mut folders: Vec<_> = zip
            .entries
            .iter()
            .filter_map(|entry| entry.name.split_once('/').map(|(folder, _)| folder))
            .filter(|folder| folder.ends_with(".dist-info"))
            .collect();
        folders.sort_unstable();
        folders.dedup();
        let [dist_info] = folders[..] else {
            return Err(WheelError::format(format!(
                "expected one dist-info folder, found {}",
                folders.len()
            )));
        };
        let dist_info = dist_info.to_owned();
        let bytes = |name: &str| -> Result<Option<Vec<u8>>, WheelError> {
            let path = format!("{dist_info}/{name}");
            let entry = zip.entries.iter().find(|entry| entry.name == path);
            entry.map(|entry| zip.read(entry, SMALL)).transpose()
        };
        let required = |name: &str| {
            bytes(name)?.ok_or_else(|| WheelError::format(format!("it has no {name}")))
        };
        let text = |name: &str, bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .map_err(|_| WheelError::format(format!("its {name} is not UTF-8")))
        };
        let wheel = text("WHEEL", required("WHEEL")?)?;
        let format = header(&wheel, "Wheel-Version").unwrap_or_default();
        if !format.starts_with("1.") {
            return Err(WheelError::format(format!(
                "its format has an unknown version: `{format}`"
            )));
        }
        // Old wheels describe themselves in other encodings; what is read here is ASCII in all of them.
        let metadata = String::from_utf8_lossy(&required("METADATA")?).into_owned();
        let field = |name: &str| {
            let value = header(&metadata, name).map(str::to_owned);
            value.ok_or_else(|| WheelError::format(format!("its METADATA has no {name}")))
        };
        let (distribution, version) = (field("Name")?, field("Version")?);
        let name = PackageName::new(distribution.clone())
            .map_err(|_| WheelError::format(format!("its name is malformed: `{distribution}`")))?;
        let record = Record::parse(&text("RECORD", required("RECORD")?)?)?;
        let entry_points = match bytes("entry_points.txt")? {
            Some(bytes) => entry_points(&text("entry_points.txt", bytes)?)?,
            None => Vec::new(),
        };
        Ok(Self {
            zip,
            name,
            distribution,
            version,
            dist_info,
            record,
            entry_points,
        })
    }

    /// Name of the distribution, as its metadata writes it.
    pub fn distribution(&self) -> &str {
        &self.distribution
    }

    /// Version of the distribution.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The paths it installs, relative to the root of the image.
    pub fn targets(&self, layout: &Layout) -> Result<Vec<String>, WheelError> {
        let generated = self.generated(layout).into_keys();
        Ok(self
            .placed(layout)?
            .into_iter()
            .map(|placed| placed.target)
            .chain(generated)
            .collect())
    }

    /// The Python modules it installs, but for gigantic ones, sorted by path.
    pub fn modules(&self, layout: &Layout) -> Result<Vec<Module>, WheelError> {
        let mut modules = Vec::new();
        let site_packages = layout.site_packages();
        for (entry, placed) in self.placed(layout)?.into_iter().enumerate() {
            let module = Path::new(&placed.target)
                .extension()
                .is_some_and(|extension| extension == "py");
            let fits = placed.entry.size <= SMALL;
            if module && fits && placed.target.starts_with(&site_packages) {
                modules.push(Module {
                    path: placed.target,
                    entry,
                });
            }
        }
        modules.sort();
        Ok(modules)
    }

    /// The source of one of its [`modules`](Self::modules).
    pub fn source(&self, module: &Module) -> Result<Vec<u8>, WheelError> {
        self.zip.read(&self.zip.entries[module.entry], SMALL)
    }

    /// Writes what it installs, but for the paths in `skip`, which another wheel of the layer installs later.
    pub fn write<W: Write>(
        &self,
        layout: &Layout,
        skip: &HashSet<String>,
        layer: &mut LayerWriter<W>,
    ) -> Result<(), WheelError> {
        let site_packages = layout.site_packages();
        let mut record = Record::default();
        let generated = self.generated(layout);
        let record_path = format!("{site_packages}/{}/RECORD", self.dist_info);
        let mut record_mode = 0o644;
        let sizes = self.zip.entries.iter().map(|entry| entry.compressed_size);
        let pass_from = pass_from(sizes.collect());
        let mut files = self.placed(layout)?;
        // What is compressed again comes first, so that it has its context in one stream.
        files.sort_by_key(|placed| passes(placed.entry, pass_from));
        for placed in files {
            if placed.target == record_path {
                record_mode = placed.mode();
                continue;
            }
            if generated.contains_key(&placed.target) {
                continue;
            }
            let name = &placed.entry.name;
            let row = if skip.contains(&placed.target) {
                let digest = self.record.digest(name);
                digest.map(|digest| (digest, placed.entry.size))
            } else {
                self.write_file(&placed, pass_from, layer)?
            };
            if self.record.lists(name) {
                record.insert(relative(&placed.target, &site_packages), row);
            }
        }
        for (target, (mode, content)) in &generated {
            record.insert(
                relative(target, &site_packages),
                Some((Digest::of(content), content.len() as u64)),
            );
            if !skip.contains(target) {
                let metadata = Metadata::new(*mode, USER_ID);
                layer.file(
                    target.as_bytes(),
                    &metadata,
                    content.len() as u64,
                    &mut content.as_bytes(),
                )?;
            }
        }
        record.insert(relative(&record_path, &site_packages), None);
        let text = record.text();
        let metadata = Metadata::new(record_mode, USER_ID);
        layer.file(
            record_path.as_bytes(),
            &metadata,
            text.len() as u64,
            &mut text.as_bytes(),
        )?;
        Ok(())
    }

    fn write_file<W: Write>(
        &self,
        placed: &Placed<'_>,
        pass_from: u64,
        layer: &mut LayerWriter<W>,
    ) -> Result<Option<(Digest, u64)>, WheelError> {
        let Placed {
            entry,
            target,
            script,
        } = placed;
        let metadata = Metadata::new(placed.mode(), USER_ID);
        let digest = self.record.digest(&entry.name);
        if *script && entry.size <= SMALL {
            let original = self.zip.read(entry, SMALL)?;
            if digest.is_some_and(|digest| digest != Digest::of(&original)) {
                return Err(differs(entry, "RECORD says"));
            }
            let content = with_interpreter(original);
            layer.file(
                target.as_bytes(),
                &metadata,
                content.len() as u64,
                &mut content.as_slice(),
            )?;
            return Ok(Some((Digest::of(&content), content.len() as u64)));
        }
        let mut raw = self.zip.raw(entry)?;
        match entry.method {
            Method::Stored => {
                let mut content = Checked::new(&mut raw);
                layer.file(target.as_bytes(), &metadata, entry.size, &mut content)?;
                if content.crc.finalize() != entry.crc32 {
                    return Err(differs(entry, "its archive says"));
                }
                let found = Digest::from_bytes(content.hash.finalize().into());
                if digest.is_some_and(|digest| digest != found) {
                    return Err(differs(entry, "RECORD says"));
                }
            }
            Method::Deflated => {
                let file = Deflated {
                    size: entry.size,
                    crc32: entry.crc32,
                    compressed_size: entry.compressed_size,
                    digest,
                    pass: passes(entry, pass_from),
                    data: &mut raw,
                };
                layer.deflated(target.as_bytes(), &metadata, file)?;
            }
        }
        Ok(digest.map(|digest| (digest, entry.size)))
    }

    /// The files that installing adds, by path: mode and content.
    fn generated(&self, layout: &Layout) -> BTreeMap<String, (u32, String)> {
        let mut files = BTreeMap::new();
        for point in &self.entry_points {
            let path = format!("{}/bin/{}", VENV.trim_start_matches('/'), point.name);
            files.insert(path, (0o755, point.script(&format!("{VENV}/bin/python"))));
        }
        let installer = format!("{}/{}/INSTALLER", layout.site_packages(), self.dist_info);
        files.insert(installer, (0o644, INSTALLER.to_owned()));
        files
    }

    fn placed(&self, layout: &Layout) -> Result<Vec<Placed<'_>>, WheelError> {
        let stem = self.dist_info.strip_suffix(".dist-info");
        let data = format!("{}.data", stem.unwrap_or(&self.dist_info));
        let site_packages = layout.site_packages();
        let mut placed = Vec::with_capacity(self.zip.entries.len());
        for entry in &self.zip.entries {
            let inside = entry
                .name
                .strip_prefix(&data)
                .and_then(|rest| rest.strip_prefix('/'));
            let (target, script) = match inside {
                None => (format!("{site_packages}/{}", entry.name), false),
                Some(inside) => {
                    let place = inside.split_once('/').and_then(|(scheme, rest)| {
                        Some((
                            format!("{}/{rest}", layout.scheme(scheme, &self.name)?),
                            scheme == "scripts",
                        ))
                    });
                    place.ok_or_else(|| {
                        WheelError::format(format!("`{}` goes nowhere", entry.name))
                    })?
                }
            };
            if is_own(&target) {
                return Err(WheelError::format(format!(
                    "`{}` takes the place of a file of the environment",
                    entry.name
                )));
            }
            placed.push(Placed {
                entry,
                target,
                script,
            });
        }
        Ok(placed)
    }
}

/// Whether a path belongs to the environment itself, and not to anything that is installed into it.
fn is_own(target: &str) -> bool {
    let inside = target
        .strip_prefix(VENV.trim_start_matches('/'))
        .and_then(|rest| rest.strip_prefix('/'));
    inside.is_some_and(|inside| match inside.strip_prefix("bin/") {
        Some(name) => names_interpreter(name),
        None => matches!(inside, "pyvenv.cfg" | "bin" | "lib" | "lib64"),
    })
}

/// From how many compressed bytes on files of a wheel are passed through, by the compressed sizes of all.
fn pass_from(mut sizes: Vec<u64>) -> u64 {
    let all: u64 = sizes.iter().sum();
    if all < LARGE {
        return PASS_FROM;
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let count = usize::try_from(all / PASSING_SHARE / PASSING_COST).unwrap_or(usize::MAX);
    let affordable = sizes.get(count).copied().unwrap_or(0);
    affordable.clamp(PASS_FROM_IN_LARGE, PASS_FROM)
}

/// Whether a file is passed through as it is compressed.
fn passes(entry: &Entry, from: u64) -> bool {
    entry.method == Method::Deflated && entry.compressed_size >= from
}

/// A reader that checks what it yields.
struct Checked<R> {
    inner: R,
    crc: Crc,
    hash: Sha256,
}

impl<R> Checked<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            crc: Crc::new(),
            hash: Sha256::new(),
        }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.crc.update(&buffer[..count]);
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

fn differs(entry: &Entry, from: &str) -> WheelError {
    WheelError::format(format!("`{}` is not what {from}", entry.name))
}

/// A script with `#!python` replaced by the environment's interpreter.
fn with_interpreter(content: Vec<u8>) -> Vec<u8> {
    let Some(rest) = content.strip_prefix(b"#!python") else {
        return content;
    };
    let line_end = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(rest.len());
    [format!("#!{VENV}/bin/python").as_bytes(), &rest[line_end..]].concat()
}

/// `target` relative to `site-packages`, as `RECORD` writes paths.
fn relative(target: &str, site_packages: &str) -> String {
    let inside = target
        .strip_prefix(site_packages)
        .and_then(|rest| rest.strip_prefix('/'));
    let outside = || {
        target
            .strip_prefix(VENV.trim_start_matches('/'))
            .unwrap_or(target)
    };
    inside.map_or_else(|| format!("../../..{}", outside()), str::to_owned)
}

/// One file of a wheel, at most `limit` bytes, verified by its checksum.
pub fn extract(wheel: &Path, name: &str, limit: u64) -> Result<Vec<u8>, WheelError> {
    let zip = Zip::open(fs_err::File::open(wheel)?)?;
    let entry = zip.entries.iter().find(|entry| entry.name == name);
    zip.read(
        entry.ok_or_else(|| WheelError::format(format!("it has no `{name}`")))?,
        limit,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_passes_as_many_small_files_as_it_can_bear() {
        assert_eq!(pass_from(vec![100_000, 2000, 500]), PASS_FROM);
        assert_eq!(pass_from(vec![20 << 20, 2000, 500]), PASS_FROM_IN_LARGE);
        let mut crowded = vec![3000; 1000];
        crowded.extend([5000; 100]);
        assert_eq!(pass_from(crowded.clone()), 3000);
        crowded.extend([6000; 200]);
        assert_eq!(pass_from(crowded), 5000);
    }
}
