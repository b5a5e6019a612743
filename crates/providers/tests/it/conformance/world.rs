//! Vendors as they are tested, and what a request to one brought.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use byzerllm_core::testing::checked;
use byzerllm_core::{
    Accounting, Attempt, ChatRequest, Ending, Error, Event, FinishReason, Input, Message, Notice,
    RequestContext, Reservation, Result, Role, Settlement, Usage, UsageSource,
};
use byzerllm_providers::{Parameters, ProviderModel, find};
use byzerllm_simulator::{Line, Options, Simulator};
use futures::StreamExt;

/// One way to talk to a vendor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    /// The row of the table.
    pub(super) title: &'static str,
    /// The vendor here.
    pub(super) vendor: &'static str,
    /// The vendor there.
    pub(super) simulated: &'static str,
    /// Parameters beside those that the simulator names; `{origin}` and `{key}` stand for its own.
    pub(super) set: &'static [(&'static str, &'static str)],
    /// What makes the deployment one of vectors.
    pub(super) vectors: &'static [(&'static str, &'static str)],
    /// What makes its model reason.
    pub(super) reasons: &'static [(&'static str, &'static str)],
}

const fn same(vendor: &'static str) -> Case {
    Case { title: vendor, vendor, simulated: vendor, set: &[], vectors: &[], reasons: &[] }
}

/// Every vendor, some in two versions of their API.
pub(super) const CASES: &[Case] = &[
    Case { vectors: &[("model", "text-embedding-3-small")], ..same("openai") },
    Case { simulated: "openai", set: &[("model", "o3-mini")], ..same("reasoning_openai") },
    Case { vectors: &[("azure_deployment", "text-embedding-3-small")], ..same("azure_openai") },
    Case { vectors: &[("model", "embedding-2")], ..same("zhipu") },
    Case { simulated: "zhipu", set: &[("model", "glm-4-flash")], ..same("chatglm") },
    Case { vectors: &[("model", "text-embedding-v2")], ..same("qianwen") },
    same("qianwen_vl"),
    Case { vectors: &[("model", "Baichuan-Text-Embedding")], ..same("baichuan") },
    Case { vectors: &[("model", "embo-01")], ..same("minimax") },
    Case {
        title: "minimax, v2",
        set: &[("api_url", "{origin}/v1/text/chatcompletion_v2"), ("base_url", ""), ("model", "MiniMax-M1")],
        ..same("minimax")
    },
    Case { vectors: &[("model", "Embedding-V1")], ..same("qianfan") },
    Case {
        title: "qianfan, v2",
        set: &[("base_url", "{origin}/v2"), ("secret_key", ""), ("model", "ernie-4.0-8k")],
        vectors: &[("model", "embedding-v1")],
        ..same("qianfan")
    },
    Case { reasons: &[("gpt_url", "{origin}/v1/x1"), ("domain", "x1")], ..same("sparkdesk") },
    same("claude"),
    Case { vectors: &[("model", "gemini-embedding-001")], ..same("gemini") },
    same("deepseek"),
    Case { set: &[("model", "moonshot-v1-8k-vision-preview")], ..same("moonshot") },
    Case { vectors: &[("model", "BAAI/bge-m3")], ..same("siliconflow") },
    Case { vectors: &[("model", "doubao-embedding-text-240715")], ..same("volcengine") },
];

/// Short limits, so that silence is noticed soon, and no second attempts.
const LIMITS: [(&str, &str); 4] =
    [("first_byte_timeout", "0.7"), ("idle_timeout", "0.4"), ("timeout", "20"), ("max_retries", "0")];

/// A vendor and a deployment that talks to it.
pub(super) struct World {
    pub(super) vendor: Simulator,
    pub(super) model: Arc<ProviderModel>,
    pub(super) features: byzerllm_providers::Features,
    pub(super) book: Arc<Book>,
}

impl World {
    pub(super) fn new(case: &Case, more: &[(&str, &str)]) -> Self {
        let credentials = byzerllm_simulator::Credentials::default();
        let vendor = Simulator::start(case.simulated, Options { credentials, ..Options::default() }).unwrap();
        let mut given: BTreeMap<String, String> =
            vendor.parameters().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        given.extend(LIMITS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for (name, value) in case.set.iter().chain(more) {
            given.insert((*name).to_owned(), value.replace("{origin}", vendor.origin()));
        }
        given.retain(|_, value| !value.is_empty());
        let known = find(case.vendor).unwrap();
        let pairs = given.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let parameters = Parameters::new(known, pairs).unwrap();
        let features = (known.open)(&parameters).unwrap().features();
        let model = ProviderModel::open(known, "d", &parameters).unwrap();
        Self { vendor, model, features, book: Arc::default() }
    }

    pub(super) fn context(&self) -> RequestContext {
        let accounting = Arc::new(Clerk(Arc::clone(&self.book)));
        RequestContext { accounting: Some(accounting), ..RequestContext::local() }
    }

    /// Asks, and reads the answer to its end or its failure.
    pub(super) async fn ask(&self, request: ChatRequest) -> Came {
        let chat = self.model.handle().chat.unwrap();
        let mut came = Came::default();
        let mut stream = match chat.chat(request, self.context()).await {
            Ok(stream) => checked(stream, 1),
            Err(error) => {
                came.error = Some(error);
                return came;
            }
        };
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => came.take(event),
                Err(error) => came.error = Some(error),
            }
        }
        came
    }
}

