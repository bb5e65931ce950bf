//! How Python packages are installed in a container.

use super::mounts::Mounts;
use super::{
    Dialect, LENT, PINNED, PROGRAMS, ROOT, Writer, check_reference, is_lock, json, secret,
};
use crate::contract::{self, CONDA_PROVIDED, USER_ID, VENV, WORKDIR};
use crate::error::BuildError;
use crate::plan::Requirements;
use crate::shell::word as shell;

impl Writer<'_> {
    pub(super) fn python_packages(
        &mut self,
        requirements: Option<&Requirements>,
        packages: &[String],
    ) -> Result<(), BuildError> {
        if requirements.is_none() && packages.is_empty() {
            return Ok(());
        }
        let mut mounts = self.mounts();
        let uv = self.uv(&mut mounts)?;
        mounts.owned_secret(secret::INDEX, &format!("{LENT}/index"));
        mounts.owned_secret(secret::NETRC, &format!("{LENT}/netrc"));
        mounts.owned_secret(secret::CONFIGURATION, &format!("{LENT}/uv.toml"));
        mounts.cache("uv", &format!("{LENT}/cache"), USER_ID);
        for (path, entry) in self.plan.entries("python") {
            mounts.depend_on(format!("{path} {entry:?}").as_bytes());
        }
        for (at, target) in self.lowering.secrets.iter().enumerate() {
            mounts.owned_secret(&secret::declared(at), &target.to_string_lossy());
        }
        let mut arguments = vec![format!("--python {VENV}/bin/python")];
        if self.lowering.bytecode {
            arguments.push("--compile-bytecode".to_owned());
        }
        let index = self.lowering.index;
        let own = index.url.iter().map(|url| ("--default-index", url));
        let extra = index.extra_urls.iter().map(|url| ("--index", url));
        arguments.extend(
            own.chain(extra)
                .map(|(option, url)| format!("{option} {}", shell(url))),
        );
        arguments.extend(self.lowering.options.iter().map(|option| shell(option)));
        let mut folder = WORKDIR.to_owned();
        match requirements {
            Some(file) if is_lock(file.kind) => {
                self.file.needs_pinned = true;
                mounts.bind(PINNED, &format!("{LENT}/pinned.txt"));
                arguments.push(format!("--no-deps --requirement {LENT}/pinned.txt"));
            }
            Some(file) => {
                mounts.bind("python", &format!("{LENT}/python"));
                folder = format!("{LENT}/python");
                let name = file.path.strip_prefix("python/").unwrap_or(&file.path);
                arguments.push(format!("--requirement {}", shell(name)));
            }
            None => {}
        }
        arguments.extend(packages.iter().map(|package| shell(package)));
        let locked = requirements.is_some_and(|file| is_lock(file.kind));
        let (before, after) = if self.plan.has_conda() && !locked {
            beside_conda(&uv, &mut arguments)
        } else {
            (String::new(), String::new())
        };
        self.line(&format!("USER {USER_ID}:{USER_ID}"));
        self.line(&format!(
            "RUN {mounts}set -e; . {LENT}/bin/lend; cd {}; \\\n    \
             export HOME={} UV_CACHE_DIR={LENT}/cache UV_CREDENTIALS_DIR={LENT}/cache PYC_INVALIDATION_MODE=UNCHECKED_HASH; \\\n    \
             {before}{uv} pip install {}; \\\n    \
             {after}rm -f {VENV}/.lock",
            shell(&folder),
            contract::USER_HOME,
            arguments.join(" \\\n        "),
        ));
        self.line(ROOT);
        let field = requirements.map_or("packages", |_| "requirements");
        self.count("install", "Python packages", field);
        self.remove_mount_points();
        Ok(())
    }

    /// Where uv is: in the image that the declaration names for it, in ours, or in the context.
    pub(super) fn uv(&mut self, mounts: &mut Mounts) -> Result<String, BuildError> {
        let Some(image) = self.plan.helper_images.get("uv_image") else {
            return Ok(self.own_uv(mounts));
        };
        check_reference(image, "builder_config")?;
        Ok(self.uv_of(image, "uv-declared", mounts))
    }

    /// Where our own uv is.
    pub(super) fn own_uv(&mut self, mounts: &mut Mounts) -> String {
        if let Some(image) = self.lowering.uv {
            return self.uv_of(image, "uv", mounts);
        }
        self.file.needs_uv = true;
        format!("{LENT}/bin/uv")
    }

    /// `/uv` of an image, mounted or brought.
    fn uv_of(&mut self, image: &str, name: &str, mounts: &mut Mounts) -> String {
        if self.lowering.dialect == Dialect::Kaniko {
            return self.fetch(image, name);
        }
        let path = format!("{PROGRAMS}/{name}");
        mounts.bind_of(image, "/uv", &path);
        path
    }

    /// Brings `/uv` of an image to a volume, once: what is copied there is in no layer.
    fn fetch(&mut self, image: &str, name: &str) -> String {
        let path = format!("{PROGRAMS}/{name}");
        let paths = json(&["/uv".to_owned(), path.clone()]);
        let line = format!("COPY --from={image} {paths}");
        if !self.file.text.contains(&line) {
            self.line(&line);
            self.count("", "", "builder_config");
        }
        path
    }

    /// Old engines leave an empty file where a secret was mounted, and the folders above it.
    fn remove_mount_points(&mut self) {
        if self.lowering.dialect == Dialect::Kaniko {
            return;
        }
        let targets = self.lowering.secrets.iter();
        let targets: Vec<_> = targets
            .map(|target| shell(&target.to_string_lossy()))
            .collect();
        if targets.is_empty() {
            return;
        }
        self.line(&format!(
            "RUN for file in {}; do \\\n    \
             if [ -f \"$file\" ] && [ ! -s \"$file\" ]; then rm \"$file\"; fi; folder=${{file%/*}}; \\\n    \
             while [ -n \"${{folder%/*}}\" ] && [ \"$folder\" != {} ] && rmdir \"$folder\" 2>/dev/null; do \\\n    \
             folder=${{folder%/*}}; done; done",
            targets.join(" "),
            contract::USER_HOME,
        ));
        self.count("", "", "pip_secret_mounts");
    }
}

/// What comes before and after the installation of packages over a Conda environment, whose distributions uv does not
/// see: it is given them as wheels without content, stays with them where they fit and the virtual environment has no
/// others, and what it installed of them is removed again.
fn beside_conda(uv: &str, arguments: &mut Vec<String>) -> (String, String) {
    let pins = format!("{CONDA_PROVIDED}/pins.txt");
    let freeze = format!("{uv} pip freeze --python {VENV}/bin/python");
    arguments.insert(1, format!("--find-links {CONDA_PROVIDED}"));
    let before = format!(
        "had=$({freeze}); stays=$(mktemp); stay=\"--constraints $stays\"; \\\n    \
         grep -v -e \"$(echo \"$had\" | sed 's/==.*//; s/ @ .*//; s/.*/^&==/')\" {pins} > $stays || true; \\\n    \
         {uv} pip install --quiet --dry-run $stay {} 2>/dev/null || stay=; \\\n    ",
        arguments.join(" \\\n        ")
    );
    arguments.insert(1, "$stay".to_owned());
    let after = format!(
        "there=$({freeze} | grep -xF -f {pins} | grep -vxF -e \"$had\" || true); rm $stays; \\\n    \
         if [ -n \"$there\" ]; then {uv} pip uninstall --quiet --python {VENV}/bin/python $there; fi; \\\n    "
    );
    (before, after)
}
