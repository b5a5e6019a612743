//! `byzerllm simulate`: a vendor on this machine.

use std::time::Duration;

use byzerllm_simulator::{Credentials, Ending, Line, Options, Simulator, Task};

use crate::arguments::SimulateArguments;
use crate::output::{Failure, Outcome, Output, table};
use crate::signals::Signals;

const HEADING: [&str; 8] =
    ["REQUEST", "MODEL", "TASK", "PROMPT", "CACHED", "COMPLETION", "REASONING", "ENDED"];

/// Runs a vendor until Ctrl-C, then prints its bill.
pub(crate) async fn simulate(arguments: SimulateArguments, output: Output) -> Outcome {
    let usual = Credentials::default();
    let options = Options {
        port: arguments.port,
        credentials: Credentials {
            api_key: arguments.api_key.unwrap_or(usual.api_key),
            secret: arguments.secret.unwrap_or(usual.secret),
            app_id: arguments.app_id.unwrap_or(usual.app_id),
            models: arguments.model,
        },
        pace: Duration::from_millis(arguments.pace_ms),
        fault: arguments.fault,
    };
    let vendor = Simulator::start(&arguments.vendor, options).map_err(|error| {
        Failure::new(error.message().to_owned(), "`byzerllm simulate --help` shows what can be said.")
    })?;
    let mut signals = Signals::listen()?;
    output.line(format!("{} is simulated on {}, Ctrl-C ends it", vendor.vendor(), vendor.url()))?;
    output.line(deploy_command(&vendor))?;
    signals.next().await;
    bill(&vendor.bill(), output)
}

/// The command that deploys a model of this vendor.
fn deploy_command(vendor: &Simulator) -> String {
    let mut command = format!("byzerllm deploy --name m --type saas/{}", vendor.vendor());
    for (name, value) in vendor.parameters() {
        command.push_str(&format!(" --set saas.{name}={value}"));
    }
    command
}

fn bill(lines: &[Line], output: Output) -> Outcome {
    let mut rows = vec![HEADING.map(str::to_owned).to_vec()];
    rows.extend(lines.iter().map(row));
    let mut sum = ["total", "", "", "", "", "", "", ""].map(str::to_owned);
    let total = |of: fn(&Line) -> u64| lines.iter().map(of).sum::<u64>().to_string();
    sum[3] = total(|line| line.tokens.prompt);
    sum[4] = total(|line| line.tokens.cached);
    sum[5] = total(|line| line.tokens.completion);
    sum[6] = total(|line| line.tokens.reasoning);
    rows.push(sum.to_vec());
    table(&rows).into_iter().try_for_each(|line| output.line(line))
}

fn row(line: &Line) -> Vec<String> {
    let task = match line.task {
        Task::Chat => "chat",
        Task::Embedding => "embedding",
    };
    let ending = match line.ending {
        Ending::Open => "under way",
        Ending::Answered => "answered",
        Ending::Dropped => "dropped",
        Ending::Broken => "broken",
    };
    let tokens = line.tokens;
    vec![
        line.request_id.clone(),
        line.model.clone(),
        task.to_owned(),
        tokens.prompt.to_string(),
        tokens.cached.to_string(),
        tokens.completion.to_string(),
        tokens.reasoning.to_string(),
        ending.to_owned(),
    ]
}
