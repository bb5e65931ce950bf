//! Conda packages: an environment solved from channels, written package by package without running anything.

use std::path::{Path, PathBuf};

use imagespec_conda::{
    Channels, Facts, Layout, Login, Package, Request, Session, fetch, file, layers as packages,
    solve,
};
use imagespec_core::contract::{
    CONDA_BIN, CONDA_PREFIX, CONDA_PROVIDED, DEFAULT_PATH, USER_ID, WORKDIR,
};
use imagespec_core::digest::Framed;
use imagespec_core::error::BuildError;
use imagespec_core::plan::Step;
use imagespec_core::resolve::python_of_suite;
use imagespec_core::shell::word;
use imagespec_http::Client;
use imagespec_oci::cache::Layer;
use imagespec_oci::layer::{LayerError, Metadata};
use imagespec_oci::store::write_atomically;
use imagespec_python::index::Credentials;
use imagespec_python::layers::{self, Member};
use imagespec_python::lock::{Libc, Provided};
use imagespec_sandbox::Network;
use indexmap::IndexMap;
use url::Url;

use crate::assemble::{Assembly, Draft};
use crate::layers::{Fill, store_error};
use crate::lazy::count;
use crate::provenance::Environment;
use crate::recipe::{Interpreter, LazyLayer, Recipe};
use crate::run::{Script, can_run};

/// The field that asks for packages.
const FIELD: &str = "conda_packages";
/// The file of what an environment provides that says all of it: for images on top of it, wherever they are made.
pub(crate) const ENVIRONMENT: &str = "environment.json";

/// Where CUDA may come from if not from Conda.
const ELSEWHERE: &str = "`cuda` and `cudnn` are Conda packages; a `base_image` may have them, too, and those of PyPI \
     bring what they need along";

