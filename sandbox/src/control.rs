//! What the caller and the sandbox say to each other, over one socket: frames of a length (32 bits, little
//! endian, in bytes) and that much JSON. The caller closing its end is the order to stop.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::job::{Exit, Job, Limit, Tier};

/// The largest frame in bytes: an environment of some size fits.
const LIMIT: u32 = 16 << 20;

/// The file descriptor of the helper's end of the socket.
pub(crate) const DESCRIPTOR: i32 = 3;

/// The first frame to the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) job: Job,
    pub(crate) tier: Tier,
    /// The folder with `work`, `mounts` and `root`, and `upper` for discarded changes.
    pub(crate) scratch: PathBuf,
    /// Where changes are kept.
    pub(crate) upper: PathBuf,
    /// The file for what cannot be recorded on files themselves.
    pub(crate) owners: PathBuf,
    /// Whether the command shares the caller's terminal and process group.
    pub(crate) interactive: bool,
}

/// Later frames to the helper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Send the command a signal.
    Signal(i32),
}

/// Frames from the helper; the first is the last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// The sandbox could not be made.
    Failed {
        /// The step, a lower-case fragment.
        step: String,
        /// The system's error number, or 0.
        errno: i32,
    },
    /// The command ended.
    Ended(Exit),
    /// The command was ended, because it used more than it may.
    Exceeded(Limit),
}

/// The frame that carries `message`.
pub(crate) fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= LIMIT)
        .ok_or_else(|| io::Error::other("the job's description is too large"))?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Writes one frame.
pub(crate) fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&frame(message)?)
}

/// Reads one frame; [`io::ErrorKind::UnexpectedEof`] where the other end is closed.
pub(crate) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; body_length(length)?];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// The length in bytes of the body that follows `prefix`.
pub(crate) fn body_length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(prefix);
    if length > LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an oversized frame",
        ));
    }
    Ok(length as usize)
}
