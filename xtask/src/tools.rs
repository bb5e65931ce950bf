//! Programs of others that tasks use, installed below Cargo's target folder where the machine has none.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::command::{Program, on_path};
use crate::error::Error;
use crate::report;
use crate::workspace::Workspace;

/// A program that Cargo can install: its crate and its version. It is not optimised: what it does takes a
/// second, and compiling it a minute instead of ten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crate {
    name: &'static str,
    version: &'static str,
}

/// Checks licences, sources and duplicates of dependencies.
pub(crate) const CARGO_DENY: Crate = Crate {
    name: "cargo-deny",
    version: "0.20.2",
};

/// Invents input that leads to code which nothing has reached before.
pub(crate) const CARGO_FUZZ: Crate = Crate {
    name: "cargo-fuzz",
    version: "0.13.2",
};

/// Builds the book.
pub(crate) const MDBOOK: Crate = Crate {
    name: "mdbook",
    version: "0.5.4",
};

impl Crate {
    /// The machine's, or one that is installed now if it was not before.
    pub(crate) fn find(self, workspace: &Workspace) -> Result<Program, Error> {
        if on_path(self.name) {
            return Ok(Program::new(self.name));
        }
        let folder = workspace
            .tools()
            .join(format!("{}-{}", self.name, self.version));
        let path = folder.join("bin").join(self.name);
        if !path.is_file() {
            report::note(&format!("installing {} {}", self.name, self.version));
            let build = scratch(workspace)?;
            workspace
                .cargo("install")
                .args(["--quiet", "--locked", "--debug"])
                .args([self.name, "--version", self.version])
                .arg("--root")
                .arg(&folder)
                .env("CARGO_TARGET_DIR", build.path())
                .run()?;
        }
        Ok(Program::new(path))
    }
}

/// Programs of a Go module, which Go compiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Module {
    name: &'static str,
    path: &'static str,
    version: &'static str,
    commands: &'static [&'static str],
    /// Whether C is compiled too, and with which tags.
    c: Option<&'static str>,
    /// The version of modules that it has in its own repository and names by their folders there.
    staging: Option<&'static str>,
}

/// `BuildKit`'s daemon and its client.
pub(crate) const BUILDKIT: Module = Module {
    name: "buildkit",
    path: "github.com/moby/buildkit",
    version: "v0.34.2",
    commands: &["./cmd/buildkitd", "./cmd/buildctl"],
    c: None,
    staging: None,
};

/// Kaniko's executor, as it is kept up.
pub(crate) const KANIKO: Module = Module {
    name: "kaniko",
    path: "github.com/chainguard-dev/kaniko",
    version: "v1.25.5",
    commands: &["./cmd/executor"],
    c: None,
    staging: None,
};

/// Docker's engine as it is today, which Debian does not have.
pub(crate) const MOBY: Module = Module {
    name: "moby",
    path: "github.com/moby/moby/v2",
    version: "v2.0.0-beta.24",
    commands: &["./cmd/dockerd", "./cmd/docker-proxy"],
    c: None,
    staging: None,
};

/// What runs that engine's containers: Debian's is too old for it.
pub(crate) const RUNC: Module = Module {
    name: "runc",
    path: "github.com/opencontainers/runc",
    version: "v1.4.0",
    commands: &["."],
    c: Some("seccomp"),
    staging: None,
};

/// The programs of a Kubernetes cluster.
pub(crate) const KUBERNETES: Module = Module {
    name: "kubernetes",
    path: "k8s.io/kubernetes",
    version: "v1.36.3",
    commands: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kubectl",
        "k8s.io/kubernetes/cmd/kubelet",
    ],
    c: None,
    staging: Some("v0.36.3"),
};

/// Finds programs of Go modules. What they have in common, such as Go's own library, is compiled once.
#[derive(Debug)]
pub(crate) struct Go<'w> {
    workspace: &'w Workspace,
    compiled: OnceCell<TempDir>,
}

