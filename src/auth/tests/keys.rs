use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::super::keys::{Checked, Key, KeySet, NewKey, Secret};
use super::super::{
    Argon2Hash, AuthSettings, Gate, Job, Outcome, Policy, Presented, Refused, Scheme,
};
use super::{NOW, roles};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn key(id: &str, secret: &Secret) -> Key {
    Key {
        id: id.into(),
        secret: secret.clone(),
        role: "reader".into(),
    }
}

fn policy(keys: KeySet, failures_per_minute: u32) -> Policy {
    Policy {
        settings: AuthSettings {
            failures_per_minute,
            ticket_lifetime: Duration::from_secs(30),
            tickets_max: 10,
            ..AuthSettings::default()
        },
        scheme: Scheme::Keys(keys),
        roles: Arc::new(roles()),
    }
}

fn gate(keys: KeySet, failures_per_minute: u32) -> (Arc<Gate>, Receiver<Job>) {
    Gate::new(policy(keys, failures_per_minute))
}

/// Outcome of a check, executed to its end; and true if it was queued.
fn checked(gate: &Gate, jobs: &Receiver<Job>, token: &str) -> (Outcome, bool) {
    let (reply, outcome) = channel();
    let reply = move |outcome| _ = reply.send(outcome);
    match gate.present(token, ADDRESS, NOW, reply) {
        Presented::Decided(outcome) => (outcome, false),
        Presented::Queued => {
            gate.execute(jobs.try_recv().expect("a queued check"), NOW, || {});
            (outcome.recv().expect("an outcome"), true)
        }
    }
}

#[test]
fn new_keys_are_accepted_and_nothing_else_is() {
    for with_argon2 in [false, true] {
        let [one, two] = ["one", "two"].map(|id| NewKey::make(id, with_argon2));
        assert_eq!(one.token.len(), "one.".len() + 43, "32 bytes in base64url");
        let keys = [key("one", &one.secret), key("two", &two.secret)];
        let (gate, jobs) = gate(KeySet::new(keys), 1000);
        let (outcome, _) = checked(&gate, &jobs, &one.token);
        let grant = outcome.expect("the key of the set");
        assert_eq!((&*grant.subject, &*grant.role), ("one", "reader"));
        assert_eq!(grant.expires, None);
        let (_, secret) = two.token.split_once('.').expect("a key");
        for wrong in [
            format!("one.{secret}"),
            format!("three.{secret}"),
            format!("{}x", one.token),
            format!("{} ", one.token),
            "one.".to_owned(),
            format!(".{secret}"),
        ] {
            let (outcome, _) = checked(&gate, &jobs, &wrong);
            assert_eq!(outcome, Err(Refused::WrongKey), "{wrong}");
        }
        let (outcome, _) = checked(&gate, &jobs, secret);
        assert_eq!(outcome, Err(Refused::MalformedKey));
        let huge = format!("one.{}", "x".repeat(8192));
        assert_eq!(checked(&gate, &jobs, &huge).0, Err(Refused::TooLarge));
    }
}

/// With one Argon2 hash in the set, every failure costs a hash, whatever is wrong; a key that has
/// been verified costs none.
#[test]
fn an_unknown_key_costs_as_much_as_a_wrong_secret() {
    let (slow, quick) = (NewKey::make("slow", true), NewKey::make("quick", false));
    let keys = [key("slow", &slow.secret), key("quick", &quick.secret)];
    let (gate, jobs) = gate(KeySet::new(keys), 1000);
    for wrong in ["slow.wrong", "quick.wrong", "unknown.wrong"] {
        let (outcome, was_queued) = checked(&gate, &jobs, wrong);
        assert_eq!(outcome, Err(Refused::WrongKey));
        assert!(was_queued, "{wrong}");
    }
    assert!(!checked(&gate, &jobs, &quick.token).1);
    let queued = [(); 3].map(|()| {
        let (outcome, was_queued) = checked(&gate, &jobs, &slow.token);
        assert!(outcome.is_ok());
        was_queued
    });
    assert_eq!(queued, [true, false, false]);
    assert!(checked(&gate, &jobs, "slow.wrong").1);
}

#[test]
fn failures_of_an_address_are_bounded_and_valid_keys_still_pass() {
    let valid = NewKey::make("a", false);
    let (gate, jobs) = gate(KeySet::new([key("a", &valid.secret)]), 3);
    let wrong = |_| checked(&gate, &jobs, "a.wrong").0.expect_err("a wrong key");
    let outcomes: Vec<Refused> = (0..5).map(wrong).collect();
    let (wrong, busy) = (Refused::WrongKey, Refused::Busy);
    assert_eq!(outcomes, [wrong, wrong, wrong, busy, busy]);
    assert!(checked(&gate, &jobs, &valid.token).0.is_ok());
}

