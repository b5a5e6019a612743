//! Rotary embedding as `config.json` (old and new spelling) and GGUF metadata describe it.

use byzerllm_kernels::RopeKind;

use super::fields::Fields;
use super::source::Source;
use crate::load_error::LoadResult;
use crate::rope::{RopeConfig, RopeScaling};

const DEFAULT_BASE: f32 = 10_000.0;

/// What a family knows of its rotary embedding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RopeShape<'a> {
    pub(crate) head_dim: usize,
    /// The context length that the configuration states.
    pub(crate) context: usize,
    /// The field of the base, outside of `rope_parameters`.
    pub(crate) base: &'a str,
    /// The field of the share of a head that is rotated, and its default.
    pub(crate) partial: (&'a str, f32),
}

/// Reads `config.json`. Returns the rope and the context length that it makes possible.
pub(crate) fn hugging_face(fields: &Fields<'_>, shape: &RopeShape<'_>) -> LoadResult<(RopeConfig, usize)> {
    // `rope_scaling` is the old name; both may be there, with the same contents.
    let parameters = match fields.object("rope_scaling")?.filter(|scaling| !scaling.is_empty()) {
        Some(scaling) => Some(scaling),
        None => fields.object("rope_parameters")?,
    };
    read(fields, shape, parameters.as_ref(), DEFAULT_BASE)
}

/// Reads the rope of one kind of layers, `full_attention` or `sliding_attention`, from `config.json` of a family that
/// gives parameters per kind. The old spelling has a base of its own for layers with a window, and scales only the
/// others.
pub(crate) fn hugging_face_of_kind(
    fields: &Fields<'_>,
    shape: &RopeShape<'_>,
    (kind, default_base): (&str, f32),
) -> LoadResult<(RopeConfig, usize)> {
    let parameters = match fields.object("rope_parameters")? {
        Some(kinds) => kinds.object(kind)?,
        None if kind == "full_attention" => fields.object("rope_scaling")?,
        None => None,
    };
    read(fields, shape, parameters.as_ref(), default_base)
}

fn read(
    fields: &Fields<'_>,
    shape: &RopeShape<'_>,
    parameters: Option<&Fields<'_>>,
    default_base: f32,
) -> LoadResult<(RopeConfig, usize)> {
    if let Some(inner) = parameters
        && let Some(name) = inner.first_object()
    {
        return Err(inner.unsupported(name, "parameters per kind of layer are not supported"));
    }
    let top = |name: &str| fields.positive_float(name);
    let inner = |name: &str| parameters.map_or(Ok(None), |inner| inner.positive_float(name));
    let base = match inner("rope_theta")? {
        Some(base) => base,
        None => top(shape.base)?.unwrap_or(default_base),
    };
    let share = match inner("partial_rotary_factor")? {
        Some(share) => share,
        None => top(shape.partial.0)?.unwrap_or(shape.partial.1),
    };
    let rotary_dim = (shape.head_dim as f64 * f64::from(share)) as usize;
    if share > 1.0 || rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
        let problem =
            format!("rotates {rotary_dim} of {} components, which is not a part of pairs", shape.head_dim);
        return Err(fields.malformed(shape.partial.0, problem));
    }
    let (scaling, context) = match parameters {
        Some(parameters) => scaling(fields, parameters, shape.context, base, rotary_dim)?,
        None => (RopeScaling::None, shape.context),
    };
    let rope = RopeConfig { kind: RopeKind::Half, rotary_dim, base, scaling, two_dimensional: false };
    Ok((rope, context))
}

