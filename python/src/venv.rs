//! The virtual environment itself, apart from what is installed into it.

use std::io::Write;

use imagespec_core::contract::{USER_ID, VENV};
use imagespec_oci::layer::{LayerError, LayerWriter, Metadata};

/// Version of what [`write()`] writes, part of the key of its layer.
pub const RECIPE: u32 = 2;

/// What a virtual environment stands on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Venv {
    /// Absolute path of the interpreter in the image.
    pub interpreter: String,
    /// `3.11`.
    pub python: String,
    /// Whether packages of the interpreter's own installation are visible.
    pub system_site_packages: bool,
}

/// Writes `pyvenv.cfg`, the links to the interpreter and the empty folders (PEP 405).
pub fn write<W: Write>(venv: &Venv, layer: &mut LayerWriter<W>) -> Result<(), LayerError> {
    let root = VENV.trim_start_matches('/');
    let home = venv
        .interpreter
        .rsplit_once('/')
        .map_or("/usr/bin", |(home, _)| home);
    let config = format!(
        "home = {home}\ninclude-system-site-packages = {}\nversion = {}\n",
        venv.system_site_packages, venv.python
    );
    layer.file(
        format!("{root}/pyvenv.cfg").as_bytes(),
        &Metadata::new(0o644, USER_ID),
        config.len() as u64,
        &mut config.as_bytes(),
    )?;
    let link = Metadata::new(0o777, USER_ID);
    let links = [
        ("bin/python".to_owned(), venv.interpreter.clone()),
        ("bin/python3".to_owned(), "python".to_owned()),
        (format!("bin/python{}", venv.python), "python".to_owned()),
        ("lib64".to_owned(), "lib".to_owned()),
    ];
    for (path, target) in links {
        layer.symlink(
            format!("{root}/{path}").as_bytes(),
            target.as_bytes(),
            &link,
        )?;
    }
    let folder = Metadata::new(0o755, USER_ID);
    layer.directory(
        format!("{root}/lib/python{}/site-packages", venv.python).as_bytes(),
        &folder,
    )
}
