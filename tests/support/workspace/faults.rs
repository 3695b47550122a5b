//! What can go wrong, and when.

use std::collections::VecDeque;
use std::time::Duration;

use super::serving::Mode;
use super::{Shared, Workspace};

/// The endpoints of a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/oidc/.well-known/oauth-authorization-server`
    Discovery,
    /// `/oidc/v1/token`, and that of the account
    Token,
    /// `/oidc/v1/authorize`, that of the account, and what the page there leads to
    Authorize,
    /// `/oidc/accounts/{account}/.well-known/oauth-authorization-server`
    AccountDiscovery,
    /// `/api/2.0/preview/scim/v2/Me`
    Me,
    /// `/.well-known/databricks-config`
    HostMetadata,
    /// `POST /api/2.0/database/credentials`
    DatabaseCredentials,
    /// `/api/2.0/database/instances`
    DatabaseInstances,
    /// `/api/2.0/database/instances/{name}` and `/api/2.0/database/instances:findByUid`
    DatabaseInstance,
    /// `POST /api/2.0/postgres/credentials`
    PostgresCredentials,
    /// `/api/2.0/postgres/projects`, and one of them
    PostgresProjects,
    /// `/api/2.0/postgres/{project}/branches`, and one of them
    PostgresBranches,
    /// `/api/2.0/postgres/{branch}/endpoints`, and one of them
    PostgresEndpoints,
}

/// One way for one request to fail.
#[derive(Clone, Debug)]
pub enum Fault {
    // The request is not read.
    /// This status, with the body that a workspace or its proxy would send along.
    Status(u16),
    StatusWith {
        status: u16,
        body: String,
        headers: Vec<(String, String)>,
    },
    /// 429, `Retry-After: n`.
    RetryAfterSeconds(u64),
    /// 503, `Retry-After:` an HTTP date this many seconds ahead of the server's clock.
    RetryAfterDate(i64),
    /// The connection ends in a TCP reset, without an answer.
    Reset,
    /// The connection stays open, without an answer, until one side goes away.
    Stall,
    /// 200 and a login page.
    Html,
    /// 302 to there.
    Redirect(String),
    /// 200 with an OAuth `error` member of this code.
    ErrorIn200(String),

    // The request is checked and granted, but the token or credential is not what was asked for. With a credential,
    // `expires_in` is called `expiration_time` or `expire_time`.
    /// 200 and a JSON object without the token.
    MissingToken,
    /// Expired a minute ago by the server's clock, whatever `expires_in` says.
    ExpiredToken,
    /// For another workspace.
    WrongAudience,
    /// For another subject.
    OtherIdentity(String),
    /// Not a JWT; only `expires_in` tells the expiry.
    OpaqueToken,
    /// No `expires_in`; only the JWT tells the expiry.
    NoExpiry,
    /// Neither: opaque and without `expires_in`.
    NoExpiryAnywhere,

    // The answer is right but arrives wrongly.
    /// The body comes this many bytes at a time, with a pause after each.
    SlowBytes {
        bytes: usize,
        pause: Duration,
    },
    /// `Content-Length` promises twice what is sent before the connection closes.
    TruncatedBody,
    /// Half of the JSON, with the right length.
    TruncatedJson,
    /// Correct JSON of 2 MiB.
    HugeBody,
}

/// Faults planned for one endpoint: a queue goes first, then every n-th request.
#[derive(Default)]
pub struct Schedule {
    queue: VecDeque<Fault>,
    every: usize,
    cycle: Vec<Fault>,
    seen: usize,
}

impl Schedule {
    pub fn queue(&mut self, fault: Fault) {
        self.queue.push_back(fault);
    }

    pub fn repeat(&mut self, every: usize, cycle: Vec<Fault>) {
        assert!(every > 0 && !cycle.is_empty(), "every n-th request needs an n of at least 1 and a fault");
        (self.every, self.cycle, self.seen) = (every, cycle, 0);
    }

    /// The fault for the current request, if any.
    pub fn take(&mut self) -> Option<Fault> {
        self.seen += 1;
        if let Some(fault) = self.queue.pop_front() {
            return Some(fault);
        }
        let due = self.every > 0 && self.seen.is_multiple_of(self.every);
        due.then(|| self.cycle[(self.seen / self.every - 1) % self.cycle.len()].clone())
    }
}

impl Workspace {
    /// The next token request fails like this; called again, the one after it like that.
    pub fn fail_next(&self, fault: Fault) {
        self.faults_on(Endpoint::Token).next(fault);
    }

    /// From now on every `n`-th token request fails, with each of the faults in turn.
    pub fn fail_every(&self, n: usize, faults: Vec<Fault>) {
        self.faults_on(Endpoint::Token).every(n, faults);
    }

    pub fn faults_on(&self, endpoint: Endpoint) -> Faults<'_> {
        Faults { shared: &self.shared, endpoint }
    }

    /// Removes the planned faults of all endpoints (a stalled request stays stalled).
    pub fn heal(&self) {
        self.shared.state().faults.clear();
    }

    /// The workspace is down: open connections are dropped, new ones refused, until [`Workspace::outage_ends`].
    pub fn outage_begins(&self) {
        self.order(Mode::Outage, false);
    }

    pub fn outage_ends(&self) {
        self.order(Mode::Serving, true);
    }

    fn order(&self, mode: Mode, listening: bool) {
        self.mode.send_replace(mode);
        let obeyed = self.shared.wait_until(Duration::from_secs(10), |state| state.listening == listening);
        assert!(obeyed, "the stand-in workspace did not obey {mode:?}");
    }
}

/// The faults planned for one endpoint.
pub struct Faults<'a> {
    shared: &'a Shared,
    endpoint: Endpoint,
}

impl Faults<'_> {
    pub fn next(&self, fault: Fault) -> &Self {
        self.change(|schedule| schedule.queue(fault))
    }

    pub fn every(&self, n: usize, faults: Vec<Fault>) -> &Self {
        self.change(|schedule| schedule.repeat(n, faults))
    }

    pub fn always(&self, fault: Fault) -> &Self {
        self.every(1, vec![fault])
    }

    pub fn clear(&self) -> &Self {
        self.change(|schedule| *schedule = Schedule::default())
    }

    fn change(&self, with: impl FnOnce(&mut Schedule)) -> &Self {
        with(self.shared.state().faults.entry(self.endpoint).or_default());
        self
    }
}
