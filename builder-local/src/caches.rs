//! Caches beyond the engine's own, in the form that Docker's command takes them: images of registries, and folders of
//! this machine, which whoever builds reads and writes through the session.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;
use imagespec_core::digest::Digest;
use imagespec_oci::image::{Descriptor, INDEX, Index};
use imagespec_oci::layout::{LAYOUT, NAME};
use imagespec_oci::store::{BlobStore, write_atomically};

/// Where an answer says which manifest a cache in a folder has.
const MANIFEST: &str = "cache.manifest";
/// The name of a cache in a folder when nobody says.
const TAG: &str = "latest";
/// The largest index of a layout, in bytes.
const INDEX_LIMIT: u64 = 4 << 20;

/// A cache.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cache {
    /// Whoever builds reaches it: a registry, or the image itself.
    Theirs(CacheOptionsEntry),
    /// An OCI layout of this machine.
    Folder(Folder),
}

/// A cache in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder {
    path: PathBuf,
    tag: String,
    /// What else is said of it: `mode`, `compression`, …
    attributes: HashMap<String, String>,
}

/// The caches of one build, as it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    pub(crate) from: Vec<CacheOptionsEntry>,
    pub(crate) to: Vec<CacheOptionsEntry>,
    /// The folders, by the names that a session has for them.
    pub(crate) stores: BTreeMap<String, BlobStore>,
}

/// A cache of a text: `type=registry,ref=NAME`, or just the name of an image. `folder` is the attribute that names the
/// folder of one on this machine: `src` or `dest`. The error is what was expected.
pub(crate) fn read(text: &str, folder: &str) -> Result<Cache, &'static str> {
    const EXPECTED: &str = "texts such as `type=registry,ref=NAME`";
    let entry = entry(text).ok_or(EXPECTED)?;
    if entry.r#type != "local" {
        return Ok(Cache::Theirs(entry));
    }
    let mut attributes = entry.attrs;
    let path = attributes.remove(folder).map(PathBuf::from);
    let path = path.filter(|path| path.is_absolute());
    let path = path.ok_or(match folder {
        "src" => "`type=local,src=FOLDER`, with the folder's path from the root",
        _ => "`type=local,dest=FOLDER`, with the folder's path from the root",
    })?;
    let tag = attributes.remove("tag").unwrap_or_else(|| TAG.to_owned());
    Ok(Cache::Folder(Folder {
        path,
        tag,
        attributes,
    }))
}

fn entry(text: &str) -> Option<CacheOptionsEntry> {
    if text.is_empty() {
        return None;
    }
    if !text.contains('=') {
        return Some(CacheOptionsEntry {
            r#type: "registry".to_owned(),
            attrs: HashMap::from([("ref".to_owned(), text.to_owned())]),
        });
    }
    let mut attrs = HashMap::new();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=')?;
        attrs.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    let r#type = attrs.remove("type")?;
    Some(CacheOptionsEntry { r#type, attrs })
}

impl Lent {
    /// Opens the folders. One that has no cache yet has nothing to take from.
    pub(crate) fn of(from: &[Cache], to: &[Cache]) -> io::Result<Self> {
        let mut lent = Self::default();
        for cache in from {
            match cache {
                Cache::Theirs(entry) => lent.from.push(entry.clone()),
                Cache::Folder(folder) => {
                    if let Some(digest) = folder.manifest()? {
                        let digest = ("digest", digest.to_string());
                        let entry = folder.entry("src", "from", [digest], &mut lent.stores);
                        lent.from.push(entry);
                    }
                }
            }
        }
        for cache in to {
            let entry = match cache {
                Cache::Theirs(entry) => entry.clone(),
                Cache::Folder(folder) => {
                    fs_err::create_dir_all(&folder.path)?;
                    folder.entry("dest", "to", [], &mut lent.stores)
                }
            };
            lent.to.push(entry);
        }
        Ok(lent)
    }
}

/// Names what a build has written into folders, as it answers.
pub(crate) fn keep(to: &[Cache], answer: &HashMap<String, String>) -> io::Result<()> {
    let Some(manifest) = answer.get(MANIFEST) else {
        return Ok(());
    };
    let manifest: Descriptor = serde_json::from_str(manifest)?;
    for cache in to {
        if let Cache::Folder(folder) = cache {
            folder.keep(&manifest)?;
        }
    }
    Ok(())
}

impl Folder {
    fn store(&self) -> BlobStore {
        BlobStore::open(self.path.join("blobs"))
    }

    /// The folder as whoever builds hears of it, under a name that says nothing of this machine.
    fn entry<const N: usize>(
        &self,
        attribute: &str,
        name: &str,
        more: [(&str, String); N],
        stores: &mut BTreeMap<String, BlobStore>,
    ) -> CacheOptionsEntry {
        let name = format!("{name}-{}", stores.len());
        stores.insert(format!("local:{name}"), self.store());
        let mut attrs = self.attributes.clone();
        attrs.insert(attribute.to_owned(), name);
        attrs.extend(more.map(|(name, value)| (name.to_owned(), value)));
        CacheOptionsEntry {
            r#type: "local".to_owned(),
            attrs,
        }
    }

    fn index(&self) -> io::Result<Option<Index>> {
        let path = self.path.join("index.json");
        let file = match fs_err::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, INDEX_LIMIT), &mut text)?;
        let index = serde_json::from_slice(&text);
        index.map(Some).map_err(|error| damaged(&path, &error))
    }

    /// The manifest of its name.
    fn manifest(&self) -> io::Result<Option<Digest>> {
        if let Some(digest) = self.attributes.get("digest") {
            let digest = digest.parse().map_err(io::Error::other)?;
            return Ok(Some(digest));
        }
        let manifests = self.index()?.map(|index| index.manifests);
        let named = manifests
            .into_iter()
            .flatten()
            .find(|manifest| manifest.annotations.get(NAME) == Some(&self.tag));
        Ok(named.map(|manifest| manifest.digest))
    }

    fn keep(&self, manifest: &Descriptor) -> io::Result<()> {
        // As other programs lock it that write caches there.
        let lock = fs_err::File::create(self.path.join("index.json.lock"))?;
        fs4::FileExt::lock(lock.file())?;
        let mut index = self.index()?.unwrap_or_else(|| Index {
            schema_version: 2,
            media_type: INDEX.to_owned(),
            manifests: Vec::new(),
        });
        let others = |other: &Descriptor| other.annotations.get(NAME) != Some(&self.tag);
        index.manifests.retain(others);
        let mut manifest = manifest.clone();
        manifest
            .annotations
            .insert(NAME.to_owned(), self.tag.clone());
        index.manifests.push(manifest);
        write_atomically(&self.path.join("oci-layout"), LAYOUT.as_bytes())?;
        let text = serde_json::to_vec(&index)?;
        write_atomically(&self.path.join("index.json"), &text)
    }
}

