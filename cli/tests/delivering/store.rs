//! An object store that speaks S3's protocol.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::place::Running;
use crate::service::fixture::free;

/// A server that speaks S3's protocol.
const SERVER: &str = "moto[server]==5.2.5";
/// The bucket.
pub(crate) const BUCKET: &str = "builds";

/// A store with an empty bucket.
pub(crate) struct Store {
    process: Running,
    address: String,
}

impl Drop for Store {
    fn drop(&mut self) {
        // What uv has started does not end with it.
        let group = format!("-{}", self.process.0.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).status();
    }
}

impl Store {
    pub(crate) fn start() -> Self {
        let address = free();
        let (_, port) = address.rsplit_once(':').expect("a port");
        let process = Command::new("uvx")
            .args([
                "--from",
                SERVER,
                "moto_server",
                "--host",
                "127.0.0.1",
                "--port",
                port,
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("uvx, which is beside uv");
        let store = Self {
            process: Running(process),
            address,
        };
        let deadline = Instant::now() + Duration::from_mins(1);
        while !store.ask(&["--request", "PUT"], BUCKET).0 {
            assert!(Instant::now() < deadline, "the store does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        store
    }

    pub(crate) fn ask(&self, arguments: &[&str], path: &str) -> (bool, String) {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--fail", "--max-time", "10"])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "test:test"])
            .args(arguments);
        let url = format!("http://{}/{path}", self.address);
        let output = command.arg(url).output().expect("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text)
    }

    pub(crate) fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ]
    }
}
