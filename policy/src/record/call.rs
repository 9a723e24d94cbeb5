//! Records of calls, both ways.

use anteroom_proto::{
    ledger::{leaf::Entry, record::RecordError, scope::Scope},
    names::{Pseudonym, RunId},
    rpc,
};

use super::read::{NAME, at, bytes32, call, dep, digest, signed};
use crate::event::{Admitted, Dep, Refused};

pub(super) fn admitted_out(call: &Admitted) -> rpc::CallAdmitted {
    rpc::CallAdmitted {
        call: call.call.as_bytes().to_vec(),
        pseudonym: call.pseudonym.to_string(),
        credential: call.credential.as_bytes().to_vec(),
        claim: Some(call.claim.clone()),
        run: call.run.to_string(),
        body_key: call.body_key.to_vec(),
        policy_digest: call.policy.as_bytes().to_vec(),
        facts: call.facts.to_vec(),
        reasons: call.reasons.clone(),
        hold_tokens: call.hold,
        end_ms: call.end.ms(),
        lab: Some(dep_out(&call.lab)),
        agency: Some(dep_out(&call.agency)),
        roster: Some(dep_out(&call.roster)),
        system: Some(dep_out(&call.system)),
    }
}

pub(super) fn refused_out(refused: &Refused) -> rpc::CallRefused {
    rpc::CallRefused {
        call: refused.call.map(|call| call.as_bytes().to_vec()).unwrap_or_default(),
        pseudonym: refused.pseudonym.as_ref().map(ToString::to_string).unwrap_or_default(),
        credential: refused.credential.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
        claim: refused.claim.clone(),
        run: refused.run.as_ref().map(ToString::to_string).unwrap_or_default(),
        code: refused.code.clone(),
        policy_digest: refused.policy.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
        facts: refused.facts.as_ref().map(|facts| facts.to_vec()).unwrap_or_default(),
        reasons: refused.reasons.clone(),
        caller: refused.caller.clone(),
        values: refused.values.clone(),
    }
}

pub(super) fn dep_out(dep: &Dep) -> rpc::Dependency {
    rpc::Dependency {
        scope: dep.scope.to_bytes(),
        head: dep.head.as_bytes().to_vec(),
        index: dep.index,
        seq: dep.seq,
        values: dep.values.clone(),
    }
}

pub(super) fn admitted_in(m: rpc::CallAdmitted, part: bool) -> Result<Admitted, RecordError> {
    let dep = |closed: Option<rpc::Dependency>| match closed {
        None if part => Ok(Dep { scope: Scope::System, head: Entry::NONE, index: 0, seq: 0, values: String::new() }),
        other => dep(other),
    };
    let body_key = if part && m.body_key.is_empty() { [0; 32] } else { bytes32(&m.body_key)? };
    Ok(Admitted {
        call: call(&m.call)?,
        pseudonym: Pseudonym::parse(&m.pseudonym).map_err(|_| NAME)?,
        credential: digest(&m.credential)?,
        claim: signed(m.claim)?,
        run: RunId::parse(&m.run).map_err(|_| NAME)?,
        body_key,
        policy: digest(&m.policy_digest)?,
        facts: m.facts.into(),
        reasons: m.reasons,
        hold: m.hold_tokens,
        end: at(m.end_ms)?,
        lab: dep(m.lab)?,
        agency: dep(m.agency)?,
        roster: dep(m.roster)?,
        system: dep(m.system)?,
    })
}

pub(super) fn refused_in(m: rpc::CallRefused) -> Result<Refused, RecordError> {
    fn present<T, E>(empty: bool, parsed: impl FnOnce() -> Result<T, E>) -> Result<Option<T>, E> {
        if empty { Ok(None) } else { parsed().map(Some) }
    }
    Ok(Refused {
        call: present(m.call.is_empty(), || call(&m.call))?,
        pseudonym: present(m.pseudonym.is_empty(), || Pseudonym::parse(&m.pseudonym).map_err(|_| NAME))?,
        credential: present(m.credential.is_empty(), || digest(&m.credential))?,
        claim: m.claim,
        run: present(m.run.is_empty(), || RunId::parse(&m.run).map_err(|_| NAME))?,
        code: m.code,
        policy: present(m.policy_digest.is_empty(), || digest(&m.policy_digest))?,
        facts: (!m.facts.is_empty()).then(|| m.facts.into()),
        reasons: m.reasons,
        caller: m.caller,
        values: m.values,
    })
}
