//! How much memory this process can still have, and how a deployment may divide it.
//!
//! The system's estimate and every control group from the process's own up to the root count; the smallest wins.

use std::fs;
use std::path::{Path, PathBuf};

use byzerllm_core::{Error, ErrorKind, Result};

use crate::loader::MemoryNeed;
use crate::size::format_bytes;
use crate::spec::Limits;

/// Full contexts that the default cache holds when memory allows.
const CONTEXTS: u64 = 32;

/// Bytes that this process can still have; `None` when the system does not say.
#[must_use]
pub fn available_memory() -> Option<u64> {
    available_under(Path::new("/"))
}

/// What is available less what was promised to models and is not resident yet: a cache takes its memory only when
/// it is written to.
pub(crate) fn unpromised_memory(promised: u64) -> Option<u64> {
    let resident = fs::read_to_string("/proc/self/status").ok().and_then(|text| meminfo(&text, "RssAnon"));
    Some(available_memory()?.saturating_sub(promised.saturating_sub(resident.unwrap_or(0))))
}

fn available_under(root: &Path) -> Option<u64> {
    let system = meminfo(&fs::read_to_string(root.join("proc/meminfo")).ok()?, "MemAvailable");
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| group_available(root, line));
    system.into_iter().chain(limits).min()
}

fn meminfo(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What one line of `/proc/self/cgroup` leaves: `0::/path` (version 2) or `4:memory:/path` (version 1).
fn group_available(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (base, limit, usage, cache) = if number == "0" && controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
    } else if controllers.split(',').any(|name| name == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    } else {
        return None;
    };
    let base = root.join(base);
    let inside: PathBuf =
        Path::new(path).components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
    let own = base.join(inside);
    let groups = own.ancestors().take_while(|group| group.starts_with(&base));
    let read = |group: &Path, name: &str| fs::read_to_string(group.join(name)).ok();
    groups
        .filter_map(|group| {
            let limit: u64 = read(group, limit)?.trim().parse().ok()?;
            let used: u64 = read(group, usage)?.trim().parse().ok()?;
            // Pages of files that were read once can be dropped at any time.
            let stat = read(group, "memory.stat").unwrap_or_default();
            let droppable: u64 = stat
                .lines()
                .find_map(|line| line.strip_prefix(cache)?.strip_prefix(' ')?.trim().parse().ok())
                .unwrap_or(0);
            Some(limit.saturating_sub(used.saturating_sub(droppable)))
        })
        .min()
}

/// Key/value cache of a deployment: what the spec says, else what 32 full contexts need, at most a quarter of the
/// available memory and what the weights leave, at least one full context.
pub(crate) fn cache_bytes(limits: &Limits, need: &MemoryNeed, available: Option<u64>) -> u64 {
    if let Some(bytes) = limits.cache_bytes {
        return bytes;
    }
    let wanted = need.context_bytes.saturating_mul(CONTEXTS);
    let capped = available.map_or(wanted, |available| {
        wanted.min(available / 4).min(available.saturating_sub(need.weight_bytes))
    });
    capped.max(need.context_bytes)
}

/// The cache size, or a refusal with the numbers when weights and cache do not fit.
pub(crate) fn plan(limits: &Limits, need: &MemoryNeed, available: Option<u64>) -> Result<u64> {
    let cache = cache_bytes(limits, need, available);
    let Some(available) = available else { return Ok(cache) };
    let total = need.weight_bytes.saturating_add(cache);
    if total <= available {
        return Ok(cache);
    }
    let left = available.saturating_sub(need.weight_bytes);
    let per_token = need.context_bytes / u64::from(need.context_length.max(1));
    let advice = if left == 0 {
        "choose a smaller or more strongly quantized model, or free memory".to_owned()
    } else if limits.cache_bytes.is_some() {
        format!("lower cache_bytes to at most {left}, or free memory")
    } else {
        let tokens = left.checked_div(per_token).unwrap_or(0);
        format!("lower context_length to at most {tokens}, or free memory")
    };
    Err(Error::new(
        ErrorKind::TooLarge,
        format!(
            "the model does not fit in memory: {} for weights and {} for the cache make {}, and {} are available \
             ({total} and {available} bytes); {advice}",
            format_bytes(need.weight_bytes),
            format_bytes(cache),
            format_bytes(total),
            format_bytes(available),
        ),
    )
    .with_param("model"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available_under(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  4000 kB\nMemAvailable:    3000 kB\n");

    #[test]
    fn the_machine_itself_has_memory() {
        assert!(available_memory().unwrap() > 1 << 20);
    }

    #[test]
    fn promises_count_as_far_as_they_are_not_resident() {
        assert!(unpromised_memory(1).unwrap() > 0, "this process is larger than a byte");
        assert_eq!(unpromised_memory(u64::MAX), Some(0));
    }

    #[test]
    fn without_limits_the_system_decides() {
        assert_eq!(machine(&[MEMINFO]), Some(3000 * 1024));
        assert_eq!(machine(&[MEMINFO, ("proc/self/cgroup", "0::/a\n")]), Some(3000 * 1024));
        assert_eq!(machine(&[]), None);
    }

    #[test]
    fn the_narrowest_group_decides_and_droppable_pages_count_as_free() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "1:cpu:/x\n0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "10\n"),
            ("sys/fs/cgroup/a/memory.max", "1000000\n"),
            ("sys/fs/cgroup/a/memory.current", "600000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 100000\n"),
        ];
        assert_eq!(machine(&files), Some(500_000));
    }

    #[test]
    fn version_one_groups_are_read_too() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "4:memory,hugetlb:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "2500000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 1000000\n"),
        ];
        assert_eq!(machine(&files), Some(500_000));
    }

    const NEED: MemoryNeed = MemoryNeed { weight_bytes: 1000, context_bytes: 100, context_length: 10 };

    #[test]
    fn the_default_cache_is_bounded_on_both_sides() {
        let limits = Limits::default();
        assert_eq!(plan(&limits, &NEED, None).unwrap(), 3200);
        assert_eq!(plan(&limits, &NEED, Some(100_000)).unwrap(), 3200);
        assert_eq!(plan(&limits, &NEED, Some(4000)).unwrap(), 1000);
        assert_eq!(plan(&limits, &NEED, Some(1200)).unwrap(), 200);
        assert_eq!(plan(&limits, &NEED, Some(1100)).unwrap(), 100);
    }

    #[test]
    fn a_refusal_shows_the_numbers_and_what_would_fit() {
        let refusal = |limits: &Limits, available| {
            plan(limits, &NEED, Some(available)).unwrap_err().message().to_owned()
        };
        let message = refusal(&Limits::default(), 1059);
        assert!(message.contains("1100 and 1059 bytes"), "{message}");
        assert!(message.contains("context_length to at most 5"), "{message}");
        let explicit = Limits { cache_bytes: Some(500), ..Limits::default() };
        let message = refusal(&explicit, 1400);
        assert!(message.contains("cache_bytes to at most 400"), "{message}");
        assert!(refusal(&Limits::default(), 900).contains("smaller"));
    }
}
