//! What happens to a command line before it is parsed: options may be written with underscores, and `--file` names a
//! YAML file whose keys are options.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::{ArgAction, Command as Definition};
use minijinja::{Environment, UndefinedBehavior};
use saphyr::{ScalarStyle, Yaml, YamlLoader};
use saphyr_parser::Parser;

use crate::output::{Failure, Outcome};

/// The largest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Nodes that references in the file may make.
const MAX_ALIASES: usize = 10_000;

/// Turns `--pretrained_model_type` into `--pretrained-model-type`. What follows `--` or `=` is left alone, and so are the
/// arguments of a program.
pub(crate) fn with_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut options, mut command, mut colour) = (true, None, false);
    let mut first = true;
    let spell = |arg: OsString| {
        let is_word = !std::mem::take(&mut first) && !colour && !arg.to_string_lossy().starts_with('-');
        colour = arg == "--color";
        if is_word && command.is_none() {
            command = Some(arg.clone());
        }
        options &= arg != "--" && command.as_deref().is_none_or(|command| command != "run");
        let Some(text) = arg.to_str().filter(|text| options && text.starts_with("--")) else { return arg };
        let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
        format!("{}{value}", name.replace('_', "-")).into()
    };
    args.into_iter().map(spell).collect()
}

/// The command line with the options of a file at its end, where they override what stands before them.
pub(crate) fn with_file(args: &[OsString], command: &Definition, file: &Path) -> Outcome<Vec<OsString>> {
    let shown = file.display();
    let unread = |error| Failure::new(format!("'{shown}' cannot be read: {error}"), "Check --file.");
    let size = std::fs::metadata(file).map_err(unread)?.len();
    if size > MAX_FILE {
        return Err(Failure::new(
            format!("'{shown}' is larger than 1 MiB"),
            "Give --file a YAML file of options.",
        ));
    }
    let text = std::fs::read_to_string(file).map_err(unread)?;
    let named = |why: String| {
        Failure::misuse(
            format!("{shown}: {why}"),
            format!("`byzerllm {} --help` shows the options.", command.get_name()),
        )
    };
    let options = options(&text, command).map_err(named)?;
    let mut all = args.to_vec();
    for option in options {
        match option {
            Entry::Flag(name, false) => all.retain(|arg| arg.to_str() != Some(&name)),
            Entry::Flag(name, true) => all.push(name.into()),
            Entry::Value(name, value) => all.push(format!("{name}={value}").into()),
        }
    }
    Ok(all)
}

/// An option as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Flag(String, bool),
    Value(String, String),
}

/// Reads the file's text. Scalars stay as they are written: what they mean is the option's business.
fn options(text: &str, command: &Definition) -> Result<Vec<Entry>, String> {
    let mut loader = YamlLoader::<Yaml<'_>>::default();
    loader.early_parse(false);
    loader.alias_limit(MAX_ALIASES);
    Parser::new_from_str(text).load(&mut loader, true).map_err(|error| error.to_string())?;
    if let Some(error) = loader.error() {
        return Err(error.to_string());
    }
    let documents = loader.into_documents();
    let entries = match &documents[..] {
        [] => return Ok(Vec::new()),
        [Yaml::Mapping(entries)] => entries,
        _ => return Err("it must hold one mapping of options to values".to_owned()),
    };
    let mut options = Vec::new();
    for (key, value) in entries {
        let Some(key) = scalar(key, "key")? else { return Err("a key is empty".to_owned()) };
        let name = key.trim_start_matches('-').replace('_', "-");
        let argument = command.get_arguments().find(|argument| {
            argument.get_long() == Some(&name)
                || argument.get_all_aliases().is_some_and(|all| all.contains(&&*name))
        });
        let argument = argument
            .filter(|_| name != "file")
            .ok_or_else(|| format!("there is no option '{key}' of {}", command.get_name()))?;
        let name = format!("--{name}");
        if !argument.get_action().takes_values() {
            match scalar(value, &key)?.map(|text| text.to_lowercase()).as_deref() {
                Some("true") => options.push(Entry::Flag(name, true)),
                Some("false") | None => options.push(Entry::Flag(name, false)),
                Some(_) => return Err(format!("{key} must be true or false")),
            }
            continue;
        }
        let many = matches!(argument.get_action(), ArgAction::Append);
        let values = values(value, &key, many)?;
        options.extend(values.into_iter().map(|value| Entry::Value(name.clone(), value)));
    }
    Ok(options)
}

