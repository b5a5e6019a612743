//! `byzerllm embed` and `byzerllm rerank`: vectors and scores, of a deployment or of a model in this process.

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

use byzerllm_core::{EmbeddingInput, EmbeddingRequest, Notice, RerankRequest, TextPair};
use serde_json::{Map, json};

use crate::arguments::{EmbedArguments, RerankArguments};
use crate::generate::notice_words;
use crate::output::{Failure, Outcome, Output};
use crate::talker::Talker;

/// Prints the vector of each text.
pub(crate) async fn embed(arguments: EmbedArguments, output: Output) -> Outcome {
    let texts = texts(arguments.texts, arguments.file.as_deref())?;
    let url = arguments.server.url.as_deref();
    let talker = Talker::open(Some(&arguments.model), url, &arguments.load).await?;
    let request = EmbeddingRequest {
        model: String::new(),
        inputs: texts.into_iter().map(EmbeddingInput::Text).collect(),
        dimensions: arguments.dimensions,
        truncate: arguments.truncate,
        prompt: arguments.prompt,
        extra: Map::new(),
    };
    let made = talker.embed(request).await;
    talker.close().await;
    let embeddings = made?;
    say(&embeddings.notices, output);
    if arguments.json {
        return output.json(&embeddings);
    }
    for vector in &embeddings.vectors {
        output.line(json!(vector))?;
    }
    Ok(())
}

/// Prints passages, the best first.
pub(crate) async fn rerank(arguments: RerankArguments, output: Output) -> Outcome {
    let passages = texts(arguments.passages, arguments.file.as_deref())?;
    let url = arguments.server.url.as_deref();
    let talker = Talker::open(Some(&arguments.model), url, &arguments.load).await?;
    let query: Arc<str> = arguments.query.into();
    let request = RerankRequest {
        model: String::new(),
        pairs: passages.iter().map(|passage| TextPair::new(query.clone(), passage.as_str())).collect(),
        scale: arguments.scale,
        truncate: arguments.truncate,
        extra: Map::new(),
    };
    let scored = talker.rerank(request).await;
    talker.close().await;
    let scores = scored?;
    say(&scores.notices, output);
    let most = arguments.top.map_or(usize::MAX, |top| top as usize);
    let best = scores.ranking().into_iter().take(most);
    if arguments.json {
        let row =
            |place: usize| json!({"index": place, "score": scores.scores[place], "passage": passages[place]});
        let results: Vec<_> = best.map(row).collect();
        return output.json(&json!({"results": results, "scale": scores.scale, "usage": scores.usage}));
    }
    for place in best {
        output.line(format_args!("{:>10.4}  {}", scores.scores[place], passages[place]))?;
    }
    Ok(())
}

/// What was typed, else the lines of a file or of standard input that hold something.
fn texts(typed: Vec<String>, file: Option<&Path>) -> Outcome<Vec<String>> {
    let text = match file {
        _ if !typed.is_empty() => return Ok(typed),
        Some(file) => std::fs::read_to_string(file).map_err(|error| {
            Failure::new(format!("'{}' cannot be read: {error}", file.display()), "Check --file.")
        })?,
        None if std::io::stdin().is_terminal() => String::new(),
        None => {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text)?;
            text
        }
    };
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(Failure::misuse(
            "there is no text",
            "Give texts behind the options, or one a line in --file or on standard input.",
        ));
    }
    Ok(lines)
}

fn say(notices: &[Notice], output: Output) {
    notices.iter().filter_map(notice_words).for_each(|words| output.note(words));
}
