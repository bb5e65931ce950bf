//! Sandboxes over a root file system of busybox, on every tier that this user has. As root, the suite runs
//! itself once more as an unprivileged user, which has the lowest tier only.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod escapes;
mod limits;
mod place;

use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::Stdio;

use imagespec_sandbox::{Error, Exit, Mount, Network, Tier, Workspace, exec, run, spawn, tier};
use tokio_util::sync::CancellationToken;

use place::Place;

const UNPRIVILEGED: &str = "IMAGESPEC_TEST_UNPRIVILEGED";

/// File capabilities of revision 2: `cap_net_raw`, permitted and effective.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The tiers of the user the test runs as.
fn tiers() -> Vec<Tier> {
    if rustix::process::geteuid().is_root() {
        vec![Tier::Root, Tier::SingleId]
    } else {
        vec![Tier::SingleId]
    }
}

async fn sh(place: &Place, script: &str) -> (Exit, Vec<String>) {
    let job = place.job(&["sh", "-c", script]);
    place.run(&job).await.unwrap()
}

#[test]
fn all_of_it_as_an_unprivileged_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Where `nobody` can reach it, unlike the folder it was built in.
    let folder = tempfile::Builder::new()
        .prefix("sandbox-test-")
        .tempdir_in("/tmp")
        .unwrap();
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let test = folder.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    let init = folder.path().join("init");
    std::fs::copy(env!("CARGO_BIN_EXE_imagespec-sandbox-init"), &init).unwrap();
    let status = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&test)
        .env(UNPRIVILEGED, &init)
        .env("TMPDIR", folder.path())
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn the_tier_is_found_by_trying() {
    let place = Place::new(tiers()[0]);
    assert_eq!(tier(&place.host).await.unwrap(), tiers()[0]);
}

#[tokio::test]
async fn output_and_exit_codes_arrive() {
    for tier in tiers() {
        let place = Place::new(tier);
        let (exit, lines) = sh(&place, "echo out; echo err >&2; id -u; exit 7").await;
        assert_eq!(exit, Exit::Code(7));
        assert_eq!(lines, ["out", "err", "0"]);
        let (exit, _) = sh(&place, "kill -9 $$").await;
        assert_eq!((exit, exit.code()), (Exit::Signal(9), 137));
        let (exit, lines) = place.run(&place.job(&["no-such-program"])).await.unwrap();
        assert_eq!(exit, Exit::Code(127));
        assert_eq!(lines, ["imagespec: `no-such-program`: not found"]);
        let (exit, _) = place.run(&place.job(&["/etc/passwd"])).await.unwrap();
        assert_eq!(exit, Exit::Code(126));
    }
}

#[tokio::test]
async fn exec_answers_what_a_shell_would() {
    for tier in tiers() {
        let place = Place::new(tier);
        let mut job = place.job(&["sh", "-c", "exit $(($(id -u) - 997))"]);
        (job.uid, job.gid) = (1000, 1000);
        job.workspace = None;
        assert_eq!(exec(&place.host, &job, tier).await.unwrap(), 3);
        job.argv = vec!["sh".into(), "-c".into(), "kill -15 $$".into()];
        assert_eq!(exec(&place.host, &job, tier).await.unwrap(), 143);
    }
}

#[tokio::test]
async fn owners_are_kept() {
    for tier in tiers() {
        let place = Place::new(tier);
        let script = "
            mkdir /srv/d; echo x >/srv/d/f; ln -s f /srv/d/l; mkfifo /srv/d/p
            chown 1000:1001 /srv/d/f; chown 1:2 /srv/d; chown -h 3:4 /srv/d/l; chown 5 /srv/d/p
            mv /srv/d/f /srv/d/g; mv /srv/d/l /srv/d/m
            cd /srv; echo y >r; chown 8:9 r
            echo z >/etc/low; chown 0:0 /etc/passwd
            su -s /bin/sh user -c true";
        let (exit, lines) = sh(&place, script).await;
        assert!(exit.success(), "{lines:?}");
        let entries = place.changes(&[]);
        let owner = |path: &str| {
            let entry = entries.iter().find(|entry| entry.path == path).unwrap();
            (entry.uid, entry.gid)
        };
        assert_eq!(owner("srv/d"), (1, 2));
        assert_eq!(owner("srv/d/g"), (1000, 1001));
        assert_eq!(owner("srv/d/m"), (3, 4));
        assert_eq!(owner("srv/d/p"), (5, 0));
        assert_eq!(owner("srv/r"), (8, 9));
        assert_eq!(owner("etc/low"), (0, 0));
        assert!(entries.iter().all(|entry| entry.xattrs.is_empty()));
    }
}

