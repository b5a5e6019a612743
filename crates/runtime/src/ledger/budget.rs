//! Budgets: limits on what a key or a deployment may spend, drawn from blocks that are leased on disk first.
//!
//! Invariant of an [`Account`]: `settled + reserved + free = drawn`, `drawn <= limit`, and what is on disk is at least
//! `drawn` before anything of it is given out. So a process that dies leaves `drawn` behind as spent, and no sequence
//! of deaths lets more through than the limit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use byzerllm_core::{Error, ErrorKind, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::Notify;

use super::calendar::Period;
use super::money::{MOST, Micros, check_currency};

/// A leased block is this part of the limit.
const BLOCKS: u64 = 64;
/// How far the clock may step back over the beginning of a period without being noticed, in seconds.
const STEP_BACK: i64 = 3600;
/// The longest name of a key or deployment.
const MAX_NAME: usize = 200;

/// Whose spending a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// That of the API key of this name.
    Key,
    /// That of the deployment of this name.
    Deployment,
}

impl Subject {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Deployment => "deployment",
        }
    }

    pub(crate) fn read(word: &str) -> Option<Self> {
        [Self::Key, Self::Deployment].into_iter().find(|subject| subject.as_str() == word)
    }
}

/// How much may be spent: an amount of money, or a number of tokens, prompt and answer together. In text and JSON
/// `"10 USD"` and `"100000 tokens"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetLimit {
    /// Units of a currency, which is three capital letters.
    Money(Micros, String),
    /// Tokens.
    Tokens(u64),
}

impl BudgetLimit {
    pub(crate) fn new(unit: &Unit, amount: u64) -> Self {
        match unit {
            Unit::Tokens => Self::Tokens(amount),
            Unit::Money(currency) => Self::Money(Micros(amount), currency.clone()),
        }
    }

    /// What is counted and how much of it.
    pub(crate) fn parts(&self) -> (Unit, u64) {
        match self {
            Self::Money(amount, currency) => (Unit::Money(currency.clone()), amount.0),
            Self::Tokens(tokens) => (Unit::Tokens, *tokens),
        }
    }
}

impl FromStr for BudgetLimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let odd = || {
            let shown: String = text.chars().take(40).collect();
            let shown = shown.escape_debug();
            let message = format!("'{shown}' is no limit; write for example '10 USD' or '100000 tokens'");
            Error::invalid("limit", message)
        };
        let (number, unit) = text.split_once(' ').ok_or_else(odd)?;
        if unit == "tokens" {
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let tokens = number.parse::<u64>().ok().filter(|tokens| digits && *tokens <= MOST);
            return tokens.map(Self::Tokens).ok_or_else(odd);
        }
        check_currency(unit).map_err(|_| odd())?;
        Ok(Self::Money(number.parse().map_err(|_| odd())?, unit.to_owned()))
    }
}

impl fmt::Display for BudgetLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Money(amount, currency) => write!(out, "{amount} {currency}"),
            Self::Tokens(tokens) => write!(out, "{tokens} tokens"),
        }
    }
}

impl Serialize for BudgetLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BudgetLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

impl JsonSchema for BudgetLimit {
    fn schema_name() -> Cow<'static, str> {
        "BudgetLimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An amount and its currency, or a number of tokens: `10 USD`, `100000 tokens`.",
            "pattern": r"^([0-9]{1,19} tokens|[0-9]{1,13}(\.[0-9]{1,6})? [A-Z]{3})$"
        })
    }
}

/// A budget to set. It takes the place of one for the same subject, currency (or tokens) and period, and what was spent
/// stays spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBudget {
    /// Whose spending.
    pub subject: Subject,
    /// The key's or deployment's name; it need not exist yet.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// When it begins anew.
    pub period: Period,
    /// How much may be spent in a period.
    pub limit: BudgetLimit,
    /// Let models through whose price in this currency is not known; the budget does not hold for them.
    #[serde(default)]
    pub allow_unknown_price: bool,
}

/// A budget and where it stands. Amounts are decimal numbers of units of the currency, or of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// Its number.
    pub id: u64,
    /// What it is.
    #[serde(flatten)]
    pub budget: NewBudget,
    /// What is gone, with what a process that died had leased.
    pub spent: String,
    /// What running requests may cost at most.
    pub reserved: String,
    /// What is left.
    pub left: String,
    /// When its period began, in seconds since 1970.
    pub begun: u64,
    /// When it begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
}

/// What a budget counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Unit {
    Tokens,
    Money(String),
}

