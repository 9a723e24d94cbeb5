//! From a party's folder to the broker: certificates, channels, and a client for each side.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anteroom_proto::{
    names::{CallId, GrantId, OrgId, RunId},
    rpc::{
        CallStatus, Dossier, GetCallRequest, GetDossierRequest, GrantSummary, ListGrantsRequest, WhoAmIReply,
        WhoAmIRequest, audit_client::AuditClient, directory_client::DirectoryClient, inference_client::InferenceClient,
    },
    statement::envelope::Signer,
    time::At,
};
use tokio::time::timeout;
use tonic::transport::Channel;

use super::{Home, HomeError, files, keys::WORKLOAD};
use crate::{
    acts::Organisation,
    agency::Agency,
    auditor::Auditor,
    channel::{self, Address, MESSAGE_BYTES_MAX, TlsSource},
    credentials::{self, Credentials, CredentialsError, EnrolTrust, Renewal},
    error::{Error, VerificationError},
    evaluator::{CallerConfig, Evaluator},
    lab::Lab,
    log::LogView,
    system,
    verify::dossier::HeldCredential,
};

/// How long a session waits to hear how the log's keys handed over. Ends must not wait for it.
const FOLLOW_MAX: Duration = Duration::from_secs(2);

/// The part that a certificate plays for its organisation on a connection. It authorises nothing; signatures do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CertRole {
    /// Keeps the organisation's house.
    Admin,
    /// A human being.
    Person,
    /// Automation under a person's run.
    Workload,
    /// A lab's side of a served model.
    Connector,
    /// A reader of the ledger.
    Auditor,
    /// Runs the broker.
    Operator,
}

impl CertRole {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Person, Self::Workload, Self::Connector, Self::Auditor, Self::Operator];

    /// Its name in identities.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Person => "person",
            Self::Workload => "workload",
            Self::Connector => "connector",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Handing in signed acts, asking about grants.
    Act,
    /// Calling a model.
    Call,
    /// Serving a model.
    Serve,
    /// Reading the log.
    Read,
    /// Handing in ends: a stop or a lock, which a connector may, too.
    End,
}

impl Use {
    /// The roles whose certificates do, the fittest first.
    const fn roles(self) -> &'static [CertRole] {
        match self {
            Self::Act => {
                &[CertRole::Admin, CertRole::Person, CertRole::Operator, CertRole::Auditor, CertRole::Workload]
            }
            Self::Call => &[CertRole::Workload, CertRole::Person],
            Self::Serve => &[CertRole::Connector],
            Self::Read => &[CertRole::Auditor, CertRole::Admin, CertRole::Person],
            Self::End => &[
                CertRole::Admin,
                CertRole::Person,
                CertRole::Operator,
                CertRole::Auditor,
                CertRole::Workload,
                CertRole::Connector,
            ],
        }
    }

    const fn missing(self) -> &'static str {
        match self {
            Self::Act => "admin or person",
            Self::Call => "workload or person",
            Self::Serve => "connector",
            Self::Read => "auditor, admin or person",
            Self::End => "admin, person or connector",
        }
    }
}

/// Connections to the brokers of one log. Each connects by itself, and again whenever it must.
#[derive(Clone, Debug)]
pub struct Brokers {
    /// To whichever broker answers.
    pub any: Channel,
    /// To each of them, in the address's order.
    pub each: Vec<Broker>,
}

/// One broker of those that keep a log together.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Where it is, as it was named.
    pub name: String,
    /// To it alone.
    pub channel: Channel,
}

impl Brokers {
    /// A log that one broker keeps.
    #[must_use]
    pub fn one(channel: Channel) -> Self {
        Self { each: vec![Broker { name: "the broker".to_owned(), channel: channel.clone() }], any: channel }
    }
}

