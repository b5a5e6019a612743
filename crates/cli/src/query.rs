//! `byzerllm query`: one question in the way of Byzer-LLM's command line.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use byzerllm_core::{ChatRequest, FrontEnd, Input, Message, Role};

use crate::arguments::QueryArguments;
use crate::connection::Connection;
use crate::generate::{Answer, print_into};
use crate::output::{Failure, Outcome, Output, bytes};

/// Asks the deployment and prints the answer, or writes it to a file.
pub(crate) async fn query(arguments: QueryArguments, output: Output) -> Outcome {
    let (Some(model), Some(text)) = (&arguments.model, &arguments.query) else {
        return Err(Failure::misuse(
            "--model and --query are needed",
            "`byzerllm query --help` shows the form.",
        ));
    };
    let input = input(&arguments.template, text)?;
    let file = arguments.output_file.as_deref().filter(|file| !file.as_os_str().is_empty());
    let connection = Connection::open(arguments.server.url.as_deref())?;
    let request = ChatRequest { front_end: FrontEnd::Legacy, ..ChatRequest::new(model, input) };
    let answering = async {
        let mut stream = match connection.client.chat(&request).await {
            Ok(stream) => stream,
            Err(error) => return Err(connection.explain(error).await),
        };
        let mut answer = Answer::default();
        let shown = if file.is_some() { Output::silent() } else { output };
        print_into(&mut stream, shown, &mut answer).await?;
        match file {
            Some(file) => write(file, &answer.text, output)?,
            None if !answer.text.ends_with('\n') => output.piece("\n")?,
            None => {}
        }
        answer.end(output)
    };
    tokio::select! {
        result = answering => result,
        _ = tokio::signal::ctrl_c() => {
            output.note("");
            Err(Failure::silent())
        }
    }
}

/// What the template makes of the question.
fn input(template: &str, text: &str) -> Outcome<Input> {
    match template {
        "auto" | "" => Ok(Input::Messages(vec![Message::new(Role::User, text)])),
        "empty" => Ok(Input::Text(text.to_owned())),
        other => Err(Failure::misuse(
            format!("--template {other} is not supported: the model's own chat template is used"),
            "Leave it out, or send the prompt as it is with --template empty.",
        )),
    }
}

/// Writes an answer; speech is base64 and becomes the file itself.
fn write(file: &Path, text: &str, output: Output) -> Outcome {
    let extension =
        file.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase();
    let content = if matches!(extension.as_str(), "mp3" | "wav") {
        audio(text, &extension).ok_or_else(|| {
            Failure::new(
                format!(
                    "the answer is no {extension} file in base64, so '{}' was not written",
                    file.display()
                ),
                "Ask a model that speaks, or give --output_file a name such as answer.txt.",
            )
        })?
    } else {
        text.as_bytes().to_vec()
    };
    std::fs::write(file, &content).map_err(|error| {
        Failure::new(
            format!("'{}' cannot be written: {error}", file.display()),
            "Name another --output_file.",
        )
    })?;
    output.note(format_args!("{} in {}", bytes(content.len() as u64), file.display()));
    Ok(())
}

/// The bytes of a sound file, when the text is the base64 of one.
fn audio(text: &str, extension: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let text = text
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"))
        .map_or(text, |(_, data)| data);
    let bytes = STANDARD.decode(text).ok()?;
    let fits = match extension {
        "wav" => bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WAVE"),
        _ => bytes.starts_with(b"ID3") || matches!(bytes[..], [0xff, second, ..] if second & 0xe0 == 0xe0),
    };
    fits.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_is_written_as_sound() {
        let wav = STANDARD.encode(b"RIFF\0\0\0\0WAVEfmt ");
        assert_eq!(audio(&wav, "wav").unwrap(), b"RIFF\0\0\0\0WAVEfmt ");
        assert!(audio(&format!("data:audio/wav;base64,{wav}\n"), "wav").is_some());
        assert_eq!(audio(&wav, "mp3"), None);
        assert!(audio(&STANDARD.encode(b"ID3\x04rest"), "mp3").is_some());
        assert!(audio(&STANDARD.encode(b"\xff\xfbrest"), "mp3").is_some());
        for text in ["Paris.", "", "UGFyaXM="] {
            assert_eq!((audio(text, "mp3"), audio(text, "wav")), (None, None), "{text}");
        }
    }

    #[test]
    fn the_models_own_template_or_none() {
        assert!(matches!(input("auto", "x"), Ok(Input::Messages(_))));
        assert!(matches!(input("empty", "x"), Ok(Input::Text(_))));
        assert!(input("qwen", "x").is_err_and(|failure| failure.message().contains("qwen")));
    }
}
