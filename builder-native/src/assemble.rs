//! An image, step by step: the base, what each step adds, and how it is run.

use std::sync::{Mutex, MutexGuard, PoisonError};

use imagespec_core::builder::{BuiltImage, BuiltLayer, Work};
use imagespec_core::context::BuildContext;
use imagespec_core::contract::{self, USER_ID, WORKDIR};
use imagespec_core::error::BuildError;
use imagespec_core::login::IndexLogins;
use imagespec_core::plan::{Base, BuildPlan, Step};
use imagespec_core::platform::Platform;
use imagespec_oci::Reference;
use imagespec_oci::cache::Layer;
use imagespec_oci::image::{Descriptor, Image, Runtime, write_index};
use imagespec_python::index::logins_with;
use imagespec_python::uv::Uv;
use indexmap::IndexMap;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedSender;

use crate::backend::Native;
use crate::deliver::deliver;
use crate::early::Chosen;
use crate::form;
use crate::layers::{Layers, store_error};
use crate::lazy::Tally;
use crate::provenance::{Foundation, Provenance};
use crate::recipe::{LazyLayer, Recipe};
use crate::run::check_commands;

/// A build of one plan.
pub(crate) struct Assembly<'a> {
    pub(crate) native: &'a Native,
    pub(crate) plan: &'a BuildPlan,
    pub(crate) cx: &'a BuildContext<'a>,
    pub(crate) layers: Layers,
    pub(crate) http: imagespec_http::Client,
    pub(crate) tally: Tally,
    /// Logins of the declaration and of its secrets.
    pub(crate) logins: IndexLogins,
    /// What the reference of the base stands for: asked once a build.
    pub(crate) named: OnceCell<Reference>,
    /// Who wants to know of layers as they are chosen.
    chosen: Mutex<Option<UnboundedSender<Chosen>>>,
}

/// An image of one platform in the making.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) platform: Platform,
    pub(crate) layers: Vec<LazyLayer>,
    pub(crate) runtime: Runtime,
    pub(crate) foundation: Foundation,
}

impl Draft {
    /// A recipe whose files belong to the user that the image has.
    pub(crate) fn owned(&self, recipe: Recipe) -> Recipe {
        let (uid, gid) = self.foundation.user;
        if (uid, gid) == (USER_ID, USER_ID) {
            return recipe;
        }
        Recipe::Owned {
            uid,
            gid,
            recipe: Box::new(recipe),
        }
    }
}

/// An image that has no name yet. Its documents are in the store; its layers may not be.
#[derive(Debug, Clone)]
pub(crate) struct Assembled {
    pub(crate) descriptor: Descriptor,
    /// The layers of each platform, base first.
    pub(crate) images: Vec<Vec<LazyLayer>>,
}

impl Assembled {
    /// The layers of the first platform, as results tell of them.
    pub(crate) fn layers(&self) -> Vec<BuiltLayer> {
        let first = self.images.first().into_iter().flatten();
        first.map(|lazy| built_layer(lazy.layer.clone())).collect()
    }

    /// Compressed bytes of the layers of the first platform.
    pub(crate) fn size(&self) -> u64 {
        let first = self.images.first().into_iter().flatten();
        first.map(|lazy| lazy.layer.size).sum()
    }
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(
        native: &'a Native,
        plan: &'a BuildPlan,
        cx: &'a BuildContext<'a>,
    ) -> Result<Self, BuildError> {
        let layers = Layers::new(&native.store, cx.settings.compression());
        let http = imagespec_http::Client::new(&native.host)?;
        Ok(Self {
            native,
            plan,
            cx,
            layers,
            http,
            tally: Tally::default(),
            logins: logins_with(cx.logins, cx.secrets),
            named: OnceCell::new(),
            chosen: Mutex::default(),
        })
    }

    pub(crate) fn chosen_layers(&self) -> MutexGuard<'_, Option<UnboundedSender<Chosen>>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Builds every platform and, where there are several, their index.
    pub(crate) async fn build(&self) -> Result<Assembled, BuildError> {
        let mut manifests = Vec::new();
        let mut images = Vec::new();
        for platform in &self.plan.platforms {
            let draft = self.platform(platform).await?;
            let mut annotations = form::annotations(self.cx.settings);
            let base = self.named.get().and_then(|named| named.digest);
            annotations.extend(base.as_ref().map(form::base_annotation));
            let image = Image {
                platform: draft.platform,
                runtime: draft.runtime,
                layers: draft.layers.iter().map(|lazy| lazy.layer.clone()).collect(),
                annotations,
            };
            let manifest = image
                .write(self.native.store.blobs())
                .map_err(|error| store_error(&error))?;
            let provenance = Provenance {
                foundation: draft.foundation,
                layers: draft.layers,
            };
            provenance
                .write(&self.native.host, &manifest.digest)
                .map_err(|error| store_error(&error))?;
            manifests.push(manifest);
            images.push(provenance.layers);
        }
        let descriptor = match &manifests[..] {
            [one] => one.clone(),
            several => write_index(self.native.store.blobs(), several)
                .map_err(|error| store_error(&error))?,
        };
        Ok(Assembled { descriptor, images })
    }

