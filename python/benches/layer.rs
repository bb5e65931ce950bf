//! Wheels to layers, in megabytes of unpacked tar per second, beside the least that a layer needs: inflating
//! and one SHA-256. By hand, with wheels that are here:
//!
//! ```sh
//! cargo bench --package imagespec-python --bench layer -- numpy-2.2.6-….whl scipy-1.15.2-….whl
//! ```
#![expect(clippy::print_stdout, reason = "figures are for standard output")]

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flate2::{Decompress, FlushDecompress, Status};
use imagespec_core::context::Compression;
use imagespec_oci::layer::{LayerWriter, contract_parents};
use imagespec_python::layers;
use imagespec_python::wheel::Layout;
use sha2::{Digest as _, Sha256};

/// How often each work is done; the fastest counts.
const ROUNDS: usize = 5;
/// Headers of the members that layers are made of (RFC 1952, 2.3), and their trailers, in bytes.
const HEADER: usize = 10;
const TRAILER: usize = 8;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let wheels: Vec<_> = std::env::args()
        .skip(1)
        .filter(|argument| {
            Path::new(argument)
                .extension()
                .is_some_and(|it| it == "whl")
        })
        .collect();
    let layout = Layout {
        python: "3.11".to_owned(),
    };
    for wheel in &wheels {
        let path = Path::new(wheel);
        let write = || layer(path, &layout, Compression::Gzip);
        let (tar, compressed) = (unpacked(&write()?)?, write()?);
        let small = gzip(&tar)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        println!(
            "{}: {} bytes unpacked, layer {:.3} of `gzip -6`",
            name.split('-').take(2).collect::<Vec<_>>().join(" "),
            tar.len(),
            ratio(compressed.len(), small),
        );
        let least = measure("inflate and SHA-256", tar.len(), None, || {
            floor(&compressed).map(drop)
        })?;
        measure("wheel to layer", tar.len(), Some(least), || {
            write().map(drop)
        })?;
        if std::env::args().any(|argument| argument == "gzip") {
            measure("gzip -6", tar.len(), Some(least), || gzip(&tar).map(drop))?;
        }
    }
    Ok(())
}

fn layer(wheel: &Path, layout: &Layout, compression: Compression) -> Outcome<Vec<u8>> {
    let mut writer = LayerWriter::new(Vec::new(), compression, contract_parents)?;
    layers::write(&[wheel], layout, &mut writer)?;
    Ok(writer.finish()?.0)
}

/// Inflates the members of a layer and digests what comes out, with nothing verified.
fn floor(layer: &[u8]) -> Outcome<[u8; 32]> {
    let mut hash = Sha256::new();
    members(layer, |bytes| hash.update(bytes))?;
    Ok(hash.finalize().into())
}

fn unpacked(layer: &[u8]) -> Outcome<Vec<u8>> {
    let mut tar = Vec::new();
    members(layer, |bytes| tar.extend_from_slice(bytes))?;
    Ok(tar)
}

fn members(mut layer: &[u8], mut each: impl FnMut(&[u8])) -> Outcome<()> {
    let mut output = vec![0; 64 * 1024];
    let mut inflater = Decompress::new(false);
    while !layer.is_empty() {
        layer = &layer[HEADER..];
        inflater.reset(false);
        loop {
            let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
            let status = inflater.decompress(layer, &mut output, FlushDecompress::None)?;
            layer = &layer[usize::try_from(inflater.total_in() - before_in)?..];
            each(&output[..usize::try_from(inflater.total_out() - before_out)?]);
            if status == Status::StreamEnd {
                break;
            }
        }
        layer = &layer[TRAILER..];
    }
    Ok(())
}

/// What the machine's `gzip -6` makes of a tar, in bytes.
fn gzip(tar: &[u8]) -> Outcome<usize> {
    let mut child = Command::new("gzip")
        .arg("-6")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(tar)));
        Ok(child.wait_with_output()?.stdout.len())
    })
}

/// Does a work several times and prints the best of them; returns its seconds of processor time.
fn measure(
    name: &str,
    bytes: usize,
    least: Option<f64>,
    mut work: impl FnMut() -> Outcome<()>,
) -> Outcome<f64> {
    let (mut wall, mut processor) = (Duration::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let (start, before) = (Instant::now(), processor_time()?);
        work()?;
        wall = wall.min(start.elapsed());
        processor = processor.min(processor_time()? - before);
    }
    let share = least.map_or(String::new(), |least| {
        format!(
            ", {:>3.0} % of the least (by processor time {:>3.0} %)",
            100.0 * least / wall.as_secs_f64(),
            100.0 * least / processor
        )
    });
    println!(
        "  {name:<26} {:>6.0} MB/s{share}",
        ratio(bytes, 1_000_000) / wall.as_secs_f64()
    );
    Ok(processor)
}

/// Seconds that this process has spent on processors (`/proc/self/task/*/schedstat`).
fn processor_time() -> Outcome<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let statistics = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += statistics
            .split(' ')
            .next()
            .unwrap_or_default()
            .parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

#[expect(clippy::cast_precision_loss, reason = "lengths are below 2^52")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}
