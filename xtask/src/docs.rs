//! `cargo xtask docs`.

use crate::error::Error;
use crate::links::broken;
use crate::workspace::Workspace;
use crate::{report, tools};

/// Writes the chapter that the code prints, builds the book into `target/book` and checks the links of every page.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Error> {
    report::heading("reference");
    let printed = workspace
        .cargo("run")
        .args([
            "--quiet",
            "--locked",
            "--package",
            "imagespec-cli",
            "--",
            "reference",
        ])
        .stdout()?;
    fs_err::write(
        workspace.root.join("docs/reference.md"),
        format!("{printed}\n"),
    )?;
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
