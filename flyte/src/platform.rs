//! The platform's own command, which code is handed to once its images are there.

/// An image by what flytekit knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// flytekit's `ImageSpec.id`.
    pub id: String,
    /// What the platform pulls.
    pub reference: String,
}

/// What the platform is to do.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Register the tasks and workflows of files and packages.
    Register {
        /// As the person wrote them.
        files: &'a [String],
    },
    /// Run a task or a workflow on the platform.
    Run {
        /// As the person wrote it.
        file: &'a str,
        /// Its name.
        entity: &'a str,
        /// Its inputs.
        inputs: &'a [String],
    },
}

/// The arguments of the platform's command. It takes `--image ID=REFERENCE` for an image that is there: it neither looks
/// for it nor builds it.
pub fn arguments(action: Action<'_>, images: &[Ready], further: &[String]) -> Vec<String> {
    let images = images
        .iter()
        .flat_map(|Ready { id, reference }| ["--image".to_owned(), format!("{id}={reference}")]);
    let owned = |texts: &[String]| texts.to_vec();
    match action {
        Action::Register { files } => {
            let start = ["register".to_owned()].into_iter();
            start
                .chain(images)
                .chain(owned(further))
                .chain(owned(files))
                .collect()
        }
        Action::Run {
            file,
            entity,
            inputs,
        } => {
            let start = ["run".to_owned(), "--remote".to_owned()].into_iter();
            let what = [file.to_owned(), entity.to_owned()];
            start
                .chain(images)
                .chain(owned(further))
                .chain(what)
                .chain(owned(inputs))
                .collect()
        }
    }
}

/// Whether the platform brings the code to the images, as it does unless its arguments say otherwise.
pub fn is_fast(arguments: &[String]) -> bool {
    let mut arguments = arguments.iter().map(String::as_str);
    let mut fast = true;
    while let Some(argument) = arguments.next() {
        match argument {
            "--non-fast" | "--copy=none" => fast = false,
            "--copy" => fast = arguments.next() != Some("none"),
            _ => {}
        }
    }
    fast
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn images_stand_where_the_command_takes_them() {
        let images = [Ready {
            id: "abc-_1".to_owned(),
            reference: "r.example/app:tag".to_owned(),
        }];
        let files = owned(&["a.py", "b"]);
        let register = arguments(
            Action::Register { files: &files },
            &images,
            &owned(&["-p", "x"]),
        );
        assert_eq!(
            register,
            [
                "register",
                "--image",
                "abc-_1=r.example/app:tag",
                "-p",
                "x",
                "a.py",
                "b"
            ]
        );
        let inputs = owned(&["--n", "3"]);
        let action = Action::Run {
            file: "a.py",
            entity: "wf",
            inputs: &inputs,
        };
        assert_eq!(
            arguments(action, &[], &[]),
            ["run", "--remote", "a.py", "wf", "--n", "3"]
        );
    }

    #[test]
    fn code_stays_behind_only_where_it_is_said() {
        assert!(is_fast(&owned(&["--copy", "auto", "-p", "x"])));
        assert!(!is_fast(&owned(&["--copy", "none"])));
        assert!(!is_fast(&owned(&["--non-fast"])));
    }
}
