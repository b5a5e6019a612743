//! `byzerllm doctor`: one line per check, and how to mend what is wrong.

mod certificate;
mod machine;
mod network;
mod places;

use serde::Serialize;
use serde_json::json;

use crate::arguments::DoctorArguments;
use crate::machine::Machine;
use crate::output::{Failure, Outcome, Output};
use crate::serve::{default_state, tls_files};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Problem,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.into(), fix: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn problem(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Problem, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Runs every check; a problem makes the exit code 1, a warning does not.
pub(crate) async fn doctor(arguments: DoctorArguments, output: Output) -> Outcome {
    let machine = Machine::read();
    let mut checks = machine::checks(&machine);
    let given = arguments.state.map_or_else(default_state, |state| Ok(std::path::absolute(state)?));
    match given {
        Ok(state) => {
            checks.push(places::state_directory(&state));
            checks.push(network::keys(arguments.host, &state).await);
        }
        Err(failure) => {
            checks.push(Check::problem("state", failure.message(), "Set HOME or use --state DIR."));
        }
    }
    checks.push(places::runtime_directory());
    checks.push(places::models());
    checks.extend(places::python_package(std::env::var_os("VIRTUAL_ENV").as_deref()));
    checks.push(network::port(arguments.host, arguments.port));
    checks.push(network::proxies(|name| std::env::var(name).ok()));
    checks.extend(network::tls(tls_files(&arguments.tls)?.as_ref()));
    checks.push(network::server(arguments.server.url.as_deref()).await);

    let bad = checks.iter().any(|check| check.verdict == Verdict::Problem);
    if arguments.json {
        output.json(&json!({ "ok": !bad, "machine": machine, "checks": checks }))?;
    } else {
        for check in &checks {
            output.line(line(check, output))?;
            if let Some(fix) = &check.fix {
                output.line(format_args!("         fix: {fix}"))?;
            }
        }
    }
    if bad { Err(Failure::silent()) } else { Ok(()) }
}

fn line(check: &Check, output: Output) -> String {
    let paint = output.paint();
    let mark = match check.verdict {
        Verdict::Ok => paint.green("ok      "),
        Verdict::Warning => paint.yellow("warning "),
        Verdict::Problem => paint.red("problem "),
    };
    format!("{mark} {}: {}", check.name, check.detail)
}
