//! `byzerllm generate`: one prompt, one answer.

use std::io::{IsTerminal, Read};

use byzerllm_core::{Event, EventStream, FinishReason, Input, Message, Notice, Role, collect};
use futures::StreamExt;

use crate::arguments::GenerateArguments;
use crate::output::{Failure, Outcome, Output};
use crate::talker::Talker;

/// The longest prompt that is read from standard input.
const MAX_INPUT: u64 = 64 << 20;

/// Answers one prompt.
pub(crate) async fn generate(arguments: GenerateArguments, output: Output) -> Outcome {
    let sampling = arguments.sampling.sampling();
    sampling.validate()?;
    let prompt = prompt(&arguments.prompt)?;
    let input = if arguments.raw {
        Input::Text(prompt)
    } else {
        let system = arguments.system.map(|text| Message::new(Role::System, text));
        Input::Messages(system.into_iter().chain([Message::new(Role::User, prompt)]).collect())
    };
    let talker =
        Talker::open(Some(&arguments.model), arguments.server.url.as_deref(), &arguments.load).await?;
    let result = async {
        let stream = talker.ask(input, sampling).await?;
        if arguments.json {
            return output.json(&collect(stream).await?);
        }
        let answer = print_answer(stream, output).await?;
        if !answer.text.ends_with('\n') {
            output.piece("\n")?;
        }
        answer.end(output)
    };
    let result = tokio::select! {
        result = result => result,
        _ = tokio::signal::ctrl_c() => {
            output.note("");
            Err(Failure::silent())
        }
    };
    talker.close().await;
    result
}

fn prompt(argument: &str) -> Outcome<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    if std::io::stdin().take(MAX_INPUT + 1).read_to_string(&mut text)? as u64 > MAX_INPUT {
        return Err(Failure::misuse("the prompt on standard input is longer than 64 MiB", "Shorten it."));
    }
    Ok(text)
}

/// What came of a streamed answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The text, as it was printed.
    pub(crate) text: String,
    reason: Option<FinishReason>,
}

impl Answer {
    /// Says how the answer ended when that is not obvious; an error of the choice is a failure.
    pub(crate) fn end(&self, output: Output) -> Outcome {
        match &self.reason {
            Some(FinishReason::Error(detail)) => Err(Failure::new(detail.message.clone(), "Try again.")),
            Some(FinishReason::Length) => {
                if std::io::stderr().is_terminal() {
                    output.note("(cut at the token limit)");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Prints an answer while it comes.
pub(crate) async fn print_answer(mut stream: EventStream, output: Output) -> Outcome<Answer> {
    let mut answer = Answer::default();
    print_into(&mut stream, output, &mut answer).await?;
    Ok(answer)
}

/// As [`print_answer`], keeping what was printed when the future is dropped half way.
pub(crate) async fn print_into(stream: &mut EventStream, output: Output, answer: &mut Answer) -> Outcome {
    while let Some(event) = stream.next().await {
        match event? {
            Event::Text { text, .. } => {
                output.piece(&text)?;
                answer.text.push_str(&text);
            }
            Event::Reasoning { text, .. } => output.piece(&output.paint().dim(&text))?,
            Event::Notice { notice } => {
                if let Some(words) = notice_words(&notice) {
                    output.note(words);
                }
                if notice == Notice::Restarted {
                    answer.text.clear();
                }
            }
            Event::Finished { reason, .. } => answer.reason = Some(reason),
            Event::Started { .. }
            | Event::PromptLogprobs { .. }
            | Event::ToolCall { .. }
            | Event::Signature { .. }
            | Event::Usage { .. } => {}
        }
    }
    Ok(())
}

/// What a notice means for the reader; nothing when only programs care.
pub(crate) fn notice_words(notice: &Notice) -> Option<String> {
    match notice {
        Notice::Truncated { input: None, from, to } => {
            Some(format!("(the input was cut from {from} to {to} tokens)"))
        }
        Notice::Truncated { input: Some(input), from, to } => {
            Some(format!("(input {input} was cut from {from} to {to} tokens)"))
        }
        Notice::Ignored { parameter } => Some(format!("({parameter} had no effect)")),
        Notice::FailedOver { to } => Some(format!("({to} answers instead)")),
        Notice::Restarted => Some("\n(the answer starts again)".to_owned()),
        Notice::Cached { .. } => Some("(an answer kept from an earlier request)".to_owned()),
        Notice::InvalidToolCall { reason, .. } => Some(format!("(a tool call is none: {reason})")),
        Notice::CacheHit { .. } => None,
    }
}