impl Home {
    /// Exchanges a one-time token for a certificate and keeps it under the role it is for. Returns how the broker knows it:
    /// `org/role/name`.
    ///
    /// # Errors
    /// The broker is not the one trusted or refuses the token, or the certificate is another organisation's than the folder.
    pub async fn enrol(&mut self, address: &Address, trust: &EnrolTrust, token: &str) -> Result<String, HomeError> {
        let credentials = Credentials::enrol(address, trust, token).await?;
        self.keep_credentials(&credentials)
    }

    /// Keeps credentials got otherwise, for example by a process that plays every part.
    ///
    /// # Errors
    /// They are another organisation's than the folder, or cannot be written.
    pub fn keep_credentials(&mut self, credentials: &Credentials) -> Result<String, HomeError> {
        let identity = credentials.identity().to_owned();
        let mut parts = identity.split('/');
        let org = parts.next().and_then(|org| OrgId::parse(org).ok());
        let role = parts.next().and_then(|name| CertRole::ALL.into_iter().find(|role| role.as_str() == name));
        let (Some(org), Some(role)) = (org, role) else {
            return Err(VerificationError::Missing("identity").into());
        };
        self.claim(&org)?;
        files::folder(&self.dir)?;
        files::folder(&self.dir.join("cert"))?;
        credentials.save(&self.cert_dir(role))?;
        if self.settings.org.is_none() {
            self.set(|settings| settings.org = Some(org))?;
        }
        Ok(identity)
    }

    /// The roles that there is a certificate for.
    #[must_use]
    pub fn cert_roles(&self) -> Vec<CertRole> {
        CertRole::ALL.into_iter().filter(|role| self.cert_dir(*role).is_dir()).collect()
    }

    /// A connection for one purpose; its certificate is renewed first if two thirds of its life are over.
    ///
    /// # Errors
    /// There is no certificate for it, it has ended, or the broker cannot be reached.
    pub async fn channel(&self, purpose: Use) -> Result<Channel, HomeError> {
        connected(&self.configured()?, self.credentials(purpose)?).await
    }

    /// A connection that lasts: it connects by itself, again whenever it must, and renews its certificate while the second value
    /// lives.
    ///
    /// # Errors
    /// There is no certificate for it, or it has ended.
    pub fn lasting_channel(&self, purpose: Use) -> Result<(Channel, Option<Renewal>), HomeError> {
        let (brokers, renewal) = self.brokers(purpose)?;
        Ok((brokers.any, renewal))
    }

    /// The same, also to each broker by itself. One renewal serves all of them.
    ///
    /// # Errors
    /// As [`Home::lasting_channel`].
    pub fn brokers(&self, purpose: Use) -> Result<(Brokers, Option<Renewal>), HomeError> {
        let (address, (credentials, folder)) = (self.configured()?, self.credentials(purpose)?);
        let tls = TlsSource::new(credentials.tls()?);
        let any = channel::lazy(&address, &tls)?;
        let mut each = Vec::new();
        for place in address.each() {
            each.push(Broker { name: place.to_string(), channel: channel::lazy(&place, &tls)? });
        }
        let renewal = folder.map(|folder| Renewal::start(any.clone(), credentials, &folder, &tls));
        Ok((Brokers { any, each }, renewal))
    }

    /// Where the brokers are: by the environment if it brings certificates, else by the settings.
    fn configured(&self) -> Result<Address, HomeError> {
        self.environment.as_ref().map_or_else(|| self.address(), |environment| Ok(environment.address.clone()))
    }

    /// What is shown on a connection, and the folder that it is renewed in.
    fn credentials(&self, purpose: Use) -> Result<(Credentials, Option<PathBuf>), HomeError> {
        let now = system::now();
        if let Some(environment) = &self.environment {
            let credentials = environment.credentials()?;
            credentials.in_date(now)?;
            return Ok((credentials, None));
        }
        let mut ended: Option<CredentialsError> = None;
        for role in purpose.roles() {
            let folder = self.cert_dir(*role);
            if !folder.is_dir() {
                continue;
            }
            let credentials = Credentials::load(&folder)?;
            match credentials.in_date(now) {
                Ok(()) => return Ok((credentials, Some(folder))),
                Err(error) => ended = ended.or(Some(error)),
            }
        }
        match ended {
            Some(error) => Err(error.into()),
            None => Err(HomeError::NoCertificate(purpose.missing())),
        }
    }

