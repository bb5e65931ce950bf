//! Links of the pages in Markdown: to files that exist, and from the book's summary to every page of it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::error::Error;

/// Links that lead nowhere and pages that no summary lists, each as `page: link`.
pub(crate) fn broken(root: &Path) -> Result<Vec<String>, Error> {
    let mut broken = Vec::new();
    let mut listed = BTreeSet::new();
    let book = root.join("docs");
    let pages = pages(&book)?;
    let tops = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name));
    for page in pages.iter().chain(&tops) {
        let text = fs_err::read_to_string(page)?;
        let folder = page.parent().unwrap_or(root);
        for link in relative(&text) {
            let path = normal(&folder.join(link));
            if !path.exists() {
                broken.push(format!("{}: {link}", shown(page, root)));
            }
            if page.ends_with("SUMMARY.md") {
                listed.insert(path);
            }
        }
    }
    let unlisted = pages
        .iter()
        .filter(|page| !page.ends_with("SUMMARY.md") && !listed.contains(*page));
    broken
        .extend(unlisted.map(|page| format!("docs/SUMMARY.md: no link to {}", shown(page, root))));
    Ok(broken)
}

fn shown(page: &Path, root: &Path) -> String {
    page.strip_prefix(root)
        .unwrap_or(page)
        .display()
        .to_string()
}

/// The pages below a folder, in order.
fn pages(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pages(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The links of a page that name a file: without those to other sites and those within the page, and without
/// their fragment. Code blocks have none.
fn relative(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for part in line.split("](").skip(1) {
            let Some((link, _)) = part.split_once(')') else {
                continue;
            };
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                found.push(file);
            }
        }
    }
    found
}

/// The path without `.` and `..`, as it reads.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_to_files_count() {
        let text = "[a](a.md), [b](b/c.md#part) [c](#here) [d](https://e.example/x)\n\
                    ```text\n[e](e.md)\n```\n- [f](../f)";
        assert_eq!(relative(text), ["a.md", "b/c.md", "../f"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_and_a_page_that_nobody_lists_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        write("README.md", "[book](docs/guide.md) [gone](docs/gone.md)");
        write("CONTRIBUTING.md", "");
        write("CHANGELOG.md", "");
        write(
            "docs/SUMMARY.md",
            "- [Guide](guide.md)\n- [Old](adr/../old.md)",
        );
        write("docs/guide.md", "[up](../README.md)");
        write("docs/lost.md", "");
        assert_eq!(
            broken(folder.path()).unwrap(),
            [
                "docs/SUMMARY.md: adr/../old.md",
                "README.md: docs/gone.md",
                "docs/SUMMARY.md: no link to docs/lost.md",
            ]
        );
    }
}