impl Unit {
    /// The word in the database: a currency, or `tokens`.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Tokens => "tokens",
            Self::Money(currency) => currency,
        }
    }

    pub(crate) fn read(word: String) -> Self {
        if word == "tokens" { Self::Tokens } else { Self::Money(word) }
    }

    fn show(&self, amount: u64) -> String {
        match self {
            Self::Tokens => amount.to_string(),
            Self::Money(_) => Micros(amount).to_string(),
        }
    }
}

impl NewBudget {
    /// What it counts and how much of it, or what is wrong.
    pub(crate) fn checked(&self) -> Result<(Unit, u64)> {
        if self.name.is_empty() || self.name.len() > MAX_NAME || self.name.chars().any(char::is_control) {
            let message = format!("name is that of a key or deployment, 1 to {MAX_NAME} bytes");
            return Err(Error::invalid("name", message));
        }
        Ok(self.limit.parts())
    }
}

/// What was leased for one budget in one of its periods.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) budget: i64,
    /// When the period began.
    pub(crate) period: i64,
    state: Mutex<State>,
    /// Told after every change that lets somebody who waits go on.
    pub(crate) changed: Notify,
}

#[derive(Debug)]
struct State {
    limit: u64,
    /// Leased from the limit; on disk.
    drawn: u64,
    /// Of that, neither reserved nor settled.
    free: u64,
    reserved: u64,
    /// What those who wait for a lease need together.
    wanted: u64,
    /// Whether a lease is on its way to the disk.
    leasing: bool,
}

impl State {
    /// Gives back what is free beyond a limit that was lowered.
    fn trim(&mut self) {
        let back = self.drawn.saturating_sub(self.limit).min(self.free);
        self.free -= back;
        self.drawn -= back;
    }
}

/// What became of an attempt to reserve.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Reserved; `lease` asks for the next block in advance.
    Taken { lease: bool },
    /// A lease is needed first; `lease` asks for it, unless one is on its way.
    Wait { lease: bool },
    /// The limit leaves no room.
    Spent { settled: u64, reserved: u64 },
}

/// Says that somebody waits for so much, until it is dropped.
pub(crate) struct Wanting {
    account: Arc<Account>,
    amount: u64,
}

impl Wanting {
    pub(crate) fn is_for(&self, account: &Arc<Account>) -> bool {
        Arc::ptr_eq(&self.account, account)
    }
}

impl Drop for Wanting {
    fn drop(&mut self) {
        let mut state = self.account.state();
        state.wanted = state.wanted.saturating_sub(self.amount);
    }
}

impl Account {
    pub(crate) fn new(budget: i64, period: i64, limit: u64, drawn: u64) -> Arc<Self> {
        let state = State { limit, drawn, free: 0, reserved: 0, wanted: 0, leasing: false };
        Arc::new(Self { budget, period, state: Mutex::new(state), changed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so much, so that the next lease is large enough.
    pub(crate) fn want(self: &Arc<Self>, amount: u64) -> Wanting {
        let mut state = self.state();
        state.wanted = state.wanted.saturating_add(amount);
        Wanting { account: Arc::clone(self), amount }
    }

    /// Reserves, if the leased block is large enough. Where `lease` is true the caller must send the account to
    /// the writer.
    pub(crate) fn take(&self, amount: u64) -> Take {
        let mut state = self.state();
        let more = state.limit.saturating_sub(state.drawn);
        if amount <= state.free {
            state.free -= amount;
            state.reserved += amount;
            let lease = !state.leasing && more > 0 && state.free < block(state.limit) / 2;
            state.leasing |= lease;
            return Take::Taken { lease };
        }
        if amount > state.free.saturating_add(more) {
            let settled = state.drawn.saturating_sub(state.free).saturating_sub(state.reserved);
            return Take::Spent { settled, reserved: state.reserved };
        }
        let lease = !state.leasing;
        state.leasing = true;
        Take::Wait { lease }
    }

    /// Replaces a reservation by what it came to. True when that was more than was leased: the vendor billed more
    /// than its bound, and the disk must know.
    pub(crate) fn settle(&self, reserved: u64, actual: u64) -> bool {
        let mut state = self.state();
        state.reserved = state.reserved.saturating_sub(reserved);
        let mut beyond = false;
        if actual <= reserved {
            state.free += reserved - actual;
            state.trim();
        } else {
            let over = actual - reserved;
            let covered = over.min(state.free);
            state.free -= covered;
            state.drawn = state.drawn.saturating_add(over - covered).min(MOST);
            beyond = over > covered;
        }
        drop(state);
        if actual < reserved {
            self.changed.notify_waiters();
        }
        beyond
    }

    /// What must be on disk before `grant` may be given out: the sum of everything drawn, and the grant.
    pub(crate) fn lease(&self) -> (u64, u64) {
        let state = self.state();
        let more = state.limit.saturating_sub(state.drawn);
        let grant = match state.leasing {
            true => more.min(state.wanted.saturating_sub(state.free).saturating_add(block(state.limit))),
            false => 0,
        };
        (state.drawn + grant, grant)
    }

    /// The disk has it.
    pub(crate) fn granted(&self, grant: u64) {
        let mut state = self.state();
        state.drawn += grant;
        state.free += grant;
        state.leasing = false;
        state.trim();
        drop(state);
        self.changed.notify_waiters();
    }

    /// The disk does not have it.
    pub(crate) fn refused(&self) {
        self.state().leasing = false;
        self.changed.notify_waiters();
    }

    /// Gives back what is leased beyond `keep` blocks; true when there was something. It is gone from here before the
    /// disk is told, so that a death in between only counts it as spent.
    pub(crate) fn give_back(&self, keep: u64) -> bool {
        let mut state = self.state();
        let surplus = state.free.saturating_sub(block(state.limit).saturating_mul(keep));
        if surplus == 0 || state.leasing {
            return false;
        }
        state.free -= surplus;
        state.drawn -= surplus;
        true
    }

    /// A new limit. What is leased beyond it is given back as far as it is free.
    pub(crate) fn set_limit(&self, limit: u64) {
        let mut state = self.state();
        state.limit = limit;
        state.trim();
        drop(state);
        self.changed.notify_waiters();
    }

    fn numbers(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.limit, state.drawn - state.free - state.reserved, state.reserved)
    }
}

fn block(limit: u64) -> u64 {
    (limit / BLOCKS).max(1)
}

/// A budget in force.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: i64,
    pub(crate) subject: Subject,
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) period: Period,
    pub(crate) allow_unknown_price: AtomicBool,
    pub(crate) removed: AtomicBool,
    current: Mutex<Arc<Account>>,
}

