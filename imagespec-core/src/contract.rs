//! The contract of every image, whichever builder made it: where things are, who owns them, and the
//! environment a task finds. It is flytekit's own, so that tasks run unchanged.

use indexmap::IndexMap;

use crate::plan::BuildPlan;

/// The virtual environment that is first on `PATH`.
pub const VENV: &str = "/opt/venv";
/// The folder of Conda environments.
pub const CONDA_ROOT: &str = "/opt/micromamba";
/// The Conda environment, where there is one: its Python is the image's.
pub const CONDA_PREFIX: &str = "/opt/micromamba/envs/runtime";
/// Where the Conda environment says which Python distributions it has, for installers that do not see it:
/// `pins.txt`, and a wheel without content for each. Builders may keep more beside them.
pub const CONDA_PROVIDED: &str = "/opt/micromamba/envs/runtime/share/imagespec";
/// Where the Conda environment has its programs: after the virtual environment on `PATH`.
pub const CONDA_BIN: &str = "/opt/micromamba/envs/runtime/bin";
/// Working directory and `PYTHONPATH`; sources are copied here.
pub const WORKDIR: &str = "/root";
/// Name of the user tasks run as.
pub const USER: &str = "flytekit";
/// That user's id, and its group's.
pub const USER_ID: u32 = 1000;
/// That user's home directory.
pub const USER_HOME: &str = "/home/flytekit";
/// That user's shell.
pub const USER_SHELL: &str = "/bin/bash";
/// The file with the authorities that TLS clients in the image trust.
pub const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What `pip` is while commands run: uv, which is beside it on `PATH`.
pub const PIP: &str = r#"#!/bin/sh
case ${1:-} in
-V | --version) exec uv --version ;;
*) exec uv pip "$@" ;;
esac
"#;
/// Modification time of every entry of a layer that can be shared: 1980-01-01T00:00:00Z in seconds, the
/// earliest that a zip archive can hold.
pub const MTIME: i64 = 315_532_800;
/// `PATH` of an image whose base sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Mode, owner and group of a folder that a layer carries only because it holds something: the same in every
/// layer, so that it does not matter which one an engine unpacks last. `path` is relative to the root, without
/// a leading slash.
pub fn directory(path: &[u8]) -> (u32, u32, u32) {
    let below = |folder: &str| {
        let folder = folder.trim_start_matches('/').as_bytes();
        path == folder || (path.starts_with(folder) && path.get(folder.len()) == Some(&b'/'))
    };
    let (uid, gid) = if [VENV, CONDA_ROOT, WORKDIR, USER_HOME]
        .into_iter()
        .any(below)
    {
        (USER_ID, USER_ID)
    } else {
        (0, 0)
    };
    let mode = match path {
        b"tmp" | b"var/tmp" => 0o1777,
        _ => 0o755,
    };
    (mode, uid, gid)
}

/// The variables to which [`environment`] adds: a base that was made for the plan, of an image that had them, has them
/// as they are to be.
pub fn extended(plan: &BuildPlan) -> impl Iterator<Item = &'static str> + '_ {
    let names = ["PATH", "LD_LIBRARY_PATH"].into_iter();
    names.filter(|name| !plan.env.contains_key(*name))
}

/// The environment of the image of `plan`, over a base whose `PATH` and `LD_LIBRARY_PATH` are given.
/// Declared variables win over the contract's own, and `_F_IMG_ID` over both.
pub fn environment(plan: &BuildPlan, base: &IndexMap<String, String>) -> IndexMap<String, String> {
    let mut env = base.clone();
    let path = base.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let conda = if plan.has_conda() && !path.split(':').any(|folder| folder == CONDA_BIN) {
        format!("{CONDA_BIN}:")
    } else {
        String::new()
    };
    let path = format!("{VENV}/bin:{conda}{path}:/usr/local/nvidia/bin:/usr/local/cuda/bin");
    let libraries = match base
        .get("LD_LIBRARY_PATH")
        .filter(|value| !value.is_empty())
    {
        Some(libraries) => format!("/usr/local/nvidia/lib64:{libraries}"),
        None => "/usr/local/nvidia/lib64".to_owned(),
    };
    for (name, value) in [
        ("PATH", path.as_str()),
        ("LD_LIBRARY_PATH", &libraries),
        ("VIRTUAL_ENV", VENV),
        ("PYTHONPATH", WORKDIR),
        ("SSL_CERT_DIR", "/etc/ssl/certs"),
        ("FLYTE_SDK_RICH_TRACEBACKS", "0"),
    ] {
        env.insert(name.to_owned(), value.to_owned());
    }
    env.extend(plan.env.clone());
    if !plan.runtime_packages.is_empty() {
        env.insert(
            "_F_RUNTIME_PACKAGES".to_owned(),
            plan.runtime_packages.join(" "),
        );
    }
    env.insert("_F_IMG_ID".to_owned(), plan.image_id());
    env
}
