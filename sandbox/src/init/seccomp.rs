//! The filter by which changes of owners reach the supervisor (`seccomp_unotify(2)`).
//!
//! Where one id exists, giving a file to another user fails, and so does becoming one. The former is
//! recorded; the latter is answered as if it had happened, as the programs that do it (installers, `su`) go on
//! to do what they could do anyway.

use std::io;
use std::os::fd::OwnedFd;

use libc::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

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

/// Offsets in `struct seccomp_data` of linux/seccomp.h, in bytes.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

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
