//! Wheels of source distributions, built in the sandbox with the image's own interpreter and kept.

use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_core::plan::PackageIndex;
use imagespec_oci::store::write_atomically;
use imagespec_python::index::Settings;
use imagespec_python::lock::{LockedSource, LockedWheel, Origin, Target, build_error};
use imagespec_python::{fetch, git};

use crate::assemble::{Assembly, Draft, environment};
use crate::layers::store_error;
use crate::recipe::Interpreter;
use crate::workshop::{Done, Task, can_build, quoted};

/// Version of how wheels are built: part of their key.
const RECIPE: u64 = 1;
/// Unpacks an archive, or copies a checkout, and builds a wheel of the project in it. What is lent is read-only, and
/// builds write beside their sources.
const SCRIPT: &str = r#"root=/tmp/imagespec/source
mkdir -p "$root"
if [ -d "$IMAGESPEC_SOURCE" ]; then
  cp -RP "$IMAGESPEC_SOURCE" "$root/checkout"
else
  "$IMAGESPEC_PYTHON" -I -c 'import shutil, sys; shutil.unpack_archive(sys.argv[1], sys.argv[2])' "$IMAGESPEC_SOURCE" "$root"
fi
cd "$root"/*/
cd "./$IMAGESPEC_SUBDIRECTORY"
python=$IMAGESPEC_PYTHON
unset IMAGESPEC_SOURCE IMAGESPEC_SUBDIRECTORY IMAGESPEC_PYTHON
exec uv build --wheel --no-sources --python "$python" --out-dir /tmp/imagespec/out "$@" .
"#;

/// What wheels are built with.
struct Bench<'a> {
    draft: &'a Draft,
    interpreter: &'a Interpreter,
    settings: &'a Settings,
    target: &'a Target,
}

impl Assembly<'_> {
    /// The wheels of source distributions, in their order: as they were built before, or built now. `field` says
    /// which field of the spec asks for a package.
    pub(crate) async fn built(
        &self,
        draft: &Draft,
        sources: &[LockedSource],
        index: &PackageIndex,
        field: &(dyn Fn(&str) -> &'static str + Sync),
    ) -> Result<Vec<LockedWheel>, BuildError> {
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let settings = Settings::of(&self.native.host, index, &self.logins)?;
        let target = target(draft)?;
        let bench = &Bench {
            draft,
            interpreter: draft.foundation.interpreter()?,
            settings: &settings,
            target: &target,
        };
        let one = |source: &LockedSource| {
            let (source, field) = (source.clone(), field(&source.name));
            async move { self.wheel(bench, &source, field).await }
        };
        stream::iter(sources.iter().map(one))
            .buffered(self.cx.settings.jobs.max(1))
            .try_collect()
            .await
    }

    async fn wheel(
        &self,
        bench: &Bench<'_>,
        source: &LockedSource,
        field: &'static str,
    ) -> Result<LockedWheel, BuildError> {
        let host = &self.native.host;
        can_build(&bench.draft.platform, &source.title(), field)?;
        let key = bench.key(source);
        let kept = host.cache_dir.join("built");
        let kept = kept.join(format!("{}.json", key.hex()));
        let known = || -> Option<LockedWheel> {
            let wheel = serde_json::from_slice(&fs_err::read(&kept).ok()?).ok()?;
            fetch::cached(host, &wheel).is_file().then_some(wheel)
        };
        let step = self.cx.progress.step(
            building(source),
            format!("build {} from source", source.title()),
        );
        let _lock = self.layers.lock(&key).await?;
        if let Some(wheel) = known() {
            step.finish(true, wheel.filename.clone());
            return Ok(wheel);
        }
        let wheel = self.build_wheel(bench, source, field).await?;
        write_atomically(&kept, &serde_json::to_vec(&wheel).unwrap_or_default())
            .map_err(|error| store_error(&error))?;
        step.finish(false, wheel.filename.clone());
        Ok(wheel)
    }

    async fn build_wheel(
        &self,
        bench: &Bench<'_>,
        source: &LockedSource,
        field: &'static str,
    ) -> Result<LockedWheel, BuildError> {
        let (from, to) = self
            .source(source)
            .await
            .map_err(|error| error.field(field))?;
        let env = [
            ("IMAGESPEC_SOURCE", to.to_string_lossy().into_owned()),
            (
                "IMAGESPEC_SUBDIRECTORY",
                source.subdirectory.clone().unwrap_or_default(),
            ),
        ];
        let options: Vec<_> = bench.settings.building().map(quoted).collect();
        let script = format!("set -- {}\n{SCRIPT}", options.join(" "));
        let task = Task {
            field,
            step: &building(source),
            script: &script,
            settings: bench.settings,
            env: env.map(|(name, value)| (name.to_owned(), value)).into(),
            mounts: vec![(from, to)],
        };
        let done = self.task(bench.draft, task).await?;
        if !done.success {
            return Err(build_error(&source.title(), &done.said).field(field));
        }
        self.adopt(bench, source, &done).map_err(|error| {
            let message = format!("what `{}` was built to is not used", source.title());
            BuildError::failed(message).field(field).caused_by(&error)
        })
    }

    /// The files of a source distribution, which are here now, and where a workshop has them.
    async fn source(&self, source: &LockedSource) -> Result<(PathBuf, PathBuf), BuildError> {
        let host = &self.native.host;
        Ok(match &source.origin {
            Origin::Archive(file) => {
                let title = format!("fetch {}", file.filename);
                self.fetch_wheels(title, [file].into_iter()).await?;
                // What is in a name has no say in where the file appears.
                let name = file.filename.to_lowercase();
                let ending = if name.contains(".tar.") {
                    name.rsplit('.').next().map(|last| format!("tar.{last}"))
                } else {
                    name.rsplit('.').next().map(str::to_owned)
                };
                let name = format!("/run/imagespec/source.{}", ending.unwrap_or_default());
                (fetch::cached(host, file), PathBuf::from(name))
            }
            Origin::Git {
                url,
                commit,
                declared,
            } => {
                let made = git::checkout(host, &self.logins, url, Some(commit), *declared).await?;
                (made.folder, PathBuf::from("/run/imagespec/source"))
            }
        })
    }

    /// Takes the wheel over that a build left, if it is one wheel of the right package that fits.
    fn adopt(
        &self,
        bench: &Bench<'_>,
        source: &LockedSource,
        done: &Done,
    ) -> std::io::Result<LockedWheel> {
        let wrong = |problem: String| Err(std::io::Error::other(problem));
        let folder = done.results().map_err(std::io::Error::other)?;
        let mut wheels: Vec<(String, PathBuf)> = Vec::new();
        for entry in fs_err::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if Path::new(&name).extension().is_some_and(|end| end == "whl") {
                wheels.push((name, entry.path()));
            }
        }
        let [(name, path)] = &wheels[..] else {
            return wrong(format!("expected one wheel, found {}", wheels.len()));
        };
        if bench.target.rank(name).is_none() {
            return wrong(format!("the wheel does not fit the image: `{name}`"));
        }
        let wheel = fetch::adopt(&self.native.host, path, name)?;
        if wheel.name != source.name {
            return wrong(format!("the wheel is of another package: `{name}`"));
        }
        Ok(wheel)
    }
}

impl Bench<'_> {
    /// What a wheel depends on: its source, and all it is built with.
    fn key(&self, source: &LockedSource) -> Digest {
        let mut key = Framed::new("imagespec built wheel");
        key.number(RECIPE);
        source.frame(&mut key);
        let interpreter = self.interpreter;
        key.text(&interpreter.program)
            .text(&interpreter.tag())
            .text(&self.target.uv_platform());
        key.list(&self.draft.layers, |key, lazy| {
            key.digest(&lazy.layer.diff_id);
        });
        let env = environment(&self.draft.runtime);
        key.text(env.get("PATH").map_or("", String::as_str));
        self.settings.frame(&mut key);
        key.finish()
    }
}

/// What wheels of a draft have to fit.
pub(crate) fn target(draft: &Draft) -> Result<Target, BuildError> {
    Ok(Target {
        python: draft.foundation.interpreter()?.minor,
        platform: draft.platform.clone(),
        libc: draft.foundation.libc()?,
    })
}
/// The step in which a source distribution becomes a wheel.
fn building(source: &LockedSource) -> String {
    format!("build {}", source.name)
}
