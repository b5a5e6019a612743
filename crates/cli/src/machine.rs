//! What this machine and this process are: read from the system's files, for `bench` and `doctor`.

use std::path::Path;

use serde::Serialize;

/// The processor and its memory.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// The processor's own name.
    pub(crate) processor: String,
    /// The instruction set in use.
    pub(crate) isa: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Bytes of memory in the machine.
    pub(crate) memory_bytes: Option<u64>,
    /// The kernel's name and version.
    pub(crate) system: String,
}

impl Machine {
    /// Reads everything.
    pub(crate) fn read() -> Self {
        let processor = std::fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("model name"))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            })
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor,
            isa: byzerllm_kernels::Isa::active().to_string(),
            cores: byzerllm_kernels::usable_cores(),
            memory_bytes: field(Path::new("/proc/meminfo"), "MemTotal:"),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_owned(),
        }
    }
}

/// What the system could still give to programs, control groups aside.
pub(crate) fn system_memory() -> Option<u64> {
    field(Path::new("/proc/meminfo"), "MemAvailable:")
}

/// The most memory that this process has held so far, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    field(Path::new("/proc/self/status"), "VmHWM:")
}

/// A field of one of the system's `name: N kB` files, in bytes.
fn field(file: &Path, name: &str) -> Option<u64> {
    parse_field(&std::fs::read_to_string(file).ok()?, name)
}

fn parse_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kilobytes() {
        let text = "VmPeak:\t  10 kB\nVmHWM:\t  2048 kB\n";
        assert_eq!(parse_field(text, "VmHWM:"), Some(2 << 20));
        assert_eq!(parse_field(text, "VmRSS:"), None);
    }

    #[test]
    fn this_process_holds_memory() {
        assert!(peak_memory().is_some_and(|bytes| bytes > 1 << 20));
        assert!(Machine::read().cores >= 1);
    }
}