/// Failures of expensive checks count too, and an address with too many gets no further one.
#[test]
fn failures_of_expensive_checks_are_bounded() {
    let slow = NewKey::make("slow", true);
    let (gate, jobs) = gate(KeySet::new([key("slow", &slow.secret)]), 2);
    let wrong = |_| checked(&gate, &jobs, "slow.wrong");
    let outcomes: Vec<(Outcome, bool)> = (0..4).map(wrong).collect();
    let (wrong, busy) = (Err(Refused::WrongKey), Err(Refused::Busy));
    let expected = [
        (wrong.clone(), true),
        (wrong, true),
        (busy.clone(), false),
        (busy, false),
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn a_key_that_is_replaced_or_removed_during_its_check_is_refused() {
    let (old, new) = (NewKey::make("a", true), NewKey::make("a", true));
    for keys in [vec![key("a", &new.secret)], Vec::new()] {
        let (gate, jobs) = gate(KeySet::new([key("a", &old.secret)]), 1000);
        let (reply, outcome) = channel();
        let presented = gate.present(&old.token, ADDRESS, NOW, move |outcome| {
            reply.send(outcome).expect("the test waits for it");
        });
        assert!(matches!(presented, Presented::Queued));
        gate.replace(policy(KeySet::new(keys), 1000));
        gate.execute(jobs.try_recv().expect("a queued check"), NOW, || {});
        assert_eq!(outcome.recv(), Ok(Err(Refused::WrongKey)));
    }
}

#[test]
fn a_ticket_ends_with_the_key_of_its_client_and_wrong_ones_are_failures() {
    let valid = NewKey::make("a", false);
    let keys = || KeySet::new([key("a", &valid.secret)]);
    let (gate, jobs) = gate(keys(), 2);
    let grant = checked(&gate, &jobs, &valid.token)
        .0
        .expect("the key of the set");
    let ticket = || gate.issue_ticket(grant.clone(), None, NOW).expect("room").0;
    let redeem = |text: &str| gate.redeem_ticket(text, None, ADDRESS, NOW);
    assert_eq!(redeem(&ticket()), Ok(grant.clone()));
    let late = ticket();
    gate.replace(policy(KeySet::new([]), 2));
    assert_eq!(redeem(&late), Err(Refused::Revoked));
    gate.replace(policy(keys(), 2));
    let outcomes = [(); 3].map(|()| redeem("wrong"));
    let refused = [Refused::Ticket, Refused::Ticket, Refused::Busy];
    assert_eq!(outcomes, refused.map(Err));
}

#[test]
fn expensive_checks_wait_in_a_bounded_queue() {
    let slow = NewKey::make("slow", true);
    let (gate, _jobs) = gate(KeySet::new([key("slow", &slow.secret)]), 1000);
    let present = |number: usize| {
        let token = format!("id{number}.wrong");
        matches!(
            gate.present(&token, ADDRESS, NOW, |_| {}),
            Presented::Queued
        )
    };
    assert_eq!((0..1000).filter(|number| present(*number)).count(), 256);
}

#[test]
fn a_grant_ends_with_its_key() {
    let (old, new) = (NewKey::make("a", false), NewKey::make("a", false));
    let policy = |keys: Vec<Key>| policy(KeySet::new(keys), 1000);
    let before = KeySet::new([key("a", &old.secret)]);
    let Checked::Decided(Ok(grant)) = before.check(&old.token) else {
        unreachable!("the key is in the set")
    };
    let same = policy(vec![key("a", &old.secret)]);
    assert_eq!(same.review(&grant), Some(grant.clone()));
    let promoted = Key {
        role: "operator".into(),
        ..key("a", &old.secret)
    };
    let reviewed = policy(vec![promoted]).review(&grant);
    assert_eq!(reviewed.map(|grant| grant.role), Some("operator".into()));
    assert_eq!(policy(vec![key("a", &new.secret)]).review(&grant), None);
    assert_eq!(policy(vec![key("b", &old.secret)]).review(&grant), None);
    assert_eq!(policy(Vec::new()).review(&grant), None);
}

#[test]
fn parameters_of_argon2_are_bounded() {
    let hash = |params: &str| {
        format!("$argon2id$v=19${params}$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObG")
    };
    for good in ["m=65536,t=3,p=4", "m=19456,t=2,p=1"] {
        assert!(Argon2Hash::parse(&hash(good)).is_ok(), "{good}");
    }
    for bad in [
        "m=65537,t=1,p=1",
        "m=4294967295,t=1,p=1",
        "m=64,t=11,p=1",
        "m=64,t=4294967295,p=1",
        "m=64,t=1,p=5",
        "m=1,t=1,p=1",
        "t=x",
    ] {
        assert!(Argon2Hash::parse(&hash(bad)).is_err(), "{bad}");
    }
    for bad in [
        "",
        "argon2",
        "$2b$10$abcdefghijklmnopqrstuv",
        "$scrypt$ln=16,r=8,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA",
        "$argon2id$v=19$m=64,t=1,p=1$c2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
    ] {
        assert!(Argon2Hash::parse(bad).is_err(), "{bad}");
    }
}
