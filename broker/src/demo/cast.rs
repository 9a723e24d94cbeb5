//! The cast: a broker and its parties, seeded under fixed names, each with a folder.
//!
//! The end-to-end tests, the crash campaign and the benchmarks start from the same cast, so that what they exercise is what a
//! reader of the demo sees.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anteroom_policy::rules;
use anteroom_proto::{
    names::{Digest, GrantId, ModelLine, NameError, OrgId, Pseudonym, RunId, Variant},
    statement::{
        acts::RunCredential,
        key_set::OrgKind,
        model::{Manifest, NamedDigest},
        roster::Tri,
        terms::{Budget, Endpoint, Features, Party, Terms},
    },
    time::{At, HOUR_MS},
};
use anteroom_sdk::{
    agency::{NewPerson, RosterDraft},
    channel::{Address, ChannelError},
    connector::{Config as ConnectorConfig, Connector, Pinned, Served, Slots, StartError as ConnectorError, upstream},
    credentials::EnrolTrust,
    evaluator::Evaluator,
    home::{Brokers, Home, HomeError, Use},
    lab::{RunPlan, TermsTemplate},
    system,
};

use crate::{
    boot::{self, Addresses, Folder, Outside, Running, StartError},
    config::{Config, ConfigError, List, Settings},
    entropy::SystemEntropy,
    identity::{NameError as PrincipalError, Principal, Role},
    pki::token::{TokenError, TokenLifetime, TokenStore},
};

/// The lab's name.
pub const LAB: &str = "lab-a";
/// The agency's name.
pub const AGENCY: &str = "agency-a";
/// The independent reader's name.
pub const OVERSIGHT: &str = "oversight-a";
/// The model line.
pub const LINE: &str = "aurora";
/// The planned run.
pub const RUN: &str = "run-a";
/// The person who lets a workload act.
pub const PERSON: &str = "p-1";
/// What the built-in authority's names begin with.
const TRUST_DOMAIN: &str = "anteroom.localhost";
/// The name in the broker's certificate.
const SERVER: &str = "localhost";

