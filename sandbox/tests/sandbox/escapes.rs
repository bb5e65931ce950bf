//! What an attacker would try from inside. Programs are Python's, run by the host's interpreter.
#![cfg(target_arch = "x86_64")]

use std::os::fd::AsRawFd;
use std::path::Path;

use imagespec_sandbox::{Mount, Tier};

use super::place::Place;
use super::tiers;

/// System calls by number, with arguments that would do something if they were allowed.
const CALLS: &str = r#"
import ctypes, errno, os
call = ctypes.CDLL(None, use_errno=True).syscall
attribute = ctypes.create_string_buffer(128)
text = lambda value: ctypes.c_char_p(value)
def attempt(name, expected, *arguments):
    ctypes.set_errno(0)
    answer = call(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    found = errno.errorcode.get(ctypes.get_errno(), "success") if answer < 0 else "success"
    if found not in expected:
        print(name, found)
attempt("keyctl", ["EPERM"], 250, 0, -3, 1)
attempt("add_key", ["EPERM"], 248, text(b"user"), text(b"x"), text(b"y"), 1, -3)
attempt("request_key", ["EPERM"], 249, text(b"user"), text(b"x"), None, -3)
attempt("open_by_handle_at", ["EPERM"], 304, -100, attribute, 0)
attempt("bpf", ["EPERM"], 321, 0, attribute, 128)
attempt("perf_event_open", ["EPERM"], 298, attribute, 0, -1, -1, 0)
attempt("userfaultfd", ["EPERM"], 323, 0)
attempt("io_uring_setup", ["ENOSYS"], 425, 8, attribute)
attempt("clone3", ["ENOSYS"], 435, attribute, 64)
attempt("unshare a user namespace", ["EPERM"], 272, 0x10000000)
attempt("unshare mounts", ["EPERM"], 272, 0x20000)
attempt("setns", ["EPERM"], 308, 0, 0)
attempt("mount", ["EPERM"], 165, text(b"none"), text(b"/mnt"), text(b"tmpfs"), 0, None)
attempt("remount", ["EPERM"], 165, None, text(b"/proc/sys"), None, 32 | 4096, None)
attempt("umount", ["EPERM"], 166, text(b"/proc/sys"), 2)
attempt("open_tree", ["EPERM"], 428, -100, text(b"/"), 1)
attempt("fsopen", ["EPERM"], 430, text(b"tmpfs"), 0)
attempt("pivot_root", ["EPERM"], 155, text(b"/mnt"), text(b"/mnt"))
attempt("ptrace the first process", ["EPERM", "ESRCH"], 101, 16, 1, 0, 0)
attempt("type into the terminal", ["EPERM"], 16, 0, 0x5412, text(b"x"))
attempt("finit_module", ["EPERM"], 313, 0, text(b""), 0)
attempt("numbers of x32", ["ENOSYS"], 0x40000000 + 39)
def opens(path, flags):
    try:
        os.close(os.open(path, flags))
        print("opened", path)
    except OSError:
        pass
for path in ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger",
             "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs", "/proc/1/mem", "/usr/bin/python3"]:
    opens(path, os.O_WRONLY)
for path in ["/proc/1/root/etc", "/proc/1/cwd/etc", "/proc/1/environ", "/proc/1/fd/3", "/dev/mem", "/dev/kmsg"]:
    opens(path, os.O_RDONLY)
for path in ["/proc/keys", "/proc/timer_list", "/proc/kcore"]:
    try:
        if os.read(os.open(path, os.O_RDONLY), 1):
            print("read", path)
    except OSError:
        pass
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
if status["NoNewPrivs"].strip() != "1":
    print("new privileges")
# CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_DAC_READ_SEARCH, CAP_BPF, CAP_NET_ADMIN
for name in ["CapEff", "CapBnd"]:
    for bit in [21, 19, 16, 17, 2, 39, 12]:
        if int(status[name], 16) >> bit & 1:
            print(name, bit)
print("end")
"#;

#[tokio::test]
async fn system_calls_and_files_of_the_kernel_are_closed() {
    for tier in tiers() {
        let place = Place::new(tier);
        let (_, lines) = place.run(&place.python(CALLS)).await.unwrap();
        assert_eq!(lines, ["end"], "{tier:?}");
    }
}