impl<'w> Go<'w> {
    /// Has compiled nothing yet.
    pub(crate) fn new(workspace: &'w Workspace) -> Self {
        Self {
            workspace,
            compiled: OnceCell::new(),
        }
    }

    /// The folder with the programs of a module, which are compiled now if they were not before.
    pub(crate) fn find(&self, module: Module) -> Result<PathBuf, Error> {
        if !on_path("go") {
            return Err(Error::Missing { program: "go" });
        }
        let workspace = self.workspace;
        let Module { name, version, .. } = module;
        let folder = workspace.tools().join(format!("{name}-{version}"));
        if folder.is_dir() {
            return Ok(folder);
        }
        report::note(&format!("compiling {name} {version}"));
        let compiled = if let Some(compiled) = self.compiled.get() {
            compiled
        } else {
            let made = scratch(workspace)?;
            self.compiled.get_or_init(|| made)
        };
        let build = scratch(workspace)?;
        let modules = build.path().join("modules");
        let go = |subcommand: &[&str]| {
            Program::new("go")
                .args(subcommand)
                .env("GOMODCACHE", &modules)
                .env("GOCACHE", compiled.path())
                .env("GOFLAGS", "-modcacherw")
                .env("CGO_ENABLED", if module.c.is_some() { "1" } else { "0" })
        };
        go(&["mod", "download", &format!("{}@{version}", module.path)]).run()?;
        // `go install` takes no module that replaces others, and this may be one.
        let mut source = modules.join(format!("{}@{version}", module.path));
        let partial = folder.with_extension("partial");
        fs_err::create_dir_all(&partial)?;
        if let Some(staging) = module.staging {
            let own = build.path().join("module");
            module.stage(staging, &source, &own)?;
            source = own;
        }
        let mut flags = "-s -w".to_owned();
        if module.staging.is_some() {
            flags.push_str(" -X k8s.io/component-base/version.gitVersion=");
            flags.push_str(version);
        }
        let build = go(&["build", "-mod=mod", "-trimpath", "-ldflags", &flags]);
        let build = build.args(["-tags", module.c.unwrap_or_default(), "-o"]);
        let build = build.arg(&partial).args(module.commands);
        build.folder(&source).run()?;
        fs_err::rename(&partial, &folder)?;
        Ok(folder)
    }
}

impl Module {
    /// Writes a module that needs this one, with what it names by folders named by versions.
    fn stage(self, staging: &str, source: &Path, own: &Path) -> Result<(), Error> {
        fs_err::create_dir_all(own)?;
        let mut lines: Vec<_> = fs_err::read_to_string(source.join("go.mod"))?
            .lines()
            .map(|line| match line.split_once("=> ./staging/src/") {
                Some((before, name)) => format!("{before}=> {name} {staging}"),
                None if line.starts_with("module ") => "module programs".to_owned(),
                None => line.to_owned(),
            })
            .collect();
        lines.push(format!("require {} {}\n", self.path, self.version));
        fs_err::write(own.join("go.mod"), lines.join("\n"))?;
        fs_err::copy(source.join("go.sum"), own.join("go.sum"))?;
        Ok(())
    }
}