#[tokio::test]
async fn owners_of_lower_layers_survive_a_change() {
    for tier in tiers() {
        let place = Place::new(tier);
        let (exit, lines) = sh(&place, "echo more >>/home/user/file; chmod 700 /home/user").await;
        assert!(exit.success(), "{lines:?}");
        let entries = place.changes(&[]);
        for path in ["home/user", "home/user/file"] {
            let entry = entries.iter().find(|entry| entry.path == path).unwrap();
            assert_eq!((entry.uid, entry.gid), (1000, 1000), "{path}");
        }
    }
}

#[tokio::test]
async fn capabilities_of_lower_layers_survive_a_change() {
    for tier in tiers() {
        let place = Place::new(tier);
        let (exit, lines) = sh(&place, "chmod 700 /bin/capable").await;
        assert!(exit.success(), "{lines:?}");
        let entries = place.changes(&[]);
        let capable = entries
            .iter()
            .find(|entry| entry.path == "bin/capable")
            .unwrap();
        let names: Vec<_> = capable.xattrs.keys().collect();
        assert_eq!(names, ["security.capability"]);
        assert_eq!(capable.xattrs["security.capability"], CAPABILITY);
    }
}

/// `useradd` and `sed -i` write a new file and give it the owner that the old one has, as far as they see.
#[tokio::test]
async fn a_file_that_takes_the_place_of_another_keeps_its_owner() {
    let place = Place::new(Tier::SingleId);
    let script = "cd /home/user; cp file new; chown 0:0 new; mv -f new file; chown 0:0 other
        chown -h 3:4 /linked";
    let (exit, lines) = sh(&place, script).await;
    assert!(exit.success(), "{lines:?}");
    let entries = place.changes(&[]);
    let owner = |path: &str| {
        let entry = entries.iter().find(|entry| entry.path == path).unwrap();
        (entry.uid, entry.gid)
    };
    assert_eq!(owner("home/user/file"), (1000, 1000));
    assert_eq!(owner("home/user/other"), (0, 0));
    assert_eq!(owner("linked"), (3, 4));
}

#[tokio::test]
async fn deletions_and_replaced_folders_are_recorded() {
    for tier in tiers() {
        let place = Place::new(tier);
        let script = "rm /etc/motd; rm -r /home/user; mkdir /home/user; echo new >/home/user/new;
            echo a >/srv/a; ln /srv/a /srv/b; echo left >/tmp/left";
        let (exit, lines) = sh(&place, script).await;
        assert!(exit.success(), "{lines:?}");
        let paths: Vec<_> = place
            .changes(&[])
            .into_iter()
            .map(|entry| entry.path)
            .collect();
        assert_eq!(
            paths,
            [
                "etc",
                "etc/.wh.motd",
                "home",
                "home/user",
                "home/user/.wh..wh..opq",
                "home/user/new",
                "srv",
                "srv/a",
                "srv/b",
                "tmp",
            ]
        );
        // The changes, unpacked and mounted as a layer, show the same.
        let mut job = place.job(&["sh", "-c", "ls /home/user; cat /srv/b; test ! -e /etc/motd"]);
        job.workspace = None;
        job.layers.push(place.unpack_changes());
        let (exit, lines) = place.run(&job).await.unwrap();
        assert!(exit.success());
        assert_eq!(lines, ["new", "a"]);
    }
}