impl Assembly<'_> {
    /// Refuses Conda packages and channels that nobody understands, before anything is done.
    pub(crate) fn check_conda(&self) -> Result<(), BuildError> {
        for step in &self.plan.steps {
            if let Step::CondaPackages {
                packages, channels, ..
            } = step
            {
                imagespec_conda::check(&Channels::of(&self.native.host)?, packages, channels)?;
            }
        }
        Ok(())
    }

    pub(crate) async fn conda_packages(
        &self,
        draft: &mut Draft,
        field: &str,
        specs: &[String],
        channels: &[String],
    ) -> Result<(), BuildError> {
        if self.native.host.contained {
            // This machine is a container of the image that has them.
            if draft.foundation.has_conda {
                return Ok(());
            }
            return Err(BuildError::failed("the image has no Conda environment").field(FIELD));
        }
        let glibc = check(draft)?;
        let title = match specs {
            [] => "conda_packages: python".to_owned(),
            specs => format!("conda_packages: {}", specs.join(", ")),
        };
        let step = self
            .cx
            .progress
            .step(format!("conda_packages {}", draft.platform), title);
        let before = draft.foundation.conda.take().unwrap_or_default();
        let mut all = before.specs.clone();
        all.extend(specs.iter().cloned());
        let python = self.wanted_python(draft);
        let request = Request {
            specs: &all,
            python: python.as_deref(),
            channels,
            platform: &draft.platform,
            glibc: &glibc,
            cuda: self.plan.cuda.as_deref(),
            installed: &before.packages,
        };
        let solved = self.solved(&request).await.map_err(|error| match field {
            "cuda" | "cudnn" => error.field(field).hint(ELSEWHERE),
            _ => error,
        })?;
        let layout = Layout::of(&solved)?;
        let is_new = |package: &&Package| !before.packages.contains(package);
        let added: Vec<Package> = solved.iter().filter(is_new).cloned().collect();
        let mut recipes = Vec::new();
        for (title, packages) in grouped(&added) {
            let recipe = draft.owned(Recipe::Conda {
                title,
                packages,
                layout: layout.clone(),
            });
            recipes.push((self.key(&draft.layers, &recipe), recipe));
        }
        let records = draft.owned(Recipe::CondaRecords {
            packages: solved.clone(),
            layout: layout.clone(),
            specs: all.clone(),
        });
        let (made, known) = self.layers(&draft.layers, recipes).await?;
        let size: u64 = made.iter().map(|lazy| lazy.layer.size).sum();
        draft.layers.extend(made);
        self.add(draft, records).await?;
        let scripted = self.scripted(&added, &layout).await?;
        if !scripted.is_empty() {
            can_run(draft, FIELD)?;
            let recipe = Recipe::CondaScripts(scripted);
            self.add(draft, recipe).await?;
        }
        let minor = layout.python.strip_prefix("3.");
        let minor = minor.and_then(|minor| minor.parse().ok()).ok_or_else(|| {
            let message = format!(
                "the Python of the Conda packages is none of Python 3: `{}`",
                layout.python
            );
            BuildError::input(message).field(FIELD)
        })?;
        draft.foundation.python = Some(Interpreter {
            program: format!("{CONDA_BIN}/python{}", layout.python),
            minor,
            layers: draft.layers.iter().map(|lazy| lazy.layer.diff_id).collect(),
        });
        draft.foundation.system_site_packages = true;
        let count = solved.len();
        draft.foundation.conda = Some(Environment {
            specs: all,
            packages: solved,
        });
        step.finish(known, format!("{count} packages, {} MB", size / 1_000_000));
        self.standard_library(draft).await
    }

    /// The version of Python that is meant where none is named among the packages: that of the base, if it has one.
    fn wanted_python(&self, draft: &Draft) -> Option<String> {
        let named = self.plan.python.version.clone();
        let of_base = || {
            if let Some(python) = &draft.foundation.python {
                return Some(python.version());
            }
            let suite = draft.foundation.system.debian()?;
            python_of_suite(suite).map(str::to_owned)
        };
        named.or_else(of_base)
    }

    /// The packages of an environment, as they were solved within a day.
    async fn solved(&self, request: &Request<'_>) -> Result<Vec<Package>, BuildError> {
        let host = &self.native.host;
        let channels = Channels::of(host)?;
        let mut key = Framed::new("imagespec conda environment");
        key.text(&request.platform.to_string())
            .text(request.glibc)
            .text(&format!("{:?}", channels.priority));
        for version in [request.python, request.cuda] {
            key.option(version, |key, version| {
                key.text(version);
            });
        }
        for texts in [request.specs, request.channels] {
            key.list(texts, |key, text| {
                key.text(text);
            });
        }
        key.list(Request::overrides(host), |key, (name, value)| {
            key.text(&name).text(&value);
        });
        let mut asked = Vec::new();
        for name in [imagespec_conda::CONDA_FORGE]
            .into_iter()
            .chain(request.channels.iter().map(String::as_str))
        {
            asked.extend(channels.find(name)?);
        }
        key.list(asked, |key, channel| {
            key.text(channel.url.as_str());
        });
        key.list(request.installed, |key, package| {
            key.text(&package.title());
        });
        let kept = host.cache_dir.join("conda/environments");
        let kept = kept.join(format!("{}.json", key.finish().hex()));
        if let Some(solved) = self.fresh(&kept) {
            return Ok(solved);
        }
        let login = self.conda_logins();
        let session = session(self, &channels, &login);
        let solved = solve(&session, request, &self.cx.cancel).await?;
        write_atomically(&kept, &serde_json::to_vec(&solved).unwrap_or_default())
            .map_err(|error| store_error(&error))?;
        Ok(solved)
    }

    fn conda_logins(&self) -> impl Fn(&Url) -> Option<Login> + Sync + use<> {
        let credentials = Credentials::of(&self.native.host, &self.logins);
        move |url| credentials.get(url).cloned()
    }

    /// Fetches the packages that are not here.
    pub(crate) async fn fetch_conda(&self, wanted: &[Package]) -> Result<(), BuildError> {
        let host = &self.native.host;
        let mut missing = Vec::new();
        for package in wanted {
            if !file(host, package).is_file() {
                missing.push(package.clone());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let title = match &missing[..] {
            [one] => format!("fetch {}", one.file()),
            several => format!("fetch {} Conda packages", several.len()),
        };
        let step = self.cx.progress.step(title.clone(), title);
        let total = missing.iter().map(Package::size).sum();
        let advance = |done: u64| step.advance(done, total);
        let channels = Channels::of(host)?;
        let login = self.conda_logins();
        let session = session(self, &channels, &login);
        let bytes = fetch(&session, &missing, &advance, &self.cx.cancel).await?;
        count(&self.tally.packages, missing.len() as u64);
        count(&self.tally.bytes, bytes);
        step.finish(false, format!("{:.1} MB", crate::deliver::megabytes(bytes)));
        Ok(())
    }

    /// What packages bring, in their order: as it is known, or found out now.
    async fn brought(
        &self,
        packages: &[Package],
        layout: &Layout,
    ) -> Result<Vec<(Package, Facts)>, BuildError> {
        let host = &self.native.host;
        let is_unknown = |package: &&Package| !Facts::are_known(host, package, layout);
        let unknown: Vec<_> = packages.iter().filter(is_unknown).cloned().collect();
        self.fetch_conda(&unknown).await?;
        tokio::task::block_in_place(|| {
            let all = packages.iter().map(|package| {
                let facts = Facts::of(host, package, layout)?;
                Ok((package.clone(), facts))
            });
            all.collect()
        })
    }

    /// The packages that want to run something once all are installed.
    async fn scripted(
        &self,
        packages: &[Package],
        layout: &Layout,
    ) -> Result<Vec<Package>, BuildError> {
        let brought = self.brought(packages, layout).await?;
        let scripted = brought.into_iter().filter(|(_, facts)| facts.runs);
        let scripted: Vec<_> = scripted.map(|(package, _)| package).collect();
        if let Some(first) = scripted.first()
            && (self.native.host.strangers || self.native.host.contained)
        {
            let message = format!(
                "the Conda package `{}` runs a script, which cannot be done here",
                first.name()
            );
            return Err(BuildError::input(message).field(FIELD));
        }
        Ok(scripted)
    }

    /// The Python distributions that are in the environment already.
    pub(crate) async fn provided(&self, draft: &Draft) -> Result<Vec<Provided>, BuildError> {
        if self.native.host.contained && draft.foundation.has_conda {
            let provided = Provided::read(Path::new(CONDA_PROVIDED));
            return provided.map_err(|error| {
                BuildError::failed("cannot read what the Conda environment has").caused_by(&error)
            });
        }
        let Some(environment) = &draft.foundation.conda else {
            return Ok(Vec::new());
        };
        let layout = Layout::of(&environment.packages)?;
        let brought = self.brought(&environment.packages, &layout).await?;
        Ok(provided(&brought))
    }

    /// What fills a layer with packages.
    pub(crate) async fn conda_layer(
        &self,
        wanted: &[Package],
        layout: &Layout,
    ) -> Result<Fill, BuildError> {
        self.fetch_conda(wanted).await?;
        let (host, layout) = (self.native.host.clone(), layout.clone());
        let wanted = wanted.to_vec();
        Ok(Box::new(move |layer| {
            let mut members = Vec::new();
            for package in wanted {
                members.push(packages::Member {
                    facts: Facts::of(&host, &package, &layout)?,
                    file: file(&host, &package),
                    package,
                });
            }
            Ok(packages::write(&members, &layout, layer)?)
        }))
    }

    /// What fills a layer with the records of an environment.
    pub(crate) async fn conda_records(
        &self,
        wanted: &[Package],
        layout: &Layout,
        specs: &[String],
    ) -> Result<Fill, BuildError> {
        let brought = self.brought(wanted, layout).await?;
        let (layout, specs) = (layout.clone(), specs.to_vec());
        let environment = serde_json::to_vec(&Environment {
            specs: specs.clone(),
            packages: wanted.to_vec(),
        })
        .unwrap_or_default();
        Ok(Box::new(move |layer| {
            packages::write_records(&brought, &layout, &specs, layer)?;
            let provided = provided(&brought);
            let pins = provided.iter().map(|one| one.pin() + "\n");
            let mut files = vec![
                ("pins.txt".to_owned(), pins.collect::<String>().into_bytes()),
                (ENVIRONMENT.to_owned(), environment),
            ];
            for one in &provided {
                files.push(one.wheel().map_err(LayerError::from)?);
            }
            for (name, bytes) in files {
                let path = format!("{}/{name}", CONDA_PROVIDED.trim_start_matches('/'));
                let (size, mut content) = (bytes.len() as u64, &bytes[..]);
                layer.file(
                    path.as_bytes(),
                    &Metadata::new(0o644, USER_ID),
                    size,
                    &mut content,
                )?;
            }
            Ok(())
        }))
    }

    /// Runs what packages want to run once they are installed.
    pub(crate) async fn conda_scripts(
        &self,
        below: &[LazyLayer],
        title: String,
        wanted: &[Package],
    ) -> Result<Layer, BuildError> {
        let mut lines = Vec::new();
        for package in wanted {
            let record = &package.record.package_record;
            lines.push(format!(
                "PKG_NAME={} PKG_VERSION={} PKG_BUILDNUM={} /bin/sh {}",
                word(package.name()),
                word(&package.version()),
                record.build_number,
                word(&format!(
                    "{CONDA_PREFIX}/bin/.{}-post-link.sh",
                    package.name()
                )),
            ));
        }
        let path = format!("{CONDA_BIN}:{DEFAULT_PATH}");
        let env = IndexMap::from([
            ("PATH".to_owned(), path),
            ("PREFIX".to_owned(), CONDA_PREFIX.to_owned()),
            ("CONDA_PREFIX".to_owned(), CONDA_PREFIX.to_owned()),
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
        ]);
        let script = Script {
            title,
            field: FIELD,
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), lines.join(" && ")],
            cwd: PathBuf::from(WORKDIR),
            ids: (0, 0),
            network: Network::Host,
            env: &env,
            lent: Vec::new(),
            mounts: Vec::new(),
            below: None,
            exclude: vec![format!("{CONDA_PREFIX}/.messages.txt").into()],
        };
        self.script(below, script).await
    }
}

