//! Which wheels share a layer, so that adding one disturbs few.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::Path;

use imagespec_core::context::Compression;
use imagespec_core::digest::{Digest, Framed};
use imagespec_oci::layer::LayerWriter;

use crate::wheel::{Layout, Wheel, WheelError};

/// Version of the way wheels become layers, part of every layer's key.
pub const RECIPE: u32 = 3;
/// From how many bytes on a wheel has a layer to itself.
const LARGE: u64 = 2 << 20;
/// How many layers small wheels share.
const BUCKETS: u8 = 8;
/// The most layers that wheels are given, so that an image with bytecode stays below 64.
const MOST: usize = 24;

/// A wheel of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Normalised name of the distribution.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of the wheel.
    pub digest: Digest,
    /// Length of the wheel in bytes.
    pub size: u64,
}

/// Wheels that make one layer, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Indexes into the members that were grouped.
    pub members: Vec<usize>,
    /// What the layer is called: `wheel numpy 2.2.6`, `12 wheels: attrs, click, …`.
    pub title: String,
}

/// Groups the wheels of an environment. Large ones are alone; small ones share buckets chosen by their name,
/// so that adding one changes one layer. Of too many large ones, the smallest join the buckets. One and several are
/// called by the given words.
pub fn group(members: &[Member], (one, several): (&str, &str)) -> Vec<Group> {
    let mut by_size: Vec<_> = (0..members.len())
        .filter(|index| members[*index].size >= LARGE)
        .collect();
    by_size.sort_by_key(|index| {
        (
            std::cmp::Reverse(members[*index].size),
            &members[*index].name,
        )
    });
    by_size.truncate(MOST - usize::from(BUCKETS));
    let alone: HashSet<_> = by_size.into_iter().collect();
    let mut buckets: BTreeMap<(bool, String), Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let key = if alone.contains(&index) {
            (true, member.name.clone())
        } else {
            (
                false,
                (Digest::of(&member.name).as_bytes()[0] % BUCKETS).to_string(),
            )
        };
        buckets.entry(key).or_default().push(index);
    }
    let mut groups = Vec::with_capacity(buckets.len());
    for mut indexes in buckets.into_values() {
        indexes.sort_by_key(|index| &members[*index].name);
        let title = match &indexes[..] {
            [at] => format!("{one} {} {}", members[*at].name, members[*at].version),
            ats => {
                let names: Vec<_> = ats
                    .iter()
                    .map(|index| members[*index].name.as_str())
                    .collect();
                format!("{} {several}: {}", names.len(), names.join(", "))
            }
        };
        groups.push(Group {
            members: indexes,
            title,
        });
    }
    groups
}

/// What a layer of wheels depends on, and nothing else.
pub fn key<'a>(
    members: impl Iterator<Item = &'a Member>,
    layout: &Layout,
    compression: Compression,
) -> Digest {
    let digests: Vec<_> = members.map(|member| member.digest).collect();
    let mut hash = Framed::new("imagespec wheels");
    hash.number(RECIPE.into())
        .text(&layout.python)
        .text(&format!("{compression:?}"));
    hash.list(&digests, |hash, digest| {
        hash.digest(digest);
    });
    hash.finish()
}

/// Writes the wheels in the given files as one layer. Of a path that several install, the last one's stands.
pub fn write<W: Write>(
    wheels: &[&Path],
    layout: &Layout,
    layer: &mut LayerWriter<W>,
) -> Result<(), WheelError> {
    let wheels = wheels
        .iter()
        .map(|path| Wheel::open(path))
        .collect::<Result<Vec<_>, _>>()?;
    let mut last = HashMap::new();
    for (index, wheel) in wheels.iter().enumerate() {
        for target in wheel.targets(layout)? {
            last.insert(target, index);
        }
    }
    for (index, wheel) in wheels.iter().enumerate() {
        let mut skip = HashSet::new();
        for target in wheel.targets(layout)? {
            if last.get(&target) != Some(&index) {
                skip.insert(target);
            }
        }
        wheel.write(layout, &skip, layer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, size: u64) -> Member {
        Member {
            name: name.into(),
            version: "1".into(),
            digest: Digest::of(name),
            size,
        }
    }

    fn keys(members: &[Member]) -> HashSet<Digest> {
        let layout = Layout {
            python: "3.11".into(),
        };
        let key = |group: Group| {
            key(
                group.members.iter().map(|index| &members[*index]),
                &layout,
                Compression::Gzip,
            )
        };
        group(members, ("wheel", "wheels"))
            .into_iter()
            .map(key)
            .collect()
    }

    #[test]
    fn adding_a_small_wheel_changes_one_layer() {
        let mut members: Vec<_> = (0..40)
            .map(|index| member(&format!("pkg{index}"), 1000))
            .collect();
        members.push(member("numpy", 20 << 20));
        let before = keys(&members);
        members.insert(7, member("added", 1000));
        let after = keys(&members);
        assert_eq!(before.difference(&after).count(), 1);
        assert_eq!(after.difference(&before).count(), 1);
    }

    #[test]
    fn the_order_of_a_lock_does_not_matter_and_layers_are_bounded() {
        let mut members: Vec<_> = (0..100)
            .map(|index| member(&format!("big{index}"), (3 << 20) + index))
            .collect();
        let before = keys(&members);
        assert!(before.len() <= MOST);
        members.reverse();
        assert_eq!(keys(&members), before);
    }
}
