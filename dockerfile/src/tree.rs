//! What an engine may read of this machine for a build: the files the plan names, and what the build is lent.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use imagespec_core::context::ContextFiles;
use imagespec_core::contract::MTIME;
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::plan::ContextEntry;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Name of the Dockerfile in the context. No file of a plan has it: they are all in folders.
pub const DOCKERFILE: &str = "Dockerfile";

/// The build context: every path with all its parents, in the order in which a walk meets them.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: BTreeMap<Vec<String>, Node>,
    opener: Opener,
}

/// One path of the context.
#[derive(Debug, Clone)]
pub enum Node {
    /// A folder.
    Directory,
    /// A symbolic link, and where it leads.
    Symlink(String),
    /// A regular file.
    File(File),
}

/// A regular file.
#[derive(Debug, Clone)]
pub struct File {
    /// Its bytes.
    pub size: u64,
    /// Whether everybody may run it.
    pub executable: bool,
    /// What tells its content from others of the same size.
    pub mark: Digest,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    /// A file of the plan, by its path.
    Planned(String),
    Bytes(Arc<[u8]>),
    Path(PathBuf),
}

type Opened = io::Result<Box<dyn Read + Send>>;

/// Asks for the files of a plan, which only whoever builds it can open.
type Opener = mpsc::UnboundedSender<(String, oneshot::Sender<Opened>)>;

/// Opens the files of a plan for whoever asks.
#[derive(Debug)]
pub struct Doorman {
    requests: mpsc::UnboundedReceiver<(String, oneshot::Sender<Opened>)>,
}

impl Doorman {
    /// Serves until nobody can ask any more.
    pub async fn serve(mut self, files: &dyn ContextFiles) {
        while let Some((path, answer)) = self.requests.recv().await {
            // Whoever asked may have gone.
            let _ = answer.send(files.open(&path));
        }
    }
}

impl Tree {
    /// The tree of a plan's files.
    pub fn of(entries: &BTreeMap<String, ContextEntry>) -> (Self, Doorman) {
        let (opener, requests) = mpsc::unbounded_channel();
        let nodes = BTreeMap::new();
        let mut tree = Self { nodes, opener };
        for (path, entry) in entries {
            let node = match entry {
                ContextEntry::File {
                    digest,
                    size,
                    executable,
                } => Node::File(File {
                    size: *size,
                    executable: *executable,
                    mark: *digest,
                    content: Content::Planned(path.clone()),
                }),
                ContextEntry::Symlink { target } => Node::Symlink(target.clone()),
                ContextEntry::Directory => Node::Directory,
            };
            tree.insert(path, node);
        }
        (tree, Doorman { requests })
    }

    /// Adds a file with a content.
    pub fn add(&mut self, path: &str, content: &[u8], executable: bool) {
        let file = File {
            size: content.len() as u64,
            executable,
            mark: Digest::of(content),
            content: Content::Bytes(content.into()),
        };
        self.insert(path, Node::File(file));
    }

    /// Adds a program of this machine.
    pub fn add_program(&mut self, path: &str, program: PathBuf) -> io::Result<()> {
        self.add_path(path, program, true)
    }

