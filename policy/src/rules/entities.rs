//! Terms and facts as Cedar sees them.
//!
//! **Invariant:** every entity and every request is built with the schema, so that actions keep their groups and nothing has a
//! missing or extra attribute.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use anteroom_proto::{
    rpc::{Facts, Marking},
    statement::terms::{Features, RunTerms, Terms},
};
use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression as Value, Schema,
};

use prost::Message as _;

use crate::content::body::Route;

/// Most people that a grant's entities are kept with; beyond it, all are forgotten.
const PEOPLE_MAX: usize = 256;
/// Whoever has more attributes than this is put together each time, so that the memory of a grant has a bound.
const PERSON_BYTES_MAX: usize = 4096;

/// The caveat that asks for a citizenship.
const NOFORN: &str = "NOFORN";

/// A grant's own entities, built once.
#[derive(Debug)]
pub(super) struct Grant {
    entities: Entities,
    grant: EntityUid,
    roster: EntityUid,
    /// Names of types, whose parsing costs more than a rule.
    person: EntityTypeName,
    run: EntityTypeName,
    /// The action of each route, in the order of [`ROUTES`].
    actions: Vec<EntityUid>,
    /// The grant's entities with each person among them, by what is known of the person. The schema is checked against once.
    people: Mutex<HashMap<Vec<u8>, Arc<Entities>>>,
}

/// Every route that can be asked for.
const ROUTES: [Route; 5] = Route::ALL;

/// A request with all it speaks of.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) entities: Arc<Entities>,
}

impl Grant {
    pub(super) fn new(terms: &Terms, schema: &Schema) -> Result<Self, String> {
        let lab = uid("Lab", terms.lab.org.as_str())?;
        let agency = uid("Agency", terms.agency.org.as_str())?;
        let line = uid("Line", terms.model.line.as_str())?;
        let roster = uid("Roster", &terms.roster.to_string())?;
        let grant = uid("Grant", &terms.grant.to_string())?;
        let parent = |uid: &EntityUid| HashSet::from([uid.clone()]);
        let mut entities = vec![
            Entity::new_no_attrs(lab.clone(), HashSet::new()),
            Entity::new_no_attrs(agency.clone(), HashSet::new()),
            Entity::new_no_attrs(line.clone(), parent(&lab)),
            Entity::new_no_attrs(roster.clone(), parent(&agency)),
            Entity::new(grant.clone(), lent(terms, &roster)?, parent(&line)).map_err(text)?,
        ];
        for run in &terms.runs {
            entities.push(Entity::new(uid("Run", run.id.as_str())?, planned(run), parent(&grant)).map_err(text)?);
        }
        let entities = Entities::from_entities(entities, Some(schema)).map_err(text)?;
        let kind = |name: &str| name.parse::<EntityTypeName>().map_err(text);
        let actions = ROUTES.iter().map(|route| uid("Action", action_name(*route))).collect::<Result<_, _>>()?;
        Ok(Self {
            entities,
            grant,
            roster,
            person: kind("Person")?,
            run: kind("Run")?,
            actions,
            people: Mutex::default(),
        })
    }

    /// The entities with this person among them.
    fn with(&self, person: &EntityUid, facts: &Facts, schema: &Schema) -> Result<Arc<Entities>, String> {
        let key = of_person(facts).encode_to_vec();
        // What is kept stays right whatever a task did while it held the lock: entries are inserted whole.
        let people = || self.people.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = people().get(&key) {
            return Ok(Arc::clone(known));
        }
        let parents = HashSet::from([self.roster.clone()]);
        let entity = Entity::new(person.clone(), person_attributes(facts), parents).map_err(text)?;
        let entities = Arc::new(self.entities.clone().add_entities([entity], Some(schema)).map_err(text)?);
        if key.len() <= PERSON_BYTES_MAX {
            let mut people = people();
            if people.len() >= PEOPLE_MAX {
                people.clear();
            }
            people.insert(key, Arc::clone(&entities));
        }
        Ok(entities)
    }
}

/// Puts the question together.
pub(super) fn ask(grant: &Grant, facts: &Facts, schema: &Schema) -> Result<Asked, String> {
    let named = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
    let (person, run) = (named(&grant.person, &facts.pseudonym), named(&grant.run, &facts.run));
    let entities = grant.with(&person, facts, schema)?;
    for needed in [&person, &run, &grant.grant] {
        if entities.get(needed).is_none() {
            return Err("an entity is missing".to_owned());
        }
    }
    let route = Route::parse(&facts.route).ok_or("the route is unknown")?;
    let action = ROUTES.iter().position(|known| *known == route).and_then(|place| grant.actions.get(place));
    let action = action.ok_or("the route has no action")?.clone();
    let context = Context::from_pairs(context(facts, run)?).map_err(text)?;
    let request = Request::new(person, action, grant.grant.clone(), context, Some(schema)).map_err(text)?;
    Ok(Asked { request, entities })
}

const fn action_name(route: Route) -> &'static str {
    match route {
        Route::Chat => "Chat",
        Route::Completions => "Completions",
        Route::Embeddings => "Embeddings",
        Route::Responses => "Responses",
        Route::Messages => "Messages",
    }
}

