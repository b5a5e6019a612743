//! Privileges: none now, none later.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};

use crate::policy::Error;

use super::step;

/// No program that is run can give more rights than there are. The system call filter and Landlock ask for it.
pub(super) fn forbid_new() -> Result<(), Error> {
    step("forbidding new privileges", set_no_new_privs(true))
}

/// Gives up all capabilities, those of root included, and becomes unreadable to other processes of the same user.
pub(super) fn drop_all() -> Result<(), Error> {
    // Absent on old kernels, where there are no ambient capabilities to clear.
    clear_ambient_capability_set().ok();
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    step("dropping capabilities", set_capabilities(None, sets))?;
    step("forbidding dumps", set_dumpable_behavior(DumpableBehavior::NotDumpable))
}
