//! What an executor prints, whoever it is.

use imagespec_core::builder::BuiltImage;
use imagespec_core::error::BuildError;

use crate::answers::Answers;
use crate::said::Said;
use crate::solved::Solved;

/// What is known of a build by what its executor printed.
#[derive(Debug)]
pub(crate) enum Output<'a> {
    /// Kaniko's log.
    Kaniko(Said<'a>),
    /// What `BuildKit`'s client prints.
    Buildkit(Solved<'a>),
    /// Answers of this program.
    Native(Answers<'a>),
}

impl Output<'_> {
    /// Takes a line.
    pub(crate) fn take(&mut self, line: &str) {
        match self {
            Self::Kaniko(said) => said.take(line),
            Self::Buildkit(solved) => solved.take(line),
            Self::Native(answers) => answers.take(line),
        }
    }

    /// The digest of the image, once it was pushed.
    pub(crate) fn pushed(&self) -> Option<&str> {
        match self {
            Self::Kaniko(said) => said.pushed(),
            Self::Buildkit(solved) => solved.pushed(),
            Self::Native(answers) => answers.pushed(),
        }
    }

    /// Says that all of it ended well. The image as the executor tells of it, if it does.
    pub(crate) fn done(self) -> Option<BuiltImage> {
        match self {
            Self::Kaniko(said) => {
                said.done();
                None
            }
            Self::Buildkit(_) => None,
            Self::Native(answers) => answers.built(),
        }
    }

    /// Why the build failed. `code` is the executor's exit code.
    pub(crate) fn failure(self, code: i32) -> BuildError {
        match self {
            Self::Kaniko(said) => said.failure(code),
            Self::Buildkit(solved) => solved.failure(code),
            Self::Native(answers) => answers.failure(code),
        }
    }

    /// Whether what was printed tells of a context that did not come whole.
    pub(crate) fn is_cut_short(&self) -> bool {
        match self {
            Self::Kaniko(said) => said.is_cut_short(),
            Self::Buildkit(solved) => solved.is_cut_short(),
            Self::Native(answers) => answers.is_cut_short(),
        }
    }
}
