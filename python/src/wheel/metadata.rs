//! The small files of a wheel: `WHEEL`, `METADATA`, `entry_points.txt`.

use super::WheelError;

/// A command that a wheel declares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPoint {
    /// Name of the command.
    pub name: String,
    /// Module it is in.
    pub module: String,
    /// Attribute of the module that is called: `cli.main`.
    pub attribute: String,
}

/// The value of a header of an email-like file.
pub(super) fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
}

/// The commands of `entry_points.txt`: sections `console_scripts` and `gui_scripts`, sorted by name.
pub(super) fn entry_points(text: &str) -> Result<Vec<EntryPoint>, WheelError> {
    let mut found = Vec::new();
    let mut wanted = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            wanted = matches!(section.trim(), "console_scripts" | "gui_scripts");
        } else if wanted {
            found.push(entry_point(line)?);
        }
    }
    found.sort();
    found.dedup_by(|a, b| a.name == b.name);
    Ok(found)
}

fn entry_point(line: &str) -> Result<EntryPoint, WheelError> {
    let wrong = || WheelError::format(format!("the entry point is malformed: `{line}`"));
    let (name, value) = line.split_once('=').ok_or_else(wrong)?;
    let value = value.split('[').next().unwrap_or(value);
    let (module, attribute) = value.split_once(':').ok_or_else(wrong)?;
    let (name, module, attribute) = (name.trim(), module.trim(), attribute.trim());
    let identifiers = |path: &str| {
        path.split('.')
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_'))
    };
    if name.is_empty()
        || names_interpreter(name)
        || name.contains(['/', '\\', '\0'])
        || matches!(name, "." | "..")
        || !identifiers(module)
        || !identifiers(attribute)
    {
        return Err(wrong());
    }
    Ok(EntryPoint {
        name: name.to_owned(),
        module: module.to_owned(),
        attribute: attribute.to_owned(),
    })
}

/// Whether a command would take the place of the interpreter: `python`, `python3`, `python3.11`.
pub(super) fn names_interpreter(command: &str) -> bool {
    command
        .strip_prefix("python")
        .is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

impl EntryPoint {
    /// The script that runs it, under an interpreter.
    pub fn script(&self, interpreter: &str) -> String {
        let Self {
            module, attribute, ..
        } = self;
        let callable = attribute.split('.').next().unwrap_or(attribute);
        format!(
            "#!{interpreter}\nimport sys\n\nfrom {module} import {callable}\n\nif __name__ == \"__main__\":\n    sys.exit({attribute}())\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_both_kinds_are_found_and_hostile_ones_refused() {
        let text = "[other]\nx = y\n[console_scripts]\nb = pkg.cli:main.run [extra]\n# note\n[gui_scripts]\na=pkg:main\n";
        let found = entry_points(text).expect("entry points");
        assert_eq!(
            found
                .iter()
                .map(|point| point.name.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert!(found[1].script("/p").contains("from pkg.cli import main\n"));
        assert!(found[1].script("/p").contains("sys.exit(main.run())"));
        for hostile in [
            "../x = a:b",
            "python3 = a:b",
            "x = a",
            "x = a;import os:b",
            "x = a:b()",
        ] {
            assert!(
                entry_points(&format!("[console_scripts]\n{hostile}")).is_err(),
                "{hostile}"
            );
        }
    }

    #[test]
    fn headers_end_at_the_first_empty_line() {
        let text = "Name: Six\nversion : 1\nVersion: 2\n\nBody: no\n";
        assert_eq!(header(text, "name"), Some("Six"));
        assert_eq!(header(text, "Version"), Some("2"));
        assert_eq!(header(text, "Body"), None);
    }
}
