//! `byzerllm chat`: a conversation in the terminal, or one message per line when input is piped.

use std::io::{self, BufRead, IsTerminal};

use byzerllm_core::{Input, Message, Role, Sampling};
use rustyline::error::ReadlineError;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::arguments::ChatArguments;
use crate::generate::{Answer, print_into};
use crate::output::{Failure, Outcome, Output};
use crate::talker::Talker;

const HELP: &str = "\
/help              show this
/clear             forget the conversation
/system [TEXT]     set the instructions; without TEXT remove them
/set KEY=VALUE     temperature, top_p, top_k, min_p, seed, max_tokens, stop; without a value the default
/set               show what is set
/quit              leave; so does Ctrl-D
Ctrl-C stops an answer.";

/// Talks until the user leaves or the input ends.
pub(crate) fn chat(arguments: ChatArguments, output: Output, tokio: &Handle) -> Outcome {
    let sampling = arguments.sampling.sampling();
    sampling.validate()?;
    let talker = tokio.block_on(Talker::open(
        arguments.model.as_deref(),
        arguments.server.url.as_deref(),
        &arguments.load,
    ))?;
    let mut conversation =
        Conversation { talker, output, sampling, system: arguments.system, turns: Vec::new() };
    let result =
        if io::stdin().is_terminal() { conversation.interactive(tokio) } else { conversation.piped(tokio) };
    tokio.block_on(conversation.talker.close());
    result
}

struct Conversation {
    talker: Talker,
    output: Output,
    sampling: Sampling,
    system: Option<String>,
    turns: Vec<Message>,
}

/// Whether the conversation goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    Leave,
}

impl Conversation {
    fn interactive(&mut self, tokio: &Handle) -> Outcome {
        let mut editor = rustyline::DefaultEditor::new().map_err(|error| {
            Failure::new(format!("the terminal cannot be used: {error}"), "Pipe the messages in instead.")
        })?;
        self.output.note(format_args!("Talking to {}. /help shows the commands.", self.talker.describe()));
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    let _unneeded = editor.add_history_entry(line.trim());
                    match self.take(&line, tokio) {
                        Ok(Next::Go) => {}
                        Ok(Next::Leave) => return Ok(()),
                        // One failed answer does not end the conversation.
                        Err(failure) => self.output.failure(&failure),
                    }
                }
                Err(ReadlineError::Interrupted) => self.output.note("Ctrl-D or /quit leaves."),
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => {
                    return Err(Failure::new(
                        format!("the terminal cannot be read: {error}"),
                        "Pipe the messages in instead.",
                    ));
                }
            }
        }
    }

    fn piped(&mut self, tokio: &Handle) -> Outcome {
        for line in io::stdin().lock().lines() {
            if self.take(&line?, tokio)? == Next::Leave {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &str, tokio: &Handle) -> Outcome<Next> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Next::Go);
        }
        if let Some(command) = line.strip_prefix('/') {
            return self.command(command);
        }
        tokio.block_on(self.answer(line))?;
        Ok(Next::Go)
    }

    fn command(&mut self, command: &str) -> Outcome<Next> {
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match word {
            "help" | "?" => self.output.note(HELP),
            "clear" => {
                self.turns.clear();
                self.output.note("The conversation is forgotten.");
            }
            "system" => {
                self.system = (!rest.is_empty()).then(|| rest.to_owned());
                self.output.note(if rest.is_empty() { "No instructions." } else { "Instructions set." });
            }
            "set" if rest.is_empty() => self.output.note(show(&self.sampling)?),
            "set" => {
                self.sampling = set(&self.sampling, rest)?;
                self.output.note(show(&self.sampling)?);
            }
            "quit" | "exit" => return Ok(Next::Leave),
            _ => return Err(Failure::misuse(format!("there is no /{word}"), "/help shows the commands.")),
        }
        Ok(Next::Go)
    }

    /// Asks and prints. A stopped answer stays in the conversation as far as it came.
    async fn answer(&mut self, line: &str) -> Outcome {
        let question = Message::new(Role::User, line);
        let system = self.system.iter().map(|text| Message::new(Role::System, text));
        let messages = system.chain(self.turns.iter().cloned()).chain([question.clone()]).collect();
        let mut answer = Answer::default();
        let asked = async {
            let mut stream = self.talker.ask(Input::Messages(messages), self.sampling.clone()).await?;
            print_into(&mut stream, self.output, &mut answer).await
        };
        let result = tokio::select! {
            result = asked => result,
            _ = tokio::signal::ctrl_c() => {
                self.output.note("");
                self.output.note("(stopped)");
                Ok(())
            }
        };
        if !answer.text.is_empty() {
            if !answer.text.ends_with('\n') {
                self.output.piece("\n")?;
            }
            self.turns.push(question);
            self.turns.push(Message::new(Role::Assistant, answer.text.clone()));
        }
        result?;
        answer.end(self.output)
    }
}

/// Applies `key=value`; an empty value removes the key.
fn set(sampling: &Sampling, text: &str) -> Outcome<Sampling> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(Failure::misuse(format!("`{text}` sets nothing"), "Write /set temperature=0.2."));
    };
    let (key, value) = (key.trim(), value.trim());
    let mut fields = match serde_json::to_value(sampling) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    if value.is_empty() {
        fields.remove(key);
    } else {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        let value = if key == "stop" && value.is_string() { Value::Array(vec![value]) } else { value };
        fields.insert(key.to_owned(), value);
    }
    let changed: Sampling = serde_json::from_value(Value::Object(fields)).map_err(|error| {
        Failure::misuse(format!("{key} cannot be set so: {error}"), "/help shows what can be set.")
    })?;
    changed.validate()?;
    Ok(changed)
}

/// What is set, in one line.
fn show(sampling: &Sampling) -> Outcome<String> {
    match serde_json::to_string(sampling) {
        Ok(text) if text != "{}" => Ok(text),
        Ok(_) => Ok("Everything is at the model's defaults.".to_owned()),
        Err(error) => {
            Err(Failure::new(format!("the settings cannot be shown: {error}"), "Please report this."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_typed_checked_and_removable() {
        let sampling = set(&Sampling::default(), "temperature = 0.5").unwrap();
        assert_eq!(sampling.temperature, Some(0.5));
        let sampling = set(&sampling, "stop=END").unwrap();
        assert_eq!(sampling.stop, Some(vec!["END".to_owned()]));
        assert_eq!(set(&sampling, "temperature=").unwrap().temperature, None);
        for bad in ["temperature=hot", "temperature=-1", "temprature=1", "temperature"] {
            assert!(set(&sampling, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_set_is_shown() {
        assert_eq!(show(&Sampling::default()).unwrap(), "Everything is at the model's defaults.");
        assert_eq!(show(&Sampling { seed: Some(7), ..Sampling::default() }).unwrap(), r#"{"seed":7}"#);
    }
}
