//! What a container sees of an image: its layers one over the other, whiteouts honoured (image specification,
//! "Image Layer Filesystem Changeset"), as far as somebody wants to know of it.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;

use crate::layer::{EntryKind, LayerEntry, LayerReader, ReadError};

/// The most bytes of paths, links and contents that are kept.
const HELD: u64 = 192 << 20;
/// What an entry costs beside these.
const ENTRY: u64 = 96;
/// How many entries may be looked at to remove others: a bound on what whiteouts can cost.
const STEPS: u64 = 100_000_000;
/// The longest path and the longest target of a link, in bytes.
const PATH: usize = 4095;
/// How many links lead to a file at most, as in Linux.
const LINKS: usize = 40;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Directory,
    /// A symbolic link to a path.
    Symlink(Vec<u8>),
    /// A regular file that somebody wants to know of.
    File(File),
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The start of its content, as much as was asked for.
    pub content: Vec<u8>,
    /// Whether that is all of it.
    pub complete: bool,
}

/// Says of a regular file, by its path and what its layer says of it, how many bytes of its content are wanted;
/// `None`: nothing is to be known of it.
pub type Wanted<'a> = dyn Fn(&[u8], &LayerEntry) -> Option<u64> + 'a;

/// Folders, links, and the regular files that are wanted, by their paths relative to the root.
///
/// Layers are not trusted: paths that lead out of them are refused, and time and memory are bounded.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<Vec<u8>, (usize, Node)>,
    layers: usize,
    held: u64,
    steps: u64,
}

