//! Python packages: locked, and written as layers.

use imagespec_core::error::BuildError;
use imagespec_core::plan::{PackageIndex, Requirements};
use imagespec_core::platform::Platform;
use imagespec_python::layers;
use imagespec_python::lock::{Lock, LockRequest, Workshop, lock, normalised};
use imagespec_python::venv::Venv;
use imagespec_python::wheel::Layout;

use crate::assemble::{Assembly, Draft};
use crate::built::target;
use crate::make::member;
use crate::recipe::Recipe;
use crate::workshop::SandboxWorkshop;

impl Assembly<'_> {
    pub(crate) async fn python_packages(
        &self,
        draft: &mut Draft,
        requirements: Option<&Requirements>,
        packages: &[String],
        index: &PackageIndex,
    ) -> Result<(), BuildError> {
        self.venv(draft).await?;
        let target = target(draft)?;
        let step = self
            .cx
            .progress
            .step(resolving(&draft.platform), "resolve Python packages");
        let workshop = SandboxWorkshop {
            assembly: self,
            draft,
        };
        // What is in its place already need not be brought to one.
        let elsewhere = self.cx.secrets.iter();
        let elsewhere = elsewhere.filter(|secret| secret.source != secret.target);
        let elsewhere: Vec<_> = elsewhere.cloned().collect();
        let contained = self.native.host.contained;
        let interpreter = draft.foundation.interpreter()?.clone();
        let provided = self.provided(draft).await?;
        let request = LockRequest {
            requirements,
            packages,
            index,
            logins: &self.logins,
            entries: &self.plan.files,
            files: self.cx.files,
            target: &target,
            refresh: self.cx.settings.force,
            interpreter: contained.then_some(&*interpreter.program),
            workshop: (!contained && !self.native.host.strangers)
                .then_some(&workshop as &dyn Workshop),
            provided: &provided,
            secrets: if draft.platform.is_host() {
                &elsewhere
            } else {
                // Its logins count all the same; nothing of it runs here.
                &[]
            },
        };
        let (mut lock, cached) = lock(&self.native.host, request).await?;
        let count = lock.wheels.len() + lock.sources.len();
        step.finish(cached, format!("{count} packages"));
        let field = move |name: &str| {
            let named = packages.iter().any(|package| named(package) == name);
            if named || requirements.is_none() {
                "packages"
            } else {
                "requirements"
            }
        };
        let sources = std::mem::take(&mut lock.sources);
        let built = self.built(draft, &sources, index, &field).await?;
        lock.wheels.extend(built);
        lock.wheels.sort_by(|a, b| a.name.cmp(&b.name));
        self.wheels(draft, &lock).await
    }

    /// Adds the virtual environment, unless it is there.
    async fn venv(&self, draft: &mut Draft) -> Result<(), BuildError> {
        if draft.foundation.venv {
            return Ok(());
        }
        let interpreter = draft.foundation.interpreter()?;
        let recipe = draft.owned(Recipe::Venv(Venv {
            interpreter: interpreter.program.clone(),
            python: interpreter.version(),
            system_site_packages: draft.foundation.system_site_packages,
        }));
        self.add(draft, recipe).await?;
        draft.foundation.venv = true;
        Ok(())
    }

    async fn wheels(&self, draft: &mut Draft, lock: &Lock) -> Result<(), BuildError> {
        let interpreter = draft.foundation.interpreter()?.clone();
        let layout = Layout {
            python: interpreter.version(),
        };
        let members: Vec<_> = lock.wheels.iter().map(member).collect();
        let mut recipes = Vec::new();
        let mut bytecode = Vec::new();
        for group in layers::group(&members, ("wheel", "wheels")) {
            let wheels = group.members.iter().map(|at| lock.wheels[*at].clone());
            let wheels: Vec<_> = wheels.collect();
            let recipe = draft.owned(Recipe::Wheels {
                title: group.title.clone(),
                wheels: wheels.clone(),
                layout: layout.clone(),
            });
            recipes.push((self.key(&draft.layers, &recipe), recipe));
            bytecode.push(draft.owned(Recipe::Bytecode {
                title: group.title,
                wheels,
                layout: layout.clone(),
                interpreter: interpreter.clone(),
            }));
        }
        if recipes.is_empty() {
            return Ok(());
        }
        let step = self
            .cx
            .progress
            .step(format!("layers {}", draft.platform), "layers of wheels");
        let (made, known) = self.layers(&draft.layers, recipes).await?;
        let size: u64 = made.iter().map(|lazy| lazy.layer.size).sum();
        step.finish(known, format!("{}, {} MB", made.len(), size / 1_000_000));
        draft.layers.extend(made);
        self.bytecode(draft, bytecode).await
    }
}

/// The normalised name of the package that a requirement begins with.
fn named(requirement: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let end = requirement.find(|c| !is_name(c));
    normalised(&requirement[..end.unwrap_or(requirement.len())])
}

/// The step in which Python packages are resolved.
pub(crate) fn resolving(platform: &Platform) -> String {
    format!("resolve {platform}")
}