    fn cert_dir(&self, role: CertRole) -> PathBuf {
        self.dir.join("cert").join(role.as_str())
    }

    /// How the broker knows the first certificate that is here, and what it says about itself. Nothing of it is pinned.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached.
    pub async fn who_am_i(&self) -> Result<WhoAmIReply, HomeError> {
        self.who_am_i_at(&self.configured()?).await
    }

    /// The same of one broker of several.
    ///
    /// # Errors
    /// As [`Home::who_am_i`].
    pub async fn who_am_i_at(&self, address: &Address) -> Result<WhoAmIReply, HomeError> {
        let held = match self.credentials(Use::Act) {
            Err(HomeError::NoCertificate(_)) => self.credentials(Use::Serve)?,
            other => other?,
        };
        let channel = connected(address, held).await?;
        Ok(DirectoryClient::new(channel).who_am_i(WhoAmIRequest {}).await?.into_inner())
    }

    /// This organisation, to act as itself.
    ///
    /// # Errors
    /// No log key is pinned, or the broker cannot be reached.
    pub async fn organisation(&self) -> Result<Organisation, HomeError> {
        self.organisation_for(Use::Act).await
    }

    /// The same over a connection for another purpose, such as handing in ends alone.
    ///
    /// # Errors
    /// As [`Home::organisation`].
    pub async fn organisation_for(&self, purpose: Use) -> Result<Organisation, HomeError> {
        let channel = self.channel(purpose).await?;
        let log = self.log_on(&channel).await?;
        Ok(Organisation::new(channel, self.org()?.clone(), log, self.tag_keys()?))
    }

    /// This organisation, as a lab.
    ///
    /// # Errors
    /// As [`Home::organisation`].
    pub async fn lab(&self) -> Result<Lab, HomeError> {
        let channel = self.channel(Use::Act).await?;
        let log = self.log_on(&channel).await?;
        Ok(Lab::new(channel, self.org()?.clone(), log, self.tag_keys()?))
    }

    /// This organisation, as an agency.
    ///
    /// # Errors
    /// As [`Home::organisation`].
    pub async fn agency(&self) -> Result<Agency, HomeError> {
        let channel = self.channel(Use::Act).await?;
        let log = self.log_on(&channel).await?;
        Ok(Agency::new(channel, self.org()?.clone(), log, self.tag_keys()?))
    }

    /// A reader of the log.
    ///
    /// # Errors
    /// As [`Home::organisation`].
    pub async fn auditor(&self) -> Result<Auditor, HomeError> {
        let channel = self.channel(Use::Read).await?;
        let log = self.log_on(&channel).await?;
        Ok(Auditor::new(channel, log))
    }

    /// The log as this side saw it, following its keys by what this broker shows.
    ///
    /// # Errors
    /// No log key is pinned, or the log's keys contradict what is known.
    pub async fn log_on(&self, channel: &Channel) -> Result<Arc<LogView>, HomeError> {
        let log = self.log_view()?;
        match timeout(FOLLOW_MAX, log.follow(&AuditClient::new(channel.clone()))).await {
            Ok(Err(Error::Verification(why))) => Err(Error::Verification(why).into()),
            // Whatever else is asked of this broker says better why it does not answer.
            Ok(Ok(()) | Err(_)) | Err(_) => Ok(log),
        }
    }

    /// The newest grants that this organisation is party to, at most 500, on the broker's word.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached.
    pub async fn grants(&self, channel: &Channel) -> Result<Vec<GrantSummary>, HomeError> {
        let mut client = directory(channel);
        Ok(client.list_grants(ListGrantsRequest { limit: 500, after: Vec::new() }).await?.into_inner().grants)
    }