/// A question, answered in events or in one piece.
pub(super) fn question(text: &str, whole: bool) -> ChatRequest {
    let input = Input::Messages(vec![Message::new(Role::User, text)]);
    let mut request = ChatRequest { whole, ..ChatRequest::new("d", input) };
    request.sampling.max_tokens = Some(2048);
    request
}

/// What an answer held.
#[derive(Debug, Default)]
pub(super) struct Came {
    pub(super) text: String,
    pub(super) reasoning: String,
    pub(super) calls: Vec<(String, String)>,
    pub(super) finish: Option<FinishReason>,
    pub(super) usage: Option<Usage>,
    pub(super) id: Option<String>,
    pub(super) notices: Vec<Notice>,
    pub(super) pieces: usize,
    pub(super) error: Option<Error>,
}

impl Came {
    fn take(&mut self, event: Event) {
        match event {
            Event::Started { vendor_request_id, .. } => self.id = vendor_request_id,
            Event::Text { text, .. } => {
                self.pieces += 1;
                self.text.push_str(&text);
            }
            Event::Reasoning { text, .. } => self.reasoning.push_str(&text),
            Event::ToolCall { delta, .. } => {
                let index = delta.index as usize;
                if self.calls.len() <= index {
                    self.calls.resize(index + 1, Default::default());
                }
                self.calls[index].0.extend(delta.name);
                self.calls[index].1.push_str(&delta.arguments);
            }
            Event::Finished { reason, .. } => self.finish = Some(reason),
            Event::Usage { usage } => self.usage = Some(usage),
            Event::Notice { notice } => self.notices.push(notice),
            Event::PromptLogprobs { .. } | Event::Signature { .. } => {}
        }
    }
}

/// What was reserved and settled: one row per attempt.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<Vec<Row>>);

/// One attempt.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) attempt: Attempt,
    pub(super) settlement: Option<Settlement>,
}

impl Row {
    /// Prompt and completion tokens that a ledger takes as spent; `None` where nothing bounds them.
    fn spent(&self) -> Option<(u64, u64)> {
        let reserved = || Some((self.attempt.prompt_tokens, self.attempt.completion_tokens?));
        match &self.settlement {
            Some(Settlement { ending: Ending::Refused(_) | Ending::Cached, .. }) => Some((0, 0)),
            Some(Settlement { usage: Some(usage), .. }) if usage.source == UsageSource::Reported => {
                Some((u64::from(usage.prompt_tokens), u64::from(usage.completion_tokens)))
            }
            _ => reserved(),
        }
    }
}

impl Book {
    pub(super) fn rows(&self) -> Vec<Row> {
        self.0.lock().unwrap().clone()
    }

    /// The book is never below the bill.
    pub(super) fn covers(&self, bill: &[Line], what: &str) {
        let rows = self.rows();
        let sum = |of: fn((u64, u64)) -> u64| {
            rows.iter().try_fold(0, |sum, row| row.spent().map(|spent| sum + of(spent)))
        };
        let (prompt, completion) = (sum(|spent| spent.0), sum(|spent| spent.1));
        let billed = |of: fn(&Line) -> u64| bill.iter().map(of).sum::<u64>();
        assert!(
            prompt.is_none_or(|sum| sum >= billed(|line| line.tokens.prompt)),
            "{what}: {rows:?} {bill:?}"
        );
        assert!(
            completion.is_none_or(|sum| sum >= billed(|line| line.tokens.completion)),
            "{what}: {rows:?} {bill:?}"
        );
        assert!(rows.iter().all(|row| row.settlement.is_some()), "{what}: an attempt was never settled");
    }
}

struct Clerk(Arc<Book>);

#[async_trait::async_trait]
impl Accounting for Clerk {
    async fn begin(&self, attempt: Attempt) -> Result<Box<dyn Reservation>> {
        let mut rows = self.0.0.lock().unwrap();
        rows.push(Row { attempt, settlement: None });
        Ok(Box::new(Entry { book: Arc::clone(&self.0), row: rows.len() - 1 }))
    }
}

struct Entry {
    book: Arc<Book>,
    row: usize,
}

impl Reservation for Entry {
    fn settle(self: Box<Self>, settlement: Settlement) {
        self.book.0.lock().unwrap()[self.row].settlement = Some(settlement);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let settlement =
            Settlement { ending: Ending::Dropped, usage: None, vendor_request_id: None, first_event: None };
        self.book.0.lock().unwrap()[self.row].settlement.get_or_insert(settlement);
    }
}