/// An inherited descriptor of a folder would be a way out.
#[tokio::test]
async fn descriptors_of_the_caller_stay_outside() {
    for tier in tiers() {
        let place = Place::new(tier);
        let folder = std::fs::File::open("/").unwrap();
        rustix::io::fcntl_setfd(&folder, rustix::io::FdFlags::empty()).unwrap();
        let program = format!(
            "import os\nprint([fd for fd in range(3, 1024) if os.path.lexists(f'/proc/self/fd/{{fd}}')][1:], {})",
            folder.as_raw_fd()
        );
        let job = place.python(&program);
        let (_, lines) = place.run(&job).await.unwrap();
        // The first is that of the listing itself, if any.
        assert_eq!(lines, [format!("[] {}", folder.as_raw_fd())], "{tier:?}");
    }
}

#[tokio::test]
async fn the_way_out_of_a_nested_root_leads_nowhere() {
    let program = "
import os
os.mkdir('/inner')
try:
    os.chroot('/inner')
except PermissionError:
    pass
for _ in range(50):
    os.chdir('..')
try:
    os.chroot('.')
except PermissionError:
    pass
print(sorted(os.listdir('/')))";
    for tier in tiers() {
        let place = Place::new(tier);
        let (_, lines) = place.run(&place.python(program)).await.unwrap();
        let inside = lines[0].contains("'inner'") && lines[0].contains("'linked'");
        assert!(inside, "{tier:?} {lines:?}");
    }
}

#[tokio::test]
async fn links_of_a_layer_and_mounts_for_reading_do_not_lead_out() {
    for tier in tiers() {
        let place = Place::new(tier);
        let (outside, lent) = (place.folder("outside"), place.folder("lent"));
        std::fs::write(lent.join("file"), "kept").unwrap();
        let layer = place.folder("layer");
        std::os::unix::fs::symlink(&outside, layer.join("absolute")).unwrap();
        let climbing =
            Path::new("../../../../../../../../..").join(outside.strip_prefix("/").unwrap());
        std::os::unix::fs::symlink(climbing, layer.join("relative")).unwrap();
        std::os::unix::fs::symlink(&outside, layer.join("cwd")).unwrap();
        let script = "echo x >/absolute/a; echo x >/relative/b; echo x >c
            echo x >/mnt/lent/file; rm -f /mnt/lent/file; mv /mnt/lent/file /mnt/lent/other; chmod 777 /mnt/lent/file
            ln /mnt/lent/file /srv/linked; echo end";
        let mut job = place.job(&["sh", "-c", script]);
        job.layers.push(layer);
        job.cwd = "/cwd/deep".into();
        job.mounts = vec![Mount {
            source: lent.clone(),
            target: "/mnt/lent".into(),
            writable: false,
        }];
        let (_, lines) = place.run(&job).await.unwrap();
        assert_eq!(lines.last().map(String::as_str), Some("end"), "{lines:?}");
        let names = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
        assert_eq!(names(&outside), 0, "{tier:?}");
        assert_eq!(names(&lent), 1);
        assert_eq!(std::fs::read_to_string(lent.join("file")).unwrap(), "kept");
    }
}

#[tokio::test]
async fn devices_and_set_id_programs_give_nothing() {
    if !tiers().contains(&Tier::Root) {
        return;
    }
    let place = Place::new(Tier::Root);
    // The memory of the machine, a disk, and a copy of a program that would be root's.
    let script = "mknod /srv/mem c 1 1; mknod /srv/disk b 254 0; cat /srv/mem /srv/disk | wc -c
        cp /usr/bin/id /srv/id; chmod 4755 /srv/id; echo end";
    let mut job = place.python("");
    job.argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let (_, lines) = place.run(&job).await.unwrap();
    let denied = lines
        .iter()
        .filter(|line| line.contains("Permission denied"));
    assert_eq!(denied.count(), 2, "{lines:?}");
    assert!(lines.contains(&"0".to_owned()), "{lines:?}");
    job.argv = ["/srv/id", "-u"].map(str::to_owned).to_vec();
    (job.uid, job.gid) = (1000, 1000);
    let (_, lines) = place.run(&job).await.unwrap();
    assert_eq!(lines, ["1000"]);
}