/// The Python distributions that packages bring.
fn provided(brought: &[(Package, Facts)]) -> Vec<Provided> {
    let distributions = brought.iter().flat_map(|(_, facts)| &facts.distributions);
    let provided =
        distributions.filter_map(|one| Provided::new(&one.name, &one.version, &one.metadata));
    provided.collect()
}

fn session<'a>(
    assembly: &'a Assembly<'_>,
    channels: &'a Channels,
    login: &'a (dyn Fn(&Url) -> Option<Login> + Sync),
) -> Session<'a> {
    let client: &Client = &assembly.http;
    Session {
        client,
        host: &assembly.native.host,
        channels,
        login,
    }
}

/// Refuses a base that no environment can stand on. Says the version of its C library.
fn check(draft: &Draft) -> Result<String, BuildError> {
    let refused = |problem: &str, hint: &str| {
        let message = format!("the base image {problem}");
        Err(BuildError::input(message).field(FIELD).hint(hint))
    };
    let foundation = &draft.foundation;
    if foundation.conda.is_none() && foundation.has_conda {
        return refused(
            "has a Conda environment that was not made here",
            "name its packages in this ImageSpec, over a base without them",
        );
    }
    if foundation.conda.is_none() && foundation.venv {
        return refused(
            "has a virtual environment for another Python than that of the Conda packages",
            "name the Conda packages in the first image",
        );
    }
    match foundation.libc {
        Some(Libc::Glibc(major, minor)) => Ok(format!("{major}.{minor}")),
        Some(Libc::Musl(..)) => refused(
            "has musl, and Conda packages are made for glibc",
            "name a base of Debian or Ubuntu",
        ),
        None => refused(
            "has no glibc, which Conda packages are made for",
            "name a base of Debian or Ubuntu",
        ),
    }
}

/// Which packages share a layer.
fn grouped(all: &[Package]) -> Vec<(String, Vec<Package>)> {
    let member = |package: &Package| Member {
        name: package.name().to_owned(),
        version: package.version(),
        digest: package.digest,
        size: package.size().unwrap_or(0),
    };
    let members: Vec<_> = all.iter().map(member).collect();
    let groups = layers::group(&members, ("conda package", "conda packages"));
    let of = |group: layers::Group| {
        // As the environment has them: what several install is the last one's.
        let mut at = group.members;
        at.sort_unstable();
        let packages = at.into_iter().map(|at| all[at].clone());
        (group.title, packages.collect())
    };
    groups.into_iter().map(of).collect()
}
