//! The budgets in force.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use byzerllm_core::{Error, ErrorKind, Result};

use super::account::Account;
use super::budget::{Budget, BudgetLimit, NewBudget, Subject, Unit};
use super::calendar::Period;

/// How far the clock may step back over the beginning of a period without being noticed, in seconds.
const STEP_BACK: i64 = 3600;

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
            let (limit, ..) = current.numbers();
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
