//! An upper directory as a layer.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use imagespec_core::contract;
use imagespec_oci::layer::{Device, LayerError, LayerWriter, Metadata};

use crate::error::Error;
use crate::job::Tier;
use crate::owner::{self, Owner, Table};
use crate::xattr;

/// What is below these belongs to the running system or is temporary, not to an image.
const TRANSIENT: [&str; 4] = ["dev", "proc", "sys", "tmp"];
const CAPABILITY: &str = "security.capability";

/// Adds to `layer` what jobs of `tier` and of the user `ids` changed in `upper`, in the order of the paths' names, at the
/// contract's time: deletions as whiteouts, replaced folders as opaque, hard links as such, owners as the commands set
/// them, else `ids`. What is below `/dev`, `/proc`, `/sys` and `/tmp` is left out, and so is what `exclude` names,
/// absolute paths, with everything below. Answers how many entries the layer was given.
pub fn write<W: Write>(
    upper: &Path,
    tier: Tier,
    ids: (u32, u32),
    layer: &mut LayerWriter<W>,
    exclude: &[PathBuf],
) -> Result<u64, Error> {
    let table = match tier {
        Tier::Root => Table::default(),
        Tier::SingleId => Table::read(&owner::table_of(upper))?,
    };
    let mut changes = Changes {
        upper,
        tier,
        made_by: Owner {
            uid: ids.0,
            gid: ids.1,
        },
        layer,
        layers: match tier {
            Tier::Root => Vec::new(),
            Tier::SingleId => owner::read_layers(upper)?,
        },
        exclude: exclude.iter().map(|path| relative(path)).collect(),
        table,
        links: HashMap::new(),
        entries: 0,
    };
    changes.add_folder(Path::new(""))?;
    Ok(changes.entries)
}

struct Changes<'a, W: Write> {
    upper: &'a Path,
    tier: Tier,
    /// Who made what nobody gave to somebody.
    made_by: Owner,
    layer: &'a mut LayerWriter<W>,
    layers: Vec<PathBuf>,
    exclude: Vec<PathBuf>,
    table: Table,
    /// The first path of each file with several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    entries: u64,
}

