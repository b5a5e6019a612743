//! Prompt formats that families were published with as code, not as templates: for checkpoints that have no template.

/// A published prompt format, as a template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PromptFormat {
    /// Its name, for people.
    pub(crate) name: &'static str,
    /// The template. It writes all special tokens itself.
    pub(crate) template: &'static str,
    /// Special tokens that end an answer, beside those that the checkpoint names.
    pub(crate) stops: &'static [&'static str],
}

/// ChatGLM-6B (`chat` of the published `modeling_chatglm.py`): a question alone is the prompt itself, else rounds
/// are counted from 0. It has no place for a system message; FastChat puts it before the rounds, and so does this.
pub(crate) static CHATGLM_6B: PromptFormat = PromptFormat {
    name: "chatglm-6b",
    template: r#"
{%- set state = namespace(round=0) -%}
{%- for message in messages -%}
    {%- if message.role == 'system' and loop.first -%}
        {{- message.content ~ '\n' -}}
    {%- elif message.role == 'user' and loop.first and loop.last -%}
        {{- message.content -}}
    {%- elif message.role == 'user' -%}
        {{- '[Round ' ~ state.round ~ ']\n问：' ~ message.content ~ '\n答：' -}}
        {%- set state.round = state.round + 1 -%}
    {%- elif message.role == 'assistant' -%}
        {{- message.content ~ '\n' -}}
    {%- else -%}
        {{- raise_exception('ChatGLM-6B knows user and assistant messages and a first system message only') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '[gMASK]<sop>' -}}{%- endif -%}"#,
    stops: &["<eop>"],
};

/// ChatGLM2-6B (`build_prompt` of the published `tokenization_chatglm.py`): rounds from 1, blank lines between. A
/// system message as for ChatGLM-6B.
pub(crate) static CHATGLM2: PromptFormat = PromptFormat {
    name: "chatglm2",
    template: r#"
{%- set state = namespace(round=0) -%}
{{- '[gMASK]sop' -}}
{%- for message in messages -%}
    {%- if message.role == 'system' and loop.first -%}
        {{- message.content ~ '\n\n' -}}
    {%- elif message.role == 'user' -%}
        {%- set state.round = state.round + 1 -%}
        {{- '[Round ' ~ state.round ~ ']\n\n问：' ~ message.content ~ '\n\n答：' -}}
    {%- elif message.role == 'assistant' -%}
        {{- message.content ~ '\n\n' -}}
    {%- else -%}
        {{- raise_exception('ChatGLM2 knows user and assistant messages and a first system message only') -}}
    {%- endif -%}
{%- endfor -%}"#,
    stops: &["</s>"],
};

/// ChatGLM3-6B (`PROMPT.md` of its repository, and the template of its later revisions): a role, a line break, a
/// space, the text. What a tool says is an observation.
pub(crate) static CHATGLM3: PromptFormat = PromptFormat {
    name: "chatglm3",
    template: r#"
{{- '[gMASK]sop' -}}
{%- for message in messages -%}
    {%- set role = 'observation' if message.role in ['tool', 'function'] else message.role -%}
    {%- if role not in ['system', 'user', 'assistant', 'observation'] -%}
        {{- raise_exception('ChatGLM3 knows system, user, assistant and tool messages only') -}}
    {%- endif -%}
    {{- '<|' ~ role ~ '|>\n ' ~ message.content -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"#,
    stops: &["</s>", "<|user|>", "<|observation|>"],
};

/// GLM-4 (`apply_chat_template` of the published `tokenization_chatglm.py`, without its descriptions of tools).
pub(crate) static GLM4: PromptFormat = PromptFormat {
    name: "glm-4",
    template: r#"
{{- '[gMASK]<sop>' -}}
{%- for message in messages -%}
    {%- set role = 'observation' if message.role in ['tool', 'function'] else message.role -%}
    {%- if role not in ['system', 'user', 'assistant', 'observation'] -%}
        {{- raise_exception('GLM-4 knows system, user, assistant and tool messages only') -}}
    {%- endif -%}
    {{- '<|' ~ role ~ '|>\n' ~ message.content -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"#,
    stops: &["<|endoftext|>", "<|user|>", "<|observation|>"],
};