#[tokio::test]
async fn mounts_leave_no_trace() {
    for tier in tiers() {
        let place = Place::new(tier);
        let shared = place.folder("shared");
        let file = shared.join("file");
        std::fs::write(&file, "from outside").unwrap();
        let mut job = place.job(&[
            "sh",
            "-c",
            "cat /mnt/deep/file /opt/one; echo in >/mnt/deep/in; chown 7:7 /mnt/deep/in; echo no >/opt/one",
        ]);
        job.mounts = vec![
            Mount {
                source: shared.clone(),
                target: "/mnt/deep".into(),
                writable: true,
            },
            Mount {
                source: file,
                target: "/opt/one".into(),
                writable: false,
            },
            Mount {
                source: shared.clone(),
                target: "/linked/inside".into(),
                writable: false,
            },
        ];
        let (exit, lines) = place.run(&job).await.unwrap();
        assert_eq!(exit, Exit::Code(1));
        assert!(
            lines[0].starts_with("from outsidefrom outside"),
            "{lines:?}"
        );
        assert_eq!(std::fs::read_to_string(shared.join("in")).unwrap(), "in\n");
        let paths: Vec<_> = place
            .changes(&[])
            .into_iter()
            .map(|entry| entry.path)
            .collect();
        // The folder behind the link was copied to make the mount point in it, which is gone again.
        assert_eq!(paths, ["srv"]);
    }
}

#[tokio::test]
async fn a_hundred_layers_are_one_tree() {
    for tier in tiers() {
        let place = Place::new(tier);
        let mut job = place.job(&["sh", "-c", "cat /layers/* | wc -l; cat /top"]);
        for index in 0..100 {
            let layer = place.folder(&format!("a-long-name-of-a-layer-{index:0>100}"));
            std::fs::create_dir(layer.join("layers")).unwrap();
            std::fs::write(layer.join(format!("layers/{index}")), "x\n").unwrap();
            std::fs::write(layer.join("top"), format!("{index}\n")).unwrap();
            job.layers.push(layer);
        }
        let (exit, lines) = place.run(&job).await.unwrap();
        assert!(exit.success());
        assert_eq!(lines, ["100", "99"]);
    }
}

#[tokio::test]
async fn cancelling_ends_every_process() {
    for tier in tiers() {
        let place = Place::new(tier);
        let shared = place.folder("shared");
        let fifo = shared.join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
        assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
        let mut job = place.job(&[
            "sh",
            "-c",
            "setsid sh -c 'exec 3>/mnt/s/fifo; echo up >&3; trap \"\" TERM; sleep 1000' & echo go; sleep 1000",
        ]);
        job.mounts = vec![Mount {
            source: shared,
            target: "/mnt/s".into(),
            writable: true,
        }];
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        // Opening blocks until the background process opens its end, reading until that is closed.
        let reader = std::thread::spawn(move || {
            let mut fifo = std::fs::File::open(fifo).unwrap();
            let mut up = [0; 3];
            fifo.read_exact(&mut up).unwrap();
            stop.cancel();
            fifo.read_to_end(&mut Vec::new()).unwrap();
            up
        });
        let ended = run(&place.host, &job, tier, &mut |_| {}, &cancel).await;
        assert!(matches!(ended, Err(Error::Cancelled)));
        assert_eq!(place.scratch(), [""; 0]);
        let up = tokio::task::spawn_blocking(|| reader.join().unwrap())
            .await
            .unwrap();
        assert_eq!(&up, b"up\n");
    }
}

#[tokio::test]
async fn what_is_dropped_is_gone_once_it_settled() {
    for tier in tiers() {
        let place = Place::new(tier);
        let endless = "mkdir -m 0 /srv/shut; echo up; while :; do i=x$i; >/srv/${#i}; done";
        let mut job = place.job(&["sh", "-c", endless]);
        let workspace = Workspace::new_in(&place.folder("elsewhere"), "dropped-").unwrap();
        let path = workspace.path().to_owned();
        job.workspace = Some(workspace);
        let cancel = CancellationToken::new();
        let up = tokio::sync::Notify::new();
        let mut line = |_: &str| up.notify_one();
        tokio::select! {
            ended = run(&place.host, &job, tier, &mut line, &cancel) => panic!("{ended:?}"),
            () = up.notified() => {}
        }
        assert!(path.exists());
        drop(std::mem::replace(&mut job, place.job(&["sleep", "1000"])));
        imagespec_sandbox::settle();
        assert!(!path.exists());
        drop(spawn(&place.host, &job, tier, Stdio::null()).unwrap());
        imagespec_sandbox::settle();
        assert_eq!(place.scratch(), [""; 0]);
    }
}

