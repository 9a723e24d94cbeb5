//! A second lab beside the cast's, and certificates for readers.

use std::path::Path;

use anteroom_broker::{
    boot::{Addresses, Folder},
    entropy::SystemEntropy,
    identity::{Principal, Role},
    pki::token::{TokenLifetime, TokenStore},
};
use anteroom_policy::rules;
use anteroom_proto::{
    names::{Digest, GrantId, ModelLine, OrgId, RunId, Variant},
    statement::{
        key_set::OrgKind,
        model::{Manifest, NamedDigest},
        terms::{Features, Party},
    },
};
use anteroom_sdk::{
    channel::Address,
    credentials::EnrolTrust,
    home::Home,
    lab::{RunPlan, TermsTemplate},
    system,
};

use super::{Fallible, scene::Scene};

/// Its name.
pub const SECOND_LAB: &str = "lab-b";
/// Its model line.
pub const SECOND_LINE: &str = "boreas";

/// Exchanges a one-time token for a certificate of a role.
///
/// # Errors
/// The broker refuses.
pub async fn certify(dir: &Path, addresses: Addresses, home: &mut Home, org: &str, role: Role) -> Fallible<()> {
    let folder = Folder::open(&dir.join("operator"))?;
    let roots = std::fs::read_to_string(dir.join("operator").join("operator").join("ca.pem"))?;
    let principal = Principal::new(org, role, &format!("{}-1", role.as_str()))?;
    let tokens = TokenStore::open(&folder.tokens())?;
    let now = system::now().ms();
    let token = tokens.mint(&principal, TokenLifetime::default(), now, &mut SystemEntropy::new())?;
    let door = Address::parse(&addresses.enrolment.to_string())?.with_server_name("localhost")?;
    home.enrol(&door, &EnrolTrust::Roots(roots), token.expose()).await?;
    Ok(())
}

/// Enrols a second lab, which registers a build and offers the cast's agency a grant that it accepts.
///
/// # Errors
/// Something refuses.
pub async fn second_lab(scene: &Scene) -> Fallible<(Home, GrantId)> {
    let (cast, addresses) = (&scene.cast, scene.cast.addresses());
    let mut lab = Home::create(&scene.dir().join(SECOND_LAB))?;
    lab.set(|settings| {
        settings.addr = Some(addresses.programme.to_string());
        settings.enrol_addr = Some(addresses.enrolment.to_string());
        settings.server_name = Some("localhost".to_owned());
    })?;
    certify(scene.dir(), addresses, &mut lab, SECOND_LAB, Role::Admin).await?;
    lab.pin_log(cast.log_key(), false)?;
    let org = OrgId::parse(SECOND_LAB)?;
    let (key_set, enrolment) = lab.init_org(&org, OrgKind::Lab)?;
    let enrolled = lab.organisation().await?.enrol(enrolment, key_set).await?;
    lab.keep_act(&enrolled)?;
    let agency_org = cast.agency.org()?.clone();
    lab.pin_org(&agency_org, cast.agency.fingerprint()?, false)?;
    cast.agency.pin_org(&org, lab.fingerprint()?, false)?;
    let line = ModelLine::parse(SECOND_LINE)?;
    let manifest = serde_json::to_vec(&Manifest {
        lab: org.clone(),
        line: line.clone(),
        build: "boreas-1".to_owned(),
        digests: vec![NamedDigest { name: "weights".to_owned(), sha256: Digest::of(b"boreas") }],
        variants: vec![Variant::parse("standard")?],
        features: Features { chat: true, streaming: true, ..Features::default() },
    })?;
    let build = Digest::of(&manifest);
    let signer = [lab.signer("signer")?];
    let registered = lab.lab().await?.register_model(manifest, None, &signer).await?;
    lab.keep_act(&registered)?;
    let terms = TermsTemplate::new(
        Party { org, key_set: lab.fingerprint()? },
        Party { org: agency_org, key_set: cast.agency.fingerprint()? },
        "agreement of the second lab",
        line,
        build,
        cast.roster()?,
        rules::baseline_digest(),
        &[RunPlan { id: RunId::parse("run-a")?, purpose: "evaluation".to_owned(), budget: None }],
        system::now(),
    )?;
    let bytes = terms.bytes()?;
    let grant = lab.keep_terms(&bytes)?.grant;
    lab.lab().await?.offer(bytes, &signer).await?;
    cast.accept(grant).await?;
    Ok((lab, grant))
}
