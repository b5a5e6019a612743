//! What doctor says about the processor, the memory and the limits of this process.

use crate::machine::{Machine, system_memory};
use crate::output::bytes;

use super::Check;

/// Less memory than this serves no model of use.
const LITTLE_MEMORY: u64 = 1 << 30;

/// Files and sockets below which a server runs out soon, and below which it hardly starts.
const FEW_FILES: u64 = 1024;
const TOO_FEW_FILES: u64 = 128;

pub(super) fn checks(machine: &Machine) -> Vec<Check> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let memory = memory(byzerllm_runtime::available_memory(), system_memory(), machine.memory_bytes);
    let cores = online_cores().unwrap_or(machine.cores).max(machine.cores);
    vec![processor(machine, cores), instructions(machine), memory, open_files(&limits)]
}

fn online_cores() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    Some(text.lines().filter(|line| line.starts_with("processor")).count())
}

fn processor(machine: &Machine, online: usize) -> Check {
    let detail = format!("{}, {} of {online} cores usable", machine.processor, machine.cores);
    if machine.cores < online {
        return Check::warning(
            "processor",
            detail,
            "Affinity or a control group's CPU quota holds the rest back; widen it for more speed.",
        );
    }
    Check::ok("processor", detail)
}

fn instructions(machine: &Machine) -> Check {
    let detail = machine.isa.clone();
    if byzerllm_kernels::Isa::active() < byzerllm_kernels::Isa::detect() {
        let variable = byzerllm_kernels::Isa::VARIABLE;
        return Check::warning("instructions", detail, format!("{variable} forces a slower set; unset it."));
    }
    if byzerllm_kernels::Isa::active() == byzerllm_kernels::Isa::Scalar {
        return Check::warning(
            "instructions",
            detail,
            "No AVX2 here: answers are right but slow. Use a machine with AVX2 or AVX-512.",
        );
    }
    Check::ok("instructions", detail)
}

/// What this process can have, what the system has, and what the machine was built with.
fn memory(available: Option<u64>, system: Option<u64>, total: Option<u64>) -> Check {
    let name = "memory";
    let total = total.map_or_else(|| "unknown".to_owned(), bytes);
    let Some(available) = available else { return Check::ok(name, total) };
    let detail = format!("{} available of {total}", bytes(available));
    if available >= LITTLE_MEMORY {
        return Check::ok(name, detail);
    }
    match system {
        Some(system) if system >= LITTLE_MEMORY => Check::warning(
            name,
            format!("{detail}: this process's control group allows no more"),
            "Raise the limit: `docker run --memory`, MemoryMax= of the service, or limits.memory of the pod.",
        ),
        _ => Check::warning(
            name,
            detail,
            "Close other programs, or use a smaller model or one with fewer bits per weight.",
        ),
    }
}

/// The limit on open files, from the text of `/proc/self/limits`.
fn open_files(limits: &str) -> Check {
    let name = "open files";
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut columns = line.unwrap_or_default().split_whitespace();
    let (soft, hard) = (columns.next(), columns.next().unwrap_or("unlimited"));
    let Some(count) = soft.and_then(|soft| soft.parse::<u64>().ok()) else {
        return Check::ok(name, soft.unwrap_or("no limit is known"));
    };
    let detail = format!("at most {count}, one for each connection");
    let most = hard.parse::<u64>().unwrap_or(4096).min(4096);
    let fix = if most > count {
        format!("Run `ulimit -n {most}` before `byzerllm serve`, or set LimitNOFILE= of the service.")
    } else {
        "Raise the hard limit: LimitNOFILE= of the service, or nofile in /etc/security/limits.conf."
            .to_owned()
    };
    match count {
        0..TOO_FEW_FILES => Check::problem(name, detail, fix),
        TOO_FEW_FILES..FEW_FILES => Check::warning(name, detail, fix),
        _ => Check::ok(name, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn little_memory_names_who_holds_it_back() {
        const GIB: u64 = 1 << 30;
        assert_eq!(memory(Some(4 * GIB), Some(9 * GIB), Some(16 * GIB)).verdict, Verdict::Ok);
        let group = memory(Some(GIB / 2), Some(9 * GIB), Some(16 * GIB));
        assert_eq!(group.verdict, Verdict::Warning);
        assert!(group.detail.contains("control group") && group.fix.unwrap().contains("--memory"));
        let machine = memory(Some(GIB / 2), Some(GIB / 2), Some(GIB));
        assert!(machine.fix.unwrap().contains("smaller model"));
        assert_eq!(memory(None, None, None).verdict, Verdict::Ok);
    }

    #[test]
    fn a_low_limit_on_files_names_the_command() {
        let limits = |soft: &str, hard: &str| {
            format!("Limit  Soft\nMax open files            {soft}   {hard}   files\n")
        };
        assert_eq!(open_files(&limits("1024", "4096")).verdict, Verdict::Ok);
        assert_eq!(open_files(&limits("unlimited", "unlimited")).verdict, Verdict::Ok);
        assert_eq!(open_files("").verdict, Verdict::Ok);
        let few = open_files(&limits("256", "524288"));
        assert_eq!(few.verdict, Verdict::Warning);
        assert!(few.fix.unwrap().contains("ulimit -n 4096"));
        let none = open_files(&limits("64", "64"));
        assert_eq!(none.verdict, Verdict::Problem);
        assert!(none.fix.unwrap().contains("LimitNOFILE"));
    }

    #[test]
    fn fewer_cores_than_the_machine_has_is_a_warning() {
        let machine = Machine::read();
        assert_eq!(processor(&machine, machine.cores).verdict, Verdict::Ok);
        assert_eq!(processor(&machine, machine.cores + 1).verdict, Verdict::Warning);
    }
}