/// Why the scene cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum CastError {
    /// The folder holds something already.
    #[error("`{0}` is not empty; name another folder with --dir, or remove it")]
    NotEmpty(PathBuf),
    /// A file cannot be read or written.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The broker's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The broker did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An enrolment token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A certificate's name.
    #[error(transparent)]
    Principal(#[from] PrincipalError),
    /// A name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An address.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A party's folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A party's act.
    #[error(transparent)]
    Sdk(#[from] anteroom_sdk::error::Error),
    /// Terms or a manifest.
    #[error(transparent)]
    Statement(#[from] anteroom_proto::statement::StatementError),
    /// The connector.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// The model server's address.
    #[error(transparent)]
    Upstream(#[from] upstream::UpstreamError),
    /// The machine gives no randomness.
    #[error(transparent)]
    NoRandomness(#[from] system::NoRandomness),
}

/// A broker's folder and the parties' folders beside it.
#[derive(Debug)]
pub struct Cast {
    dir: PathBuf,
    addresses: Addresses,
    log_key: String,
    /// The lab's folder, with an admin's and a connector's certificate.
    pub lab: Home,
    /// The agency's folder, with an admin's and a workload's certificate.
    pub agency: Home,
    /// The independent reader's folder.
    pub oversight: Home,
}

/// What a grant's terms may differ in.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Length of the window in milliseconds.
    pub term_ms: i64,
    /// The budget of the grant and of its one run.
    pub budget: Budget,
    /// Features granted.
    pub features: Features,
    /// Other lines of the lab that both sides state to be unrelated.
    pub unrelated_to: Vec<ModelLine>,
    /// The line.
    pub line: ModelLine,
}

impl Plan {
    /// 720 hours of chat with streaming on `line`.
    ///
    /// # Errors
    /// The line is no name.
    pub fn new(line: &str) -> Result<Self, CastError> {
        Ok(Self {
            term_ms: anteroom_proto::time::TERM_MS_MAX,
            budget: Budget { calls: 10_000, tokens: 100_000_000, open: 64 },
            features: Features { chat: true, streaming: true, n: 1, seed: true, ..Features::default() },
            unrelated_to: Vec::new(),
            line: ModelLine::parse(line)?,
        })
    }
}

/// The configuration of a broker in `dir/operator` on loopback; port 0 lets the kernel choose all three.
///
/// # Errors
/// The configuration does not hold.
pub fn config(dir: &Path, port: u16) -> Result<Config, CastError> {
    let at = |offset: u16| {
        let port = if port == 0 { 0 } else { port.saturating_add(offset) };
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    };
    let settings = Settings {
        data_dir: Some(dir.join("operator")),
        listen: at(0),
        enrol_listen: at(1),
        ops_listen: at(2),
        trust_domain: Some(TRUST_DOMAIN.to_owned()),
        server_names: Some(List(vec![SERVER.to_owned()])),
        ..Settings::default()
    };
    Ok(Config::check(settings)?)
}

/// Starts a broker in `dir/operator`, made new if there is none.
///
/// # Errors
/// It cannot be made or started.
pub async fn start_broker(dir: &Path, port: u16) -> Result<Running, CastError> {
    let config = config(dir, port)?;
    let outside = Outside::system()?;
    if !config.data_dir().exists() {
        boot::init(&config, outside.time.as_ref(), &*outside.environment)?;
        // What `anteroom-broker fsck`, `token` or `serve` on this folder need to know.
        let path = dir.join("operator.toml");
        let text = format!(
            "data_dir = {:?}\ntrust_domain = \"{TRUST_DOMAIN}\"\nserver_names = [\"{SERVER}\"]\n",
            config.data_dir()
        );
        std::fs::write(&path, text).map_err(|source| CastError::File { path, source })?;
    }
    Ok(boot::start(config, outside).await?)
}

impl Cast {
    /// Seeds the parties of a running, fresh broker in `dir/operator`: certificates by one-time tokens, key sets, pins, one build of
    /// the line, one roster. No grant.
    ///
    /// # Errors
    /// Something refuses; nothing is retried.
    pub async fn seed(dir: &Path, addresses: Addresses, log_key: &str) -> Result<Self, CastError> {
        let mut lab = Self::party(dir, addresses, LAB, &[Role::Admin, Role::Connector]).await?;
        let mut agency = Self::party(dir, addresses, AGENCY, &[Role::Admin, Role::Workload]).await?;
        let mut oversight = Self::party(dir, addresses, OVERSIGHT, &[Role::Auditor]).await?;
        let parties = [(&mut lab, OrgKind::Lab), (&mut agency, OrgKind::Agency), (&mut oversight, OrgKind::Oversight)];
        for (home, kind) in parties {
            // The process that started the broker knows its log key; real parties get it from the operator and compare.
            home.pin_log(log_key, false)?;
            let org = home.org()?.clone();
            let (key_set, enrolment) = home.init_org(&org, kind)?;
            let recorded = home.organisation().await?.enrol(enrolment, key_set).await?;
            home.keep_act(&recorded)?;
        }
        let cast = Self { dir: dir.to_owned(), addresses, log_key: log_key.to_owned(), lab, agency, oversight };
        cast.pin()?;
        cast.register(LINE, "aurora-2026-11").await?;
        cast.publish_roster().await?;
        Ok(cast)
    }

    /// Takes up a folder that was seeded before.
    ///
    /// # Errors
    /// A party's folder is missing or cannot be read.
    pub fn open(dir: &Path, addresses: Addresses, log_key: &str) -> Result<Self, CastError> {
        let party = |name: &str| -> Result<Home, CastError> {
            let mut home = Home::open(&dir.join(name))?;
            home.set(|settings| {
                settings.addr = Some(addresses.programme.to_string());
                settings.enrol_addr = Some(addresses.enrolment.to_string());
            })?;
            Ok(home)
        };
        Ok(Self {
            dir: dir.to_owned(),
            addresses,
            log_key: log_key.to_owned(),
            lab: party(LAB)?,
            agency: party(AGENCY)?,
            oversight: party(OVERSIGHT)?,
        })
    }

    /// The folder of all folders.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the broker listens.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The log's verifier key.
    #[must_use]
    pub fn log_key(&self) -> &str {
        &self.log_key
    }

    async fn party(dir: &Path, addresses: Addresses, org: &str, roles: &[Role]) -> Result<Home, CastError> {
        let folder = Folder::open(&dir.join("operator"))?;
        let root = dir.join("operator").join("operator").join("ca.pem");
        let roots = std::fs::read_to_string(&root).map_err(|source| CastError::File { path: root, source })?;
        let tokens = TokenStore::open(&folder.tokens())?;
        let mut home = Home::create(&dir.join(org))?;
        home.set(|settings| {
            settings.addr = Some(addresses.programme.to_string());
            settings.enrol_addr = Some(addresses.enrolment.to_string());
            settings.server_name = Some(SERVER.to_owned());
        })?;
        for role in roles {
            let principal = Principal::new(org, *role, &format!("{}-1", role.as_str()))?;
            let now = system::now().ms();
            let token = tokens.mint(&principal, TokenLifetime::default(), now, &mut SystemEntropy::new())?;
            let door = Address::parse(&addresses.enrolment.to_string())?.with_server_name(SERVER)?;
            home.enrol(&door, &EnrolTrust::Roots(roots.clone()), token.expose()).await?;
        }
        Ok(home)
    }

    fn pin(&self) -> Result<(), CastError> {
        let (lab, agency) = (self.lab.fingerprint()?, self.agency.fingerprint()?);
        let (lab_org, agency_org) = (OrgId::parse(LAB)?, OrgId::parse(AGENCY)?);
        for home in [&self.lab, &self.agency, &self.oversight] {
            home.pin_org(&lab_org, lab, true)?;
            home.pin_org(&agency_org, agency, true)?;
        }
        Ok(())
    }

    /// Registers a build of a line; its manifest's digest names it.
    ///
    /// # Errors
    /// The broker refuses.
    pub async fn register(&self, line: &str, build: &str) -> Result<Digest, CastError> {
        let part = |name: &str| NamedDigest {
            name: name.to_owned(),
            sha256: Digest::of(format!("{build}/{name}").as_bytes()),
        };
        let manifest = Manifest {
            lab: OrgId::parse(LAB)?,
            line: ModelLine::parse(line)?,
            build: build.to_owned(),
            digests: ["weights", "tokenizer", "chat_template", "safeguards"].map(part).to_vec(),
            variants: vec![Variant::parse("standard")?],
            features: Features {
                chat: true,
                completions: true,
                embeddings: true,
                streaming: true,
                ..Features::default()
            },
        };
        let bytes = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| anteroom_proto::statement::StatementError::Payload(error.to_string()))?;
        let digest = Digest::of(&bytes);
        let path = self.lab.dir().join(format!("manifest-{line}.json"));
        std::fs::write(&path, &bytes).map_err(|source| CastError::File { path, source })?;
        let signer = self.lab.signer("signer")?;
        let recorded = self.lab.lab().await?.register_model(bytes, None, &[signer]).await?;
        self.lab.keep_act(&recorded)?;
        Ok(digest)
    }

    /// The digest of a line's build, as [`Cast::register`] named it.
    ///
    /// # Errors
    /// The manifest's file is missing.
    pub fn manifest(&self, line: &str) -> Result<Digest, CastError> {
        let path = self.lab.dir().join(format!("manifest-{line}.json"));
        let bytes = std::fs::read(&path).map_err(|source| CastError::File { path, source })?;
        Ok(Digest::of(&bytes))
    }

    async fn publish_roster(&self) -> Result<(), CastError> {
        let now = system::now();
        let people = [(PERSON, "Ada Example", Tri::Yes), ("p-2", "Ben Example", Tri::No)];
        let mut new = Vec::new();
        for (pseudonym, name, us_person) in people {
            let key = self.agency.key_or_new(&format!("person-{pseudonym}"))?;
            let citizenship = if us_person == Tri::Yes { "US" } else { "CA" };
            new.push(NewPerson {
                pseudonym: Pseudonym::parse(pseudonym)?,
                key: anteroom_proto::statement::envelope::Signer::public_key(&key).clone(),
                employer: AGENCY.to_owned(),
                name: name.to_owned(),
                citizenships: vec![citizenship.to_owned()],
                us_person,
                rel_to_ok: Vec::new(),
                clearance: 1,
                read_ins: Vec::new(),
                valid_from: now.plus_ms(-HOUR_MS),
                valid_until: now.plus_ms(365 * 24 * HOUR_MS),
                trained_until: now.plus_ms(365 * 24 * HOUR_MS),
            });
        }
        let draft = RosterDraft::new(OrgId::parse(AGENCY)?, &new)?;
        let signer = self.agency.signer("roster")?;
        let statement = self.agency.sign(&draft.roster, &signer)?;
        self.agency.keep_roster(&statement, &draft.private)?;
        let digest = Digest::of(&statement.payload);
        let path = self.dir.join("roster");
        std::fs::write(&path, digest.to_string()).map_err(|source| CastError::File { path, source })?;
        let (_, recorded) = self.agency.agency().await?.publish_signed_roster(statement, &draft.private).await?;
        self.agency.keep_act(&recorded)?;
        Ok(())
    }

    /// The digest of the published roster.
    ///
    /// # Errors
    /// It was not published.
    pub fn roster(&self) -> Result<Digest, CastError> {
        let path = self.dir.join("roster");
        let text = std::fs::read_to_string(&path).map_err(|source| CastError::File { path, source })?;
        Ok(Digest::parse(text.trim())?)
    }

    /// Terms as planned.
    ///
    /// # Errors
    /// They are out of bounds.
    pub fn terms(&self, plan: &Plan) -> Result<Terms, CastError> {
        let run =
            RunPlan { id: RunId::parse(RUN)?, purpose: "capability evaluation".to_owned(), budget: Some(plan.budget) };
        let lab = Party { org: OrgId::parse(LAB)?, key_set: self.lab.fingerprint()? };
        let agency = Party { org: OrgId::parse(AGENCY)?, key_set: self.agency.fingerprint()? };
        let build = self.manifest(plan.line.as_str())?;
        let mut template = TermsTemplate::new(
            lab,
            agency,
            "demonstration agreement no. 1",
            plan.line.clone(),
            build,
            self.roster()?,
            rules::baseline_digest(),
            &[run],
            system::now(),
        )?;
        template.terms.window.term_ms = anteroom_proto::time::Term::from_ms(plan.term_ms)
            .map_err(|error| anteroom_proto::statement::StatementError::Payload(error.to_string()))?;
        template.terms.budget = plan.budget;
        template.terms.features = plan.features.clone();
        template.terms.model.unrelated_to.clone_from(&plan.unrelated_to);
        Ok(template.terms)
    }

    /// The lab offers a grant.
    ///
    /// # Errors
    /// The broker refuses.
    pub async fn offer(&self, plan: &Plan) -> Result<GrantId, CastError> {
        let bytes = TermsTemplate { terms: self.terms(plan)? }.bytes()?;
        let terms = self.lab.keep_terms(&bytes)?;
        let signer = self.lab.signer("signer")?;
        let offered = self.lab.lab().await?.offer(bytes, &[signer]).await?;
        self.lab.keep_act(&offered.recorded)?;
        Ok(terms.grant)
    }

    /// The agency fetches the offer, verifies it under the fingerprints it pinned, and signs the same bytes.
    ///
    /// # Errors
    /// Something does not hold, or the broker refuses.
    pub async fn accept(&self, grant: GrantId) -> Result<(), CastError> {
        let channel = self.agency.channel(Use::Act).await?;
        let dossier = self.agency.fetch_dossier(&channel, grant).await?;
        let offer = self.agency.take_offer(&dossier)?;
        let signer = self.agency.signer("signer")?;
        let recorded = self.agency.agency().await?.accept(&offer, &[signer]).await?;
        self.agency.keep_act(&recorded)?;
        Ok(())
    }

    /// A rostered person lets the workload's key act in the run for `hours`.
    ///
    /// # Errors
    /// The broker refuses.
    pub async fn credential(&self, grant: GrantId, hours: i64) -> Result<Digest, CastError> {
        let workload = self.agency.key_or_new("workload")?;
        let pseudonym = Pseudonym::parse(PERSON)?;
        let now = system::now();
        // A minute of slack, since two machines' clocks never quite agree.
        let start = now.plus_ms(-60_000);
        let credential = RunCredential {
            grant,
            run: RunId::parse(RUN)?,
            org: OrgId::parse(AGENCY)?,
            workload: anteroom_proto::statement::envelope::Signer::public_key(&workload).clone(),
            start_ms: start,
            end_ms: At::clamped(start.ms().saturating_add(hours.saturating_mul(HOUR_MS))),
            pseudonym: pseudonym.clone(),
        };
        let person = self.agency.person_signer(&pseudonym)?;
        let (digest, recorded) = self.agency.agency().await?.issue_credential(&credential, &person).await?;
        self.agency.keep_act(&recorded)?;
        Ok(digest)
    }

    /// Offer, acceptance and credential in one go.
    ///
    /// # Errors
    /// As the steps.
    pub async fn granted(&self, plan: &Plan) -> Result<GrantId, CastError> {
        let grant = self.offer(plan).await?;
        self.accept(grant).await?;
        self.credential(grant, 24).await?;
        Ok(grant)
    }

    /// The evaluator's client under a grant.
    ///
    /// # Errors
    /// Something does not hold.
    pub async fn evaluator(&self, grant: GrantId) -> Result<Evaluator, CastError> {
        Ok(self.agency.evaluator(grant, None).await?)
    }

    /// Starts the lab's connector for a line beside a model server.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn connector(&self, line: &str, upstream: &str, slots: Slots) -> Result<Connector, CastError> {
        let upstream = upstream::Upstream::new(upstream, None, upstream::UpstreamLimits::default())?;
        let (line, manifest) = (ModelLine::parse(line)?, self.manifest(line)?);
        Ok(Connector::start(ConnectorConfig {
            brokers: Brokers::one(self.lab.channel(Use::Serve).await?),
            name: "connector-1".to_owned(),
            signer: self.lab.signer("connector")?,
            served: Served {
                trust: self.lab.log_trust()?,
                lab: OrgId::parse(LAB)?,
                line: line.clone(),
                manifest,
                variants: vec![Variant::parse("standard")?],
                endpoint: Endpoint::Connector,
            },
            pinned: Pinned {
                lab: self.lab.fingerprint()?,
                agencies: [(OrgId::parse(AGENCY)?, self.agency.fingerprint()?)].into_iter().collect(),
            },
            upstream,
            slots,
            clock: anteroom_sdk::connector::Clock::system(),
            dir: self.lab.make_build_dir(&line, manifest)?,
            switch: self.lab.connector_dir(&line),
        })?)
    }

    /// Both parties appoint the independent reader for a grant, and each for its own scope, for `hours`; the lab hands the reader
    /// the terms, which hold the grant's nonce.
    ///
    /// # Errors
    /// The broker refuses.
    pub async fn appoint(&self, grant: GrantId, hours: i64) -> Result<(), CastError> {
        let reader = OrgId::parse(OVERSIGHT)?;
        let until = system::now().plus_ms(hours.saturating_mul(HOUR_MS));
        for home in [&self.lab, &self.agency] {
            let signer = home.signer("signer")?;
            let mut organisation = home.organisation().await?;
            for target in [Some(grant), None] {
                let signers = [signer.clone()];
                let recorded = organisation.appoint(reader.clone(), target, until, &signers).await?;
                home.keep_act(&recorded)?;
            }
        }
        if let Some(terms) = self.lab.terms(grant)? {
            let bytes = TermsTemplate { terms }.bytes()?;
            self.oversight.keep_terms(&bytes)?;
        }
        Ok(())
    }
}
