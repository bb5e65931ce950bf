//! The builder `default` with an engine of another machine, which `ssh` reaches: a real server of this one.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::docker::HOST;
use crate::engine::{Engine, Release};
use crate::place::{Place, Running, has};

/// Where Debian has it, which is on no path but root's.
const SERVER: &str = "/usr/sbin/sshd";

/// A server with keys of its own, and a folder with an `ssh` that knows it.
struct Server {
    process: Running,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn start() -> Option<Self> {
        if !["ssh", "ssh-keygen", "sshd"].into_iter().all(has) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["server", "client"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)])
                .status();
            assert!(made.expect("ssh-keygen").success());
        }
        fs_err::create_dir_all("/run/sshd").expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPidFile none\nPasswordAuthentication no\nMaxStartups 100\n",
            path("server"),
            path("client.pub"),
        );
        fs_err::write(path("sshd_config"), config).expect("a file");
        let key = fs_err::read_to_string(path("server.pub")).expect("a key");
        let known = format!("[127.0.0.1]:{port} {key}");
        fs_err::write(path("known_hosts"), known).expect("a file");
        let config = format!(
            "Host engine\n  HostName 127.0.0.1\n  Port {port}\n\
             Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  \
             StrictHostKeyChecking yes\n  HostKeyAlias [127.0.0.1]:{port}\n",
            path("client"),
            path("known_hosts"),
        );
        fs_err::write(path("ssh_config"), config).expect("a file");
        let bin = folder.path().join("bin");
        fs_err::create_dir(&bin).expect("a folder");
        let script = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n",
            path("ssh_config")
        );
        fs_err::write(bin.join("ssh"), script).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o755);
        fs_err::set_permissions(bin.join("ssh"), mode).expect("a mode");
        let log = fs_err::File::create(path("log")).expect("a file");
        let process = Command::new(SERVER)
            .args(["-D", "-e", "-f", &path("sshd_config")])
            .stdout(Stdio::null())
            .stderr(log.into_parts().0)
            .spawn()
            .expect("a server");
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "the server listens");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self {
            process: Running(process),
            folder,
            port,
        })
    }

    fn log(&self) -> String {
        fs_err::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// How many connections `ssh` holds open.
    fn connections(&self) -> usize {
        let config = self.folder.path().join("ssh_config");
        let pattern = format!("-F {}", config.display());
        let listed = Command::new("pgrep").args(["-fc", "--", &pattern]).output();
        let listed = listed.expect("pgrep");
        let count = String::from_utf8_lossy(&listed.stdout).trim().parse();
        count.expect("a number")
    }
}

#[test]
fn an_engine_behind_ssh_builds_as_one_of_this_machine() {
    let Some(engine) = Engine::start(Release::Oldest) else {
        return;
    };
    let Some(mut server) = Server::start() else {
        return;
    };
    let mut place = Place::new(
        "[images.app]\npackages = [\"six\"]\nsource_root = \"src\"\n\
         [images.slow]\ncommands = [\"echo begun; sleep 288\"]\n",
    );
    place.write("src/main.py", "print('main')\n");
    let path = std::env::var("PATH").expect("a path");
    let bin = server.folder.path().join("bin");
    place.set("PATH", &format!("{}:{path}", bin.display()));
    let socket = engine.address();
    let socket = socket.strip_prefix("unix://").expect("a socket");

    let address = format!("ssh://root@127.0.0.1:{}{socket}", server.port);
    place.set("DOCKER_HOST", &address);
    let built = place.builds(&[&["app"], &HOST[..]].concat());
    assert_eq!(built["builder"], "default", "{}", server.log());
    let name = built["reference"].as_str().expect("a name");
    assert_eq!(engine.python(name, "import six, main"), "main\n");
    assert_eq!(
        place.builds(&[&["app"], &HOST[..]].concat())["built"],
        false
    );
    let told = place.says(&["builders"]);
    assert!(told.contains(&address), "{told}");

    // A host that only the configuration of `ssh` knows.
    place.set("DOCKER_HOST", &format!("ssh://engine{socket}"));
    let archive = place.path("app.tar");
    let output = format!("tar:{}", archive.display());
    place.builds(&[&["app", "--output", &output], &HOST[..]].concat());
    assert!(archive.is_file());

    crate::docker::interrupt(&place, &[&["slow"], &HOST[..]].concat(), "sleep 288");
    let until = Instant::now() + Duration::from_secs(20);
    while server.connections() > 0 {
        assert!(Instant::now() < until, "every `ssh` ends with the build");
        std::thread::sleep(Duration::from_millis(100));
    }

    // No engine there, no docker there, nobody there.
    place.set("DOCKER_HOST", "ssh://engine/nowhere/docker.sock");
    let asked = ["build", "app", "--builder", "default"];
    let (code, said) = place.fails(&asked);
    assert_eq!(code, Some(3), "{said}");
    for part in [
        "no container engine answers: `ssh://engine/nowhere/docker.sock`",
        "/nowhere/docker.sock: connect: no such file or directory",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    server.process.0.kill().expect("the server runs");
    server.process.0.wait().expect("an end");
    let (code, said) = place.fails(&asked);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("Connection refused"), "{said}");
    place.set("DOCKER_HOST", "ssh://me:hunter2-hunter2@engine");
    let (code, said) = place.fails(&asked);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("and `ssh://HOST:PORT`"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
