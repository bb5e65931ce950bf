//! Sends what a service lacks of a build context: small files together, large ones by themselves, several at a time.

use std::collections::HashMap;
use std::io::Read as _;

use bytes::Bytes;
use futures::stream::{self, TryStreamExt as _};
use imagespec_core::context::BuildContext;
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::plan::{BuildPlan, ContextEntry};

use crate::remote::Remote;

/// How many things are sent at once.
const AT_ONCE: usize = 4;
/// How many files are asked about at once.
const ASKED: usize = 5_000;

/// Sends the files of a plan that the service lacks.
pub(crate) async fn files(
    remote: &dyn Remote,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<(), BuildError> {
    let mut known: HashMap<Digest, (&str, u64)> = HashMap::new();
    for (path, entry) in &plan.files {
        if let ContextEntry::File { digest, size, .. } = entry {
            known.entry(*digest).or_insert((path, *size));
        }
    }
    if known.is_empty() {
        return Ok(());
    }
    let step = cx.progress.step("send", "send the build context");
    let all: Vec<_> = known.keys().copied().collect();
    let mut lacking = Vec::new();
    for some in all.chunks(ASKED) {
        lacking.extend(remote.missing(some).await?);
    }
    let wanted: Vec<_> = lacking
        .iter()
        .filter_map(|digest| Some((*digest, *known.get(digest)?)))
        .collect();
    let bytes: u64 = wanted.iter().map(|(_, (_, size))| size).sum();
    let loads = loads(&wanted, remote.packing());
    stream::iter(loads.into_iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |load| send(remote, cx, load))
        .await?;
    let summary = format!("{} of {} files, {bytes} bytes", wanted.len(), all.len());
    step.finish(wanted.is_empty(), summary);
    Ok(())
}

/// Files that are sent together.
type Load<'a> = Vec<(Digest, (&'a str, u64))>;

/// Small files in packs, large ones alone.
fn loads<'a>(files: &[(Digest, (&'a str, u64))], (small, most): (u64, u64)) -> Vec<Load<'a>> {
    let mut loads = Vec::new();
    let (mut pack, mut length): (Load<'_>, u64) = (Vec::new(), 0);
    for file in files {
        let (_, (_, size)) = *file;
        if size > small {
            loads.push(vec![*file]);
            continue;
        }
        if length + size > most {
            loads.push(std::mem::take(&mut pack));
            length = 0;
        }
        length += size;
        pack.push(*file);
    }
    if !pack.is_empty() {
        loads.push(pack);
    }
    loads
}

async fn send(
    remote: &dyn Remote,
    cx: &BuildContext<'_>,
    load: Load<'_>,
) -> Result<(), BuildError> {
    if cx.cancel.is_cancelled() {
        return Err(BuildError::interrupted());
    }
    let (small, _) = remote.packing();
    if let [(digest, (path, size))] = load[..]
        && size > small
    {
        let open = || cx.files.open(path);
        return remote.send(&digest, size, &open).await;
    }
    let unread = |path: &str, error: &std::io::Error| {
        let message = format!("cannot read a file of the build context: `{path}`");
        BuildError::input(message).caused_by(error)
    };
    let read = || -> Result<Vec<(Digest, Bytes)>, BuildError> {
        load.iter()
            .map(|(digest, (path, size))| {
                let mut content = Vec::new();
                let file = cx.files.open(path).map_err(|error| unread(path, &error))?;
                // One that grew in the meantime is told of by its reader.
                file.take(size + 1)
                    .read_to_end(&mut content)
                    .map_err(|error| unread(path, &error))?;
                Ok((*digest, content.into()))
            })
            .collect()
    };
    let files = tokio::task::block_in_place(read)?;
    remote.send_pack(files).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_packed_and_large_ones_are_not() {
        let digest = |n: u8| Digest::of([n]);
        let files = [
            (digest(1), ("a", 3)),
            (digest(2), ("b", 100)),
            (digest(3), ("c", 6)),
            (digest(4), ("d", 10)),
            (digest(5), ("e", 0)),
        ];
        let loads = loads(&files, (10, 12));
        let names: Vec<Vec<_>> = loads
            .iter()
            .map(|load| load.iter().map(|(_, (path, _))| *path).collect())
            .collect();
        assert_eq!(names, [vec!["b"], vec!["a", "c"], vec!["d", "e"]]);
        assert!(super::loads(&[], (10, 12)).is_empty());
    }
}
