//! `byzerllm convert`: models of other formats.

use byzerllm_core::Error;
use byzerllm_model::encoder::{OnnxOptions, Pooling, convert_onnx_bert};
use serde_json::json;

use crate::arguments::{ConvertAction, ConvertArguments, OnnxBertArguments, PoolingWord};
use crate::output::{Outcome, Output, bytes};

/// Converts a model; the path of the new directory is printed.
pub(crate) fn convert(arguments: ConvertArguments, output: Output) -> Outcome {
    match arguments.action {
        ConvertAction::OnnxBert(arguments) => onnx_bert(arguments, output),
    }
}

fn onnx_bert(arguments: OnnxBertArguments, output: Output) -> Outcome {
    let OnnxBertArguments { input, output: target, pooling, heads, tokenizer, json } = arguments;
    let pooling = pooling.map(|word| match word {
        PoolingWord::Cls => Pooling::Cls,
        PoolingWord::Mean => Pooling::Mean,
    });
    let options = OnnxOptions { heads: heads.map(usize::from), pooling, tokenizer };
    let target = std::path::absolute(target)?;
    let report = convert_onnx_bert(&input, &target, &options).map_err(Error::from)?;
    if json {
        return output.json(&json!({
            "path": target,
            "task": report.task.as_str(),
            "tensors": report.tensors,
            "quantized": report.quantized,
            "bytes": report.bytes,
            "copied": report.copied,
        }));
    }
    let size = bytes(report.bytes);
    let (tensors, quantized) = (report.tensors, report.quantized);
    output.note(format!(
        "{tensors} tensors, {quantized} of them from integers, {size}: {}",
        report.task.as_str()
    ));
    output.line(target.display().to_string())
}
