//! What is drawn from a budget: blocks that are leased on disk first.
//!
//! Invariant of an [`Account`]: `settled + reserved + free = drawn`, `drawn <= limit`, and what is on disk is at least
//! `drawn` before anything of it is given out. So a process that dies leaves `drawn` behind as spent, and no sequence
//! of deaths lets more through than the limit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::money::MOST;

/// A leased block is this part of the limit.
const BLOCKS: u64 = 64;

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

    /// The limit, what is settled, and what is reserved.
    pub(crate) fn numbers(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.limit, state.drawn - state.free - state.reserved, state.reserved)
    }
}

fn block(limit: u64) -> u64 {
    (limit / BLOCKS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

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