    /// Everything signed that a grant rests on, as the broker shows it; [`Home::take_offer`] and [`Home::take_dossier`] verify.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached, or shows another grant.
    pub async fn fetch_dossier(&self, channel: &Channel, grant: GrantId) -> Result<Dossier, HomeError> {
        let request = GetDossierRequest { grant: grant.as_bytes().to_vec() };
        let dossier = directory(channel).get_dossier(request).await?.into_inner();
        if anteroom_proto::statement::terms::Terms::parse(&dossier.terms)?.grant != grant {
            return Err(VerificationError::Other("grant").into());
        }
        Ok(dossier)
    }

    /// What the broker has on record of a call of this agency's, unverified. Content is never there.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached.
    pub async fn fetch_call(&self, call: CallId) -> Result<CallStatus, HomeError> {
        let client = InferenceClient::new(self.channel(Use::Call).await?);
        let request = GetCallRequest { call: call.as_bytes().to_vec() };
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(client.get_call(request).await?.into_inner())
    }

    /// Under what this folder calls: its workload key with the run credential in force that names it and lasts longest.
    ///
    /// # Errors
    /// There is no workload key or no such credential, or something does not hold.
    pub async fn caller_config(
        &self,
        channel: &Channel,
        grant: GrantId,
        run: Option<&RunId>,
    ) -> Result<CallerConfig, HomeError> {
        let workload = self.signer(WORKLOAD)?;
        let dossier = self.take_dossier(&self.fetch_dossier(channel, grant).await?)?;
        let held = pick(dossier.credentials(), system::now(), |held| {
            held.credential.workload == *workload.public_key() && run.is_none_or(|run| *run == held.credential.run)
        })
        .ok_or(HomeError::NoCredential)?;
        Ok(CallerConfig {
            grant,
            run: held.credential.run.clone(),
            credential: held.digest,
            workload,
            pins: self.pins_for(dossier.terms())?,
            marking: None,
        })
    }

    /// A caller under a grant, with the run credential in force that names this folder's workload key and lasts longest.
    ///
    /// # Errors
    /// There is no workload key or no such credential, or something does not hold.
    pub async fn evaluator(&self, grant: GrantId, run: Option<&RunId>) -> Result<Evaluator, HomeError> {
        let channel = self.channel(Use::Call).await?;
        let config = self.caller_config(&channel, grant, run).await?;
        let log = self.log_on(&channel).await?;
        let evaluator = Evaluator::open(channel.clone(), config, Arc::clone(&log), self.receipt_keeper()?).await?;
        match self.witness_on(channel, log) {
            Ok(Some(witness)) => Ok(evaluator.with_witness(witness)),
            Ok(None) => Ok(evaluator),
            // Calls do not wait for a witness; another process of this folder may be it.
            Err(error) => {
                tracing::info!(%error, "this process does not cosign");
                Ok(evaluator)
            }
        }
    }
}

/// Connects; the certificate is renewed if two thirds of its life are over.
async fn connected(
    address: &Address,
    (credentials, folder): (Credentials, Option<PathBuf>),
) -> Result<Channel, HomeError> {
    let channel = channel::connect(address, &TlsSource::new(credentials.tls()?)).await?;
    let due = credentials.renew_at().is_some_and(|at| at <= system::now());
    let Some(folder) = folder.filter(|_| due) else { return Ok(channel) };
    match credentials::renew(channel.clone(), &credentials).await {
        Ok(next) => next.save(&folder)?,
        // What is there still works; the next command tries again.
        Err(error) => tracing::warn!(%error, "the certificate could not be renewed"),
    }
    Ok(channel)
}

fn pick(held: &[HeldCredential], now: At, fits: impl Fn(&HeldCredential) -> bool) -> Option<&HeldCredential> {
    let covers = |held: &&HeldCredential| held.credential.start_ms <= now && now < held.credential.end_ms;
    held.iter().filter(covers).filter(|held| fits(held)).max_by_key(|held| held.credential.end_ms)
}

fn directory(channel: &Channel) -> DirectoryClient<Channel> {
    DirectoryClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