/// The values of an option: a scalar, and where several are taken a list of scalars or a mapping, as `key=value`.
fn values(value: &Yaml<'_>, key: &str, many: bool) -> Result<Vec<String>, String> {
    match value {
        Yaml::Sequence(items) if many => {
            items.iter().filter_map(|item| scalar(item, key).transpose()).collect()
        }
        Yaml::Mapping(entries) if many => {
            let mut pairs = Vec::new();
            for (name, value) in entries {
                if let (Some(name), Some(value)) = (scalar(name, key)?, scalar(value, key)?) {
                    // As a JSON string, a value is one whatever it holds.
                    let plain = !value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
                    let value = if plain { value } else { serde_json::Value::from(value).to_string() };
                    pairs.push(format!("{name}={value}"));
                }
            }
            Ok(pairs)
        }
        Yaml::Sequence(_) | Yaml::Mapping(_) => Err(format!("{key} must be one value")),
        value => Ok(scalar(value, key)?.into_iter().collect()),
    }
}

/// A scalar's text; nothing for null. Text that starts with `ENV` is a template over the environment's variables.
fn scalar(value: &Yaml<'_>, key: &str) -> Result<Option<String>, String> {
    let Yaml::Representation(text, style, _) = value else {
        return Err(format!("{key} must be text, a number, true or false"));
    };
    if *style == ScalarStyle::Plain && matches!(&**text, "" | "~" | "null" | "Null" | "NULL") {
        return Ok(None);
    }
    match text
        .strip_prefix("ENV")
        .filter(|rest| rest.starts_with(char::is_whitespace) || rest.starts_with("{{"))
    {
        Some(template) => from_environment(template.trim(), key).map(Some),
        None => Ok(Some(text.to_string())),
    }
}

fn from_environment(template: &str, key: &str) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(100_000));
    let bad = |error: minijinja::Error| format!("{key} is no template: {error}");
    let template = environment.template_from_str(template).map_err(bad)?;
    let mut variables = BTreeMap::new();
    for name in template.undeclared_variables(false) {
        let value = std::env::var(&name)
            .map_err(|_| format!("{key} needs the environment variable {name}, which is not set"))?;
        variables.insert(name, value);
    }
    template.render(variables).map_err(bad)
}

/// The options of a command line for reading, with secrets masked.
pub(crate) fn echo(args: &[OsString]) -> String {
    let mut hide = false;
    let word = |arg: &OsString| {
        let text = arg.to_string_lossy();
        let hidden = std::mem::replace(&mut hide, text == "--api-key");
        if hidden { MASK.to_owned() } else { masked(&text) }
    };
    args.iter().skip(1).map(word).collect::<Vec<_>>().join(" ")
}

const MASK: &str = "***";

