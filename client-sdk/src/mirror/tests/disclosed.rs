//! Disclosing field by field.

use std::fs;

use anteroom_proto::rpc::CallAdmitted;
use data_encoding::BASE64;

use super::{
    super::{
        disclose::{Choice, disclose},
        set,
    },
    *,
};

fn choice(fields: &[&str], kinds: &[&str]) -> Choice {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Choice { fields: owned(fields), kinds: owned(kinds) }
}

fn mirror_of(world: &World, log: &MiniLog) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(log), &[own(world), other()]).unwrap();
    folder
}

#[test]
fn chosen_fields_verify_and_nothing_else_is_in_the_file() {
    let world = World::new();
    let (log, call, _) = logged(&world, 300);
    let folder = mirror_of(&world, &log);
    let mirror = Mirror::at(folder.path());
    let out = folder.path().join("set.jsonl");
    let chosen = choice(&["CallAdmitted.run", "CallFinished.end"], &[]);
    let written = disclose(&mirror, &demands(&log), &world.scope(), &chosen, &out).unwrap();
    assert_eq!((written.records, written.fields), (2, 2));
    let disclosed = set::verify(&out, &log.trust(), &TagKeys::default()).unwrap();
    let told: Vec<(&str, &str)> = disclosed.fields().iter().map(|field| (field.field, field.value.as_str())).collect();
    assert_eq!(told, [("run", "cyber"), ("end", "completed")]);
    assert_eq!((disclosed.records(), disclosed.scope()), (2, &world.scope()));
    check::whole_set(&mirror, &demands(&log), &disclosed, &out).unwrap();
    // No other content of the records, in any of the ways in which bytes are written here.
    let bytes = fs::read(&out).unwrap();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let (record, seed) = &log.records[2];
    let admitted: CallAdmitted = record.event().unwrap();
    for secret in [admitted.body_key.as_slice(), admitted.claim.unwrap().payload.as_slice(), b"p-1", call.id.as_bytes()]
    {
        assert!(!holds(secret) && !holds(BASE64.encode(secret).as_bytes()));
        assert!(!holds(data_encoding::HEXLOWER.encode(secret).as_bytes()));
    }
    for field in record.spec().fields.iter().filter(|field| field.number > 6 && field.name != "run") {
        assert!(!holds(BASE64.encode(&seed.salt(field.number)).as_bytes()), "the salt of `{}`", field.name);
    }
}

#[test]
fn every_altered_byte_of_a_set_is_found() {
    let world = World::new();
    let (log, _, _) = logged(&world, 12);
    let folder = mirror_of(&world, &log);
    let out = folder.path().join("set.jsonl");
    let all = choice(&["CallFinished.end"], &["CallAdmitted"]);
    disclose(&Mirror::at(folder.path()), &demands(&log), &world.scope(), &all, &out).unwrap();
    let honest = fs::read(&out).unwrap();
    for at in 0..honest.len() {
        let mut altered = honest.clone();
        altered[at] ^= 1 << (at % 8);
        fs::write(&out, &altered).unwrap();
        let error = set::verify(&out, &log.trust(), &TagKeys::default());
        let Err(error) = error else { panic!("byte {at} was altered and nothing was found") };
        assert!(error.to_string().contains("set.jsonl"), "{error}");
    }
    // A line left out, told twice, or out of order.
    let text = String::from_utf8(honest).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for kept in [vec![0, 1], vec![0, 2], vec![0, 1, 1], vec![0, 2, 1], vec![1, 2], vec![]] {
        let cut: String = kept.iter().map(|line| format!("{}\n", lines[*line])).collect();
        fs::write(&out, cut).unwrap();
        assert!(set::verify(&out, &log.trust(), &TagKeys::default()).is_err(), "{kept:?}");
    }
}

#[test]
fn what_does_not_exist_or_is_closed_to_this_reader_cannot_be_chosen() {
    let world = World::new();
    let (log, _, _) = logged(&world, 12);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker { audience: Audience::LAB, ..Broker::new(&log) }, &[own(&world)]).unwrap();
    let mirror = Mirror::at(folder.path());
    let out = folder.path().join("set.jsonl");
    let said = |fields: &[&str], kinds: &[&str]| {
        let refused = disclose(&mirror, &demands(&log), &world.scope(), &choice(fields, kinds), &out).unwrap_err();
        assert!(refused.is_local() && !out.exists() && !out.with_extension("part").exists());
        refused.to_string()
    };
    assert!(said(&["CallAdmitted.nothing"], &[]).contains("`CallAdmitted` has call, "));
    assert!(said(&["Nothing.run"], &[]).contains("the kinds are LogOpened"));
    assert!(said(&[], &["Nothing"]).contains("no kind `Nothing`"));
    assert!(said(&["CallAdmitted.body_key"], &[]).contains("closed to this reader in record 0"));
    // A kind of which a part is closed is disclosed as far as it is open.
    let lab = choice(&[], &["CallAdmitted"]);
    disclose(&mirror, &demands(&log), &world.scope(), &lab, &out).unwrap();
    let disclosed = set::verify(&out, &log.trust(), &TagKeys::default()).unwrap();
    assert!(disclosed.fields().iter().any(|field| field.field == "run"));
    assert!(!disclosed.fields().iter().any(|field| field.field == "body_key"));
}

#[test]
fn a_set_that_lacks_a_later_record_is_found_with_a_mirror() {
    let world = World::new();
    let (mut log, _, _) = logged(&world, 12);
    let folder = mirror_of(&world, &log);
    let mirror = Mirror::at(folder.path());
    let out = folder.path().join("set.jsonl");
    disclose(&mirror, &demands(&log), &world.scope(), &choice(&[], &["CallFinished"]), &out).unwrap();
    Call::new(&world).record(&world, &mut log);
    mirrored(folder.path(), &mut Broker::new(&log), &[]).unwrap();
    let disclosed = set::verify(&out, &log.trust(), &TagKeys::default()).unwrap();
    let error = check::whole_set(&mirror, &demands(&log), &disclosed, &out).unwrap_err().to_string();
    assert!(error.contains("record 2 of the scope stands at 12 and was withheld"), "{error}");
}
