//! What one `RUN` is lent, and how the instruction says so.

use std::fmt;
use std::path::Path;

use super::{Dialect, LENT, SECRETS, UNPACKED, USER_ID};
use crate::digest::Framed;
use crate::shell::word as shell;

/// The mounts of one `RUN`.
pub(super) struct Mounts {
    dialect: Dialect,
    named: Vec<String>,
    /// Commands that stand for mounts where there are none.
    links: Vec<String>,
    /// What the command reads that the instruction does not name: Kaniko knows an instruction again by its text alone.
    depends: Option<Framed>,
}

impl Mounts {
    pub(super) fn of(dialect: Dialect) -> Self {
        Self {
            dialect,
            named: Vec::new(),
            links: Vec::new(),
            depends: None,
        }
    }

    /// Lends a path of the context.
    pub(super) fn bind(&mut self, source: &str, target: &str) {
        self.named
            .push(format!("type=bind,source={source},target={target}"));
        self.link(&format!("{UNPACKED}/{source}"), target);
    }

    /// Lends a path of an image.
    pub(super) fn bind_of(&mut self, image: &str, source: &str, target: &str) {
        self.named.push(format!(
            "type=bind,from={image},source={source},target={target}"
        ));
    }

    pub(super) fn secret(&mut self, id: &str, target: &str) {
        self.named
            .push(format!("type=secret,id={id},target={target}"));
        if Path::new(target).starts_with(LENT) {
            self.link(&format!("{SECRETS}/{id}"), target);
        }
    }

    /// A secret that everybody may read while it is there.
    pub(super) fn public_secret(&mut self, id: &str, target: &str) {
        self.secret(id, target);
        self.more(",mode=0444");
    }

    /// A secret that the image's user may read.
    pub(super) fn owned_secret(&mut self, id: &str, target: &str) {
        self.secret(id, target);
        self.more(&format!(",uid={USER_ID},gid={USER_ID}"));
    }

    /// A folder that outlives the build where somebody keeps it.
    pub(super) fn cache(&mut self, name: &str, target: &str, owner: u32) {
        self.named.push(format!(
            "type=cache,id=imagespec-{name},target={target},sharing=locked,uid={owner},gid={owner}"
        ));
    }

    /// Makes a folder where there are no mounts: what is in it is in no layer, and does not outlive the build.
    pub(super) fn folder(&mut self, target: &str) {
        self.links.push(format!("mkdir -p {}; ", shell(target)));
    }

    /// Something that the command reads and the instruction does not name.
    pub(super) fn depend_on(&mut self, content: &[u8]) {
        let depends = self.depends.get_or_insert_with(|| Framed::new("run"));
        depends.bytes(content);
    }

    /// What stands before the command of a `RUN`, and what the command itself begins with.
    pub(super) fn apart(&self) -> (String, String) {
        match self.dialect {
            Dialect::Buildkit => {
                let mount = |mount: &String| format!("--mount={mount} \\\n    ");
                (self.named.iter().map(mount).collect(), String::new())
            }
            Dialect::Kaniko => {
                let depends = self.depends.clone().map(|depends| {
                    let digest = depends.finish().hex();
                    format!(": {}; ", &digest[..16])
                });
                let links = depends.into_iter().chain(self.links.iter().cloned());
                (String::new(), links.collect())
            }
        }
    }

    fn more(&mut self, options: &str) {
        if let Some(mount) = self.named.last_mut() {
            mount.push_str(options);
        }
    }

    fn link(&mut self, from: &str, to: &str) {
        self.links
            .push(format!("ln -sfn {} {}; ", shell(from), shell(to)));
    }
}

impl fmt::Display for Mounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mounts, links) = self.apart();
        write!(f, "{mounts}{links}")
    }
}
