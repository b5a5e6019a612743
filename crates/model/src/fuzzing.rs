//! What a hostile file may do to this crate: nothing. Each function takes any bytes, asserts what must hold of what was
//! accepted, and returns how much memory reading may have held at once.
//!
//! The fuzz targets call these functions, and so do the tests below with every file of `fuzz/corpus`.
#![expect(clippy::panic, reason = "a broken promise ends the process that looks for it")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use byzerllm_core::{Message, Role};
use byzerllm_kernels::{Compute, ComputePool, Mask, PoolOptions};
use serde_json::{Value, json};

use crate::checkpoint::Checkpoint;
use crate::cpu::CpuOptions;
use crate::load_error::LoadResult;
use crate::template::{ChatTemplate, SpecialTokens, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::weights::gguf::GgufFile;
use crate::weights::{MappedFile, TensorEntry, pickle, safetensors, torch};
use crate::{Output, PackedBatch, SequenceInput};

const MIB: usize = 1 << 20;

/// A GGUF file: its header, its vocabulary, its template, and a step of its network.
pub fn gguf(bytes: &[u8]) -> usize {
    let Ok(file) = MappedFile::of_bytes(Path::new("fuzz.gguf"), bytes) else { return MIB };
    if let Ok((gguf, entries)) = GgufFile::open(&file) {
        inside(&entries, bytes.len());
        assert!(gguf.rendered().iter().all(|(_, value)| value.len() < 4096), "a listing stays short");
        if let Ok(vocabulary) = gguf.vocabulary()
            && let Ok(tokenizer) = Tokenizer::from_gguf(vocabulary)
        {
            round_trips(&tokenizer, "Hello  wörld <s>\n\u{1f600}1234");
        }
    }
    if let Ok(checkpoint) = Checkpoint::from_gguf(file) {
        let _ = (checkpoint.end_tokens(), checkpoint.languages(), checkpoint.metadata());
        let _ = (checkpoint.info(Compute::Fast), checkpoint.chat_template());
        let total: u64 = checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum();
        // Tensors may share bytes, so that a network can be larger than its file; a small one is computed.
        if total < MIB as u64 {
            step(&checkpoint);
        }
    }
    8 * MIB + 256 * bytes.len()
}

/// The first step of a network.
fn step(checkpoint: &Checkpoint) {
    static POOL: OnceLock<Option<Arc<ComputePool>>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let options = PoolOptions { threads: Some(1), ..PoolOptions::default() };
        ComputePool::new(options).ok().map(Arc::new)
    });
    let Some(pool) = pool else { panic!("no compute pool") };
    for compute in [Compute::Exact, Compute::Fast] {
        let Ok(mut network) = checkpoint.network(pool, &CpuOptions::new(compute)) else { continue };
        let groups = network.traits().cache_groups.len();
        if network.allocate_cache(&vec![1; groups]).is_err() {
            continue;
        }
        let vocabulary = checkpoint.config().vocab_size;
        let ids = [0, (vocabulary - 1) as u32];
        let ids = &ids[..checkpoint.config().context_length.min(2)];
        let positions: Vec<u32> = (0..ids.len() as u32).collect();
        let width = checkpoint.config().position_width();
        assert_eq!(width, 1, "no family of a GGUF file has other positions");
        let tables: Vec<&[u32]> = vec![&[0]; groups];
        let sequence = SequenceInput {
            start: 0,
            count: ids.len(),
            past: 0,
            block_tables: &tables,
            mask: Mask::Causal,
            adapter: None,
            cross_cache: None,
        };
        let batch = PackedBatch {
            ids,
            embeddings: None,
            positions: &positions,
            sequences: &[sequence],
            rows: &positions,
            output: Output::Logits,
        };
        if let Ok(rows) = network.forward(&batch) {
            assert_eq!((rows.len(), rows.row(0).len()), (ids.len(), vocabulary));
        }
    }
}

/// A safetensors file.
pub fn safetensors(bytes: &[u8]) -> usize {
    if let Ok(entries) = headers(bytes, safetensors::read_header) {
        inside(&entries, bytes.len());
        // The tensors lie one after another up to the end.
        let data: usize = entries.iter().map(|entry| entry.range.len()).sum();
        assert!(
            entries.iter().all(|entry| entry.range.is_empty() || entry.range.start >= bytes.len() - data)
        );
        let mut filled: Vec<_> = entries.iter().filter(|entry| !entry.range.is_empty()).collect();
        filled.sort_by_key(|entry| entry.range.start);
        assert!(filled.windows(2).all(|pair| pair[0].range.end == pair[1].range.start));
        assert!(filled.last().is_none_or(|last| last.range.end == bytes.len()));
    }
    MIB + 64 * bytes.len()
}

/// A weight file of torch.
pub fn torch_bin(bytes: &[u8]) -> usize {
    if let Ok(entries) = headers(bytes, torch::read_header) {
        assert!(!entries.is_empty(), "a file without tensors is refused");
        inside(&entries, bytes.len());
    }
    MIB + 256 * bytes.len()
}

