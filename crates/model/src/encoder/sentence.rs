//! The files of sentence-transformers: which modules follow the network, prompts, and the longest input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::{DenseConfig, HeadActivation, Origin, Pooling, Similarity};
use crate::arch::fields::Fields;
use crate::load_error::{LoadError, LoadResult};
use crate::weights::TensorStore;
use crate::weights::directory::open_model;
use crate::weights::safetensors::read_json;

const MODULES: &str = "modules.json";
const PROMPTS: &str = "config_sentence_transformers.json";
const LENGTH: &str = "sentence_bert_config.json";
const CONFIG: &str = "config.json";
/// Modules of one model.
const MAX_MODULES: usize = 64;
/// Values that a dense layer may write.
const MAX_WIDTH: usize = 1 << 20;

/// The flags of `1_Pooling/config.json` in the order in which sentence-transformers concatenates.
const POOLINGS: [(&str, Pooling); 5] = [
    ("pooling_mode_cls_token", Pooling::Cls),
    ("pooling_mode_max_tokens", Pooling::Max),
    ("pooling_mode_mean_tokens", Pooling::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLength),
    ("pooling_mode_lasttoken", Pooling::LastToken),
];

/// What `modules.json` lists after the network.
#[derive(Debug)]
pub(super) struct Modules {
    /// The directory of the network itself.
    pub(super) network: PathBuf,
    /// The poolings and the file that names them.
    pub(super) pooling: Option<(Vec<Pooling>, Origin)>,
    /// The dense layers with their weights.
    pub(super) dense: Vec<(DenseConfig, TensorStore)>,
    /// Whether the vector is scaled to unit length, after everything else.
    pub(super) normalize: bool,
}

/// A file that holds one object, when it is there.
pub(super) fn object(path: &Path) -> LoadResult<Option<Map<String, Json>>> {
    if !path.is_file() {
        return Ok(None);
    }
    match read_json(path)? {
        Json::Object(values) => Ok(Some(values)),
        _ => Err(LoadError::malformed(path, "JSON", "must be an object")),
    }
}

impl Modules {
    /// Reads `modules.json` and what it names; `None` without that file.
    pub(super) fn read(directory: &Path) -> LoadResult<Option<Self>> {
        let path = directory.join(MODULES);
        if !path.is_file() {
            return Ok(None);
        }
        let Json::Array(entries) = read_json(&path)? else {
            return Err(LoadError::malformed(&path, "JSON", "must be a list of modules"));
        };
        if entries.len() > MAX_MODULES {
            let problem = format!("has {} modules, more than {MAX_MODULES}", entries.len());
            return Err(LoadError::malformed(&path, "JSON", problem));
        }
        let mut modules =
            Self { network: directory.into(), pooling: None, dense: Vec::new(), normalize: false };
        for (index, entry) in entries.iter().enumerate() {
            modules.add(directory, &path, index, entry)?;
        }
        Ok(Some(modules))
    }

    fn add(&mut self, directory: &Path, file: &Path, index: usize, entry: &Json) -> LoadResult<()> {
        let field = |name: &str| format!("{index}.{name}");
        let text = |name: &str| {
            let value = entry.get(name).and_then(Json::as_str);
            value.ok_or_else(|| LoadError::malformed(file, field(name), "must be a text"))
        };
        let (kind, folder) = (text("type")?, text("path")?);
        let plain = folder.split('/').all(|part| part != ".." && !part.contains(['\\', ':', '\0']));
        if !plain || folder.starts_with('/') {
            let problem = format!("{folder:?} is not a folder inside of this directory");
            return Err(LoadError::malformed(file, field("path"), problem));
        }
        let folder = directory.join(folder);
        // The packages that hold the classes have moved; the last part of the name stayed.
        let class = kind.rsplit('.').next().unwrap_or_default();
        let unsupported = |problem: String| Err(LoadError::unsupported(file, field("type"), problem));
        match class {
            "Transformer" if index == 0 => self.network = folder,
            "Pooling" if self.pooling.is_none() && index > 0 => {
                let path = folder.join(CONFIG);
                self.pooling = Some((read_pooling(&path)?, Origin::Given(shown(directory, &path))));
            }
            "Dense" if self.pooling.is_some() && !self.normalize => self.dense.push(read_dense(&folder)?),
            "Normalize" if self.pooling.is_some() => self.normalize = true,
            // It does nothing when a model is used.
            "Dropout" => {}
            "Transformer" | "Pooling" | "Dense" | "Normalize" => {
                return unsupported(format!("{class} is not supported at this place"));
            }
            other => {
                let problem = format!(
                    "{other:?} is not supported; supported are Transformer, Pooling, Dense, Dropout and Normalize"
                );
                return unsupported(problem);
            }
        }
        Ok(())
    }
}

/// A path as messages show it: inside of the checkpoint.
fn shown(directory: &Path, path: &Path) -> String {
    path.strip_prefix(directory).unwrap_or(path).display().to_string()
}

