//! The small files of a Hugging Face directory: configuration, generation defaults, tokenizer, chat template.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use crate::arch::fields::Fields;
use crate::arch::{self, Architecture};
use crate::generation_config::GenerationConfig;
use crate::load_error::{LoadError, LoadResult};
use crate::template::{
    ChatTemplate, SpecialTokens, template_from_tokenizer_config, tool_template_from_tokenizer_config,
};
use crate::weights::safetensors::{read_bounded, read_json};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const TOOL_TEMPLATE: &str = "additional_chat_templates/tool_use.jinja";
/// A rendered value longer than this is cut.
const SHOWN_CHARACTERS: usize = 80;

/// Reads `config.json`.
pub(crate) fn read_config(directory: &Path) -> LoadResult<(PathBuf, Map<String, Json>)> {
    let path = directory.join(CONFIG);
    if !path.is_file() {
        let problem = format!("has no {CONFIG}: is it a model directory or a GGUF file?");
        return Err(LoadError::not_found(directory, problem));
    }
    let config = read_object(&path)?;
    Ok((path, config))
}

fn read_object(path: &Path) -> LoadResult<Map<String, Json>> {
    match read_json(path)? {
        Json::Object(values) => Ok(values),
        _ => Err(LoadError::malformed(path, "JSON", "must be an object")),
    }
}

/// The family of a checkpoint, by the first of its class names that is known.
pub(super) fn architecture(
    path: &Path,
    config: &Map<String, Json>,
) -> LoadResult<(String, &'static Architecture)> {
    let fields = Fields::json(path, config);
    let names = fields.texts("architectures")?.unwrap_or_default();
    if names.is_empty() {
        return Err(fields.malformed("architectures", "is missing"));
    }
    match names.iter().find_map(|name| Some((*name, arch::by_name(name)?))) {
        Some((name, architecture)) => Ok((name.to_owned(), architecture)),
        None => {
            let known = arch::supported_architectures().join(", ");
            let problem =
                format!("{} is not supported; supported are {known}", names.join(", ").escape_debug());
            Err(fields.unsupported("architectures", problem))
        }
    }
}

/// Reads `generation_config.json`; without it there are no defaults.
pub(super) fn generation_config(directory: &Path) -> LoadResult<GenerationConfig> {
    let path = directory.join(GENERATION);
    if !path.is_file() {
        return Ok(GenerationConfig::default());
    }
    GenerationConfig::from_json(&path, &read_object(&path)?)
}

/// What `tokenizer_config.json` and `chat_template.jinja` say.
#[derive(Debug)]
pub(super) struct Extras {
    /// `tokenizer_config.json`, an object or null when there is none.
    tokenizer_config: Json,
    /// The text, the file that it is in and its place there.
    template: Option<NamedText>,
    /// The same for requests with tools, when the checkpoint has another one for them.
    tool_template: Option<NamedText>,
}

type NamedText = (String, PathBuf, &'static str);

fn template_file(file: PathBuf) -> LoadResult<Option<NamedText>> {
    if !file.is_file() {
        return Ok(None);
    }
    let text = String::from_utf8(read_bounded(&file)?)
        .map_err(|_| LoadError::malformed(&file, "text", "is not valid UTF-8"))?;
    Ok(Some((text, file, "template")))
}

impl Extras {
    pub(super) fn read(directory: &Path) -> LoadResult<Self> {
        let path = directory.join(TOKENIZER_CONFIG);
        let tokenizer_config = if path.is_file() { Json::Object(read_object(&path)?) } else { Json::Null };
        let named = |text: Option<String>| text.map(|text| (text, path.clone(), "chat_template"));
        let template = match template_file(directory.join(TEMPLATE))? {
            Some(template) => Some(template),
            None => named(template_from_tokenizer_config(&tokenizer_config)),
        };
        let tool_template = match template_file(directory.join(TOOL_TEMPLATE))? {
            Some(template) => Some(template),
            None => named(tool_template_from_tokenizer_config(&tokenizer_config)),
        };
        Ok(Self { tokenizer_config, template, tool_template })
    }

    /// The texts of the tokens for special uses.
    pub(super) fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens::from_tokenizer_config(&self.tokenizer_config)
    }

    /// `tokenizer_config.json`, or null.
    pub(super) fn tokenizer_config(&self) -> &Json {
        &self.tokenizer_config
    }

    pub(super) fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    pub(super) fn chat_template(&self) -> LoadResult<Option<ChatTemplate>> {
        let tokens = SpecialTokens::from_tokenizer_config(&self.tokenizer_config);
        let checked = |named: &Option<NamedText>| {
            let Some((text, path, field)) = named else { return Ok(None) };
            ChatTemplate::new(text, tokens.clone()).map(Some).map_err(|source| LoadError::Template {
                path: path.clone(),
                field,
                source,
            })
        };
        let template = checked(&self.template)?;
        Ok(match (template, checked(&self.tool_template)?) {
            (Some(template), Some(tool_use)) => Some(template.with_tool_use(&tool_use)),
            (template, _) => template,
        })
    }

    /// The id of the text that `tokenizer_config.json` names as the end, when it also lists that token's id.
    pub(super) fn eos_token_id(&self) -> Option<u32> {
        let config = &self.tokenizer_config;
        let eos = config.get("eos_token")?;
        let text = eos.as_str().or_else(|| eos.get("content")?.as_str())?;
        let added = config.get("added_tokens_decoder")?.as_object()?;
        let (id, _) =
            added.iter().find(|(_, token)| token.get("content").and_then(Json::as_str) == Some(text))?;
        id.parse().ok()
    }
}

/// A value on one line.
pub(crate) fn render(value: &Json) -> String {
    let text = match value {
        Json::Array(values) if values.len() > 16 => format!("[{} values]", values.len()),
        Json::Object(values) if values.len() > 16 => format!("{{{} fields}}", values.len()),
        Json::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
