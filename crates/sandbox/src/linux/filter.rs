//! The filter of system calls: a list of those that computing needs. All others fail with "operation not permitted",
//! among them sockets, new processes and threads, other processes' memory, mounts, io_uring, bpf and keys.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::policy::Error;

/// Memory, time, signals to itself, and descriptors it has.
const ALWAYS: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_setitimer,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Looking at files, where a file layer says which.
const LOOK: &[c_long] = &[
    libc::SYS_chdir,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_statx,
];

/// Changing files, where there is a directory for it.
const CHANGE: &[c_long] = &[
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_mkdirat,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_umask,
    libc::SYS_unlinkat,
];

#[cfg(target_arch = "x86_64")]
const ALWAYS_OLD: &[c_long] =
    &[libc::SYS_alarm, libc::SYS_dup2, libc::SYS_poll, libc::SYS_select, libc::SYS_time];
#[cfg(target_arch = "x86_64")]
const LOOK_OLD: &[c_long] =
    &[libc::SYS_access, libc::SYS_lstat, libc::SYS_open, libc::SYS_readlink, libc::SYS_stat];
#[cfg(target_arch = "x86_64")]
const CHANGE_OLD: &[c_long] = &[
    libc::SYS_mkdir,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_symlink,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_OLD: &[c_long] = &[];
#[cfg(not(target_arch = "x86_64"))]
const LOOK_OLD: &[c_long] = &[];
// renameat, which libc does not name there.
#[cfg(not(target_arch = "x86_64"))]
const CHANGE_OLD: &[c_long] = &[38];

/// Calls that look as if the kernel did not have them: C libraries then go on to an older one, which is judged.
const MISSING: &[c_long] = &[libc::SYS_clone3, libc::SYS_openat2];

/// What can be asked about, or copied from, a descriptor. Owners and signals of descriptors are not among it.
const FCNTL: &[c_int] = &[libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL];

/// Whether a descriptor is a terminal. The C libraries do not agree about the type of their constant.
const TCGETS: u64 = 0x5401;

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Seccomp(error.to_string())
}

/// Fails when the kernel, or a container around us, has no filters.
#[expect(unsafe_code, reason = "asks the kernel; nothing safe does")]
pub(super) fn available() -> Result<(), Error> {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads four bytes from a live variable.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    if result == 0 { Ok(()) } else { Err(failed(std::io::Error::last_os_error())) }
}

/// Puts the filter in force, for good.
pub(super) fn install(opens: bool, changes: bool) -> Result<(), Error> {
    // The first one stays in force under the second, which has to let its calls through; after the second there is no
    // way to install another.
    seccompiler::apply_filter_all_threads(&missing()?).map_err(failed)?;
    seccompiler::apply_filter_all_threads(&allowed(opens, changes)?).map_err(failed)
}

fn allowed(opens: bool, changes: bool) -> Result<BpfProgram, Error> {
    let mut rules = BTreeMap::new();
    let mut allow = |calls: &[c_long]| rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    allow(ALWAYS);
    allow(ALWAYS_OLD);
    allow(MISSING);
    if opens {
        allow(LOOK);
        allow(LOOK_OLD);
        if changes {
            allow(CHANGE);
            allow(CHANGE_OLD);
        }
    }
    let commands = FCNTL.iter().map(|command| rule(&[(1, u64::from(command.unsigned_abs()))]));
    rules.insert(libc::SYS_fcntl, commands.collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_ioctl, vec![rule(&[(1, TCGETS)])?]);
    // Its own limits may be read: process 0 is the caller, and there are no new ones.
    rules.insert(libc::SYS_prlimit64, vec![rule(&[(0, 0), (2, 0)])?]);
    compile(rules, SeccompAction::Errno(libc::EPERM.unsigned_abs()), SeccompAction::Allow)
}

fn missing() -> Result<BpfProgram, Error> {
    let rules = MISSING.iter().map(|call| (*call, Vec::new())).collect();
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()))
}

/// Matches when each of these arguments has this value.
fn rule(arguments: &[(u8, u64)]) -> Result<SeccompRule, Error> {
    let conditions = arguments.iter().map(|(index, value)| {
        SeccompCondition::new(*index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, *value).map_err(failed)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?).map_err(failed)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, Error> {
    let system = std::env::consts::ARCH.try_into().map_err(failed)?;
    let filter = SeccompFilter::new(rules, others, listed, system).map_err(failed)?;
    filter.try_into().map_err(failed)
}
