//! A file tree of the process's own: what may be read, read-only at its usual place, and a scratch directory in
//! memory. Needs user namespaces, which some systems and most containers forbid; then the process keeps its tree.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::{chdir, getegid, geteuid, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::policy::{Error, Layer, Policy};

use super::step;

/// Covered by the new tree while that is made. It is there on every system.
const BASE: &str = "/tmp";
/// Where the scratch directory is in the new tree.
const SCRATCH: &str = "/scratch";

/// The file tree that the process sees.
pub(super) enum Root {
    /// The one it had.
    Inherited,
    /// Its own.
    Own {
        /// Whether there is a scratch directory.
        scratch: bool,
    },
}

impl Root {
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Own { .. })
    }

    pub(super) fn scratch(&self) -> Option<&'static Path> {
        matches!(self, Self::Own { scratch: true }).then_some(Path::new(SCRATCH))
    }

    /// Where the process should be.
    pub(super) fn directory(&self) -> &'static Path {
        self.scratch().unwrap_or(Path::new("/"))
    }
}

/// Makes the tree and moves there, or says in `missing` why that is impossible. An error comes from half-way.
pub(super) fn enter(policy: &Policy, read: &[PathBuf], missing: &mut Vec<String>) -> Result<Root, Error> {
    if policy.without.contains(&Layer::Namespace) {
        missing.push("user and mount namespace: left out on demand".to_owned());
        return Ok(Root::Inherited);
    }
    if let Err(error) = prepare(policy, read) {
        missing.push(format!("user and mount namespace: {error}"));
        return Ok(Root::Inherited);
    }
    step("changing the root directory", change_root())?;
    Ok(Root::Own { scratch: policy.scratch.is_some() })
}

/// Everything up to the change of the root; a failure leaves the visible files as they are.
fn prepare(policy: &Policy, read: &[PathBuf]) -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    #[expect(unsafe_code, reason = "only for descriptor tables, which are not unshared here")]
    // SAFETY: `UnshareFlags::FILES` is not among the flags.
    unsafe {
        unshare_unsafe(flags)?;
    }
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;

    // Copies are taken first: some of them may lie beneath the directory that the new tree covers.
    let mut copies = Vec::new();
    for path in read {
        let copy = open_tree(
            CWD,
            path,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
        )?;
        make_read_only(&copy, true)?;
        copies.push((path, path.is_dir(), copy));
    }
    let bare = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    memory(Path::new(BASE), bare, 1 << 20, 4096)?;
    let finished = fill(policy, &copies, bare);
    if finished.is_err() {
        unmount(BASE, UnmountFlags::DETACH)?;
    }
    finished
}

fn fill(policy: &Policy, copies: &[(&PathBuf, bool, OwnedFd)], bare: MountFlags) -> io::Result<()> {
    for (path, is_directory, copy) in copies {
        let target = Path::new(BASE).join(path.strip_prefix("/").unwrap_or(path));
        if *is_directory {
            fs::create_dir_all(&target)?;
        } else {
            fs::create_dir_all(target.parent().unwrap_or(Path::new(BASE)))?;
            fs::write(&target, "")?;
        }
        move_mount(copy, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    if let Some(scratch) = policy.scratch {
        let target = Path::new(BASE).join(SCRATCH.trim_start_matches('/'));
        fs::create_dir_all(&target)?;
        memory(&target, bare, scratch.bytes, scratch.files)?;
    }
    Ok(())
}

fn change_root() -> io::Result<()> {
    chdir(BASE)?;
    pivot_root(".", ".")?;
    // The old root lies on top of the new one.
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    let root = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    make_read_only(&root, false)
}

/// Mounts a file system in memory. It can hold `bytes`, and this many files beside its own directory.
fn memory(target: &Path, flags: MountFlags, bytes: u64, files: u64) -> io::Result<()> {
    let options = format!("size={},nr_inodes={},mode=0700", bytes.max(1), files.saturating_add(1));
    let options = CString::new(options)?;
    Ok(mount("tmpfs", target, "tmpfs", flags, Some(options.as_c_str()))?)
}

/// Makes a tree read-only. `mount(2)` would have to repeat every flag that this namespace may not clear.
#[expect(unsafe_code, reason = "rustix does not have this call")]
fn make_read_only(tree: &OwnedFd, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a string with its end, the attributes have the size that is told, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
