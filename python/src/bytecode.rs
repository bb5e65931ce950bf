//! Bytecode, compiled by the image's own interpreter and the same every time.
//!
//! A `.pyc` file depends on the state of the process that makes it: on the seed of its hashes, and on which
//! strings it has seen before. So the interpreter runs with a fixed seed and answers every wheel from a fresh
//! child. The files are unchecked-hash ones (PEP 552), which hold no time.

use std::io::{self, BufRead, Read, Write};

use imagespec_oci::layer::{LayerError, LayerWriter, Metadata};

/// Version of the way bytecode is made, part of its layers' keys.
pub const RECIPE: u32 = 3;
/// The largest compiled module, in bytes.
const LIMIT: u32 = 256 << 20;
const DRIVER: &str = include_str!("bytecode.py");

/// The command that compiles: run it with `interpreter`, with [`environment`] and nothing else.
pub fn command(interpreter: &str) -> Vec<String> {
    [interpreter, "-s", "-S", "-W", "ignore", "-c", DRIVER]
        .map(str::to_owned)
        .to_vec()
}

/// The environment the command needs.
pub fn environment() -> Vec<(String, String)> {
    [
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("LC_ALL", "C.UTF-8"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Sends the modules of one distribution: their paths, relative to the root of the image, and what `source` reads
/// of each, one at a time. Blocks while nobody takes the answer: that is another thread's to read.
pub fn request(
    paths: &[String],
    source: &mut dyn FnMut(usize) -> io::Result<Vec<u8>>,
    to: &mut dyn Write,
) -> io::Result<()> {
    to.write_all(&length(paths.len())?)?;
    for (index, path) in paths.iter().enumerate() {
        let path = format!("/{path}");
        to.write_all(&length(path.len())?)?;
        to.write_all(path.as_bytes())?;
        let source = source(index)?;
        to.write_all(&length(source.len())?)?;
        to.write_all(&source)?;
    }
    to.flush()
}

/// Reads the answer to such a request, and writes what compiled to a layer: `pkg/__pycache__/mod.TAG.pyc`, where
/// `tag` is the interpreter's cache tag, `cpython-311`, and `owner` the files' owner.
pub fn answer<W: Write>(
    paths: &[String],
    tag: &str,
    owner: u32,
    from: &mut dyn BufRead,
    layer: &mut LayerWriter<W>,
) -> Result<(), LayerError> {
    for path in paths {
        let mut size = [0; 4];
        from.read_exact(&mut size)?;
        let size = u32::from_be_bytes(size);
        if size == 0 {
            continue;
        }
        if size > LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a compiled module is larger than it may be",
            )
            .into());
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let stem = name.strip_suffix(".py").unwrap_or(name);
        let target = format!("{folder}/__pycache__/{stem}.{tag}.pyc");
        layer.file(
            target.as_bytes(),
            &Metadata::new(0o644, owner),
            size.into(),
            &mut (&mut *from).take(size.into()),
        )?;
    }
    Ok(())
}

fn length(length: usize) -> io::Result<[u8; 4]> {
    let length = u32::try_from(length);
    length
        .map(u32::to_be_bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a module is too large"))
}
