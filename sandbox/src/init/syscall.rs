//! System calls that no safe interface offers, each behind one that is safe.
#![expect(
    unsafe_code,
    reason = "fork, execve, seccomp and a few more have no safe interface"
)]

use std::ffi::{CString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::FdFlags;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Takes over an inherited descriptor, which programs started later do not inherit; `None` if it is not open.
/// To be called once, before the process opens anything.
pub(super) fn adopt(number: i32) -> Option<OwnedFd> {
    // SAFETY: fcntl with a number that is not open answers EBADF and touches nothing.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and nothing in this process owns it: it was inherited and this is the first use.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC).ok()?;
    Some(descriptor)
}

/// Closes every descriptor from `first` on. To be called before the process opens anything.
pub(super) fn close_from(first: i32) {
    // SAFETY: nothing in this process owns one of them: they were inherited. Where the call is missing, before
    // Linux 5.9, no sandbox can be made either.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_int::MAX, 0);
    }
}

/// Writes to the standard error. There is no place to report a failure to.
pub(super) fn complain(text: &str) {
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
}

/// Leaves namespaces for new ones.
pub(super) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: there is no other thread, so none can see a descriptor table that this one has left.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Divides the process. `None` in the child.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the helper never starts a thread, so the child has all of its parent's state, locks included.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Kills every process of the namespace whose first process this is.
pub(super) fn kill_all() {
    // In any other process, -1 would mean everything its user runs.
    if !rustix::process::getpid().is_init() {
        return;
    }
    // SAFETY: kill touches no memory. -1 means every process this one can see, itself excepted. There may be
    // none, which is fine.
    unsafe {
        libc::kill(-1, libc::SIGKILL);
    }
}

/// Ends this process at once.
pub(super) fn exit(code: u8) -> ! {
    // SAFETY: _exit takes any number and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Blocks every signal, and answers a descriptor that reads them.
pub(super) fn take_signals() -> io::Result<OwnedFd> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set before the others read it; a null pointer for the old mask is
    // allowed.
    let descriptor = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        if libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, all.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    owned(descriptor)
}

/// The next signal that `signals` has: its number, and whether a process sent it rather than the kernel.
pub(super) fn next_signal(signals: &OwnedFd) -> Option<(i32, bool)> {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(signals, &mut info) {
        Ok(length) if length == info.len() => {}
        _ => return None,
    }
    let field = |offset: usize| {
        i32::from_ne_bytes([
            info[offset],
            info[offset + 1],
            info[offset + 2],
            info[offset + 3],
        ])
    };
    let number = field(std::mem::offset_of!(libc::signalfd_siginfo, ssi_signo));
    let code = field(std::mem::offset_of!(libc::signalfd_siginfo, ssi_code));
    // SI_USER, SI_QUEUE and SI_TKILL are not positive; what the kernel sends is.
    Some((number, code <= 0))
}

/// Gives signals back their usual meaning, for the program that is executed next.
pub(super) fn restore_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: SIG_DFL is a valid action for every signal; the set is initialised before it is read.
    unsafe {
        for number in 1..=64 {
            libc::signal(number, libc::SIG_DFL);
        }
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Becomes another program. Returns only if it cannot.
pub(super) fn execute(
    program: &CString,
    arguments: &[CString],
    environment: &[CString],
) -> io::Error {
    let list = |strings: &[CString]| -> Vec<*const c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: both lists end with a null pointer, and the strings they point to outlive the call.
    unsafe {
        libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
    }
    io::Error::last_os_error()
}

/// Makes a detached mount tree read-only, with everything below it.
pub(super) fn make_read_only(tree: impl AsFd) -> io::Result<()> {
    /// `struct mount_attr` of linux/mount.h.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes {
        set: 1, // MOUNT_ATTR_RDONLY
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the descriptor is open, the path is an empty C string, and the structure has the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    answer(done)
}

/// `IFF_UP` of linux/if.h, in the type that the request has.
const INTERFACE_UP: libc::c_short = 1;

/// Brings the loopback interface up.
pub(super) fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *slot = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = INTERFACE_UP;
    // SAFETY: the request is an initialised ifreq that outlives the call, as SIOCSIFFLAGS reads it.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    answer(done.into())
}

/// Installs a system call filter on this process and its descendants, and answers the descriptor on which
/// it notifies.
pub(super) fn install_filter(program: &mut [libc::sock_filter]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program points to as many instructions as it says, and the kernel copies them.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    owned(i32::try_from(descriptor).unwrap_or(-1))
}

/// Installs a system call filter without notifications on this process and its descendants, which cannot gain
/// privileges.
pub(super) fn install_denials(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program points to as many instructions as it says, and the kernel copies them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    answer(done)
}

/// Keeps this process and its descendants from abstract sockets and processes of the host (Landlock, since
/// Linux 6.12). Answers an error where the kernel cannot.
pub(super) fn confine() -> io::Result<()> {
    /// `struct landlock_ruleset_attr` of linux/landlock.h: files, network, scopes.
    #[repr(C)]
    struct Ruleset([u64; 3]);
    // LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and LANDLOCK_SCOPE_SIGNAL.
    let ruleset = Ruleset([0, 0, 1 | 2]);
    // SAFETY: the structure has the size given and outlives the call.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size_of::<Ruleset>(),
            0,
        )
    };
    let ruleset = owned(i32::try_from(made).unwrap_or(-1))?;
    // SAFETY: the descriptor is open, and the call takes no memory.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    answer(done)
}

/// Receives one notification of a filter.
pub(super) fn receive_notification(listener: &OwnedFd) -> io::Result<libc::seccomp_notif> {
    // SAFETY: all zeroes is a valid notification, and what the kernel wants to be given.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one notification to where one is.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut notification,
        )
    };
    answer(done.into()).map(|()| notification)
}

/// Whether the process of a notification still waits, so that its number is still its own.
pub(super) fn is_waiting(listener: &OwnedFd, id: u64) -> bool {
    // SAFETY: the kernel reads one number from where one is.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const id,
        )
    };
    done == 0
}

/// Answers a notification: 0, or an error number. The process may be gone by now, which is fine.
pub(super) fn answer_notification(listener: &OwnedFd, id: u64, errno: i32) {
    let response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: -errno,
        flags: 0,
    };
    // SAFETY: the kernel reads one response from where one is.
    unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const response,
        );
    }
}

/// Owns a descriptor that a call has just made, or reads why there is none.
fn owned(descriptor: i32) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The error of a call that answers -1.
fn answer(done: i64) -> io::Result<()> {
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