fn damaged(path: &Path, error: &serde_json::Error) -> io::Error {
    let message = format!(
        "not the index of an OCI layout: `{}`: {error}",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_written_as_for_dockers_command() {
        let named = entry("registry.example/cache:1").expect("a cache");
        assert_eq!(named.r#type, "registry");
        assert_eq!(named.attrs["ref"], "registry.example/cache:1");
        let full = entry("type=registry, ref=a/b,mode=max").expect("a cache");
        assert_eq!(full.attrs["mode"], "max");
        assert_eq!(full.attrs["ref"], "a/b");
        assert_eq!(entry("type=inline").expect("a cache").attrs.len(), 0);
        for wrong in ["", "ref=a", "type=registry,ref"] {
            assert!(entry(wrong).is_none(), "{wrong}");
        }
        for wrong in ["type=local", "type=local,src=here", "type=local,dest=/x"] {
            let expected = read(wrong, "src").expect_err(wrong);
            assert!(expected.contains("`type=local,src=FOLDER`"), "{expected}");
        }
    }

    #[test]
    fn a_folder_keeps_the_last_cache_of_each_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cache");
        let cache = |tag: &str, attribute: &str| {
            let text = format!("type=local,{attribute}={}{tag}", path.display());
            vec![read(&text, attribute).expect("a cache")]
        };
        let none = Lent::of(&cache("", "src"), &[]).expect("nothing yet");
        assert!(none.from.is_empty() && none.stores.is_empty());
        let answer = |content: &str| {
            let manifest = Descriptor::new("text/plain", Digest::of(content), 1);
            let manifest = serde_json::to_string(&manifest).expect("JSON");
            HashMap::from([(MANIFEST.to_owned(), manifest)])
        };
        let to = cache(",mode=max", "dest");
        let lent = Lent::of(&[], &to).expect("a folder");
        assert_eq!(lent.to[0].attrs["mode"], "max");
        assert_eq!(lent.to[0].attrs["dest"], "to-0");
        assert!(lent.stores.contains_key("local:to-0"));
        for content in ["one", "two"] {
            keep(&to, &answer(content)).expect("a cache");
        }
        keep(&cache(",tag=other", "dest"), &answer("three")).expect("a cache");
        let digest = |tag: &str| {
            let lent = Lent::of(&cache(tag, "src"), &[]).expect("a cache");
            lent.from[0].attrs["digest"].clone()
        };
        assert_eq!(digest(""), Digest::of("two").to_string());
        assert_eq!(digest(",tag=other"), Digest::of("three").to_string());
        fs_err::write(path.join("index.json"), "{").expect("damage");
        let error = Lent::of(&cache("", "src"), &[]).expect_err("damage");
        assert!(error.to_string().contains("not the index"), "{error}");
    }
}
