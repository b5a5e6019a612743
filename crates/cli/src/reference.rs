//! `docs/reference/cli.md` is what the definition of the command line says. `make reference` writes it again.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::arguments::Arguments;

#[test]
fn the_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let expected = page();
    if std::env::var_os("BYZERLLM_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "docs/reference/cli.md is not what the commands say (line {}); run `make reference` and review the change",
        line.map_or(found.lines().count().min(expected.lines().count()), |line| line) + 1
    );
}

#[test]
fn every_command_and_option_is_on_the_page() {
    let page = page();
    let mut waiting = vec![built()];
    let mut count = 0;
    while let Some(command) = waiting.pop() {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let name = argument.get_long().map_or_else(
                || argument.get_value_names().unwrap_or_default()[0].to_string(),
                |long| format!("--{long}"),
            );
            assert!(page.contains(&name), "{}: {name}", command.get_name());
            count += 1;
        }
        waiting.extend(shown(&command).cloned());
    }
    assert!(count > 60, "{count}");
}

fn built() -> Command {
    let mut command = Arguments::command();
    command.build();
    command
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn page() -> String {
    let root = built();
    let mut page =
        "# Command line reference\n\nMade from the commands' own help: `byzerllm COMMAND --help` says the \
                    same.\n\n"
            .to_owned();
    let about = root.get_about().map(ToString::to_string).unwrap_or_default();
    writeln!(page, "{about}\n\n| command | what it does |\n|---|---|").unwrap();
    for command in shown(&root) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let anchor = heading(command).replace(' ', "-");
        writeln!(page, "| [`{}`](#{anchor}) | {} |", command.get_name(), cell(&about)).unwrap();
    }
    writeln!(page, "\nEvery command has these options, too:\n").unwrap();
    let general: Vec<&Arg> = root.get_arguments().filter(|argument| !argument.is_hide_set()).collect();
    options(&mut page, &general);
    after(&mut page, &root);
    for command in shown(&root) {
        section(&mut page, command, 2);
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn heading(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn section(page: &mut String, command: &Command, level: usize) {
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    writeln!(page, "\n{} {}\n\n{about}\n", "#".repeat(level), heading(command)).unwrap();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let usage: Vec<&str> = usage.lines().map(str::trim).collect();
    writeln!(page, "```text\n{}\n```\n", usage.join("\n")).unwrap();
    let own = |argument: &&Arg| {
        let everywhere =
            argument.is_global_set() && ["color", "verbose"].contains(&argument.get_id().as_str());
        !(argument.is_hide_set() || everywhere || argument.get_id() == "help")
    };
    let (positional, named): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(own).partition(|argument| argument.is_positional());
    options(page, &positional.into_iter().chain(named).collect::<Vec<_>>());
    after(page, command);
    for command in shown(command) {
        section(page, command, level + 1);
    }
}

fn options(page: &mut String, arguments: &[&Arg]) {
    if arguments.is_empty() {
        return;
    }
    writeln!(page, "| option | what it does |\n|---|---|").unwrap();
    for argument in arguments {
        writeln!(page, "| {} | {} |", form(argument), cell(&meaning(argument))).unwrap();
    }
    page.push('\n');
}

/// How an option is written.
fn form(argument: &Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default();
    let values = values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let takes = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    if argument.is_positional() {
        let name = if argument.is_required_set() { format!("<{values}>") } else { format!("[{values}]") };
        return cell(&format!("`{name}`"));
    }
    let mut names: Vec<String> = argument.get_short().map(|short| format!("-{short}")).into_iter().collect();
    names.extend(
        argument.get_long_and_visible_aliases().into_iter().flatten().map(|long| format!("--{long}")),
    );
    let value = if takes { format!(" {values}") } else { String::new() };
    cell(&names.iter().map(|name| format!("`{name}{value}`")).collect::<Vec<_>>().join(", "))
}

/// What an option does, with what the help adds in brackets.
fn meaning(argument: &Arg) -> String {
    let mut text = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let mut facts = Vec::new();
    let takes = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let defaults = argument.get_default_values();
    if takes && !defaults.is_empty() && !argument.is_hide_default_value_set() {
        let defaults: Vec<_> = defaults.iter().map(|value| value.to_string_lossy()).collect();
        facts.push(format!("default: `{}`", defaults.join(",")));
    }
    let possible = argument.get_possible_values();
    if takes && !possible.is_empty() && !argument.is_hide_possible_values_set() {
        let words: Vec<String> = possible
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        facts.push(format!("one of {}", words.join(", ")));
    }
    if let Some(variable) = argument.get_env() {
        facts.push(format!("environment: `{}`", variable.to_string_lossy()));
    }
    if argument.is_required_set() && !argument.is_positional() {
        facts.push("required".to_owned());
    }
    if !facts.is_empty() {
        write!(text, " ({})", facts.join("; ")).unwrap();
    }
    text
}

/// Text that ends no cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// What stands behind the options: examples as a block, the rest as text.
fn after(page: &mut String, command: &Command) {
    let text = command.get_after_long_help().or_else(|| command.get_after_help());
    let text = text.map(ToString::to_string).unwrap_or_default();
    let mut inside = false;
    for line in text.lines() {
        let code = line.starts_with("  ");
        if code && !inside {
            page.push_str("\n```text\n");
        } else if !code && inside {
            page.push_str("```\n");
        }
        inside = code;
        writeln!(page, "{}", if code { &line[2..] } else { line }).unwrap();
    }
    if inside {
        page.push_str("```\n");
    }
}
