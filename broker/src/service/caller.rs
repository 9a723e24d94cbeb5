//! Who asks: from a connection's certificate to the caller of a request.

use std::sync::Arc;

use anteroom_policy::{command::Now, event::CallerId, refusal::Refusal};
use anteroom_proto::names::OrgId;
use tonic::Request;

use crate::{
    identity::{Caller, Conn, IdentityRefusal, Role},
    status::Reject,
};

/// The caller of a request, with the certificate judged at this very moment, playing one of `roles`.
///
/// # Errors
/// The certificate has ended, the connection is closing, or its role does not go with the request.
pub fn caller<T>(request: &Request<T>, roles: &[Role], now: Now) -> Result<(Caller, CallerId), Reject> {
    let conn = request.extensions().get::<Arc<Conn>>().ok_or(Refusal::CallerRole)?;
    let refuse = |refusal: IdentityRefusal| Reject::new(Refusal::CallerRole).detail(refusal.code());
    let caller = conn.caller(now.at.ms()).map_err(refuse)?;
    let caller = caller.playing(roles).map_err(refuse)?;
    let identity = caller.identity();
    let org = OrgId::parse(identity.org()).map_err(|_| Refusal::CallerRole)?;
    let id = CallerId { org, role: identity.role().as_str().into(), name: identity.name().into() };
    Ok((caller, id))
}
