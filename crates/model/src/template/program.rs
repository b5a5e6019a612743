//! Compiling and running a template under limits.
//!
//! The engine counts instructions (fuel), but one instruction may make or read a text of any size. So the compiled
//! instructions are rewritten: operators become guarded calls, see [`super::operators`]. What is left is text of the
//! template itself that a loop writes again and again; fuel bounds it. Parser, code generator and destructors
//! recurse, so that all of it happens on a thread with a large stack, and blocks have a size limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::machinery::{
    CodeGenerator, Instruction, Instructions, Token, eval, make_string_output, parse, tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Error, ErrorKind, Value};

use super::TemplateError;
use super::budget::Budget;
use super::environment::environment;
use super::operators::guarded;

/// Instructions that a rendering may run. A message takes about 100.
const FUEL: u64 = 1_000_000;
/// Text of the template that loops may write.
const REPEATED_TEXT_BYTES: u64 = 256 << 20;
/// The longest text that a template may make.
const OUTPUT_BYTES: usize = 8 << 20;
/// The most tokens between `{{` and `}}` or `{%` and `%}`.
const BLOCK_TOKENS: usize = 4_000;
/// The most bytes that constants of a block may be multiplied to. The compiler computes them before any guard.
const CONSTANT_BYTES: u64 = 1 << 20;
/// Stack for recursion in parser, code generator and destructors.
const STACK_BYTES: usize = 64 << 20;

/// A compiled template.
struct Program<'source> {
    root: Instructions<'source>,
    blocks: BTreeMap<&'source str, Instructions<'source>>,
    fuel: u64,
}

/// Checks that a template compiles.
pub(crate) fn check(source: &str) -> Result<(), TemplateError> {
    on_large_stack(|| compile(source).map(drop))
}

/// Renders a template. `input_bytes` is the size of the variables.
pub(crate) fn run(source: &str, variables: Value, input_bytes: usize) -> Result<String, TemplateError> {
    on_large_stack(move || {
        let program = compile(source)?;
        let budget = Arc::new(Budget::new(input_bytes));
        let environment = environment(&budget, program.fuel);
        let mut text = String::new();
        let outcome = {
            let mut output = make_string_output(&mut text);
            let Program { root, blocks, .. } = &program;
            eval(&environment, root, variables, blocks, &mut output, AutoEscape::None).map(drop)
        };
        outcome.map_err(|error| failure(&budget, &error))?;
        let limit = OUTPUT_BYTES.saturating_add(input_bytes.saturating_mul(2));
        if text.len() > limit {
            let limit = format!("its text has {} bytes; at most {limit} are allowed", text.len());
            return Err(TemplateError::Limit { line: 1, limit });
        }
        Ok(text)
    })
}

fn failure(budget: &Budget, error: &Error) -> TemplateError {
    let line = error.line().unwrap_or(1);
    if let Some(limit) = budget.exceeded() {
        return TemplateError::Limit { line, limit };
    }
    if let Some(reason) = budget.refusal() {
        return TemplateError::Refused { line, reason };
    }
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::Limit { line, limit: "it takes too many steps".to_owned() },
        ErrorKind::SyntaxError => TemplateError::Syntax { line, reason },
        _ => TemplateError::Failed { line, reason },
    }
}

fn compile(source: &str) -> Result<Program<'_>, TemplateError> {
    let invalid = |error: &Error| TemplateError::Syntax {
        line: error.line().unwrap_or(1),
        reason: error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
    };
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    let syntax = syntax.build().map_err(|error| invalid(&error))?;
    check_blocks(source, &syntax)?;
    let tree = parse(source, "chat_template", syntax).map_err(|error| invalid(&error))?;
    let mut generator = CodeGenerator::new("chat_template", source);
    generator.compile_stmt(&tree);
    let (mut root, mut blocks) = generator.finish();
    let mut repeated = guard(&mut root, false)?;
    for block in blocks.values_mut() {
        repeated = repeated.max(guard(block, true)?);
    }
    let fuel = FUEL.min(REPEATED_TEXT_BYTES / (repeated as u64).max(1));
    Ok(Program { root, blocks, fuel })
}

