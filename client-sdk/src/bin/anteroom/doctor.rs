//! `anteroom doctor`: finds out why calls do not pass, and says the next step.
//!
//! **Invariant:** it asks and never acts; each layer is looked at only once those below it hold, so that one cause is told once.

mod feature;
mod tls;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{
    names::GrantId,
    rpc::{GrantSummary, WhoAmIReply},
    time::{At, HOUR_MS},
};
use anteroom_sdk::{
    channel::{Address, Proxy},
    home::{CertRole, Home, HomeError, Use},
    system,
};
use clap::Args;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::{call::RouteName, context::Ctx, fail::Fail, output::view, summary::brief};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom doctor            # the folder, the way to the broker, the clock, and every grant that is not over
  anteroom doctor GRANT
  anteroom doctor GRANT --body request.json --route chat   # whether the terms lend what a request asks for
  anteroom --format json doctor | jq '.[] | select(.state != \"fine\")'

It only asks. It exits with 1 if something has to be put right before calls can pass.";

/// How long a name or a port may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Apart from the broker's clock by more than this, claims are refused.
const CLOCK_MAX_MS: i64 = 5 * 60_000;
/// Apart by more than this is worth a word.
const CLOCK_WARN_MS: i64 = 5_000;
/// A certificate that ends sooner than this is worth a word.
const CERTIFICATE_WARN_MS: i64 = 2 * HOUR_MS;

/// Finds out why calls do not pass.
#[derive(Args)]
pub(crate) struct Doctor {
    /// Look at this grant alone [default: all that are not over]
    grant: Option<GrantId>,
    /// Judge this request's body by the grant's terms: which feature, field or bound stands against it
    #[arg(long, value_name = "FILE", requires = "grant")]
    body: Option<PathBuf>,
    /// The route that the body is for
    #[arg(long, default_value = "chat", requires = "body")]
    route: RouteName,
}

view! {
    /// Something that was looked at.
    Finding {
        /// What.
        check: String,
        /// `fine`, `note` or `wrong`.
        state: String,
        /// What was found.
        found: String,
        /// What to do about it.
        next: Option<String>,
    }
}

/// Findings as they come.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &str, state: &str, found: impl Into<String>, next: Option<&str>) {
        let next = next.map(str::to_owned);
        self.0.push(Finding { check: check.to_owned(), state: state.to_owned(), found: found.into(), next });
    }

    fn fine(&mut self, check: &str, found: impl Into<String>) {
        self.add(check, "fine", found, None);
    }

    fn note(&mut self, check: &str, found: impl Into<String>, next: &str) {
        self.add(check, "note", found, Some(next));
    }

    fn wrong(&mut self, check: &str, found: impl Into<String>, next: &str) {
        self.add(check, "wrong", found, Some(next));
    }

    fn is_wrong(&self) -> bool {
        self.0.iter().any(|finding| finding.state == "wrong")
    }
}

pub(crate) async fn run(ctx: &Ctx, args: Doctor) -> Result<(), Fail> {
    let mut findings = Findings::default();
    match ctx.home() {
        Ok(home) => {
            findings.fine("folder", home.dir().display().to_string());
            layers(&home, &args, &mut findings).await;
            if let (Some(file), Some(grant)) = (&args.body, args.grant) {
                let body = ctx.read(file)?;
                feature::lent(&home, grant, (args.route.route(), &body), &mut findings).await;
            }
        }
        Err(fail) => {
            findings.wrong("folder", fail.text(), "name the folder with `--home`, or make one with `anteroom enroll`")
        }
    }
    ctx.out.rows(&findings.0)?;
    match findings.is_wrong() {
        true => Err(Fail::Local("something has to be put right before calls can pass; see above".to_owned())),
        false => Ok(()),
    }
}

