//! `cargo xtask docs`.

use crate::error::Error;
use crate::links::broken;
use crate::workspace::Workspace;
use crate::{report, tools};

/// Writes the chapter that the code prints, builds the book into `target/book` and checks the links of every page.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Error> {
    report::heading("what the code prints");
    for (command, file) in [
        ("reference", "docs/reference.md"),
        ("openapi", "docs/openapi.json"),
    ] {
        let printed = workspace
            .cargo("run")
            .args(["--quiet", "--locked", "--package", "imagespec-cli", "--"])
            .arg(command)
            .stdout()?;
        fs_err::write(workspace.root.join(file), format!("{printed}\n"))?;
    }
    report::heading("links");
    links(workspace)?;
    report::heading("book");
    tools::MDBOOK
        .find(workspace)?
        .arg("build")
        .arg(workspace.root.join("docs"))
        .arg("--dest-dir")
        .arg(workspace.target.join("book"))
        .run()
}

/// Checks that every relative link of every page leads to a file, and that the book lists all its pages.
pub(crate) fn links(workspace: &Workspace) -> Result<(), Error> {
    let broken = broken(&workspace.root)?;
    if broken.is_empty() {
        return Ok(());
    }
    Err(Error::Links(broken))
}