/// The pickle in a weight file of torch.
pub fn pickle(bytes: &[u8]) -> usize {
    if let Ok(tensors) = pickle::read(bytes) {
        assert!(tensors.len() <= bytes.len(), "a tensor takes at least an operation");
        for (name, tensor) in tensors {
            assert!(name.len() <= bytes.len() && tensor.storage.key.len() <= bytes.len());
            assert_eq!(tensor.shape.len(), tensor.strides.len());
        }
    }
    MIB + 256 * bytes.len()
}

fn headers(
    bytes: &[u8],
    read: fn(&MappedFile) -> LoadResult<Vec<TensorEntry>>,
) -> LoadResult<Vec<TensorEntry>> {
    read(&*MappedFile::of_bytes(Path::new("fuzz.bin"), bytes)?)
}

/// Every tensor lies inside of the file, is as large as its shape says, and has a name of its own.
fn inside(entries: &[TensorEntry], total: usize) {
    let mut names = HashSet::new();
    for entry in entries {
        assert!(entry.range.start <= entry.range.end && entry.range.end <= total, "{entry:?} of {total}");
        assert!(names.insert(entry.name.as_str()), "{} appears twice", entry.name);
        assert!(entry.shape.len() <= 8);
        if let crate::weights::Encoding::Known(kind) = entry.encoding {
            let (columns, rows) = match entry.shape.split_last() {
                Some((columns, rows)) => {
                    (*columns, rows.iter().try_fold(1_usize, |all, next| all.checked_mul(*next)))
                }
                None => (1, Some(1)),
            };
            if let (Some(rows), Some(bytes)) = (rows, kind.row_bytes(columns)) {
                assert_eq!(rows.checked_mul(bytes), Some(entry.range.len()), "{entry:?}");
            } else {
                // Only when a dimension is 0 can the others multiply to more than the machine can count.
                assert!(entry.range.is_empty(), "{entry:?}");
            }
        }
    }
}

/// A vocabulary: the first byte says of which format, the second how many bytes of text to encode follow; the rest is
/// the file.
pub fn tokenizer(bytes: &[u8]) -> usize {
    if let Some((Ok(tokenizer), text)) = tokenizer_of(bytes) {
        round_trips(&tokenizer, &text);
        // A byte-level vocabulary with every byte can write any text, and says the same again.
        if matches!(bytes[0] % 5, 2 | 4) && has_every_byte(&tokenizer) {
            for ids in [tokenizer.encode(&text, false), tokenizer.encode_plain(&text)] {
                assert_eq!(ids.map(|ids| tokenizer.decode(&ids, false)).ok().as_deref(), Some(&*text));
            }
        }
    }
    16 * MIB + 512 * bytes.len()
}

fn tokenizer_of(bytes: &[u8]) -> Option<(Result<Tokenizer, TokenizerError>, String)> {
    let [kind, length, rest @ ..] = bytes else { return None };
    let (text, file) = rest.split_at(rest.len().min(usize::from(*length)));
    let text = String::from_utf8_lossy(text);
    let path = Path::new("fuzz.tokenizer");
    let tokenizer = match kind % 5 {
        0 => Tokenizer::from_json(path, file),
        1 => Tokenizer::from_sentencepiece(path, file),
        2 => Tokenizer::from_tiktoken(path, file, "llama-bpe"),
        3 => Tokenizer::from_tiktoken(path, file, "qwen2"),
        _ => {
            let end = file.iter().position(|byte| *byte == 0).unwrap_or(file.len());
            let (vocabulary, merges) = file.split_at(end);
            Tokenizer::from_vocab_and_merges(path, vocabulary, merges.get(1..).unwrap_or_default(), "gpt-2")
        }
    };
    Some((tokenizer, text.into_owned()))
}

fn has_every_byte(tokenizer: &Tokenizer) -> bool {
    let single = |id| match tokenizer.token_bytes(id) {
        Some(&[byte]) => Some(byte),
        _ => None,
    };
    (0..tokenizer.vocab_size() as u32).filter_map(single).collect::<HashSet<u8>>().len() == 256
}

/// Ids of a text are ids of the vocabulary, and token by token they say what they say at once.
fn round_trips(tokenizer: &Tokenizer, text: &str) {
    let size = tokenizer.vocab_size();
    let plain = tokenizer.encode_plain(text);
    let around = tokenizer.encode(text, true);
    for ids in [&plain, &around].into_iter().flatten() {
        assert!(
            ids.iter().all(|id| (*id as usize) < size && tokenizer.token_bytes(*id).is_some()),
            "{ids:?}"
        );
    }
    // Any ids, some beyond the vocabulary.
    let any =
        text.bytes().zip(1..).map(|(byte, place): (u8, u32)| u32::from(byte) * place % (size as u32 + 2));
    for ids in [plain.unwrap_or_default(), around.unwrap_or_default(), any.collect()] {
        for skip_special in [false, true] {
            let mut stream = tokenizer.decoder(skip_special);
            let mut pieces = String::new();
            for id in &ids {
                stream.push_to(*id, &mut pieces);
            }
            pieces.extend(stream.finish());
            assert_eq!(pieces, tokenizer.decode(&ids, skip_special), "{ids:?}");
        }
    }
}