fn scaling(
    fields: &Fields<'_>,
    parameters: &Fields<'_>,
    context: usize,
    base: f32,
    rotary_dim: usize,
) -> LoadResult<(RopeScaling, usize)> {
    let name = if parameters.has("rope_type") { "rope_type" } else { "type" };
    let kind = parameters.text(name)?.unwrap_or("default");
    let required =
        |name: &str| parameters.positive_float(name)?.ok_or_else(|| parameters.malformed(name, "is missing"));
    let original = || -> LoadResult<usize> {
        match fields.positive_or_absent("original_max_position_embeddings")? {
            Some(original) => Ok(original),
            None => parameters.positive_or("original_max_position_embeddings", context),
        }
    };
    match kind {
        "default" => Ok((RopeScaling::None, context)),
        "linear" => {
            // Vicuna's long variants keep the original length in `max_position_embeddings`.
            let context = fields.positive_or("max_sequence_length", context)?.max(context);
            Ok((RopeScaling::Linear { factor: required("factor")? }, context))
        }
        // Frequencies change only beyond the stated context, which is therefore the end.
        "dynamic" => {
            required("factor")?;
            Ok((RopeScaling::None, context))
        }
        "llama3" => {
            let low = required("low_freq_factor")?;
            let high = required("high_freq_factor")?;
            if high <= low {
                let problem = format!("must be above low_freq_factor {low}, is {high}");
                return Err(parameters.malformed("high_freq_factor", problem));
            }
            let scaling = RopeScaling::Llama3 {
                factor: required("factor")?,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_context: original()? as f32,
            };
            Ok((scaling, context))
        }
        "longrope" | "su" => longrope(parameters, context, original()?, rotary_dim),
        "yarn" => yarn(parameters, context, original()?, base),
        other => Err(parameters.unsupported(name, format!("{other:?} is not supported"))),
    }
}

/// LongRoPE (arXiv:2402.13753) has one set of divisors for texts up to the original context and another one for longer
/// texts, and a text that crosses that border would have to be computed again. The first set is used, and the original
/// context is the end.
fn longrope(
    parameters: &Fields<'_>,
    context: usize,
    original: usize,
    rotary_dim: usize,
) -> LoadResult<(RopeScaling, usize)> {
    let name = "short_factor";
    let divisors =
        parameters.positive_floats(name)?.ok_or_else(|| parameters.malformed(name, "is missing"))?;
    if divisors.len() != rotary_dim / 2 {
        let problem = format!("has {} numbers for {} pairs of components", divisors.len(), rotary_dim / 2);
        return Err(parameters.malformed(name, problem));
    }
    let factor = parameters.positive_float("factor")?.unwrap_or(context as f32 / original as f32);
    let attention_factor = match parameters.positive_float("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 || original <= 1 => 1.0,
        None => (1.0 + factor.ln() / (original as f32).ln()).sqrt(),
    };
    Ok((RopeScaling::Divisors { divisors, attention_factor }, context.min(original)))
}

fn yarn(
    parameters: &Fields<'_>,
    context: usize,
    original: usize,
    base: f32,
) -> LoadResult<(RopeScaling, usize)> {
    if base <= 1.0 {
        return Err(parameters.malformed("rope_theta", format!("must be above 1 for yarn, is {base}")));
    }
    if !parameters.flag("truncate", true)? {
        return Err(parameters.unsupported("truncate", "yarn without truncation is not supported"));
    }
    let factor = parameters.positive_float("factor")?.unwrap_or(context as f32 / original as f32);
    let magnitude = |scale: f32| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let nonzero = |name: &str| parameters.float(name).map(|value| value.filter(|&value| value != 0.0));
    let attention_factor = match parameters.positive_float("attention_factor")? {
        Some(given) => Some(given),
        None => match (nonzero("mscale")?, nonzero("mscale_all_dim")?) {
            (Some(scale), Some(all)) => Some(magnitude(scale) / magnitude(all)),
            _ => None,
        },
    };
    let scaling = RopeScaling::Yarn {
        factor,
        beta_fast: nonzero("beta_fast")?.map_or(Ok(32.0), |_| required_positive(parameters, "beta_fast"))?,
        beta_slow: nonzero("beta_slow")?.map_or(Ok(1.0), |_| required_positive(parameters, "beta_slow"))?,
        original_context: original as f32,
        attention_factor,
    };
    Ok((scaling, context.max(stretched(original, factor))))
}

fn required_positive(fields: &Fields<'_>, name: &str) -> LoadResult<f32> {
    fields.positive_float(name)?.ok_or_else(|| fields.malformed(name, "is missing"))
}