impl Tree {
    /// Puts a layer, an uncompressed tar, on top. After an error the tree must not be used. What follows the
    /// archive's end is not read.
    pub fn add_layer(&mut self, tar: impl Read, wanted: &Wanted<'_>) -> Result<(), ReadError> {
        self.layers += 1;
        let mut layer = LayerReader::new(tar);
        while let Some(entry) = layer.next_entry()? {
            let path = normal(&entry.path)?;
            let name = last(&path);
            if path.is_empty() || (name.starts_with(b".wh..wh.") && name != b".wh..wh..opq") {
                continue;
            }
            if name == b".wh..wh..opq" {
                self.remove_below(parent(&path), Some(self.layers))?;
            } else if let Some(hidden) = name.strip_prefix(b".wh.") {
                let hidden = joined(parent(&path), hidden);
                self.remove_below(&hidden, Some(self.layers))?;
                if self
                    .nodes
                    .get(&hidden)
                    .is_some_and(|(of, _)| *of < self.layers)
                {
                    self.remove(&hidden);
                }
            } else {
                self.add(&path, &entry, &mut layer.content(), wanted)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        path: &[u8],
        entry: &LayerEntry,
        content: &mut impl Read,
        wanted: &Wanted<'_>,
    ) -> Result<(), ReadError> {
        let node = match entry.kind {
            EntryKind::Directory => Some(Node::Directory),
            EntryKind::Symlink if entry.target.len() > PATH => {
                return Err(ReadError::refuse("a link leads nowhere", path));
            }
            EntryKind::Symlink => Some(Node::Symlink(entry.target.clone())),
            EntryKind::File => match wanted(path, entry) {
                Some(most) => Some(Node::File(read(entry, content, most)?)),
                None => None,
            },
            EntryKind::Hardlink => {
                let target = normal(&entry.target)?;
                let file = |(_, node): &(usize, Node)| match node {
                    Node::File(_) | Node::Symlink(_) => Some(node.clone()),
                    Node::Directory => None,
                };
                self.nodes.get(&target).and_then(file)
            }
            EntryKind::Fifo | EntryKind::Character(..) | EntryKind::Block(..) => None,
        };
        self.add_parents(path)?;
        if node != Some(Node::Directory) {
            if matches!(self.nodes.get(path), Some((_, Node::Directory))) {
                self.remove_below(path, None)?;
            }
            self.remove(path);
        }
        match node {
            Some(node) => self.insert(path, node),
            None => Ok(()),
        }
    }

    /// Folders above an entry are there, whether their layer says so or not.
    fn add_parents(&mut self, path: &[u8]) -> Result<(), ReadError> {
        let slashes = path.iter().enumerate();
        let slashes = slashes.filter_map(|(at, byte)| (*byte == b'/').then_some(at));
        for at in slashes {
            if let Some((of, Node::Directory)) = self.nodes.get_mut(&path[..at]) {
                *of = self.layers;
            } else {
                self.remove(&path[..at]);
                self.insert(&path[..at], Node::Directory)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &[u8], node: Node) -> Result<(), ReadError> {
        self.held += cost(path, &node);
        if self.held > HELD {
            return Err(ReadError::refuse("a layer has too many entries", path));
        }
        if let Some((_, before)) = self.nodes.insert(path.to_vec(), (self.layers, node)) {
            self.held -= cost(path, &before);
        }
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) {
        if let Some((_, node)) = self.nodes.remove(path) {
            self.held -= cost(path, &node);
        }
    }

    /// Removes what is below a folder: all, or what is of layers before `of`.
    fn remove_below(&mut self, folder: &[u8], of: Option<usize>) -> Result<(), ReadError> {
        let start = if folder.is_empty() {
            Vec::new()
        } else {
            joined(folder, b"")
        };
        let mut doomed = Vec::new();
        for (path, (layer, _)) in self.nodes.range(start.clone()..) {
            if !path.starts_with(&start) {
                break;
            }
            self.steps += 1;
            if of.is_none_or(|of| *layer < of) {
                doomed.push(path.clone());
            }
        }
        if self.steps > STEPS {
            return Err(ReadError::refuse("layers have too many whiteouts", folder));
        }
        for path in doomed {
            self.remove(&path);
        }
        Ok(())
    }

    /// What is at a path once links are followed, and the path through no link. Like the kernel in a container,
    /// it never leaves the root.
    pub fn find(&self, path: &str) -> Option<(Vec<u8>, &Node)> {
        let mut todo: VecDeque<&[u8]> = path.as_bytes().split(|byte| *byte == b'/').collect();
        let mut real: Vec<&[u8]> = Vec::new();
        let mut found = &Node::Directory;
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            match part {
                b"" | b"." => continue,
                b".." => {
                    real.pop();
                    found = &Node::Directory;
                    continue;
                }
                part => real.push(part),
            }
            found = &self.nodes.get(&real.join(&b'/'))?.1;
            if let Node::Symlink(target) = found {
                links += 1;
                if links > LINKS {
                    return None;
                }
                real.pop();
                if target.starts_with(b"/") {
                    real.clear();
                }
                for part in target.rsplit(|byte| *byte == b'/') {
                    todo.push_front(part);
                }
                found = &Node::Directory;
            }
        }
        Some((real.join(&b'/'), found))
    }

    /// The regular file at a path, once links are followed.
    pub fn file(&self, path: &str) -> Option<&File> {
        match self.find(path)? {
            (_, Node::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Whether there is a folder at a path, once links are followed.
    pub fn has_directory(&self, path: &str) -> bool {
        matches!(self.find(path), Some((_, Node::Directory)))
    }

    /// All paths and what is at each, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        let nodes = self.nodes.iter();
        nodes.map(|(path, (_, node))| (path.as_slice(), node))
    }
}

fn read(entry: &LayerEntry, content: &mut impl Read, most: u64) -> Result<File, ReadError> {
    let mut bytes = Vec::new();
    content.take(most.min(HELD)).read_to_end(&mut bytes)?;
    let complete = content.read(&mut [0])? == 0;
    Ok(File {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        content: bytes,
        complete,
    })
}

fn cost(path: &[u8], node: &Node) -> u64 {
    let more = match node {
        Node::Directory => 0,
        Node::Symlink(target) => target.len(),
        Node::File(file) => file.content.len(),
    };
    ENTRY + (path.len() + more) as u64
}

/// A path without empty and `.` components.
fn normal(path: &[u8]) -> Result<Vec<u8>, ReadError> {
    if path.len() > PATH || path.contains(&0) {
        return Err(ReadError::refuse("an entry has an impossible path", path));
    }
    let parts = path.split(|byte| *byte == b'/');
    let parts: Vec<_> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(ReadError::refuse("an entry leads out of its layer", path));
    }
    Ok(parts.join(&b'/'))
}

fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.unwrap_or(0)]
}

fn last(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[slash.map_or(0, |slash| slash + 1)..]
}

fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] => name.to_vec(),
        folder => [folder, b"/", name].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer: paths that end in a slash are folders, `a -> b` are links, `a = b` hard links, `a` files that hold
    /// their own path.
    fn layer(entries: &[&str]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for entry in entries {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let (path, kind, target) = if let Some((path, target)) = entry.split_once(" -> ") {
                (path, tar::EntryType::Symlink, target)
            } else if let Some((path, target)) = entry.split_once(" = ") {
                (path, tar::EntryType::Link, target)
            } else if entry.ends_with('/') {
                (*entry, tar::EntryType::Directory, "")
            } else {
                (*entry, tar::EntryType::Regular, "")
            };
            header.set_entry_type(kind);
            let bytes = header.as_mut_bytes();
            bytes[..path.len()].copy_from_slice(path.as_bytes());
            bytes[157..157 + target.len()].copy_from_slice(target.as_bytes());
            let content = if kind == tar::EntryType::Regular {
                path
            } else {
                ""
            };
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, content.as_bytes()).expect("an entry");
        }
        tar.into_inner().expect("a layer")
    }

    fn tree(layers: &[&[&str]]) -> Result<Tree, ReadError> {
        let mut tree = Tree::default();
        for entries in layers {
            tree.add_layer(&*layer(entries), &|path, _| {
                (!path.ends_with(b"unwanted")).then_some(8)
            })?;
        }
        Ok(tree)
    }

    fn paths(layers: &[&[&str]]) -> String {
        let tree = tree(layers).expect("a tree");
        let paths: Vec<_> = tree
            .iter()
            .map(|(path, _)| String::from_utf8_lossy(path))
            .collect();
        paths.join(" ")
    }

    #[test]
    fn later_layers_hide_and_replace_what_is_below() {
        let base: &[&str] = &["./usr/bin/a", "usr/bin/b", "usr/lib/", "usr/unwanted"];
        assert_eq!(paths(&[base]), "usr usr/bin usr/bin/a usr/bin/b usr/lib");
        for (over, expected) in [
            (
                &["usr/bin/.wh.a"] as &[&str],
                "usr usr/bin usr/bin/b usr/lib",
            ),
            (&["usr/.wh.bin"], "usr usr/lib"),
            (
                &["usr/bin/.wh..wh..opq", "usr/bin/c"],
                "usr usr/bin usr/bin/c usr/lib",
            ),
            // Only what is below is hidden, wherever in the layer it is said.
            (
                &["usr/bin/c", "usr/bin/.wh..wh..opq"],
                "usr usr/bin usr/bin/c usr/lib",
            ),
            (
                &["usr/bin/a", "usr/.wh.bin"],
                "usr usr/bin usr/bin/a usr/lib",
            ),
            (&["usr/bin"], "usr usr/bin usr/lib"),
            (&["usr/bin -> lib"], "usr usr/bin usr/lib"),
            // A file of which nothing is wanted replaces as well.
            (
                &["usr/bin/", "usr/unwanted/x", "usr/unwanted"],
                "usr usr/bin usr/bin/a usr/bin/b usr/lib",
            ),
            (&[".wh..wh..opq", "b"], "b"),
            (
                &["usr/.wh..wh.plnk"],
                "usr usr/bin usr/bin/a usr/bin/b usr/lib",
            ),
            (&["usr/.wh.gone"], "usr usr/bin usr/bin/a usr/bin/b usr/lib"),
        ] {
            assert_eq!(paths(&[base, over]), expected, "{over:?}");
        }
    }

    #[test]
    fn links_are_followed_within_the_root() {
        let tree = tree(&[&[
            "usr/bin/python3.11",
            "usr/bin/python3 -> python3.11",
            "bin -> usr/bin",
            "usr/local/bin/python -> ../../../../../bin/python3",
            "etc/os-release -> /usr/lib/os-release",
            "usr/lib/os-release",
            "same = usr/bin/python3.11",
            "round -> round",
            "nowhere -> /gone/../etc",
            "through -> usr/bin/python3.11/x",
        ]])
        .expect("a tree");
        let real = |path: &str| {
            tree.find(path)
                .map(|(real, _)| String::from_utf8(real).expect("a path"))
        };
        for path in [
            "/bin/python3",
            "usr/local/bin/python",
            "/usr/./bin/../bin/python3.11",
        ] {
            assert_eq!(real(path).as_deref(), Some("usr/bin/python3.11"), "{path}");
        }
        assert_eq!(
            real("/etc/os-release").as_deref(),
            Some("usr/lib/os-release")
        );
        for path in [
            "/round",
            "/nowhere",
            "/through",
            "/usr/bin/python3/x",
            "/gone",
        ] {
            assert_eq!(real(path), None, "{path}");
        }
        assert!(
            tree.has_directory("/bin") && tree.has_directory("/") && !tree.has_directory("/same")
        );
        let file = tree.file("/same").expect("a file");
        assert_eq!(
            (&*file.content, file.complete),
            (b"usr/bin/".as_slice(), false)
        );
    }

    #[test]
    fn what_leads_out_of_a_layer_is_refused() {
        for entry in ["../x", "a/../../x", "a/..", "../.wh.x", "x = ../y"] {
            assert!(tree(&[&[entry]]).is_err(), "{entry}");
        }
        let mut cut = layer(&["usr/bin/a"]);
        cut.truncate(512 + 3);
        assert!(Tree::default().add_layer(&*cut, &|_, _| Some(8)).is_err());
    }
}