/// A chat template: the first byte says for which conversation, the rest is the source.
pub fn template(bytes: &[u8]) -> usize {
    let Some((kind, source)) = bytes.split_first() else { return MIB };
    let Ok(source) = std::str::from_utf8(source) else { return MIB };
    let tokens = SpecialTokens {
        bos: Some("<s>".to_owned()),
        eos: Some("</s>".to_owned()),
        ..SpecialTokens::default()
    };
    let Ok(template) = ChatTemplate::new(source, tokens) else { return MIB + 64 * bytes.len() };
    assert_eq!(template.source(), source);
    let (messages, tools) = conversation(*kind);
    let render = || template.render(&messages, tools.as_ref(), kind & 1 == 0);
    let text = render();
    match &text {
        Ok(text) => assert!(text.len() <= 9 * MIB, "a template made {} bytes", text.len()),
        Err(TemplateError::Syntax { reason, .. }) if reason.is_empty() => panic!("an error without a reason"),
        Err(_) => {}
    }
    // The clock is the only thing that may change between two renderings.
    if text.as_ref().is_ok_and(|text| text.len() < 1 << 16) && !source.contains("strftime_now") {
        assert_eq!(render(), text);
    }
    256 * MIB
}

/// Conversations that templates ask different questions of.
fn conversation(kind: u8) -> (Vec<Message>, Option<Value>) {
    let user = Message::new(Role::User, "What's 1 < 2 & \"é\"?\n");
    let system = Message::new(Role::System, "Be brief.");
    match kind % 4 {
        0 => (vec![user], None),
        1 => {
            (vec![system, user.clone(), Message::new(Role::Assistant, "<think>so</think> Yes."), user], None)
        }
        2 => {
            let mut call = Message::new(Role::Assistant, "");
            let calls = json!([{"id": "call_1", "type": "function",
                "function": {"name": "weather", "arguments": "{\"city\": \"Paris\"}"}}]);
            call.extra.insert("tool_calls".to_owned(), calls);
            let mut answer = Message::new(Role::Tool, "sunny");
            answer.extra.insert("tool_call_id".to_owned(), "call_1".into());
            let tools = json!([{"type": "function", "function": {"name": "weather", "description": "",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
            (vec![system, user, call, answer], Some(tools))
        }
        _ => (Vec::new(), Some(json!([]))),
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::replay::{corpus, replay};
    use super::{Checkpoint, MappedFile, headers, safetensors, torch};

    /// Seeds that are refused would lead the fuzzer nowhere.
    #[test]
    fn seeds_are_accepted() {
        for name in ["llama-f16", "llama-q4_0", "qwen2-q8_0"] {
            let bytes = std::fs::read(corpus("gguf").join(format!("seed-{name}"))).unwrap();
            let file = MappedFile::of_bytes(Path::new(name), &bytes).unwrap();
            let checkpoint = Checkpoint::from_gguf(file).unwrap();
            checkpoint.tokenizer().unwrap();
            assert!(checkpoint.chat_template().unwrap().is_some(), "{name}");
        }
        for name in ["two", "types", "empty", "nothing"] {
            let bytes = std::fs::read(corpus("safetensors").join(format!("seed-{name}"))).unwrap();
            headers(&bytes, safetensors::read_header).unwrap();
        }
        for name in ["weights", "counts"] {
            let bytes = std::fs::read(corpus("torch_bin").join(format!("seed-{name}"))).unwrap();
            assert_eq!(headers(&bytes, torch::read_header).unwrap().len(), 2, "{name}");
        }
        for entry in std::fs::read_dir(corpus("tokenizer")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("seed-") {
                let bytes = std::fs::read(&path).unwrap();
                assert!(
                    super::tokenizer_of(&bytes).is_some_and(|(made, _)| made.is_ok()),
                    "{}",
                    path.display()
                );
            }
        }
    }

    #[test]
    fn corpus_of_gguf() {
        replay("gguf", super::gguf);
    }

    #[test]
    fn corpus_of_safetensors() {
        replay("safetensors", super::safetensors);
    }

    #[test]
    fn corpus_of_torch_bin() {
        replay("torch_bin", super::torch_bin);
    }

    #[test]
    fn corpus_of_pickle() {
        replay("pickle", super::pickle);
    }

    #[test]
    fn corpus_of_tokenizer() {
        replay("tokenizer", super::tokenizer);
    }

    #[test]
    fn corpus_of_template() {
        replay("template", super::template);
    }
}