/// Everything that needs a folder.
async fn layers(home: &Home, args: &Doctor, findings: &mut Findings) {
    let address = match home.address() {
        Ok(address) => address,
        Err(error) => {
            return findings.wrong(
                "address",
                error.to_string(),
                "name the broker once: `anteroom whoami --addr HOST:PORT`",
            );
        }
    };
    let mut known = None;
    for place in address.each() {
        let answer = reach(home, &place, findings).await;
        known = known.or(answer);
    }
    let Some(known) = known else { return };
    let now = system::now();
    let follows = home.knows_log_key(&known.log_key).await.is_ok_and(|follows| follows);
    identity(home, &known, follows, now, findings);
    clock(&known, now, findings);
    if !findings.is_wrong() {
        grants(home, args.grant, now, findings).await;
    }
}

/// One broker: whether it is reached, and what it says.
async fn reach(home: &Home, place: &Address, findings: &mut Findings) -> Option<WhoAmIReply> {
    let authority = place.authority();
    let proxy = match Proxy::of_environment(authority) {
        Ok(proxy) => proxy,
        Err(error) => {
            findings.wrong("proxy", error.to_string(), "correct the variable, or take it out of the environment");
            return None;
        }
    };
    if let Some(proxy) = &proxy {
        // Whoever has a proxy often has no name service for what is outside.
        if !through(proxy, authority, findings).await {
            return None;
        }
    } else {
        let addresses = names(authority, findings).await?;
        if !port(authority, &addresses, findings).await {
            return None;
        }
    }
    match home.who_am_i_at(place).await {
        Ok(known) => {
            findings.fine("TLS", format!("{authority} shows a certificate that this folder trusts"));
            Some(known)
        }
        Err(error) => {
            tls::secure(place, proxy.as_ref(), &error, findings).await;
            None
        }
    }
}

async fn names(authority: &str, findings: &mut Findings) -> Option<Vec<SocketAddr>> {
    let found = timeout(PATIENCE, lookup_host(authority)).await;
    let wrong = match found {
        Ok(Ok(addresses)) => {
            let addresses: Vec<SocketAddr> = addresses.collect();
            if !addresses.is_empty() {
                let told: Vec<String> = addresses.iter().map(|one| one.ip().to_string()).collect();
                findings.fine("name", format!("{authority} is {}", told.join(", ")));
                return Some(addresses);
            }
            format!("{authority} has no address")
        }
        Ok(Err(error)) => format!("{authority}: {error}"),
        Err(_) => format!("{authority}: no answer within {} s", PATIENCE.as_secs()),
    };
    findings.wrong("name", wrong, "compare the address with the operator's; ask who runs this network's name service");
    None
}

/// Whether the proxy that the environment names lets this command through to the broker.
async fn through(proxy: &Proxy, authority: &str, findings: &mut Findings) -> bool {
    let named = format!("{} ({})", proxy.authority(), proxy.named_by());
    let found = match timeout(PATIENCE, proxy.connect(authority)).await {
        Ok(Ok(_)) => {
            findings.fine("proxy", format!("{named} lets this command through to {authority}"));
            return true;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("{named}: no answer within {} s", PATIENCE.as_secs()),
    };
    let next = "ask this network's operator to let CONNECT to the broker's host and port through; if the broker can be reached without the proxy, name its host in NO_PROXY";
    findings.wrong("proxy", found, next);
    false
}

async fn port(authority: &str, addresses: &[SocketAddr], findings: &mut Findings) -> bool {
    let mut last = String::new();
    for address in addresses {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                findings.fine("port", format!("{address} answers"));
                return true;
            }
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer within {} s", PATIENCE.as_secs()),
        }
    }
    let next = "ask the network's operator whether this port is let out or which proxy to name in HTTPS_PROXY, and the broker's operator whether it runs";
    findings.wrong("port", format!("{authority}: {last}"), next);
    false
}

