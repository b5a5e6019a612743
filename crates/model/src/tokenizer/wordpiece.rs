//! Vocabularies of BERT's kind: whole words and their continuations, from `vocab.txt` or a GGUF file; and the way in
//! which encoders put special tokens around one text or two.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::{GgufVocabulary, Tokenizer, TokenizerError, guarded};

/// More tokens than any such vocabulary has.
const MAX_TOKENS: usize = 4 << 20;
/// The longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 1 << 16;
/// Words of more characters are unknown, as in BERT's own tokenizer.
const MAX_WORD_CHARACTERS: usize = 100;
/// What comes before a token that continues a word.
const CONTINUES: &str = "##";
/// What llama.cpp writes before a token that begins a word.
const BEGINS: char = '▁';
/// The special tokens of BERT's vocabularies.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// How a text is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BertOptions {
    pub(crate) lowercase: bool,
    /// Absent means: when the text becomes lower case.
    pub(crate) strip_accents: Option<bool>,
    /// Whether each Chinese character is a word.
    pub(crate) chinese_characters: bool,
}

/// The tokens by role.
struct Roles<'a> {
    unknown: &'a str,
    begin: (String, u32),
    separator: (String, u32),
    special: Vec<&'a str>,
}

impl Tokenizer {
    /// Makes a tokenizer from the bytes of a `vocab.txt`: a token a line, its id the line's number.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] when a special token is missing or a line cannot be a token.
    pub(crate) fn from_words(
        path: &Path,
        bytes: &[u8],
        options: BertOptions,
    ) -> Result<Self, TokenizerError> {
        let invalid = |field: &str, reason: String| TokenizerError::Invalid {
            file: path.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let text = std::str::from_utf8(bytes).map_err(|error| invalid("text", error.to_string()))?;
        // Only line feeds end a token: vocabularies have other white space as tokens.
        let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let mut tokens: Vec<&str> = Vec::new();
        for line in lines {
            if tokens.len() == MAX_TOKENS {
                return Err(invalid("tokens", format!("are more than {MAX_TOKENS}")));
            }
            tokens.push(line.trim_end_matches('\r'));
        }
        let ids = ids(&tokens).map_err(|reason| invalid("tokens", reason))?;
        let named = |text: &str| {
            let id = ids.get(text).copied();
            id.map(|id| (text.to_owned(), id)).ok_or_else(|| invalid("tokens", format!("{text} is missing")))
        };
        let roles = Roles {
            unknown: "[UNK]",
            begin: named("[CLS]")?,
            separator: named("[SEP]")?,
            special: SPECIAL.into_iter().filter(|text| ids.contains_key(text)).collect(),
        };
        named(roles.unknown)?;
        Self::word_piece(path, "tokens", &ids, &roles, options)
    }

    /// Makes the tokenizer of an encoder from the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// [`TokenizerError::Unsupported`] naming the model, [`TokenizerError::Invalid`] naming the field at fault.
    pub(crate) fn encoder_from_gguf(vocabulary: GgufVocabulary) -> Result<Self, TokenizerError> {
        match vocabulary.model.as_str() {
            "bert" => Self::gguf_words(&vocabulary),
            "t5" => Self::gguf_pieces(vocabulary),
            _ => Self::from_gguf(vocabulary),
        }
    }

    fn gguf_words(vocabulary: &GgufVocabulary) -> Result<Self, TokenizerError> {
        const FIELD: &str = "tokenizer.ggml.tokens";
        vocabulary.check()?;
        let invalid = |field: &str, reason: String| TokenizerError::Invalid {
            file: vocabulary.file.clone(),
            field: field.to_owned(),
            reason,
        };
        // llama.cpp marks the beginning of words; BERT marks what continues one. Special tokens have neither.
        let published: Vec<String> = vocabulary
            .tokens
            .iter()
            .enumerate()
            .map(|(id, text)| match text.strip_prefix(BEGINS) {
                _ if vocabulary.is_special(id) => text.clone(),
                Some(rest) if !rest.is_empty() => rest.to_owned(),
                // Older converters left everything in brackets as it was.
                _ if text.starts_with('[') && text.ends_with(']') && text.len() > 1 => text.clone(),
                _ => format!("{CONTINUES}{text}"),
            })
            .collect();
        let texts: Vec<&str> = published.iter().map(String::as_str).collect();
        let ids = ids(&texts).map_err(|reason| invalid(FIELD, reason))?;
        let named = |field: &str, id: Option<u32>, usual: &str| {
            let id = id.or_else(|| ids.get(usual).copied());
            let text = id.and_then(|id| Some((texts.get(id as usize).copied()?, id)));
            text.ok_or_else(|| invalid(field, "is missing".to_owned()))
        };
        let begin = named("tokenizer.ggml.cls_token_id", vocabulary.bos, "[CLS]")?;
        let separator = named("tokenizer.ggml.seperator_token_id", vocabulary.eos, "[SEP]")?;
        let unknown = named("tokenizer.ggml.unknown_token_id", vocabulary.unk, "[UNK]")?;
        let special = texts
            .iter()
            .enumerate()
            .filter(|(id, text)| vocabulary.is_special(*id) || SPECIAL.contains(text));
        let roles = Roles {
            unknown: unknown.0,
            begin: (begin.0.to_owned(), begin.1),
            separator: (separator.0.to_owned(), separator.1),
            special: special.map(|(_, text)| *text).collect(),
        };
        // The format does not say whether texts become lower case; a vocabulary without capitals can be reached in no
        // other way.
        let capitals = texts.iter().enumerate().any(|(id, text)| {
            !vocabulary.is_special(id)
                && !text.starts_with('[')
                && text.contains(|c: char| c.is_ascii_uppercase())
        });
        let options = BertOptions { lowercase: !capitals, strip_accents: None, chinese_characters: true };
        Self::word_piece(&vocabulary.file, FIELD, &ids, &roles, options)
    }

    /// SentencePiece with the special tokens of XLM-RoBERTa.
    fn gguf_pieces(vocabulary: GgufVocabulary) -> Result<Self, TokenizerError> {
        vocabulary.check()?;
        let named = |id: Option<u32>, name: &str| {
            let text = id.and_then(|id| Some((vocabulary.tokens.get(id as usize)?.clone(), id)));
            text.ok_or_else(|| TokenizerError::Invalid {
                file: vocabulary.file.clone(),
                field: format!("tokenizer.ggml.{name}_token_id"),
                reason: "is missing".to_owned(),
            })
        };
        let (begin, end) = (named(vocabulary.bos, "bos")?, named(vocabulary.eos, "eos")?);
        let mut tokenizer = Self::from_gguf(vocabulary)?;
        tokenizer.surround(Vec::new(), Vec::new());
        tokenizer.join(PostProcessorWrapper::Roberta(RobertaProcessing::new(end, begin)));
        Ok(tokenizer)
    }

    fn word_piece(
        path: &Path,
        field: &str,
        ids: &HashMap<&str, u32>,
        roles: &Roles<'_>,
        options: BertOptions,
    ) -> Result<Self, TokenizerError> {
        let invalid = |reason: String| TokenizerError::Invalid {
            file: path.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let vocabulary: Vocab = ids.iter().map(|(text, id)| ((*text).to_owned(), *id)).collect();
        let BertOptions { lowercase, strip_accents, chinese_characters } = options;
        let tokenizer = guarded(|| {
            let model = WordPiece::builder()
                .vocab(vocabulary)
                .unk_token(roles.unknown.to_owned())
                .continuing_subword_prefix(CONTINUES.to_owned())
                .max_input_chars_per_word(MAX_WORD_CHARACTERS)
                .build()?;
            let mut tokenizer = tokenizers::Tokenizer::new(model);
            let normalizer = BertNormalizer::new(true, chinese_characters, strip_accents, lowercase);
            tokenizer.with_normalizer(Some(NormalizerWrapper::BertNormalizer(normalizer)))?;
            tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::BertPreTokenizer(BertPreTokenizer)));
            tokenizer.with_decoder(Some(DecoderWrapper::WordPiece(
                tokenizers::decoders::wordpiece::WordPiece::new(CONTINUES.to_owned(), true),
            )));
            let processor = BertProcessing::new(roles.separator.clone(), roles.begin.clone());
            tokenizer.with_post_processor(Some(PostProcessorWrapper::Bert(processor)));
            let special: Vec<AddedToken> =
                roles.special.iter().map(|text| AddedToken::from(*text, true).normalized(false)).collect();
            tokenizer.add_special_tokens(special)?;
            Ok(tokenizer)
        })
        .map_err(&invalid)?;
        Self::with_table(path, tokenizer)
    }
}

/// Ids by text; every rule that later steps rely on holds after it.
fn ids<'a>(tokens: &[&'a str]) -> Result<HashMap<&'a str, u32>, String> {
    if tokens.is_empty() {
        return Err("the vocabulary is empty".to_owned());
    }
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, &text) in (0_u32..).zip(tokens) {
        if text.is_empty() || text.len() > MAX_TOKEN_BYTES {
            return Err(format!("token {id} has {} bytes; 1 to {MAX_TOKEN_BYTES} are allowed", text.len()));
        }
        if let Some(other) = ids.insert(text, id) {
            return Err(format!("token {id} {text:?} is the same as token {other}"));
        }
    }
    Ok(ids)
}