/// Checks what the compiler would recurse into or compute without a limit.
fn check_blocks(source: &str, syntax: &SyntaxConfig) -> Result<(), TemplateError> {
    let mut tokens = 0;
    let (mut text, mut product, mut multiplies) = (0u64, 1u64, false);
    for token in tokenize(source, false, syntax.clone()) {
        // The parser reports what the lexer cannot read.
        let Ok((token, span)) = token else { return Ok(()) };
        tokens += 1;
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => {
                tokens = 0;
                (text, product, multiplies) = (0, 1, false);
            }
            Token::Str(constant) => text += constant.len() as u64,
            Token::String(constant) => text += constant.len() as u64,
            Token::Comma => text += 32,
            Token::Int(number) => product = product.saturating_mul(number.max(1)),
            Token::Int128(_) => product = u64::MAX,
            Token::Mul => multiplies = true,
            Token::Pow => (product, multiplies) = (u64::MAX, true),
            _ => {}
        }
        let line = usize::from(span.start_line);
        if tokens > BLOCK_TOKENS {
            let limit = format!("a block has more than {BLOCK_TOKENS} tokens");
            return Err(TemplateError::Limit { line, limit });
        }
        if multiplies && text.saturating_mul(product) > CONSTANT_BYTES {
            return Err(TemplateError::Limit {
                line,
                limit: "it multiplies constant text too often".to_owned(),
            });
        }
    }
    Ok(())
}

/// Rewrites instructions and returns the longest piece of the template's text that a loop or macro may write.
fn guard(instructions: &mut Instructions<'_>, repeated: bool) -> Result<usize, TemplateError> {
    let mut index = 0;
    let mut ranges = Vec::new();
    while let Some(instruction) = instructions.get_mut(index) {
        match instruction {
            Instruction::Jump(target) if *target <= index => ranges.push(*target..index),
            Instruction::BuildMacro(_, start, _) => ranges.push(*start..index),
            Instruction::CompareAndPreserve(_) => {
                let line = instructions.get_line(index).unwrap_or(1);
                let reason = "chained comparisons are not supported; join them with `and`".to_owned();
                return Err(TemplateError::Syntax { line, reason });
            }
            _ => {
                if let Some(guarded) = guarded(instruction) {
                    *instruction = guarded;
                }
            }
        }
        index += 1;
    }
    let texts = (0..index).filter_map(|index| match instructions.get(index) {
        Some(Instruction::EmitRaw(text)) => Some((index, text.len())),
        _ => None,
    });
    let in_loop = texts.filter(|(index, _)| repeated || ranges.iter().any(|range| range.contains(index)));
    Ok(in_loop.map(|(_, length)| length).max().unwrap_or(0))
}

fn on_large_stack<T: Send>(
    run: impl FnOnce() -> Result<T, TemplateError> + Send,
) -> Result<T, TemplateError> {
    let failed = |reason: String| TemplateError::Failed { line: 1, reason };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK_BYTES);
        let thread = thread
            .spawn_scoped(scope, run)
            .map_err(|error| failed(format!("no thread to render on: {error}")))?;
        thread.join().map_err(|_| failed("the template engine panicked".to_owned()))?
    })
}

/// Turns `{% generation %}` marks, which tell training code what the assistant wrote, into blocks without effect.
pub(crate) fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, block) = rest.split_at(start);
        out.push_str(before);
        // The two marks share no sign: `{%}` opens a block.
        let Some(length) = block[2..].find("%}") else {
            rest = block;
            break;
        };
        let end = 2 + length;
        let inner = &block[2..end];
        let word = inner.trim_matches(['-', '+']).trim();
        let statement = match word {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        match statement {
            Some(statement) => {
                let sign = |character: Option<char>| {
                    character.filter(|sign| matches!(sign, '-' | '+')).map(String::from).unwrap_or_default()
                };
                let (open, close) = (sign(inner.chars().next()), sign(inner.chars().next_back()));
                let lines = "\n".repeat(inner.matches('\n').count());
                out.push_str(&format!("{{%{open} {statement}{lines} {close}%}}"));
                rest = &block[end + 2..];
            }
            None => {
                out.push_str("{%");
                rest = &block[2..];
            }
        }
    }
    out.push_str(rest);
    out
}