impl<W: Write> Changes<'_, W> {
    /// Adds what is in a folder, depth first.
    fn add_folder(&mut self, folder: &Path) -> Result<(), Error> {
        let mut names = Vec::new();
        for entry in fs_err::read_dir(self.upper.join(folder))? {
            names.push(entry?.file_name());
        }
        names.sort();
        for name in names {
            let path = folder.join(&name);
            if !self.exclude.contains(&path) && !is_transient(&path) {
                self.add(&path)?;
            }
        }
        Ok(())
    }

    /// Adds one path, and what is below it. What commands shut even for the user who owns it is open meanwhile.
    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let file = self.upper.join(path);
        let status = fs_err::symlink_metadata(&file)?;
        let rights = match status.file_type() {
            kind if kind.is_dir() => 0o500,
            kind if kind.is_file() => 0o400,
            _ => 0,
        };
        if self.tier == Tier::Root || status.mode() & rights == rights {
            return self.add_open(path, &file, &status);
        }
        let opened = PermissionsExt::from_mode(status.mode() | rights);
        fs_err::set_permissions(&file, opened)?;
        let added = self.add_open(path, &file, &status);
        fs_err::set_permissions(&file, status.permissions())?;
        added
    }

    fn add_open(&mut self, path: &Path, file: &Path, status: &fs::Metadata) -> Result<(), Error> {
        let kind = status.file_type();
        let bytes = path.as_os_str().as_bytes();
        // A socket is of no use without the process that listens on it.
        if kind.is_socket() {
            return Ok(());
        }
        self.entries += 1;
        if kind.is_char_device() && status.rdev() == 0 {
            return self.layer.whiteout(bytes).map_err(wrong);
        }
        if kind.is_dir() {
            let metadata = self.metadata(path, file, status)?;
            self.layer.directory(bytes, &metadata).map_err(wrong)?;
            if self.is_opaque(file)? {
                self.layer.opaque(bytes).map_err(wrong)?;
            }
            return self.add_folder(path);
        }
        let metadata = self.metadata(path, file, status)?;
        if status.nlink() > 1 && kind.is_file() {
            let key = (status.dev(), status.ino());
            if let Some(first) = self.links.get(&key) {
                let first = first.as_os_str().as_bytes();
                return self.layer.hardlink(bytes, first, &metadata).map_err(wrong);
            }
            self.links.insert(key, path.to_owned());
        }
        if kind.is_symlink() {
            let target = fs_err::read_link(file)?;
            let target = target.as_os_str().as_bytes();
            return self.layer.symlink(bytes, target, &metadata).map_err(wrong);
        }
        if kind.is_file() {
            let mut content = fs_err::File::open(file)?;
            let added = self
                .layer
                .file(bytes, &metadata, status.len(), &mut content);
            return added.map_err(wrong);
        }
        let numbers = (
            rustix::fs::major(status.rdev()),
            rustix::fs::minor(status.rdev()),
        );
        let device = if kind.is_fifo() {
            Device::Fifo
        } else if kind.is_char_device() {
            Device::Character(numbers.0, numbers.1)
        } else {
            Device::Block(numbers.0, numbers.1)
        };
        self.layer.device(bytes, device, &metadata).map_err(wrong)
    }

    /// Mode, owner and attributes of a file as the image is to have them.
    fn metadata(&self, path: &Path, file: &Path, status: &fs::Metadata) -> Result<Metadata, Error> {
        let owner = match self.tier {
            Tier::Root => Owner {
                uid: status.uid(),
                gid: status.gid(),
            },
            Tier::SingleId => self.recorded_owner(path, file, status)?,
        };
        let mut metadata = Metadata::new(status.mode() & 0o7777, owner.uid);
        metadata.gid = owner.gid;
        metadata.mtime = contract::MTIME;
        if status.is_file() || status.is_dir() {
            for name in xattr::list(file)? {
                let kept = match name.as_str() {
                    CAPABILITY | owner::CAPABILITY => CAPABILITY,
                    name if is_internal(name) => continue,
                    name if name.starts_with("user.") => name,
                    _ => continue,
                };
                let Some(value) = xattr::get(file, &name)? else {
                    continue;
                };
                let real = name == CAPABILITY;
                let value = if kept == CAPABILITY {
                    without_root(value)
                } else {
                    value
                };
                if real || !metadata.xattrs.contains_key(kept) {
                    metadata.xattrs.insert(kept.to_owned(), value);
                }
            }
        }
        Ok(metadata)
    }

    /// The owner that commands gave a file, else whoever ran them, and root of what was there before.
    fn recorded_owner(
        &self,
        path: &Path,
        file: &Path,
        status: &fs::Metadata,
    ) -> Result<Owner, Error> {
        let attribute = if status.is_file() || status.is_dir() {
            xattr::get(file, owner::ATTRIBUTE)?
        } else {
            None
        };
        if attribute.as_deref() == Some(owner::SEEMING.as_bytes()) {
            return Ok(owner::of_lower(&self.layers, path).unwrap_or_default());
        }
        let recorded = attribute.and_then(|value| Owner::decode(&value));
        let recorded =
            recorded.or_else(|| self.table.get(&Path::new("/").join(path), status.ino()));
        Ok(recorded.unwrap_or_else(|| {
            let was_there = |layer: &PathBuf| fs_err::symlink_metadata(layer.join(path)).is_ok();
            if self.made_by == Owner::default() || self.layers.iter().any(was_there) {
                return Owner::default();
            }
            self.made_by
        }))
    }

    /// Whether a folder hides what the layers below have in it.
    fn is_opaque(&self, folder: &Path) -> io::Result<bool> {
        let attribute = format!("{}opaque", self.tier.overlay_prefix());
        Ok(xattr::get(folder, &attribute)?.as_deref() == Some(b"y"))
    }
}

/// A failure of the writer.
fn wrong(source: LayerError) -> Error {
    Error::Write {
        source: Box::new(source),
    }
}

/// A path of the sandbox relative to its root.
fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// Whether a path is below one that holds nothing of an image.
fn is_transient(path: &Path) -> bool {
    let mut components = path.components();
    let first = components.next().map(Component::as_os_str);
    components.next().is_some()
        && first.is_some_and(|first| TRANSIENT.iter().any(|t| OsStr::new(t) == first))
}

/// Whether an attribute is the sandbox's or the overlay's own.
fn is_internal(name: &str) -> bool {
    ["user.overlay.", "user.imagespec.", "trusted."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// File capabilities that hold whatever the user namespace: revision 2 of linux/capability.h. Those set in a
/// user namespace have revision 3, which names its root in four more bytes.
fn without_root(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}
