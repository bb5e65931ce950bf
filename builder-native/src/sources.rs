//! Sources: files of the build context as layers.

use imagespec_core::context::ContextFiles;
use imagespec_core::contract::USER_ID;
use imagespec_core::error::BuildError;
use imagespec_core::plan::ContextEntry;
use imagespec_oci::layer::{LayerWriter, Metadata};
use imagespec_oci::store::BlobWriter;

use crate::assemble::{Assembly, Draft};

impl Assembly<'_> {
    pub(crate) fn copy(
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
        // On this task's thread, since the files are only lent; they are small beside packages.
        let layer = tokio::task::block_in_place(|| {
            self.layers.write_here(format!("copy {field}"), |layer| {
                for (path, entry) in self.plan.entries(from) {
                    if self.cx.cancel.is_cancelled() {
                        return Err(BuildError::interrupted());
                    }
                    let target = format!("{}/{path}", to.trim_matches('/'));
                    add(
                        layer,
                        &target,
                        entry,
                        self.cx.files,
                        &format!("{from}/{path}"),
                    )
                    .map_err(|error| error.field(field))?;
                }
                Ok(())
            })
        })?;
        step.finish(false, format!("{count} files"));
        draft.layers.push(layer);
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
