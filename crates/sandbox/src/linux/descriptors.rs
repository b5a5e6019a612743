//! Open descriptors of the parent, which must not come along.

use std::io;

use crate::policy::Error;

use super::step;

/// Closes every descriptor from `first` on.
#[expect(unsafe_code, reason = "neither std nor rustix closes a range of descriptors")]
pub(super) fn close_from(first: u32) -> Result<(), Error> {
    // SAFETY: the call touches no memory. Nobody in this process uses a descriptor that is closed here: the caller
    // names the first one that has no owner, and there are no other threads.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    let result = if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    if let Err(error) = &result
        && error.raw_os_error() == Some(libc::ENOSYS)
    {
        return close_each(first);
    }
    step("closing descriptors", result)
}

/// The same for kernels before 5.9.
#[expect(unsafe_code, reason = "descriptors without an owner are closed by their number")]
fn close_each(first: u32) -> Result<(), Error> {
    let open: Vec<i32> = step("listing descriptors", std::fs::read_dir("/proc/self/fd"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number: &i32| u32::try_from(*number).is_ok_and(|number| number >= first))
        .collect();
    for number in open {
        // SAFETY: as above; the one that listed the directory is closed already, which is an error that does no harm.
        unsafe { libc::close(number) };
    }
    Ok(())
}