fn identity(home: &Home, known: &WhoAmIReply, follows: bool, now: At, findings: &mut Findings) {
    findings.fine("identity", format!("the broker knows this folder as {}", known.identity));
    certificate(At::clamped(known.certificate_end_ms), now, findings);
    match home.pins().map(|pins| pins.log) {
        Ok(Some(pinned)) if pinned == known.log_key => findings.fine("log's key", "the one that is pinned here"),
        Ok(Some(_)) if follows => findings.fine("log's key", "one that the key pinned here handed over to"),
        Ok(Some(_)) => findings.wrong(
            "log's key",
            "the broker names another one than is pinned here",
            "do not call; keep this folder and tell both organisations",
        ),
        Ok(None) | Err(_) => findings.wrong(
            "log's key",
            "none is pinned here",
            "compare the key that `anteroom whoami` shows with the operator, then `anteroom pin log VKEY`",
        ),
    }
}

fn certificate(end: At, now: At, findings: &mut Findings) {
    let left = end.since(now).max(0);
    if left < CERTIFICATE_WARN_MS {
        let next = "renew it: a program that runs for long renews by itself, and so does any command that connects once two thirds of its \
                    life are over; if it stays, `anteroom enroll` with a new token";
        findings.note("certificate", format!("it ends at {end}, in {}", brief(left)), next);
    } else {
        findings.fine("certificate", format!("until {end}"));
    }
}

fn clock(known: &WhoAmIReply, now: At, findings: &mut Findings) {
    let apart = At::clamped(known.now_ms).since(now);
    let told =
        format!("this machine's is {} ms {} the broker's", apart.abs(), if apart > 0 { "behind" } else { "ahead of" });
    if apart.abs() > CLOCK_MAX_MS {
        findings.wrong("clock", told, "set this machine's clock: calls are refused beyond 5 minutes");
    } else if apart.abs() > CLOCK_WARN_MS {
        findings.note("clock", told, "set this machine's clock before it is 5 minutes off");
    } else {
        findings.fine("clock", told);
    }
    if known.clock != "trusted" {
        let next = "nothing passes until a lab's connector or a witness confirms the broker's clock: ask the lab whether its connector runs";
        findings.wrong("broker's clock", known.clock.clone(), next);
    }
}

async fn grants(home: &Home, only: Option<GrantId>, now: At, findings: &mut Findings) {
    // A lab's or an administrator's folder sees grants and calls under none.
    let calls = home.cert_roles().contains(&CertRole::Workload);
    let purpose = if calls { Use::Call } else { Use::Act };
    let all = async { home.grants(&home.channel(purpose).await?).await }.await;
    let all = match all {
        Ok(all) => all,
        Err(error) => {
            let next = "ask the organisation's administrator which certificate this folder should hold";
            return findings.wrong("grants", error.to_string(), next);
        }
    };
    let mut looked = 0_u32;
    for summary in &all {
        let Ok(grant) = GrantId::from_slice(&summary.grant) else { continue };
        let over = matches!(summary.phase.as_str(), "expired" | "withdrawn" | "relinquished" | "declined" | "lapsed");
        if only.is_some_and(|only| only != grant) || (only.is_none() && over) {
            continue;
        }
        looked = looked.saturating_add(1);
        one(grant, summary, now, findings);
        if !over && calls {
            caller(home, grant, findings).await;
        }
    }
    if looked == 0 {
        let found = format!("none that is not over, of {} that this folder can see", all.len());
        findings.wrong("grants", found, "`anteroom grant list` shows all; ask the lab for an offer");
    }
}

