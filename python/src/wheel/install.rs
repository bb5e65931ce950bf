//! Where the files of a wheel go, and how they get into a layer.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;

use imagespec_core::contract::{USER_ID, VENV};
use imagespec_core::digest::Digest;
use imagespec_oci::layer::{Deflated, LayerWriter, Metadata};

use super::metadata::{entry_points, header};
use super::record::Record;
use super::zip::{Entry, Method, Zip};
use super::{EntryPoint, WheelError};

/// The largest of the small files of a wheel, in bytes.
const SMALL: u64 = 32 << 20;
/// What `INSTALLER` says.
const INSTALLER: &str = "imagespec";

/// The virtual environment that wheels are installed into.
#[derive(Debug, Clone, PartialEq, Eq)]
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

    fn scheme(&self, scheme: &str, distribution: &str) -> Option<String> {
        let venv = VENV.trim_start_matches('/');
        Some(match scheme {
            "purelib" | "platlib" => self.site_packages(),
            "scripts" => format!("{venv}/bin"),
            "data" => venv.to_owned(),
            "headers" => format!("{venv}/include/site/python{}/{distribution}", self.python),
            _ => return None,
        })
    }
}

/// An open wheel, its structure checked.
#[derive(Debug)]
pub struct Wheel {
    zip: Zip,
    distribution: String,
    version: String,
    dist_info: String,
    record: Record,
    entry_points: Vec<EntryPoint>,
}

/// One file of a wheel and where it goes.
struct Placed<'a> {
    entry: &'a Entry,
    target: String,
    script: bool,
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
        let text = |name: &str| -> Result<Option<String>, WheelError> {
            let path = format!("{dist_info}/{name}");
            let Some(entry) = zip.entries.iter().find(|entry| entry.name == path) else {
                return Ok(None);
            };
            let bytes = zip.read(entry, SMALL)?;
            String::from_utf8(bytes)
                .map(Some)
                .map_err(|_| WheelError::format(format!("`{path}` is not UTF-8")))
        };
        let required =
            |name: &str| text(name)?.ok_or_else(|| WheelError::format(format!("it has no {name}")));
        let wheel = required("WHEEL")?;
        let format = header(&wheel, "Wheel-Version").unwrap_or_default();
        if !format.starts_with("1.") {
            return Err(WheelError::format(format!(
                "its format has an unknown version: `{format}`"
            )));
        }
        let metadata = required("METADATA")?;
        let field = |name: &str| {
            let value = header(&metadata, name).map(str::to_owned);
            value.ok_or_else(|| WheelError::format(format!("its METADATA has no {name}")))
        };
        let (distribution, version) = (field("Name")?, field("Version")?);
        let record = Record::parse(&required("RECORD")?)?;
        let entry_points =
            text("entry_points.txt")?.map_or(Ok(Vec::new()), |text| entry_points(&text))?;
        Ok(Self {
            zip,
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

    /// The Python modules it installs: path relative to the root of the image, and source, sorted by path.
    pub fn modules(&self, layout: &Layout) -> Result<Vec<(String, Vec<u8>)>, WheelError> {
        let mut modules = Vec::new();
        let site_packages = layout.site_packages();
        for placed in self.placed(layout)? {
            let module = Path::new(&placed.target)
                .extension()
                .is_some_and(|extension| extension == "py");
            if module && placed.target.starts_with(&site_packages) {
                modules.push((placed.target, self.zip.read(placed.entry, SMALL)?));
            }
        }
        modules.sort();
        Ok(modules)
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
        for placed in self.placed(layout)? {
            let shadowed = generated.contains_key(&placed.target) || placed.target == record_path;
            if shadowed || skip.contains(&placed.target) {
                continue;
            }
            let row = self.write_file(&placed, layer)?;
            if self.record.lists(&placed.entry.name) {
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
        let metadata = Metadata::new(0o644, USER_ID);
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
        layer: &mut LayerWriter<W>,
    ) -> Result<Option<(Digest, u64)>, WheelError> {
        let Placed {
            entry,
            target,
            script,
        } = placed;
        let metadata = Metadata::new(
            if *script || entry.executable {
                0o755
            } else {
                0o644
            },
            USER_ID,
        );
        let digest = self.record.digest(&entry.name);
        if *script && entry.size <= SMALL {
            let original = self.zip.read(entry, SMALL)?;
            verify(entry, digest, &original)?;
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
            Method::Stored if entry.size <= SMALL => {
                let content = self.zip.read(entry, SMALL)?;
                verify(entry, digest, &content)?;
                layer.file(
                    target.as_bytes(),
                    &metadata,
                    entry.size,
                    &mut content.as_slice(),
                )?;
            }
            Method::Stored => {
                let (found, _) = Digest::of_reader(&mut self.zip.raw(entry)?)?;
                if digest.is_some_and(|digest| digest != found) {
                    return Err(WheelError::format(format!(
                        "`{}` is not what RECORD says",
                        entry.name
                    )));
                }
                layer.file(target.as_bytes(), &metadata, entry.size, &mut raw)?;
            }
            Method::Deflated => {
                let file = Deflated {
                    size: entry.size,
                    crc32: entry.crc32,
                    compressed_size: entry.compressed_size,
                    digest,
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
        let data = self.dist_info.replace(".dist-info", ".data");
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
                            format!("{}/{rest}", layout.scheme(scheme, &self.distribution)?),
                            scheme == "scripts",
                        ))
                    });
                    place.ok_or_else(|| {
                        WheelError::format(format!("`{}` goes nowhere", entry.name))
                    })?
                }
            };
            placed.push(Placed {
                entry,
                target,
                script,
            });
        }
        Ok(placed)
    }
}

fn verify(entry: &Entry, expected: Option<Digest>, content: &[u8]) -> Result<(), WheelError> {
    match expected {
        Some(expected) if expected != Digest::of(content) => Err(WheelError::format(format!(
            "`{}` is not what RECORD says",
            entry.name
        ))),
        _ => Ok(()),
    }
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
