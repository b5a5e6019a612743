//! What the system says about this process.

use super::text::{Kind, Page};

/// Ticks per second in `/proc`: the same on all architectures that Linux runs our kernels on.
const TICKS: f64 = 100.0;

/// Writes what can be read; another system has no such files.
pub(super) fn write(page: &mut Page) {
    if let Some(Times { busy, started }) = times() {
        page.metric(
            Kind::Counter,
            "process_cpu_seconds_total",
            "Processor time of this process, in seconds.",
        );
        page.sample(&[], busy);
        let help = "When this process started, in seconds since 1970.";
        page.metric(Kind::Gauge, "process_start_time_seconds", help);
        page.sample(&[], started);
    }
    if let Some(bytes) = resident() {
        page.metric(Kind::Gauge, "process_resident_memory_bytes", "Memory in use, in bytes.");
        page.sample(&[], bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.metric(Kind::Gauge, "process_open_fds", "Open files and sockets.");
        page.sample(&[], open.count());
    }
}

struct Times {
    busy: f64,
    started: f64,
}

fn times() -> Option<Times> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let fields: Vec<f64> =
        stat.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
    // Counted from the third field: user and system time, start after boot.
    let (user, system, start) = (fields.get(11)?, fields.get(12)?, fields.get(19)?);
    let boot = number("/proc/stat", "btime")?;
    Some(Times { busy: (user + system) / TICKS, started: boot as f64 + start / TICKS })
}

fn resident() -> Option<u64> {
    // In kibibytes.
    Some(1024 * number("/proc/self/status", "VmRSS:")?)
}

/// The number that follows a word at the start of a line.
fn number(file: &str, word: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}