#[tokio::test]
async fn what_a_command_leaves_running_ends_with_it() {
    for tier in tiers() {
        let place = Place::new(tier);
        let (exit, lines) = sh(&place, "setsid sleep 1000 & echo done").await;
        assert!(exit.success());
        assert_eq!(lines, ["done"]);
    }
}

#[tokio::test]
async fn a_worker_is_talked_to() {
    for tier in tiers() {
        let place = Place::new(tier);
        let job = place.job(&[
            "sh",
            "-c",
            "while read line; do echo \"<$line>\"; done; exit 5",
        ]);
        let mut worker = spawn(&place.host, &job, tier, Stdio::inherit()).unwrap();
        let mut stdin = worker.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").unwrap();
        drop(stdin);
        let mut output = String::new();
        worker
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .unwrap();
        assert_eq!(output, "<one>\n<two>\n");
        assert_eq!(worker.wait().unwrap(), Exit::Code(5));
    }
}

#[tokio::test]
async fn the_sandbox_is_a_world_of_its_own() {
    for tier in tiers() {
        let place = Place::new(tier);
        let mut job = place.job(&[
            "sh",
            "-c",
            "hostname; pwd; echo $A; cat /proc/1/environ 2>/dev/null || echo opaque; cat /proc/1/exe >/dev/null 2>&1 || echo closed
             echo null >/dev/null; test -h /dev/ptmx && test -c /dev/tty || echo no devices
             echo 1 2>/dev/null >/proc/sys/kernel/panic || echo protected
             mount -t tmpfs none /mnt 2>/dev/null || echo unmountable
             grep -c . /proc/net/dev; ls /proc | grep -c '^[0-9]'",
        ]);
        job.env.push(("A".into(), "b c".into()));
        job.cwd = PathBuf::from("/work/here");
        job.hostname = "elsewhere".into();
        job.network = Network::Isolated;
        let (_, lines) = place.run(&job).await.unwrap();
        let [name, cwd, variable, rest @ ..] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert_eq!(
            (name.as_str(), cwd.as_str(), variable.as_str()),
            ("elsewhere", "/work/here", "b c")
        );
        assert_eq!(rest[..4], ["opaque", "closed", "protected", "unmountable"]);
        // Two lines of headings and one of the loopback interface.
        assert_eq!(rest[4], "3");
        assert!(rest[5].parse::<u32>().unwrap() <= 5, "{lines:?}");
    }
}

#[tokio::test]
async fn what_is_shut_is_read_and_stays_shut() {
    for tier in tiers() {
        let place = Place::new(tier);
        let (exit, _) = sh(
            &place,
            "mkdir /srv/d; echo x >/srv/d/f; chmod 0 /srv/d/f; chmod 0 /srv/d",
        )
        .await;
        assert!(exit.success());
        let paths: Vec<_> = place
            .changes(&[])
            .into_iter()
            .map(|entry| (entry.path, entry.mode))
            .collect();
        let expected = [("srv", 0o755), ("srv/d", 0), ("srv/d/f", 0)];
        assert_eq!(paths, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }
}

#[tokio::test]
async fn what_another_user_makes_is_its_own() {
    for tier in tiers() {
        let mut place = Place::new(tier);
        place.ids = (1000, 1000);
        let (exit, lines) = sh(
            &place,
            "mkdir /home/user/made; ln -s x /home/user/made/link",
        )
        .await;
        assert!(exit.success(), "{lines:?}");
        let owners: Vec<_> = place
            .changes(&[])
            .into_iter()
            .map(|entry| (entry.path, entry.uid, entry.gid))
            .collect();
        let expected = [
            ("home", 0),
            ("home/user", 1000),
            ("home/user/made", 1000),
            ("home/user/made/link", 1000),
        ];
        let expected = expected.map(|(path, id)| (path.to_owned(), id, id));
        assert_eq!(owners, expected, "{tier:?}");
    }
}

#[tokio::test]
async fn nothing_is_left_behind() {
    for tier in tiers() {
        let place = Place::new(tier);
        let (exit, _) = sh(&place, "mkdir -m 0 /srv/shut; true").await;
        assert!(exit.success());
        assert_eq!(place.scratch(), [""; 0]);
        imagespec_sandbox::remove_tree(&place.workspace.upper()).unwrap();
    }
}
