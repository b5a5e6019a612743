//! How many cores this process may use, and pinning threads to them.
#![expect(unsafe_code, reason = "scheduler system calls")]

use std::path::{Path, PathBuf};

/// The cores this process may use: its affinity mask, cut by the CPU quotas of its control groups; at least 1.
#[must_use]
pub fn usable_cores() -> usize {
    let cores = affinity().len();
    let cores =
        if cores == 0 { std::thread::available_parallelism().map_or(1, |count| count.get()) } else { cores };
    match group_quota(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")) {
        Some(quota) => cores.min(quota).max(1),
        None => cores.max(1),
    }
}

/// The smallest quota, in whole cores rounded up, of the control groups of this process and their parents.
fn group_quota(membership: &Path, root: &Path) -> Option<usize> {
    let membership = std::fs::read_to_string(membership).unwrap_or_default();
    let mut smallest: Option<usize> = None;
    let mut consider = |quota: Option<usize>| {
        if let Some(quota) = quota {
            smallest = Some(smallest.map_or(quota, |other| other.min(quota)));
        }
    };
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            for folder in upwards(root, path) {
                consider(read(&folder.join("cpu.max")).and_then(|text| parse_v2(&text)));
            }
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            for base in [root.join("cpu"), root.join(controllers)] {
                for folder in upwards(&base, path) {
                    let quota = read(&folder.join("cpu.cfs_quota_us"));
                    let period = read(&folder.join("cpu.cfs_period_us"));
                    consider(
                        quota.zip(period).and_then(|(quota, period)| ceil_cores(quota.trim(), period.trim())),
                    );
                }
            }
        }
    }
    smallest
}

/// The folder of a control group under `root`, then its parents up to the root itself.
fn upwards(root: &Path, group: &str) -> Vec<PathBuf> {
    let relative = Path::new(group.trim_start_matches('/'));
    let safe = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let relative = if safe { relative } else { Path::new("") };
    relative.ancestors().map(|ancestor| root.join(ancestor)).collect()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn parse_v2(text: &str) -> Option<usize> {
    let mut fields = text.split_whitespace();
    ceil_cores(fields.next()?, fields.next()?)
}

fn ceil_cores(quota: &str, period: &str) -> Option<usize> {
    let quota: u64 = quota.parse().ok()?;
    let period: u64 = period.parse().ok()?;
    if period == 0 {
        return None;
    }
    usize::try_from(quota.div_ceil(period)).ok().map(|cores| cores.max(1))
}

/// The cores of the calling thread's affinity mask, in ascending order; empty where the system does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn affinity() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid empty set, and the call writes at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return Vec::new();
        }
        set
    };
    let limit = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: every index lies inside the set.
    (0..limit).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Restricts the calling thread to `cores`; best effort.
#[cfg(target_os = "linux")]
pub(crate) fn pin_to(cores: &[usize]) {
    let limit = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: an all-zero cpu_set_t is a valid empty set, and every index set lies inside it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores.iter().filter(|core| **core < limit) {
            libc::CPU_SET(*core, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn affinity() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin_to(_cores: &[usize]) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("byzerllm-cores-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn quotas_round_up() {
        assert_eq!(parse_v2("150000 100000\n"), Some(2));
        assert_eq!(parse_v2("50000 100000"), Some(1));
        assert_eq!(parse_v2("max 100000"), None);
        assert_eq!(parse_v2("100000 0"), None);
        assert_eq!(ceil_cores("-1", "100000"), None);
    }

    #[test]
    fn the_smallest_quota_on_the_way_up_counts() {
        let root = folder("v2");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("membership"), "0::/a/b\n").unwrap();
        std::fs::write(root.join("a/cpu.max"), "300000 100000").unwrap();
        std::fs::write(root.join("a/b/cpu.max"), "max 100000").unwrap();
        assert_eq!(group_quota(&root.join("membership"), &root), Some(3));
        std::fs::write(root.join("membership"), "0::/../../etc\n").unwrap();
        assert_eq!(group_quota(&root.join("membership"), &root), None);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn version_one_groups_are_read() {
        let root = folder("v1");
        std::fs::create_dir_all(root.join("cpu,cpuacct/job")).unwrap();
        std::fs::write(root.join("membership"), "4:cpu,cpuacct:/job\n2:memory:/job\n").unwrap();
        std::fs::write(root.join("cpu,cpuacct/job/cpu.cfs_quota_us"), "120000\n").unwrap();
        std::fs::write(root.join("cpu,cpuacct/job/cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(group_quota(&root.join("membership"), &root), Some(2));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn this_machine_has_a_core() {
        assert!(usable_cores() >= 1);
    }
}