    /// Builds the image and brings it where it should go.
    pub(crate) async fn deliver(&self) -> Result<BuiltImage, BuildError> {
        let (image, early) = self.build_early().await?;
        deliver(self, image, early).await
    }

    /// Sees to it that every blob of an image is in the store.
    pub(crate) async fn complete(&self, image: &Assembled) -> Result<(), BuildError> {
        for layers in &image.images {
            self.ensure(layers, &|_| true).await?;
        }
        Ok(())
    }

    /// What had to be done so far.
    pub(crate) fn work(&self) -> Work {
        self.tally.work()
    }

    /// Adds the layer of a recipe to a draft. Says whether it was known.
    pub(crate) async fn add(&self, draft: &mut Draft, recipe: Recipe) -> Result<bool, BuildError> {
        let key = self.key(&draft.layers, &recipe);
        let (layer, known) = self.layer(&draft.layers, key, recipe).await?;
        draft.layers.push(layer);
        Ok(known)
    }

    /// Fetches the resolver while the base is made.
    async fn tools(&self) -> Result<(), BuildError> {
        let needed = |step: &Step| match step {
            Step::PythonPackages {
                requirements,
                packages,
                ..
            } => requirements.is_some() || !packages.is_empty(),
            _ => false,
        };
        if self.plan.steps.iter().any(needed) && Uv::is_far(&self.native.host) {
            Uv::find(&self.native.host).await?;
        }
        Ok(())
    }

    async fn platform(&self, platform: &Platform) -> Result<Draft, BuildError> {
        self.check_conda()?;
        check_commands(&self.native.host, self.plan)?;
        // Whether it can be fetched is said where it is needed.
        let (draft, _) = tokio::join!(self.base(platform), self.tools());
        let mut draft = draft?;
        let base_env = environment(&draft.runtime);
        let mut env = contract::environment(self.plan, &base_env);
        let is_made = self.native.host.contained && self.plan.has_made_base();
        if is_made && !matches!(self.plan.base, Base::Debian { .. }) {
            let of_base = contract::extended(self.plan);
            env.extend(of_base.filter_map(|name| {
                let value = base_env.get(name)?;
                Some((name.to_owned(), value.clone()))
            }));
        }
        draft.runtime.env = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        for step in &self.plan.steps {
            match step {
                Step::AptPackages { packages } => self.apt_packages(&mut draft, packages).await?,
                Step::CondaPackages {
                    field,
                    packages,
                    channels,
                } => {
                    self.conda_packages(&mut draft, field, packages, channels)
                        .await?;
                }
                Step::PythonPackages {
                    requirements,
                    packages,
                    index,
                } => {
                    self.python_packages(&mut draft, requirements.as_ref(), packages, index)
                        .await?;
                }
                Step::Copy { from, to, field } => {
                    self.copy(&mut draft, field, from, to).await?;
                }
                Step::Run { commands } => self.run(&mut draft, commands, &env).await?,
                other => {
                    let message = format!("builder `native` does not support `{}`", other.field());
                    return Err(BuildError::input(message).field(other.field()));
                }
            }
        }
        contract::USER.clone_into(&mut draft.runtime.user);
        WORKDIR.clone_into(&mut draft.runtime.working_dir);
        if let Some(entrypoint) = &self.plan.entrypoint {
            draft.runtime.entrypoint =
                Some(entrypoint.clone()).filter(|entrypoint| !entrypoint.is_empty());
            // As in Docker: these would be arguments of the entrypoint of the base.
            draft.runtime.cmd = None;
        }
        draft.runtime.labels.extend(self.cx.settings.labels.clone());
        Ok(draft)
    }
}

/// The environment of an image, by name.
pub(crate) fn environment(runtime: &Runtime) -> IndexMap<String, String> {
    let split = |line: &String| {
        line.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    runtime.env.iter().filter_map(split).collect()
}

/// A layer as results tell of it.
pub(crate) fn built_layer(layer: Layer) -> BuiltLayer {
    BuiltLayer {
        digest: layer.digest,
        diff_id: layer.diff_id,
        size: layer.size,
        created_by: layer.created_by,
    }
}