impl Live {
    pub(crate) fn new(id: i64, budget: &NewBudget, unit: Unit, account: Arc<Account>) -> Self {
        Self {
            id,
            subject: budget.subject,
            name: budget.name.clone(),
            unit,
            period: budget.period,
            allow_unknown_price: AtomicBool::new(budget.allow_unknown_price),
            removed: AtomicBool::new(false),
            current: Mutex::new(account),
        }
    }

    /// The account of the period that holds a time, whatever the clock says.
    pub(crate) fn latest(&self) -> Arc<Account> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The account of now. Periods only follow one another: a clock that went back does not open an old one again.
    pub(crate) fn account(&self, now: i64) -> Result<Arc<Account>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let start = self.period.start(now);
        if start > current.period {
            let limit = current.state().limit;
            *current = Account::new(self.id, start, limit, 0);
        } else if current.period.saturating_sub(now) > STEP_BACK {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the system's clock is before the beginning of the period of the budget of {}; set the clock \
                     right, or remove the budget and set it again",
                    self.whose()
                ),
            ));
        }
        Ok(Arc::clone(&current))
    }

    fn whose(&self) -> String {
        format!("{} '{}'", self.subject.as_str(), self.name)
    }

    /// Why nothing is left for an attempt.
    pub(crate) fn spent(
        &self,
        account: &Account,
        asked: u64,
        settled: u64,
        reserved: u64,
        now: i64,
    ) -> Error {
        let (limit, ..) = account.numbers();
        let show = |amount| self.unit.show(amount);
        let per = match self.period {
            Period::Total => String::new(),
            period => format!(" per {}", period.as_str()),
        };
        let message = format!(
            "the budget of {} leaves no room: {} {}{per}, {} spent, {} reserved by running requests, and this one may \
             take {}; raise the budget, ask for fewer tokens, or wait",
            self.whose(),
            show(limit),
            self.unit.as_str(),
            show(settled),
            show(reserved),
            show(asked),
        );
        let error = Error::new(ErrorKind::RateLimited, message);
        // Reservations are mostly larger than what is settled in the end.
        if settled.saturating_add(asked) <= limit {
            return error.with_retry_after(Duration::from_secs(1));
        }
        match self.period.end(account.period).and_then(|end| u64::try_from(end - now).ok()) {
            Some(seconds) => error.with_retry_after(Duration::from_secs(seconds)),
            None => error,
        }
    }

    /// Why an attempt whose price is not known is refused.
    pub(crate) fn unpriced(&self, vendor: &str, model: &str, other: Option<&str>) -> Error {
        let known = match other {
            Some(currency) => format!("its price is in {currency}"),
            None => "its price is not known".to_owned(),
        };
        Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "the budget of {} is in {} and does not let '{model}' of {vendor} through: {known}; set a price with \
                 `byzerllm prices set`, a budget in its currency, or allow it with --allow-unknown-price",
                self.whose(),
                self.unit.as_str()
            ),
        )
    }

    /// Why an attempt without a bound is refused.
    pub(crate) fn unbounded(&self) -> Error {
        let message = format!(
            "nothing bounds what this request may generate, and {} has a budget; set max_tokens in the request or \
             saas.max_output_tokens in the deployment",
            self.whose()
        );
        Error::invalid("max_tokens", message)
    }

    pub(crate) fn status(&self, now: i64) -> Budget {
        let account = self.account(now).unwrap_or_else(|_| self.latest());
        let (limit, spent, reserved) = account.numbers();
        let left = limit.saturating_sub(spent).saturating_sub(reserved);
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        Budget {
            id: seconds(self.id),
            budget: NewBudget {
                subject: self.subject,
                name: self.name.clone(),
                period: self.period,
                limit: BudgetLimit::new(&self.unit, limit),
                allow_unknown_price: self.allow_unknown_price.load(Ordering::Relaxed),
            },
            spent: self.unit.show(spent),
            reserved: self.unit.show(reserved),
            left: self.unit.show(left),
            begun: seconds(account.period),
            ends: self.period.end(account.period).map(seconds),
        }
    }
}