fn one(grant: GrantId, summary: &GrantSummary, now: At, findings: &mut Findings) {
    let name = grant.to_string();
    let phase = summary.phase.as_str();
    match phase {
        "active" => {
            let left = At::clamped(summary.end_ms).since(now).max(0) / HOUR_MS;
            findings.fine(&name, format!("`{}` is in force, {left} h left", summary.line));
        }
        "accepted" => {
            findings.fine(&name, format!("`{}` is accepted; its window starts as the terms say", summary.line))
        }
        "paused" => findings.wrong(&name, "it is paused", "whoever paused it resumes it; the time runs on meanwhile"),
        "offered" => findings.wrong(
            &name,
            "it is offered and not accepted",
            "the agency's signers accept: `anteroom grant accept`",
        ),
        _ => {
            return findings.wrong(
                &name,
                format!("it is over: {phase}"),
                "ask the lab for another grant if more is needed",
            );
        }
    }
    if summary.slots == 0 {
        let next = "the lab's connector is not there: ask the lab; calls answer `lab_offline` until it is";
        findings.wrong(&name, "no connector of the lab holds a slot open", next);
    }
    for budget in &summary.budgets {
        let used = budget.settled.saturating_add(budget.held);
        if used >= budget.limit && budget.limit > 0 && budget.name != "open" {
            let next = if budget.settled >= budget.limit {
                "the budget is spent: both sides sign new terms if more is needed"
            } else {
                "calls under way hold what is left: wait for them"
            };
            findings.wrong(
                &name,
                format!("{}: {} settled and {} held of {}", budget.name, budget.settled, budget.held, budget.limit),
                next,
            );
        }
    }
}

/// Whether this folder can call under a grant.
async fn caller(home: &Home, grant: GrantId, findings: &mut Findings) {
    let name = grant.to_string();
    let error = match home.evaluator(grant, None).await {
        Ok(evaluator) => {
            let run = &evaluator.config().run;
            return findings.fine(&name, format!("this folder's workload may act in run {run}, and the dossier holds"));
        }
        Err(error) => error,
    };
    let next = match refusal(&error) {
        Some(Refusal::CredentialUnknown | Refusal::CredentialExpired) | None => {
            "a person on the roster lets this workload act, at least every 72 hours: `anteroom run credential`"
        }
        Some(_) => "`anteroom policy explain CODE` says what the code means",
    };
    findings.wrong(&name, error.to_string(), next);
}

fn refusal(error: &HomeError) -> Option<Refusal> {
    if let HomeError::Sdk(error) = error { Refusal::from_code(&error.refused()?.code) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(now_ms: i64, clock: &str) -> WhoAmIReply {
        WhoAmIReply { now_ms, clock: clock.to_owned(), ..WhoAmIReply::default() }
    }

    #[test]
    fn a_clock_that_is_off_is_told_by_how_much_and_refused_only_beyond_five_minutes() {
        let states = |apart: i64| {
            let mut findings = Findings::default();
            clock(&known(1_800_000_000_000 + apart, "trusted"), At::clamped(1_800_000_000_000), &mut findings);
            findings.0.iter().map(|finding| finding.state.clone()).collect::<Vec<_>>()
        };
        assert_eq!(states(0), ["fine"]);
        assert_eq!(states(-6_000), ["note"]);
        assert_eq!(states(301_000), ["wrong"]);
        let mut findings = Findings::default();
        clock(&known(0, "unconfirmed"), At::clamped(0), &mut findings);
        assert!(findings.is_wrong());
    }

    #[test]
    fn a_certificate_near_its_end_is_worth_a_word() {
        let state = |left: i64| {
            let mut findings = Findings::default();
            certificate(At::clamped(1_000 + left), At::clamped(1_000), &mut findings);
            findings.0.pop().map(|finding| (finding.state, finding.next.is_some()))
        };
        assert_eq!(state(3 * HOUR_MS), Some(("fine".to_owned(), false)));
        assert_eq!(state(HOUR_MS), Some(("note".to_owned(), true)));
        assert_eq!(state(-HOUR_MS), Some(("note".to_owned(), true)));
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_and_a_name_that_is_none_are_told_apart() {
        let mut findings = Findings::default();
        assert!(names("no-such-host.invalid:1", &mut findings).await.is_none());
        let nobody: SocketAddr = ([127, 0, 0, 1], 1).into();
        assert!(!port("127.0.0.1:1", &[nobody], &mut findings).await);
        let checks: Vec<&str> = findings.0.iter().map(|finding| finding.check.as_str()).collect();
        assert_eq!(checks, ["name", "port"]);
        assert!(findings.0.iter().all(|finding| finding.state == "wrong" && finding.next.is_some()));
    }
}
