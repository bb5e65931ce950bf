//! Sources: files of the build context as layers.

use imagespec_core::context::ContextFiles;
use imagespec_core::contract::USER_ID;
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_core::plan::ContextEntry;
use imagespec_oci::layer::{LayerWriter, Metadata};
use imagespec_oci::store::BlobWriter;

use crate::assemble::{Assembly, Draft};
use crate::recipe::Recipe;

/// Version of the way files of the context become a layer, part of its key.
const RECIPE: u64 = 2;

impl Assembly<'_> {
    pub(crate) async fn copy(
        &self,
        draft: &mut Draft,
        field: &str,
        from: &str,
        to: &str,
    ) -> Result<(), BuildError> {
        let step = self.cx.progress.step(
            format!("{field} {}", draft.platform),
            format!("copy {field}"),
        );
        let count = self.plan.entries(from).count();
        let recipe = draft.owned(Recipe::Copy {
            field: field.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        });
        let cached = self.add(draft, recipe).await?;
        step.finish(cached, format!("{count} files"));
        Ok(())
    }

    pub(crate) fn copy_key(&self, from: &str, to: &str) -> Digest {
        let mut key = Framed::new("imagespec copy");
        key.number(RECIPE).text(to);
        let entries: Vec<_> = self.plan.entries(from).collect();
        key.list(entries, |key, (path, entry)| {
            key.text(path);
            match entry {
                ContextEntry::Directory => key.text("directory"),
                ContextEntry::Symlink { target } => key.text("symlink").text(target),
                ContextEntry::File {
                    digest, executable, ..
                } => key
                    .text("file")
                    .digest(digest)
                    .number(u64::from(*executable)),
            };
        });
        key.finish()
    }

    /// Adds the files of a folder of the context to a layer.
    pub(crate) fn copied(
        &self,
        layer: &mut LayerWriter<BlobWriter>,
        field: &str,
        from: &str,
        to: &str,
    ) -> Result<(), BuildError> {
        for (path, entry) in self.plan.entries(from) {
            if self.cx.cancel.is_cancelled() {
                return Err(BuildError::interrupted());
            }
            let target = format!("{}/{path}", to.trim_matches('/'));
            let source = format!("{from}/{path}");
            add(layer, &target, entry, self.cx.files, &source)
                .map_err(|error| error.field(field))?;
        }
        Ok(())
    }
}

fn add(
    layer: &mut LayerWriter<BlobWriter>,
    target: &str,
    entry: &ContextEntry,
    files: &dyn ContextFiles,
    path: &str,
) -> Result<(), BuildError> {
    match entry {
        ContextEntry::Directory => {
            layer.directory(target.as_bytes(), &Metadata::new(0o755, USER_ID))?;
        }
        ContextEntry::Symlink { target: link } => layer.symlink(
            target.as_bytes(),
            link.as_bytes(),
            &Metadata::new(0o777, USER_ID),
        )?,
        ContextEntry::File {
            size, executable, ..
        } => {
            let read = |error: std::io::Error| {
                BuildError::failed(format!("cannot read the file `{path}`")).caused_by(&error)
            };
            let mut content = files.open(path).map_err(read)?;
            let mode = if *executable { 0o755 } else { 0o644 };
            layer.file(
                target.as_bytes(),
                &Metadata::new(mode, USER_ID),
                *size,
                &mut content,
            )?;
        }
    }
    Ok(())
}
