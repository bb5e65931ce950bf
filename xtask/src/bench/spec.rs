//! What is built: pins that belong to the bench and to nothing else.

use std::path::Path;

use crate::command::Program;
use crate::error::Error;

/// Packages of an image, and some that are added to it one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    packages: &'static [&'static str],
    added: &'static [&'static str],
    /// Files of the tree that is tagged.
    pub(super) files: usize,
}

/// An environment for data and models, about a hundred wheels.
pub(super) const SCI: Spec = Spec {
    name: "sci",
    packages: &[
        "numpy==2.2.6",
        "pandas==2.2.3",
        "scikit-learn==1.6.1",
        "scipy==1.15.2",
        "pyarrow==19.0.1",
        "requests==2.32.3",
        "flytekit==1.16.31",
    ],
    added: &[
        "humanize==4.12.1",
        "tabulate==0.9.0",
        "toolz==1.0.0",
        "xmltodict==0.14.2",
        "inflection==0.5.1",
        "sortedcontainers==2.4.0",
        "pyfiglet==1.0.2",
        "python-slugify==8.0.4",
        "cachetools==5.5.2",
    ],
    files: 100_000,
};

/// Just enough to see that the bench works.
pub(super) const SMOKE: Spec = Spec {
    name: "smoke",
    packages: &["six==1.17.0"],
    added: &["toolz==1.0.0", "tabulate==0.9.0"],
    files: 100,
};

/// How an image's packages are declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    Requirements,
    Lock,
}

impl Spec {
    /// The most packages that can be added.
    pub(super) const fn most_added(&self) -> usize {
        self.added.len()
    }

    /// The packages, with the first few of those that are added.
    pub(super) fn packages(&self, added: usize) -> impl Iterator<Item = &'static str> {
        let added = &self.added[..added.min(self.added.len())];
        self.packages.iter().chain(added).copied()
    }

    /// Writes a project with one image, whose name is the spec's.
    pub(super) fn write(
        &self,
        uv: &Path,
        folder: &Path,
        declared: Declared,
        added: usize,
    ) -> Result<(), Error> {
        let file = match declared {
            Declared::Requirements => "requirements.txt",
            Declared::Lock => "uv.lock",
        };
        fs_err::create_dir_all(folder.join("src"))?;
        fs_err::write(
            folder.join("imagespec.toml"),
            format!(
                "[images.{}]\npython_version = \"3.11\"\nrequirements = \"{file}\"\nsource_root = \"src\"\n\
                 source_copy_mode = \"all\"\n",
                self.name
            ),
        )?;
        if !folder.join("src/app.py").exists() {
            fs_err::write(folder.join("src/app.py"), "print('app')\n")?;
        }
        match declared {
            Declared::Requirements => {
                let lines: Vec<_> = self.packages(added).collect();
                fs_err::write(folder.join(file), lines.join("\n") + "\n")?;
            }
            Declared::Lock => {
                let packages: Vec<_> = self.packages(added).map(|it| format!("{it:?}")).collect();
                let project = format!(
                    "[project]\nname = \"bench\"\nversion = \"1\"\nrequires-python = \"==3.11.*\"\n\
                     dependencies = [{}]\n",
                    packages.join(", ")
                );
                fs_err::write(folder.join("pyproject.toml"), project)?;
                let lock = Program::new(uv).args(["--quiet", "lock", "--no-build"]);
                lock.folder(folder).run()?;
            }
        }
        Ok(())
    }

    /// The packages and what they need as a list of pins.
    pub(super) fn locked(&self, uv: &Path, folder: &Path, added: usize) -> Result<String, Error> {
        let folder = folder.with_extension("lock");
        self.write(uv, &folder, Declared::Lock, added)?;
        let export = [
            "--quiet",
            "export",
            "--locked",
            "--no-hashes",
            "--no-emit-project",
        ];
        Program::new(uv).args(export).folder(&folder).stdout()
    }

    /// Writes a project whose source tree has many files, a hundred a folder.
    pub(super) fn write_tree(&self, uv: &Path, folder: &Path) -> Result<(), Error> {
        self.write(uv, folder, Declared::Requirements, 0)?;
        for index in 0..self.files {
            let parent = folder.join(format!("src/part{}", index / 100));
            if index % 100 == 0 {
                fs_err::create_dir_all(&parent)?;
            }
            fs_err::write(
                parent.join(format!("file{index}.py")),
                format!("x = {index}\n").repeat(40),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_follows_what_is_there() {
        let packages: Vec<_> = SMOKE.packages(1).collect();
        assert_eq!(packages, ["six==1.17.0", "toolz==1.0.0"]);
        assert_eq!(SMOKE.packages(100).count(), 3);
    }
}