    fn add_path(&mut self, path: &str, file: PathBuf, executable: bool) -> io::Result<()> {
        let metadata = fs_err::metadata(&file)?;
        // Files of this machine's own cache: what they hold, their name and their age say.
        let mut mark = Framed::new("imagespec file");
        mark.text(&file.to_string_lossy());
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH);
        mark.number(modified.map_or(0, |since| since.as_secs()));
        let file = File {
            size: metadata.len(),
            executable,
            mark: mark.finish(),
            content: Content::Path(file),
        };
        self.insert(path, Node::File(file));
        Ok(())
    }

    fn insert(&mut self, path: &str, node: Node) {
        let parts: Vec<_> = path.split('/').map(str::to_owned).collect();
        for length in 1..parts.len() {
            let parent = self.nodes.entry(parts[..length].to_vec());
            parent.or_insert(Node::Directory);
        }
        self.nodes.insert(parts, node);
    }

    /// The paths that an engine asks for, each with its parents; all where it names none.
    pub fn select(&self, wanted: &[String]) -> Vec<(String, Node)> {
        let wanted: Vec<Vec<&str>> = wanted
            .iter()
            .map(|path| path.trim_matches('/').split('/').collect())
            .collect();
        let counts = |path: &[String]| {
            wanted.is_empty()
                || wanted.iter().any(|wanted| {
                    let length = wanted.len().min(path.len());
                    wanted[..length].iter().eq(&path[..length])
                })
        };
        let chosen = self.nodes.iter().filter(|(path, _)| counts(path));
        chosen
            .map(|(path, node)| (path.join("/"), node.clone()))
            .collect()
    }

    /// Adds a file of this machine that is no program.
    pub fn add_file(&mut self, path: &str, file: PathBuf) -> io::Result<()> {
        self.add_path(path, file, false)
    }

    /// Writes all as an archive, the same bytes for the same files. Blocks, and needs somebody at the door.
    pub fn write(&self, handle: &Handle, out: impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        for (path, node) in self.select(&[]) {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(MTIME.unsigned_abs());
            header.set_size(0);
            match node {
                Node::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    tar.append_data(&mut header, path, io::empty())?;
                }
                Node::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    tar.append_link(&mut header, path, target)?;
                }
                Node::File(file) => {
                    header.set_mode(if file.executable { 0o755 } else { 0o644 });
                    header.set_size(file.size);
                    let content = handle.block_on(self.open(&file))?;
                    tar.append_data(&mut header, path, content.take(file.size))?;
                }
            }
        }
        tar.into_inner()?.flush()
    }

    /// The files that the plan does not name.
    pub fn own(&self) -> impl Iterator<Item = (String, &File)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            Node::File(file) if !matches!(file.content, Content::Planned(_)) => {
                Some((path.join("/"), file))
            }
            _ => None,
        })
    }

    /// Opens a file.
    pub async fn open(&self, file: &File) -> Opened {
        let Content::Planned(path) = &file.content else {
            return file.open();
        };
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the build is over");
        let (answer, opened) = oneshot::channel();
        let asked = self.opener.send((path.clone(), answer));
        asked.map_err(|_| gone())?;
        opened.await.map_err(|_| gone())?
    }
}

impl File {
    /// Opens a file that the plan does not name.
    pub fn open(&self) -> Opened {
        match &self.content {
            Content::Bytes(bytes) => Ok(Box::new(Cursor::new(Arc::clone(bytes)))),
            Content::Path(path) => Ok(Box::new(fs_err::File::open(path)?)),
            Content::Planned(path) => Err(io::Error::new(io::ErrorKind::Unsupported, path.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let (mut tree, _) = Tree::of(&BTreeMap::new());
        for path in ["src/b", "src-x", "src/a/c", "Dockerfile"] {
            tree.add(path, b"", false);
        }
        tree
    }

    fn paths(tree: &Tree, wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        let chosen = tree.select(&wanted).into_iter();
        chosen.map(|(path, _)| path).collect()
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it_and_what_is_in_it_before_its_sibling() {
        let all = ["Dockerfile", "src", "src/a", "src/a/c", "src/b", "src-x"];
        assert_eq!(paths(&tree(), &[]), all);
    }

    #[test]
    fn what_is_asked_for_comes_with_its_parents() {
        assert_eq!(paths(&tree(), &["src/a"]), ["src", "src/a", "src/a/c"]);
        assert_eq!(
            paths(&tree(), &["Dockerfile", ".dockerignore"]),
            ["Dockerfile"]
        );
        assert_eq!(paths(&tree(), &["/src-x"]), ["src-x"]);
    }
}
