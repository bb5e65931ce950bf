//! Small files, folders and links, gathered in any order and written in one.

use std::collections::BTreeMap;
use std::io::Write;

use imagespec_core::contract;
use imagespec_oci::layer::{LayerWriter, Metadata};

use crate::error::DebianError;
use crate::layers::directory;

enum Node {
    File(Vec<u8>),
    Directory,
    Symlink(String),
}

/// Entries by path, relative to the root.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<String, (Node, Metadata)>);

impl Tree {
    /// A file of root's that all may read.
    pub(super) fn file(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.file_with(path, content, 0o644, 0);
    }

    /// A file of root's with a mode and a group.
    pub(super) fn file_with(
        &mut self,
        path: impl Into<String>,
        content: impl Into<Vec<u8>>,
        mode: u32,
        gid: u32,
    ) {
        let metadata = Metadata {
            gid,
            ..Metadata::new(mode, 0)
        };
        self.0
            .insert(path.into(), (Node::File(content.into()), metadata));
    }

    /// A file in a folder of the image's user.
    pub(super) fn user_file(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        let metadata = Metadata::new(0o644, contract::USER_ID);
        self.0
            .insert(path.into(), (Node::File(content.into()), metadata));
    }

    /// A folder with a mode and a group.
    pub(super) fn directory(&mut self, path: impl Into<String>, mode: u32, gid: u32) {
        let path = path.into();
        let metadata = Metadata {
            gid,
            ..Metadata::new(mode, 0)
        };
        let metadata = directory(path.as_bytes(), metadata);
        self.0.insert(path, (Node::Directory, metadata));
    }

    /// A symbolic link.
    pub(super) fn symlink(&mut self, path: impl Into<String>, target: impl Into<String>) {
        let node = Node::Symlink(target.into());
        self.0.insert(path.into(), (node, Metadata::new(0o777, 0)));
    }

    pub(super) fn write<W: Write>(&self, layer: &mut LayerWriter<W>) -> Result<(), DebianError> {
        for (path, (node, metadata)) in &self.0 {
            let path = path.as_bytes();
            match node {
                Node::File(content) => {
                    layer.file(
                        path,
                        metadata,
                        content.len() as u64,
                        &mut content.as_slice(),
                    )?;
                }
                Node::Directory => layer.directory(path, metadata)?,
                Node::Symlink(target) => layer.symlink(path, target.as_bytes(), metadata)?,
            }
        }
        Ok(())
    }
}