/// Hides what follows `key=` when the key names a secret.
fn masked(text: &str) -> String {
    const SECRETS: [&str; 4] = ["key=", "secret=", "token=", "password="];
    // A proxy's URL may hold a password.
    const PROXIES: [&str; 2] = ["proxies=", "proxy="];
    let lower = text.to_ascii_lowercase();
    let proxies = if text.contains('@') { &PROXIES[..] } else { &[] };
    let end = SECRETS.iter().chain(proxies).filter_map(|word| Some(lower.find(word)? + word.len())).min();
    end.map_or_else(|| text.to_owned(), |end| format!("{}{MASK}", &text[..end]))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::arguments::Arguments;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn read(text: &str) -> Result<Vec<Entry>, String> {
        let command = Arguments::command();
        options(text, command.find_subcommand("deploy").unwrap())
    }

    fn value(name: &str, value: &str) -> Entry {
        Entry::Value(name.to_owned(), value.to_owned())
    }

    #[test]
    fn options_may_have_underscores_and_values_keep_theirs() {
        let typed = words(&["byzerllm", "--model_path=a_b", "c_d", "--x_y", "--", "--z_z"]);
        assert_eq!(
            with_dashes(typed),
            words(&["byzerllm", "--model-path=a_b", "c_d", "--x-y", "--", "--z_z"])
        );
        for typed in [
            &["byzerllm", "run", "program.py", "--my_flag"][..],
            &["byzerllm", "--color", "never", "-v", "run", "--my_flag"],
        ] {
            assert_eq!(with_dashes(words(typed)), words(typed), "a program's options are its own");
        }
        let model = ["byzerllm", "deploy", "--model", "run", "--model_path", "x"];
        assert_eq!(with_dashes(words(&model))[4], "--model-path");
    }

    #[test]
    fn a_file_has_options_as_they_are_typed() {
        let text = "# comment\nmodel: chat\npretrained_model_type: custom/auto\nnum_workers: 02\njson: true\noffline: no-\n";
        assert!(read(text).is_err_and(|error| error.contains("offline must be true or false")));
        let text = "model: 'null'\nmodel_path: ~\nnum-workers: 02\njson: true\noffline: false\n";
        assert_eq!(
            read(text).unwrap(),
            [
                value("--model", "null"),
                value("--num-workers", "02"),
                Entry::Flag("--json".to_owned(), true),
                Entry::Flag("--offline".to_owned(), false),
            ]
        );
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn parameters_are_a_mapping_a_list_or_text() {
        let expected = [value("--infer-params", "temperature=0.20"), value("--infer-params", "seed=7")];
        assert_eq!(read("infer_params:\n  temperature: 0.20\n  seed: 7\n").unwrap(), expected);
        assert_eq!(read("infer_params: [temperature=0.20, seed=7]").unwrap(), expected);
        assert_eq!(
            read("infer_params: temperature=0.20 seed=7").unwrap(),
            [value("--infer-params", "temperature=0.20 seed=7")]
        );
        assert_eq!(
            read("infer_params: {stop: \"a b=c\\n\"}").unwrap(),
            [value("--infer-params", r#"stop="a b=c\n""#)]
        );
    }

    #[test]
    fn values_may_come_from_the_environment() {
        let home = std::env::var("HOME").unwrap();
        assert_eq!(
            read("model_path: ENV {{HOME}}/m").unwrap(),
            [value("--model-path", &format!("{home}/m"))]
        );
        assert_eq!(read("model: ENVIRONMENT").unwrap(), [value("--model", "ENVIRONMENT")]);
        let error = read("model: ENV {{BYZERLLM_NOT_SET}}").unwrap_err();
        assert!(error.contains("BYZERLLM_NOT_SET, which is not set"), "{error}");
        assert!(read("model: ENV {{").is_err());
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        for (text, words) in [
            ("modle: x", "no option 'modle' of deploy"),
            ("file: x", "no option 'file'"),
            ("- a", "one mapping"),
            ("model: [a]", "model must be one value"),
            ("model: a\nmodel: b", "dupli"),
            ("a: &a [*a]", ""),
            ("model: {a: b", ""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.to_lowercase().contains(words), "{text}: {error}");
        }
        let bomb = format!("model: &a [{}]\n", "x,".repeat(200))
            + "name: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\ncompute: [*b,*b,*b,*b,*b,*b,*b]\n";
        assert!(read(&bomb).is_err());
    }

    #[test]
    fn a_file_overrides_what_is_typed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.yml");
        std::fs::write(&file, "json: false\nmodel: b\n").unwrap();
        let command = Arguments::command();
        let deploy = command.find_subcommand("deploy").unwrap();
        let typed = words(&["byzerllm", "deploy", "--json", "--model", "a"]);
        let all = with_file(&typed, deploy, &file).unwrap();
        assert_eq!(all, words(&["byzerllm", "deploy", "--model", "a", "--model=b"]));
        assert!(with_file(&typed, deploy, &directory.path().join("none.yml")).is_err());
    }

    #[test]
    fn secrets_are_masked() {
        let typed = words(&[
            "byzerllm",
            "--infer-params",
            "a=1 saas.api_key=sk-1=2== b=3",
            "max_tokens=5",
            "--api-key",
            "sk-3",
            "--api-key=sk-4",
            "hf_token=hf",
            "saas.publicKey=pk",
            "saas.proxies=http://u:pw@p",
            "saas.proxies=http://p",
        ]);
        assert_eq!(
            echo(&typed),
            "--infer-params a=1 saas.api_key=*** max_tokens=5 --api-key *** --api-key=*** hf_token=*** \
             saas.publicKey=*** saas.proxies=*** saas.proxies=http://p"
        );
    }
}