fn lent(terms: &Terms, roster: &EntityUid) -> Result<HashMap<String, Value>, String> {
    // No `..`: a feature that is added to terms has to be judged here.
    let Features {
        chat,
        completions,
        embeddings,
        responses,
        messages,
        streaming,
        tools,
        images,
        logprobs,
        logit_bias,
        n,
        seed,
        prefill,
        reasoning,
        response_format,
        named_fields,
    } = &terms.features;
    let marking = &terms.marking;
    let variants: Vec<&str> = terms.model.variants.iter().map(|variant| variant.as_str()).collect();
    Ok(record([
        ("roster", Value::new_entity_uid(roster.clone())),
        ("line", string(terms.model.line.as_str())),
        ("variants", set(&variants)),
        ("mark", mark(marking.level, &marking.caveats, &marking.rel_to)?),
        ("chat", Value::new_bool(*chat)),
        ("completions", Value::new_bool(*completions)),
        ("embeddings", Value::new_bool(*embeddings)),
        ("responses", Value::new_bool(*responses)),
        ("messages", Value::new_bool(*messages)),
        ("streaming", Value::new_bool(*streaming)),
        ("tools", set(tools)),
        ("images", long(*images)),
        ("logprobs", long(*logprobs)),
        ("logitBias", Value::new_bool(*logit_bias)),
        ("n", long((*n).max(1))),
        ("seed", Value::new_bool(*seed)),
        ("prefill", Value::new_bool(*prefill)),
        ("reasoning", Value::new_bool(*reasoning)),
        ("responseFormat", Value::new_bool(*response_format)),
        ("namedFields", set(named_fields)),
    ]))
}

fn planned(run: &RunTerms) -> HashMap<String, Value> {
    record([
        ("purpose", string(&run.purpose)),
        ("profile", string(&run.content_profile)),
        ("anyNetwork", Value::new_bool(run.networks.is_empty())),
        ("networks", set(&run.networks)),
    ])
}

/// The facts that a person's entity is made of, and no others.
fn of_person(facts: &Facts) -> Facts {
    Facts {
        pseudonym: facts.pseudonym.clone(),
        employer: facts.employer.clone(),
        us_person: facts.us_person.clone(),
        us_only: facts.us_only.clone(),
        rel_to_ok: facts.rel_to_ok.clone(),
        clearance: facts.clearance,
        read_ins: facts.read_ins.clone(),
        trained_until_minute: facts.trained_until_minute,
        engaged_until_minute: facts.engaged_until_minute,
        ..Facts::default()
    }
}

/// Whatever is read here is part of [`of_person`] too.
fn person_attributes(facts: &Facts) -> HashMap<String, Value> {
    let facts = &of_person(facts);
    record([
        ("employer", string(&facts.employer)),
        ("usPerson", Value::new_bool(facts.us_person == "yes")),
        ("usOnly", Value::new_bool(facts.us_only == "yes")),
        ("relToOk", set(&facts.rel_to_ok)),
        ("clearance", long(facts.clearance)),
        ("readIns", set(&facts.read_ins)),
        ("trainedUntil", Value::new_long(facts.trained_until_minute)),
        ("engagedUntil", Value::new_long(facts.engaged_until_minute)),
    ])
}

fn context(facts: &Facts, run: EntityUid) -> Result<HashMap<String, Value>, String> {
    // A call without a marking would be judged as unmarked; facts always carry one.
    let Marking { level, caveats, rel_to } = facts.marking.as_ref().ok_or("the marking is missing")?;
    let tokens = i64::try_from(facts.tokens_asked).map_err(text)?;
    let (day, minute_of_day) = (facts.minute.div_euclid(1_440), facts.minute.rem_euclid(1_440));
    // 1970-01-01 was a Thursday, which is 3 counted from Monday.
    let weekday = (day % 7 + 7 + 3) % 7;
    Ok(record([
        ("run", Value::new_entity_uid(run)),
        ("purpose", string(&facts.purpose)),
        ("minute", Value::new_long(facts.minute)),
        ("minuteOfDay", Value::new_long(minute_of_day)),
        ("weekday", Value::new_long(weekday)),
        ("network", string(&facts.network)),
        ("model", string(&facts.model)),
        ("variant", string(&facts.variant)),
        ("mark", mark(*level, caveats, rel_to)?),
        ("stream", Value::new_bool(facts.stream)),
        ("tools", set(&facts.tools)),
        ("images", long(facts.images)),
        ("logprobs", long(facts.logprobs)),
        ("logitBias", Value::new_bool(facts.logit_bias)),
        ("n", long(facts.n)),
        ("seed", Value::new_bool(facts.seed)),
        ("prefill", Value::new_bool(facts.prefill)),
        ("reasoning", Value::new_bool(facts.reasoning)),
        ("responseFormat", string(&facts.response_format)),
        ("tokensAsked", Value::new_long(tokens)),
        ("namedFields", set(&facts.named_fields)),
        ("repeated", Value::new_bool(facts.repeated)),
        ("scanVerdict", long(facts.scan_verdict)),
        ("scanHits", set(&facts.scan_hits)),
    ]))
}

fn mark(level: u32, caveats: &[String], rel_to: &[String]) -> Result<Value, String> {
    let others: Vec<&str> = caveats.iter().map(String::as_str).filter(|caveat| !noforn(caveat)).collect();
    let fields = record([
        ("level", long(level)),
        ("caveats", set(&others)),
        ("noforn", Value::new_bool(caveats.iter().any(|caveat| noforn(caveat)))),
        ("relTo", set(rel_to)),
    ]);
    Value::new_record(fields).map_err(text)
}

/// In any spelling: a marking in small letters must not lose its force.
const fn noforn(caveat: &str) -> bool {
    caveat.eq_ignore_ascii_case(NOFORN)
}

fn record<const N: usize>(pairs: [(&str, Value); N]) -> HashMap<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn string(text: &str) -> Value {
    Value::new_string(text.to_owned())
}

fn long(number: u32) -> Value {
    Value::new_long(i64::from(number))
}

fn set<S: AsRef<str>>(texts: &[S]) -> Value {
    Value::new_set(texts.iter().map(|text| string(text.as_ref())))
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind: EntityTypeName = kind.parse().map_err(text)?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
