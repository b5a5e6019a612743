//! The file layer of the kernel's own: rules about paths that a process gives itself.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use crate::policy::{Layer, Policy};

/// Allows reading beneath `read` and writing beneath `scratch`; nothing else. Says whether that is in force.
pub(super) fn restrict(
    policy: &Policy,
    read: &[PathBuf],
    scratch: Option<&Path>,
    missing: &mut Vec<String>,
) -> bool {
    if policy.without.contains(&Layer::Landlock) {
        missing.push("Landlock: left out on demand".to_owned());
        return false;
    }
    match apply(read, scratch) {
        Ok(RulesetStatus::NotEnforced) => {
            missing.push("Landlock: the kernel does not have it, or has it turned off".to_owned());
            false
        }
        Ok(_) => true,
        Err(error) => {
            missing.push(format!("Landlock: {error}"));
            false
        }
    }
}

fn apply(read: &[PathBuf], scratch: Option<&Path>) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(ABI::V7);
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let keep = look
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    // The filter of system calls refuses what an older kernel's rules leave open: sockets, signals, truncate().
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(read, look))?
        .add_rules(path_beneath_rules(scratch, keep))?;
    Ok(rules.restrict_self()?.ruleset)
}
