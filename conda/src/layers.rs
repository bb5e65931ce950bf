//! Packages as layers: what each installs, and what an environment says of itself.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use imagespec_core::contract::USER_ID;
use imagespec_core::digest::{Digest, Framed};
use imagespec_oci::layer::{EntryKind, LayerWriter, Metadata};
use rattler_conda_types::PrefixRecord;
use rattler_conda_types::package::FileMode;
use rattler_conda_types::prefix_record::{Link, LinkType, PathType, PathsEntry, PrefixPaths};

use crate::PREFIX;
use crate::archive::{Part, read};
use crate::error::CondaError;
use crate::facts::{Built, Command, Facts, File, Kind, Layout};
use crate::prefix::Replaced;
use crate::solve::Package;

/// Version of what is written, part of the key of its layer.
const RECIPE: u64 = 2;

/// A package to be written.
#[derive(Debug)]
pub struct Member {
    /// It.
    pub package: Package,
    /// What it brings.
    pub facts: Facts,
    /// Its file.
    pub file: PathBuf,
}

/// What a layer of packages depends on.
pub fn key(packages: &[Package], layout: &Layout) -> Digest {
    let mut key = Framed::new("imagespec conda packages");
    key.number(RECIPE)
        .text(PREFIX)
        .text(&layout.python)
        .text(&layout.site_packages);
    key.list(packages, |key, package| {
        key.digest(&package.digest);
    });
    key.finish()
}

/// Writes what packages install as one layer. Of a path that several install, the last one's stands.
pub fn write<W: Write>(
    members: &[Member],
    layout: &Layout,
    layer: &mut LayerWriter<W>,
) -> Result<(), CondaError> {
    let mut last: HashMap<&str, usize> = HashMap::new();
    let commands: Vec<Vec<String>> = members
        .iter()
        .map(|member| member.facts.commands.iter().map(path_of).collect())
        .collect();
    for (at, member) in members.iter().enumerate() {
        for file in member.facts.files.values() {
            last.insert(&file.to, at);
        }
        for path in &commands[at] {
            last.insert(path, at);
        }
    }
    for (at, member) in members.iter().enumerate() {
        let stands = |path: &str| last.get(path) == Some(&at);
        write_one(member, &stands, layer)?;
        for (command, path) in member.facts.commands.iter().zip(&commands[at]) {
            if stands(path) && !member.facts.files.values().any(|file| file.to == *path) {
                let text = script(command, layout);
                let metadata = Metadata::new(0o755, USER_ID);
                let (size, mut text) = (text.len() as u64, text.as_bytes());
                layer.file(in_layer(path).as_bytes(), &metadata, size, &mut text)?;
            }
        }
    }
    Ok(())
}

fn write_one<W: Write>(
    member: &Member,
    stands: &dyn Fn(&str) -> bool,
    layer: &mut LayerWriter<W>,
) -> Result<(), CondaError> {
    let files = &member.facts.files;
    read(&member.file, Part::Data, &mut |path, entry, content| {
        let Some(file) = files.get(path).filter(|file| stands(&file.to)) else {
            return Ok(());
        };
        let to = in_layer(&file.to);
        let to = to.as_bytes();
        let mode = if entry.mode & 0o111 == 0 {
            0o644
        } else {
            0o755
        };
        // Bytecode of a package says how old the module is that it was made of.
        let metadata = Metadata {
            mtime: entry.mtime.clamp(0, i64::from(u32::MAX)),
            ..Metadata::new(mode, USER_ID)
        };
        match entry.kind {
            EntryKind::Directory => layer.directory(to, &Metadata::new(0o755, USER_ID))?,
            EntryKind::Symlink => {
                layer.symlink(to, &entry.target, &Metadata::new(0o777, USER_ID))?;
            }
            EntryKind::Hardlink => {
                let target = String::from_utf8_lossy(&entry.target);
                let target = files.get(target.trim_start_matches("./"));
                let target = target.filter(|target| stands(&target.to)).ok_or_else(|| {
                    let problem = format!("it has a link to what another package has: `{path}`");
                    CondaError::package(&member.package.file(), problem)
                })?;
                layer.hardlink(to, in_layer(&target.to).as_bytes(), &metadata)?;
            }
            _ => {
                let size = file.size_in_prefix;
                match &file.built {
                    Some(Built { folder, binary }) => {
                        let mut replaced = Replaced::new(content, folder, PREFIX, *binary);
                        layer.file(to, &metadata, size, &mut replaced)?;
                    }
                    None => layer.file(to, &metadata, size, &mut content.take(size + 1))?,
                }
            }
        }
        Ok(())
    })
}

/// A path of the environment as a path of a layer.
fn in_layer(path: &str) -> String {
    format!("{}/{path}", PREFIX.trim_start_matches('/'))
}