/// The context that a factor makes of the original one, within what any field may state.
fn stretched(original: usize, factor: f32) -> usize {
    ((original as f64 * f64::from(factor)) as usize).min(1 << 30)
}

/// Reads GGUF metadata and the `rope_freqs` tensor, or those of LongRoPE, whose short texts' divisors are used.
pub(crate) fn gguf(
    source: &Source,
    kind: RopeKind,
    head_dim: usize,
    context: usize,
) -> LoadResult<RopeConfig> {
    let fields = source.fields();
    let base = fields.positive_float("rope.freq_base")?.unwrap_or(DEFAULT_BASE);
    let rotary_dim = fields.positive_or("rope.dimension_count", head_dim)?;
    if rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
        let problem =
            format!("is {rotary_dim}, which is not a part of pairs of the {head_dim} components of a head");
        return Err(fields.malformed("rope.dimension_count", problem));
    }
    let name = "rope.scaling.type";
    // A factor of 0 means none; old files have `scale_linear` and no type.
    let factor = match fields.float("rope.scaling.factor")?.filter(|&factor| factor != 0.0) {
        Some(_) => fields.positive_float("rope.scaling.factor")?,
        None => fields.positive_float("rope.scale_linear")?,
    };
    let scaling = match (fields.text(name)?, factor) {
        (Some("none"), _) | (None | Some("linear"), None) => RopeScaling::None,
        (None | Some("linear"), Some(factor)) => RopeScaling::Linear { factor },
        // The divisors are tensors.
        (Some("longrope"), _) if source.tensors.contains(LONGROPE) => RopeScaling::None,
        (Some("yarn"), factor) => gguf_yarn(&fields, factor, context, base)?,
        (Some(other), _) => return Err(fields.unsupported(name, format!("{other:?} is not supported"))),
    };
    let scaling = with_divisors(source, &fields, scaling, rotary_dim)?;
    Ok(RopeConfig { kind, rotary_dim, base, scaling, two_dimensional: false })
}

fn gguf_yarn(fields: &Fields<'_>, factor: Option<f32>, context: usize, base: f32) -> LoadResult<RopeScaling> {
    if base <= 1.0 {
        return Err(fields.malformed("rope.freq_base", format!("must be above 1 for yarn, is {base}")));
    }
    let factor = factor.ok_or_else(|| fields.malformed("rope.scaling.factor", "is missing"))?;
    let given = fields.positive_float("rope.scaling.attn_factor")?.unwrap_or(1.0);
    let derived = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: fields.positive_float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
        beta_slow: fields.positive_float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
        original_context: fields.positive_or("rope.scaling.original_context_length", context)? as f32,
        attention_factor: Some(given * derived),
    })
}

/// The divisors of LongRoPE for texts up to the original context.
pub(crate) const LONGROPE: &str = "rope_factors_short.weight";

/// Converters write Llama 3 scaling as one divisor per frequency, and LongRoPE as it is.
fn with_divisors(
    source: &Source,
    fields: &Fields<'_>,
    scaling: RopeScaling,
    rotary_dim: usize,
) -> LoadResult<RopeScaling> {
    let name = match source.tensors.contains(LONGROPE) {
        true => LONGROPE,
        false => "rope_freqs.weight",
    };
    if !source.tensors.contains(name) {
        return Ok(scaling);
    }
    let mut divisors = source.vector(name, rotary_dim / 2)?;
    if divisors.iter().any(|divisor| !(divisor.is_finite() && *divisor > 0.0)) {
        return Err(fields.malformed(&format!("tensor {name}"), "must hold finite numbers above 0"));
    }
    match scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => divisors.iter_mut().for_each(|divisor| *divisor *= factor),
        _ => {
            return Err(fields.unsupported("rope.scaling.type", format!("cannot be combined with {name}")));
        }
    }
    let attention_factor = match name == LONGROPE {
        true => fields.positive_float("rope.scaling.attn_factor")?.unwrap_or(1.0),
        false => 1.0,
    };
    Ok(RopeScaling::Divisors { divisors, attention_factor })
}
