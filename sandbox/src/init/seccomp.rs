//! The filter by which changes of owners reach the supervisor (`seccomp_unotify(2)`).
//!
//! Where one id exists, giving a file to another user fails, and so does becoming one. The former is
//! recorded; the latter is answered as if it had happened, as the programs that do it (installers, `su`) go on
//! to do what they could do anyway.

use std::io;
use std::os::fd::OwnedFd;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
};

use super::syscall;

/// `AUDIT_ARCH_*` of linux/audit.h: the ABI whose system call numbers the filter knows. Programs of another
/// one (32 bits) meet the kernel's own answers.
#[cfg(target_arch = "x86_64")]
const ABI: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ABI: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ABI: u32 = 0xc000_00f3;

/// The bit of x86-64 system call numbers that means x32.
const X32: u32 = 0x4000_0000;

/// Calls that change owners.
const RECORDED: &[libc::c_long] = &[
    libc::SYS_fchown,
    libc::SYS_fchownat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
];

/// Calls that change who a process is.
const PRETENDED: &[libc::c_long] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
];

/// Calls that no build needs, and that reach what namespaces do not separate, or open much of the kernel. The
/// capabilities for most are gone; this holds also where a kernel asks for fewer.
const DENIED: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
];

/// Calls that are answered as if the kernel had none: programs then do without. A filter sees neither what
/// `io_uring` does nor the flags of `clone3`.
const ABSENT: &[libc::c_long] = &[libc::SYS_io_uring_setup, libc::SYS_clone3];

/// Requests to a terminal that put words into the mouth of who sits at it.
const TYPING: [u32; 2] = [0x5412, 0x541c]; // TIOCSTI, TIOCLINUX

/// Offsets in `struct seccomp_data` of linux/seccomp.h, in bytes.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The low halves of arguments, on little-endian machines as all of these are.
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;

/// Installs the filter on this process and its descendants; answers where it notifies.
pub(super) fn install() -> io::Result<OwnedFd> {
    syscall::install_filter(&mut program())
}

/// The filter: allow, notify, or answer 0.
fn program() -> Vec<sock_filter> {
    let load = |offset| instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
    let answer = |value| instruction(BPF_RET | BPF_K, value, 0, 0);
    let equals = BPF_JMP | BPF_JEQ | BPF_K;
    let mut program = vec![
        load(ARCHITECTURE),
        instruction(equals, ABI, 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        load(NUMBER),
        instruction(BPF_JMP | BPF_JGE | BPF_K, X32, 0, 1),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let calls = RECORDED
        .iter()
        .map(|call| (call, libc::SECCOMP_RET_USER_NOTIF))
        // An error of 0 is a success that answers 0.
        .chain(PRETENDED.iter().map(|call| (call, libc::SECCOMP_RET_ERRNO)));
    for (call, action) in calls {
        let number = u32::try_from(*call).unwrap_or(u32::MAX);
        program.push(instruction(equals, number, 0, 1));
        program.push(answer(action));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// Forbids what no command of a build needs, on this process and its descendants.
pub(super) fn deny() -> io::Result<()> {
    syscall::install_denials(&mut denials())
}

/// The filter: allow, or an error. Another ABI would have other numbers, so it has no calls at all.
fn denials() -> Vec<sock_filter> {
    let load = |offset| instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
    let answer = |value| instruction(BPF_RET | BPF_K, value, 0, 0);
    let refuse = |errno: i32| {
        let errno = u32::try_from(errno).unwrap_or_default();
        instruction(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno, 0, 0)
    };
    let equals = BPF_JMP | BPF_JEQ | BPF_K;
    let mut program = vec![
        load(ARCHITECTURE),
        instruction(equals, ABI, 1, 0),
        refuse(libc::ENOSYS),
        load(NUMBER),
        instruction(BPF_JMP | BPF_JGE | BPF_K, X32, 0, 1),
        refuse(libc::ENOSYS),
    ];
    let calls = DENIED.iter().map(|call| (call, libc::EPERM));
    for (call, errno) in calls.chain(ABSENT.iter().map(|call| (call, libc::ENOSYS))) {
        program.push(instruction(equals, number(*call), 0, 1));
        program.push(refuse(errno));
    }
    // A user namespace would give back every capability inside of it.
    let namespace = u32::try_from(libc::CLONE_NEWUSER).unwrap_or_default();
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        program.extend([
            instruction(equals, number(call), 0, 4),
            load(FIRST_ARGUMENT),
            instruction(BPF_JMP | BPF_JSET | BPF_K, namespace, 0, 1),
            refuse(libc::EPERM),
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    program.extend([
        instruction(equals, number(libc::SYS_ioctl), 0, 5),
        load(SECOND_ARGUMENT),
        instruction(equals, TYPING[0], 1, 0),
        instruction(equals, TYPING[1], 0, 1),
        refuse(libc::EPERM),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_ALLOW),
    ]);
    program
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// One instruction; a jump skips `yes` or `no` instructions.
#[expect(
    clippy::cast_possible_truncation,
    reason = "operations have 16 bits, whatever the type of their constants"
)]
fn instruction(code: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k: value,
    }
}