fn read_pooling(path: &Path) -> LoadResult<Vec<Pooling>> {
    let values =
        object(path)?.ok_or_else(|| LoadError::not_found(path, "is missing, modules.json names it"))?;
    let fields = Fields::json(path, &values);
    if !fields.flag("include_prompt", true)? {
        return Err(
            fields.unsupported("include_prompt", "leaving the prompt out of the pooling is not supported")
        );
    }
    if let Some(value) = values.get("pooling_mode").filter(|value| !value.is_null()) {
        let names = match value {
            Json::String(name) => vec![name.as_str()],
            _ => fields.texts("pooling_mode")?.unwrap_or_default(),
        };
        let modes: Vec<Pooling> = names
            .iter()
            .map(|name| {
                let mode = POOLINGS.iter().map(|(_, mode)| *mode).find(|mode| mode.as_str() == *name);
                mode.ok_or_else(|| unknown_pooling(&fields, "pooling_mode", name))
            })
            .collect::<LoadResult<_>>()?;
        if modes.is_empty() || modes.len() > POOLINGS.len() {
            let problem = format!("must name 1 to {} poolings, names {}", POOLINGS.len(), modes.len());
            return Err(fields.malformed("pooling_mode", problem));
        }
        return Ok(modes);
    }
    if fields.flag("pooling_mode_weightedmean_tokens", false)? {
        return Err(unknown_pooling(&fields, "pooling_mode_weightedmean_tokens", "weightedmean"));
    }
    let mut modes = Vec::new();
    for (name, mode) in POOLINGS {
        if fields.flag(name, false)? {
            modes.push(mode);
        }
    }
    // So does sentence-transformers.
    Ok(if modes.is_empty() { vec![Pooling::Mean] } else { modes })
}

fn unknown_pooling(fields: &Fields<'_>, field: &str, name: &str) -> LoadError {
    let known: Vec<&str> = POOLINGS.iter().map(|(_, mode)| mode.as_str()).collect();
    fields.unsupported(field, format!("{name:?} is not supported; supported are {}", known.join(", ")))
}

fn read_dense(folder: &Path) -> LoadResult<(DenseConfig, TensorStore)> {
    let path = folder.join(CONFIG);
    let values =
        object(&path)?.ok_or_else(|| LoadError::not_found(&path, "is missing, modules.json names it"))?;
    let fields = Fields::json(&path, &values);
    let size = |name: &str| match fields.positive(name)? {
        size if size > MAX_WIDTH => Err(fields.malformed(name, format!("is {size}, more than {MAX_WIDTH}"))),
        size => Ok(size),
    };
    // Newer releases can run the layer on other things than the pooled vector.
    for (name, usual) in
        [("module_input_name", "sentence_embedding"), ("module_output_name", "sentence_embedding")]
    {
        if let Some(value) = fields.text(name)?
            && value != usual
        {
            return Err(
                fields.unsupported(name, format!("{value:?} is not supported; supported is {usual:?}"))
            );
        }
    }
    let activation = match fields.text("activation_function")? {
        None => HeadActivation::Tanh,
        Some(name) => match name.rsplit('.').next().unwrap_or_default() {
            "Identity" => HeadActivation::Identity,
            "Tanh" => HeadActivation::Tanh,
            "ReLU" => HeadActivation::Relu,
            "GELU" => HeadActivation::Gelu,
            "Sigmoid" => HeadActivation::Sigmoid,
            _ => {
                let problem = format!(
                    "{name:?} is not supported; supported are Identity, Tanh, ReLU, GELU and Sigmoid"
                );
                return Err(fields.unsupported("activation_function", problem));
            }
        },
    };
    let config = DenseConfig { inputs: size("in_features")?, outputs: size("out_features")?, activation };
    Ok((config, open_model(folder)?))
}

/// Prompts and the way to compare vectors.
#[derive(Debug, Default)]
pub(super) struct Prompts {
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default: Option<String>,
    pub(super) similarity: Option<Similarity>,
}

impl Prompts {
    pub(super) fn read(directory: &Path) -> LoadResult<Self> {
        let path = directory.join(PROMPTS);
        let Some(values) = object(&path)? else { return Ok(Self::default()) };
        let fields = Fields::json(&path, &values);
        let mut prompts = BTreeMap::new();
        match values.get("prompts") {
            None | Some(Json::Null) => {}
            Some(Json::Object(texts)) => {
                for (name, text) in texts {
                    let field = || format!("prompts.{}", name.escape_debug());
                    let text = text.as_str().ok_or_else(|| fields.malformed(&field(), "must be a text"))?;
                    prompts.insert(name.clone(), text.to_owned());
                }
            }
            Some(_) => return Err(fields.malformed("prompts", "must be an object of texts")),
        }
        let default = fields.text("default_prompt_name")?.map(str::to_owned);
        if let Some(name) = default.as_ref().filter(|name| !prompts.contains_key(*name)) {
            let problem = format!("{name:?} is not one of the prompts");
            return Err(fields.malformed("default_prompt_name", problem));
        }
        let similarity = match fields.text("similarity_fn_name")? {
            None => None,
            Some(name) => Some(Similarity::named(name).ok_or_else(|| {
                fields.unsupported("similarity_fn_name", format!("{name:?} is not supported"))
            })?),
        };
        Ok(Self { prompts, default, similarity })
    }
}

/// What `sentence_bert_config.json` says: the longest input and whether texts become lower case.
pub(super) fn length_and_case(directory: &Path) -> LoadResult<(Option<usize>, bool)> {
    let path = directory.join(LENGTH);
    let Some(values) = object(&path)? else { return Ok((None, false)) };
    let fields = Fields::json(&path, &values);
    Ok((fields.positive_or_absent("max_seq_length")?, fields.flag("do_lower_case", false)?))
}

/// The name of the file of [`length_and_case`].
pub(super) const fn length_file() -> &'static str {
    LENGTH
}
