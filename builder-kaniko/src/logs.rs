//! What an executor prints, line by line, through restarts of the cluster's API and without a line twice.

use std::time::Duration;

use futures::io::{AsyncBufRead, AsyncBufReadExt as _};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::LogParams;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::job::EXECUTOR;

/// The longest line that is passed on whole, in bytes.
const LONGEST: usize = 64 << 10;
/// The pause before a log that broke off is read on.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a log may break off without a line.
const BREAKS: u32 = 60;

/// Where a log was left.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Place {
    /// The time of the last line.
    time: Option<Timestamp>,
    /// How many lines of that time were passed on.
    lines: usize,
    /// How many of them the log that is read on has repeated.
    repeated: usize,
}

impl Place {
    /// The text of a line that was not passed on before; the line begins with its time.
    fn advance<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let (time, text) = line.split_once(' ').unwrap_or((line, ""));
        let Ok(time) = time.parse::<Timestamp>() else {
            return Some(line);
        };
        match self.time {
            Some(last) if time < last => return None,
            Some(last) if time == last => {
                if self.repeated < self.lines {
                    self.repeated += 1;
                    return None;
                }
                self.lines += 1;
                self.repeated += 1;
            }
            _ => {
                self.time = Some(time);
                self.lines = 1;
                self.repeated = 1;
            }
        }
        Some(text)
    }

    /// A log is read on from here.
    const fn again(&mut self) {
        self.repeated = 0;
    }
}

/// Passes the lines of a pod's executor on, until it has ended or nobody takes them.
pub(crate) async fn follow(pods: Api<Pod>, pod: String, lines: mpsc::Sender<String>) {
    let mut place = Place::default();
    let mut breaks = 0;
    while breaks < BREAKS {
        place.again();
        let params = LogParams {
            container: Some(EXECUTOR.to_owned()),
            follow: true,
            since_time: place.time,
            timestamps: true,
            ..LogParams::default()
        };
        if let Ok(mut log) = pods.log_stream(&pod, &params).await {
            let mut line = Vec::new();
            loop {
                line.clear();
                match read_line(&mut log, &mut line).await {
                    Ok(true) => breaks = 0,
                    Ok(false) | Err(_) => break,
                }
                let line = String::from_utf8_lossy(&line);
                if let Some(text) = place.advance(&line)
                    && lines.send(text.to_owned()).await.is_err()
                {
                    return;
                }
            }
        }
        if has_ended(&pods, &pod).await {
            return;
        }
        breaks += 1;
        sleep(PAUSE).await;
    }
}

/// Whether there is nothing more to read: the executor has ended, or its pod is gone.
async fn has_ended(pods: &Api<Pod>, pod: &str) -> bool {
    match pods.get_opt(pod).await {
        Ok(None) => true,
        Ok(Some(pod)) => {
            let status = pod.status.unwrap_or_default();
            let containers = status.container_statuses.into_iter().flatten();
            let mut executor = containers.filter(|container| container.name == EXECUTOR);
            executor.any(|container| {
                container
                    .state
                    .is_some_and(|state| state.terminated.is_some())
            })
        }
        Err(_) => false,
    }
}

/// Reads a line without its end, if there is one more. What is too long of it is dropped.
async fn read_line(
    log: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let mut any = false;
    loop {
        let buffer = log.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = LONGEST.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        log.consume_unpin(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_read_on_repeats_no_line() {
        let lines = [
            "2026-01-01T00:00:00.1Z a",
            "2026-01-01T00:00:00.2Z b",
            "2026-01-01T00:00:00.2Z b",
            "2026-01-01T00:00:00.3Z ",
        ];
        let mut place = Place::default();
        let first: Vec<_> = lines[..2]
            .iter()
            .filter_map(|line| place.advance(line))
            .collect();
        assert_eq!(first, ["a", "b"]);
        place.again();
        let rest: Vec<_> = lines
            .iter()
            .filter_map(|line| place.advance(line))
            .collect();
        assert_eq!(rest, ["b", ""]);
    }

    #[tokio::test]
    async fn a_line_is_cut_where_it_is_too_long() {
        let text = [vec![b'x'; LONGEST + 10], b"\nshort\nlast".to_vec()].concat();
        let mut log = futures::io::BufReader::with_capacity(1000, &text[..]);
        let mut lengths = Vec::new();
        loop {
            let mut line = Vec::new();
            if !read_line(&mut log, &mut line).await.expect("a line") {
                break;
            }
            lengths.push(line.len());
        }
        assert_eq!(lengths, [LONGEST, 5, 4]);
    }
}
