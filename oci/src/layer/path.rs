//! Paths inside a layer: relative, normal, and each once.

use std::collections::HashMap;

use super::LayerError;

/// What a layer has at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Other,
}

/// The paths a layer has so far.
#[derive(Debug, Default)]
pub(super) struct Paths(HashMap<Box<[u8]>, Kind>);

impl Paths {
    /// The folders above `path` that the layer does not have yet, outermost first. They are then taken.
    pub(super) fn missing_parents(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, LayerError> {
        let mut missing = Vec::new();
        for (index, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let parent = &path[..index];
            match self.0.get(parent) {
                Some(Kind::Directory) => {}
                Some(Kind::Other) => return Err(LayerError::Duplicate(shown(parent))),
                None => {
                    self.0.insert(parent.into(), Kind::Directory);
                    missing.push(parent.to_vec());
                }
            }
        }
        Ok(missing)
    }

    /// Takes a path. `Ok(false)` says that it is a folder the layer has already.
    pub(super) fn take(&mut self, path: &[u8], kind: Kind) -> Result<bool, LayerError> {
        match self.0.insert(path.into(), kind) {
            None => Ok(true),
            Some(Kind::Directory) if kind == Kind::Directory => Ok(false),
            Some(_) => Err(LayerError::Duplicate(shown(path))),
        }
    }

    /// Whether the layer has a file of this path.
    pub(super) fn has_file(&self, path: &[u8]) -> bool {
        self.0.get(path) == Some(&Kind::Other)
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Refuses a path that is empty, absolute, holds a NUL, or has an empty, `.` or `..` component, or one that
/// engines would take for a whiteout.
pub(super) fn check(path: &[u8]) -> Result<(), LayerError> {
    let bad = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.starts_with(b".wh.");
    if path.contains(&0) || path.split(|byte| *byte == b'/').any(bad) {
        return Err(LayerError::Path(shown(path)));
    }
    Ok(())
}

/// A path as messages show it.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