fn path_of(command: &Command) -> String {
    format!("bin/{}", command.name)
}

/// The program of a command, as other installers of Conda packages write it.
fn script(command: &Command, layout: &Layout) -> String {
    let Command {
        module, function, ..
    } = command;
    let import = function.split('.').next().unwrap_or(function);
    format!(
        "#!{PREFIX}/bin/python{}\n# -*- coding: utf-8 -*-\nimport re\nimport sys\n\nfrom {module} import {import}\n\n\
         if __name__ == '__main__':\n\tsys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])\n\
         \tsys.exit({function}())\n",
        layout.python
    )
}

/// What the records of an environment depend on.
pub fn records_key(packages: &[Package], layout: &Layout, specs: &[String]) -> Digest {
    let mut key = Framed::new("imagespec conda records");
    key.number(RECIPE).text(PREFIX).text(&layout.site_packages);
    key.list(packages, |key, package| {
        key.text(&serde_json::to_string(&package.record).unwrap_or_default());
    });
    key.list(specs, |key, spec| {
        key.text(spec);
    });
    key.finish()
}

/// Writes what an environment says of itself, for `conda list` and its like.
pub fn write_records<W: Write>(
    packages: &[(Package, Facts)],
    layout: &Layout,
    specs: &[String],
    layer: &mut LayerWriter<W>,
) -> Result<(), CondaError> {
    let mut add = |path: String, text: &str| {
        let (size, mut text) = (text.len() as u64, text.as_bytes());
        layer.file(
            path.as_bytes(),
            &Metadata::new(0o644, USER_ID),
            size,
            &mut text,
        )
    };
    let mut history = "==> 1980-01-01 00:00:00 <==\n# cmd: imagespec build\n".to_owned();
    for (package, facts) in packages {
        let record = installed(package, facts, layout, specs);
        let text = serde_json::to_string_pretty(&record).map_err(std::io::Error::from)?;
        let title = package.title();
        let name = title.rsplit("::").next().unwrap_or_default();
        add(in_layer(&format!("conda-meta/{name}.json")), &text)?;
        history.extend(["+", &title, "\n"]);
    }
    let specs = serde_json::to_string(specs).map_err(std::io::Error::from)?;
    history.extend(["# update specs: ", &specs, "\n"]);
    add(in_layer("conda-meta/history"), &history)?;
    Ok(())
}

fn installed(package: &Package, facts: &Facts, layout: &Layout, specs: &[String]) -> PrefixRecord {
    let mut paths: Vec<_> = facts.files.values().map(entry).collect();
    for command in &facts.commands {
        let text = script(command, layout);
        let digest = Digest::of(&text);
        paths.push(PathsEntry {
            relative_path: path_of(command).into(),
            original_path: None,
            path_type: PathType::UnixPythonEntryPoint,
            no_link: false,
            sha256: Some((*digest.as_bytes()).into()),
            sha256_in_prefix: None,
            size_in_bytes: Some(text.len() as u64),
            file_mode: None,
            prefix_placeholder: None,
        });
    }
    paths.sort_by(|a, b| a.relative_path.cmp(&b.relative_path));
    paths.dedup_by(|a, b| a.relative_path == b.relative_path);
    let named = |spec: &&String| {
        let end = spec.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c));
        let name = &spec[..end.unwrap_or(spec.len())];
        name.eq_ignore_ascii_case(package.name())
    };
    let mut record = PrefixRecord::from_repodata_record(package.record.clone(), Vec::new());
    record.files = paths
        .iter()
        .map(|path| path.relative_path.clone())
        .collect();
    record.paths_data = PrefixPaths {
        paths,
        ..PrefixPaths::default()
    };
    record.requested_specs = specs.iter().filter(named).cloned().collect();
    record.link = Some(Link {
        source: Path::new("").to_owned(),
        link_type: Some(LinkType::Copy),
    });
    record
}

fn entry(file: &File) -> PathsEntry {
    let bytes = |digest: Digest| (*digest.as_bytes()).into();
    let is_file = file.kind == Kind::File;
    let built = file.built.as_ref();
    PathsEntry {
        relative_path: file.to.clone().into(),
        original_path: None,
        path_type: match file.kind {
            Kind::File => PathType::HardLink,
            Kind::Symlink => PathType::SoftLink,
            Kind::Directory => PathType::Directory,
        },
        no_link: false,
        sha256: file.digest.map(bytes),
        sha256_in_prefix: file.digest_in_prefix.filter(|_| is_file).map(bytes),
        size_in_bytes: is_file.then_some(file.size_in_prefix),
        file_mode: built.map(|built| {
            if built.binary {
                FileMode::Binary
            } else {
                FileMode::Text
            }
        }),
        prefix_placeholder: built.map(|built| built.folder.clone()),
    }
}