/// All budgets in force.
#[derive(Debug, Default, Clone)]
pub(crate) struct Budgets {
    keys: HashMap<String, Vec<Arc<Live>>>,
    deployments: HashMap<String, Vec<Arc<Live>>>,
}

impl Budgets {
    pub(crate) fn of(&self, subject: Subject, name: &str) -> &[Arc<Live>] {
        let all = match subject {
            Subject::Key => &self.keys,
            Subject::Deployment => &self.deployments,
        };
        all.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Live>> {
        self.keys.values().chain(self.deployments.values()).flatten()
    }

    pub(crate) fn insert(&mut self, live: Arc<Live>) {
        let all = match live.subject {
            Subject::Key => &mut self.keys,
            Subject::Deployment => &mut self.deployments,
        };
        all.entry(live.name.clone()).or_default().push(live);
    }

    pub(crate) fn remove(&mut self, id: i64) -> Option<Arc<Live>> {
        for all in [&mut self.keys, &mut self.deployments] {
            for list in all.values_mut() {
                if let Some(place) = list.iter().position(|live| live.id == id) {
                    return Some(list.remove(place));
                }
            }
            all.retain(|_, list| !list.is_empty());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_exactly_or_not_at_all() {
        for (text, limit) in [
            ("10 USD", BudgetLimit::Money(Micros(10_000_000), "USD".to_owned())),
            ("0.5 CNY", BudgetLimit::Money(Micros(500_000), "CNY".to_owned())),
            ("0 tokens", BudgetLimit::Tokens(0)),
            ("9223372036854775807 tokens", BudgetLimit::Tokens(MOST)),
        ] {
            assert_eq!(text.parse::<BudgetLimit>().unwrap(), limit);
            assert_eq!(limit.to_string(), text);
        }
        for text in [
            "",
            "10",
            "10USD",
            "10  USD",
            "10 usd",
            "-1 USD",
            "+1 tokens",
            "1.5 tokens",
            "9223372036854775808 tokens",
        ] {
            assert_eq!(text.parse::<BudgetLimit>().unwrap_err().param(), Some("limit"), "{text}");
        }
    }

    #[test]
    fn an_account_gives_out_only_what_is_on_the_disk() {
        let account = Account::new(1, 0, 1000, 0);
        assert_eq!(account.take(100), Take::Wait { lease: true });
        let waiting = account.want(100);
        assert_eq!(account.take(50), Take::Wait { lease: false });
        let (drawn, grant) = account.lease();
        assert_eq!((drawn, grant), (115, 115));
        account.granted(grant);
        drop(waiting);
        assert_eq!(account.take(100), Take::Taken { lease: false });
        assert_eq!(account.take(1000), Take::Spent { settled: 0, reserved: 100 });
        // A lease that failed can be asked for again.
        assert_eq!(account.take(885), Take::Wait { lease: true });
        account.refused();
        assert_eq!(account.take(900), Take::Wait { lease: true });
        let _waiting = account.want(900);
        let (drawn, grant) = account.lease();
        assert_eq!(drawn, 1000, "never more than the limit");
        account.granted(grant);
        assert_eq!(account.take(900), Take::Taken { lease: false });
        assert!(!account.settle(900, 0));
        assert!(account.give_back(0));
        assert_eq!(account.lease(), (100, 0));
        assert!(account.settle(100, 130), "the disk must know what a vendor billed beyond its bound");
        assert_eq!(account.lease(), (130, 0));
    }
}
