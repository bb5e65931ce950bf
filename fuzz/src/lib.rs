//! Every parser of what comes from elsewhere, as functions that take any bytes and panic where they should not have
//! been taken as they were. Tests give them damaged input of a corpus, on stable Rust; `cargo fuzz` gives them what
//! leads to code that nothing has reached before.

#![expect(
    clippy::missing_panics_doc,
    reason = "to panic is how a target says that a parser is wrong"
)]

pub mod conda;
pub mod debian;
pub mod layers;
pub mod python;
pub mod text;

use std::path::{Path, PathBuf};

/// A parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the folder of its corpus, and of its program for `cargo fuzz`.
    pub name: &'static str,
    /// Texts that mean something to it.
    pub tokens: &'static [&'static str],
    /// Gives it bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "code",
        tokens: &[
            "l += l",
            "for x in l:\n    ",
            "if x:\n    ",
            "[",
            "(",
            "{",
            "**",
            "lambda: ",
            "def f():\n    ",
            "try:\n    ",
            "f\"{",
            "import a",
            "global l",
            "@task(container_image=i)",
            ".append(l)",
            "%",
            "\\",
        ],
        run: text::code,
    },
    Target {
        name: "conda",
        tokens: &[
            "ustar",
            "../",
            "/etc",
            "info/paths.json",
            "\"prefix_placeholder\": \"",
            "\"file_mode\": \"binary\"",
            "site-packages/",
            "python-scripts/",
            ".wh.",
            "1",
            "2",
            "\"entry_points\": [\"a = b:c\"]",
            "/opt/placehold",
        ],
        run: conda::package,
    },
    Target {
        name: "conda-list",
        tokens: &[
            "\"packages\": {",
            "\"packages.conda\": {",
            "\"info\": {\"base_url\": \"",
            "a-1.0-0.conda",
            "\"depends\": [",
            "null",
            "{\"a\":",
            "1e999",
            "\\u0000",
        ],
        run: conda::list,
    },
    Target {
        name: "conda-shard",
        tokens: &[
            "packages.conda",
            "packages",
            "info",
            "shards",
            "\u{81}",
            "noarch",
            "sha256",
        ],
        run: conda::shard,
    },
    Target {
        name: "deb",
        tokens: &[
            "debian-binary",
            "data.tar",
            ".xz",
            ".zst",
            ".gz",
            "../",
            "/",
            "`\n",
            "99999999",
        ],
        run: debian::deb,
    },
    Target {
        name: "deb-plain",
        tokens: &[
            "ustar",
            "../",
            "/etc",
            "././@LongLink",
            "L",
            "K",
            "x",
            "g",
            "7777777777",
        ],
        run: debian::deb_plain,
    },
    Target {
        name: "deb822",
        tokens: &[
            "\n\n",
            "\n ",
            ":",
            "#",
            "Package: ",
            "Version: ",
            "SHA256: ",
            "Depends: ",
            "(>= ",
            "|",
            ",",
        ],
        run: debian::deb822,
    },
    Target {
        name: "document",
        tokens: &[
            "\"manifests\":[]",
            "\"layers\":[]",
            "\"config\":",
            "null",
            "[[[[",
            "{\"a\":",
            "\"platform\":",
            "-1",
            "1e999",
            "\"mediaType\":\"application/vnd.oci.image.index.v1+json\"",
            "\\u0000",
            "18446744073709551616",
        ],
        run: layers::document,
    },
    Target {
        name: "ignore",
        tokens: &["!", "**/", "*", "[a-", "]", "\\", "/", "{a,b}", "\n"],
        run: text::ignore,
    },
    Target {
        name: "keyring",
        tokens: &["-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "\n\n", "="],
        run: debian::keyring,
    },
    Target {
        name: "layer",
        tokens: &[
            "../",
            "/",
            "./",
            ".wh.",
            ".wh..wh..opq",
            "ustar",
            "././@LongLink",
            "12 path=../a\n",
            "30 SCHILY.xattr.user.overlay.x=y\n",
            "19 GNU.sparse.map=0\n",
            "12 size=99\n",
            "1",
            "2",
            "3",
            "5",
            "L",
            "K",
            "x",
            "g",
        ],
        run: layers::layer,
    },
    Target {
        name: "poetry",
        tokens: &[
            "[[package]]\n",
            "name = \"",
            "version = \"",
            "files = [",
            "groups = [\"main\"]",
            "markers = \"",
            "optional = true",
            "[package.dependencies]\n",
            "[package.source]\n",
            "[metadata]\n",
            "\n====\n",
            "^",
            "~",
            ">=",
            "*",
            ",",
        ],
        run: python::poetry,
    },
    Target {
        name: "pylock",
        tokens: &[
            "[[packages]]\n",
            "name = \"",
            "version = \"",
            "marker = \"",
            "[[packages.wheels]]\n",
            "url = \"",
            "hashes = { sha256 = \"",
            "[packages.sdist]\n",
            "[packages.vcs]\n",
            "[packages.archive]\n",
            "../",
            ".whl",
        ],
        run: python::pylock,
    },
    Target {
        name: "reference",
        tokens: &[
            "@sha256:",
            ":",
            "/",
            "localhost",
            "docker.io/",
            "..",
            "[::1]",
            ":5000",
        ],
        run: layers::reference,
    },
    Target {
        name: "signature",
        tokens: &[
            "-----BEGIN PGP SIGNED MESSAGE-----\n",
            "-----BEGIN PGP SIGNATURE-----\n",
            "Hash: SHA512\n",
            "\n\n",
            "- ",
        ],
        run: debian::signature,
    },
    Target {
        name: "spec",
        tokens: &[
            "{",
            "[",
            "null",
            "\"name\":",
            "\"packages\":",
            "\"base_image\":{",
            "\"env\":",
            "../",
            "\\n",
        ],
        run: text::spec,
    },
    Target {
        name: "version",
        tokens: &["~", "+", "-", ":", "0", "."],
        run: debian::version,
    },
    Target {
        name: "wheel",
        tokens: &[
            "PK\u{1}\u{2}",
            "PK\u{3}\u{4}",
            "PK\u{5}\u{6}",
            "PK\u{6}\u{6}",
            "PK\u{6}\u{7}",
            "PK\u{7}\u{8}",
            "../",
            "/",
            "\\",
            "pkg-1.0.data/scripts/",
            ".dist-info/",
            ",sha256=",
            "\n",
        ],
        run: python::wheel,
    },
    Target {
        name: "wheel-stored",
        tokens: &[
            "../",
            "/",
            "x = y:z\n",
            "[console_scripts]\n",
            "#!python",
            "\n\n",
            ",",
        ],
        run: python::wheel_stored,
    },
];

/// The folder of a target's corpus.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// Makes the checksums of all headers of a tar right.
pub(crate) fn checksums(mut tar: Vec<u8>) -> Vec<u8> {
    for block in tar
        .chunks_exact_mut(512)
        .filter(|block| block[257..262] == *b"ustar")
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}
