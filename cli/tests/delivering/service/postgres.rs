//! `PostgreSQL`, on a free port of this machine, as a user that is not root.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where Debian has its programs: below a folder for each version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// Whoever runs it where this is root.
const USER: &str = "postgres";

/// A server with a folder of its own. It ends with this.
pub(super) struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Postgres {
    /// Starts one; without its programs a test is skipped, unless `CI` is set.
    pub(super) fn start() -> Option<Self> {
        let versions = fs_err::read_dir(PROGRAMS).into_iter().flatten().flatten();
        let programs = versions.map(|version| version.path().join("bin")).max();
        assert!(
            programs.is_some() || std::env::var_os("CI").is_none(),
            "the test needs PostgreSQL"
        );
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let server = Self {
            programs: programs?,
            folder: tempfile::tempdir().expect("a folder"),
            port,
        };
        let path = server.folder.path();
        if rustix::process::geteuid().is_root() {
            let given = Command::new("chown").arg(USER).arg(path).status();
            assert!(given.expect("chown").success());
        }
        let data = path.join("data");
        let data = data.to_str().expect("a path");
        server.run(
            "initdb",
            &["-D", data, "-A", "trust", "-U", USER, "-E", "UTF8"],
        );
        server.again();
        Some(server)
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.runs(program, arguments);
        assert!(done, "{program} {arguments:?}: {}", self.log());
    }

    fn log(&self) -> String {
        fs_err::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Whether a program does what it is told.
    fn runs(&self, program: &str, arguments: &[&str]) -> bool {
        let path = self.programs.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", USER, "--regid", USER, "--clear-groups"])
                .arg(path);
            command
        } else {
            Command::new(path)
        };
        let done = command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
    }

    /// Starts it once more.
    pub(super) fn again(&self) {
        let folder = self.folder.path().to_str().expect("a path");
        let options = format!("-p {} -c listen_addresses=127.0.0.1 -k {folder}", self.port);
        let log = format!("{folder}/log");
        let data = format!("{folder}/data");
        let start = ["-D", &data, "-l", &log, "-o", &options, "-w", "start"];
        // What is left of one that was killed may still go.
        let started = (0..20).any(|_| {
            self.runs("pg_ctl", &start) || {
                std::thread::sleep(Duration::from_millis(200));
                false
            }
        });
        assert!(started, "PostgreSQL does not start: {}", self.log());
    }

    /// Ends all of it as a loss of power does.
    pub(super) fn kill(&self) {
        let first = self.folder.path().join("data/postmaster.pid");
        let text = fs_err::read_to_string(first).expect("its process");
        let id = text.lines().next().expect("a number");
        // Those that serve connections notice, and end.
        let killed = Command::new("kill").args(["-9", id]).status();
        assert!(killed.expect("kill").success());
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.folder.path().join("data/postmaster.pid");
        if data.exists() {
            let data = self.folder.path().join("data");
            let data = data.to_str().expect("a path");
            self.runs("pg_ctl", &["-D", data, "-m", "immediate", "stop"]);
        }
    }
}