/// A Python over musl, compiled from the source of this machine's own, as no distribution of one can be had by name:
/// a folder with `bin/python3.N` and `lib/python3.N`.
pub(crate) fn musl_python(workspace: &Workspace) -> Result<PathBuf, Error> {
    let own = fs_err::canonicalize("/usr/bin/python3").unwrap_or_default();
    let name = own.file_name().unwrap_or_default().to_string_lossy();
    let folder = workspace.tools().join(format!("musl-{name}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    if !on_path("musl-gcc") {
        return Err(Error::Missing {
            program: "musl-gcc",
        });
    }
    report::note(&format!("compiling {name} for musl"));
    let build = scratch(workspace)?;
    let partial = folder.with_extension("partial");
    Program::new("sh")
        .args(["-eu", "-c", MUSL_PYTHON, "sh", &name])
        .arg(&partial)
        .folder(build.path())
        .run()?;
    fs_err::rename(&partial, &folder)?;
    Ok(folder)
}

/// Compiles a Python in the folder it runs in, and puts it together in another: its name, that folder.
const MUSL_PYTHON: &str = r#"
mkdir -p sources lists/partial python zlib
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [ ! -f "$file" ] || sed 's/^deb /deb-src /; s/^Types:.*/Types: deb-src/' "$file" > "sources/${file##*/}"
done
apt() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$PWD/sources" \
        -o Dir::State::lists="$PWD/lists" -o APT::Sandbox::User=root "$@" > log 2>&1 || { cat log >&2; exit 1; }
}
apt update
apt source --tar-only "$1" zlib
tar -xf "$1"_*.orig.tar.* -C python --strip-components=1
tar -xf zlib_*.orig.tar.* -C zlib --strip-components=1
# Configure asks the compiler for the name of the platform, and musl's compiler is GNU's with other folders.
machine=$(uname -m)
printf '#!/bin/sh\ncase "$*" in *-print-multiarch*) echo %s-linux-musl;; *) exec musl-gcc "$@";; esac\n' \
    "$machine" > cc
chmod +x cc
cc=$PWD/cc
{
    cd zlib && CC="$cc" CFLAGS="-O1 -fPIC" ./configure --static && make -s libz.a && cd ../python &&
    ./configure -q CC="$cc" CFLAGS="-O0 -g0" --prefix=/usr/local --without-ensurepip --disable-test-modules \
        --with-pkg-config=no --build="$machine-linux-musl" &&
    make -s -j"$(nproc)" &&
    "$cc" -shared -fPIC -DPy_BUILD_CORE_MODULE -IInclude -IInclude/internal -I. -I../zlib Modules/zlibmodule.c \
        ../zlib/libz.a -o "$(echo build/lib.*)/zlib.so"
} > log 2>&1 || { tail -n 50 "${cc%/cc}/log" >&2; exit 1; }
rm -rf "$2"
mkdir -p "$2/bin" "$2/lib/$1/lib-dynload"
cp python "$2/bin/$1"
strip "$2/bin/$1"
cp -R Lib/. "$2/lib/$1"
cd "$2/lib/$1"
rm -rf test idlelib lib2to3 tkinter turtledemo ensurepip
cd - > /dev/null
cp build/lib.*/*.so "$2/lib/$1/lib-dynload"
cp build/lib.*/_sysconfigdata* "$2/lib/$1"
find "$2" -name __pycache__ -prune -exec rm -rf {} +
"#;

/// A folder for what compiling leaves behind. That is gigabytes of modules and of compiled packages which nothing
/// reads again, so it goes as soon as the programs are there.
fn scratch(workspace: &Workspace) -> Result<TempDir, Error> {
    let tools = workspace.tools();
    fs_err::create_dir_all(&tools)?;
    Ok(tempfile::Builder::new()
        .prefix("build-")
        .tempdir_in(tools)?)
}

/// uv: the machine's, or one from the package index that pip is set up for.
pub(crate) fn uv(workspace: &Workspace) -> Result<PathBuf, Error> {
    python_tool(workspace, "uv", "0.13.9")
}

/// typos: the machine's, or one from the package index that pip is set up for.
pub(crate) fn typos(workspace: &Workspace) -> Result<Program, Error> {
    python_tool(workspace, "typos", "1.52.0").map(Program::new)
}

fn python_tool(workspace: &Workspace, name: &'static str, version: &str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name));
    if let Some(found) = found.into_iter().find(|path| path.is_file()) {
        return Ok(found);
    }
    if !on_path("python3") {
        return Err(Error::Missing { program: name });
    }
    let folder = workspace.tools().join(format!("{name}-{version}"));
    let path = folder.join("bin").join(name);
    if !path.is_file() {
        report::note(&format!("installing {name} {version}"));
        Program::new("python3")
            .args(["-m", "venv"])
            .arg(&folder)
            .run()?;
        Program::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"])
            .arg(format!("{name}=={version}"))
            .run()?;
    }
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::NotInstalled(path))
}
