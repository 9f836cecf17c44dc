use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::CWD;

use super::dir::{LEASE, LEASE_NEW, LOCK, PRIVATE_FILE, STATE, STATE_NEW};
use super::*;

fn state() -> State {
    let bus = SavedState {
        tx: UnixNanos(9),
        ..SavedState::default()
    };
    State::new(
        UnixNanos(10),
        7,
        bus,
        vec![(
            "sim".to_owned(),
            config_sum(&1),
            Some(Bytes::from_static(b"x")),
        )],
        Vec::new(),
    )
}

fn at(wall: UnixNanos) -> Moment {
    Moment { wall, boot: None }
}

fn found(dir: &mut StateDir) -> Found {
    dir.take_up(&at(UnixNanos(11)))
        .expect("the folder is there")
        .0
}

fn opened() -> (tempfile::TempDir, StateDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = StateDir::open(&folder.path().join("state_dir")).expect("a folder");
    (folder, dir)
}

#[test]
fn what_was_left_is_taken_up_once() {
    let (_folder, mut dir) = opened();
    assert!(dir.leave(&state(), &at(UnixNanos(10))).is_err(), "no lease");
    assert!(matches!(found(&mut dir), Found::Nothing));
    dir.leave(&state(), &at(UnixNanos(10))).expect("room");
    assert!(matches!(found(&mut dir), Found::State(taken) if *taken == state()));
    assert!(
        matches!(found(&mut dir), Found::Refused(why) if why.to_string().contains("crash")),
        "taken up, and not left again"
    );
    dir.leave(&state(), &at(UnixNanos(10))).expect("room");
    let (late, _) = dir
        .take_up(&at(UnixNanos(10).plus(AGE_MAX * 2)))
        .expect("the folder is there");
    assert!(matches!(late, Found::Refused(why) if why.to_string().contains("120 minutes")));
}

#[test]
fn a_state_from_the_future_is_refused_and_one_just_ahead_is_not() {
    let now = UnixNanos(1_000_000_000_000);
    for (stopped, tx, refused) in [
        (now.plus(AHEAD_MAX), now, false),
        (now.plus(AHEAD_MAX * 2), now, true),
        (now, now.plus(Duration::from_secs(1800)), true),
    ] {
        let (_folder, mut dir) = opened();
        found(&mut dir);
        let state = State {
            stopped,
            tx,
            ..state()
        };
        dir.leave(&state, &at(stopped)).expect("room");
        let (found, _) = dir.take_up(&at(now)).expect("the folder is there");
        match found {
            Found::State(_) => assert!(!refused),
            Found::Refused(why) => {
                assert!(refused && why.to_string().contains("future"), "{why}");
            }
            Found::Nothing => unreachable!("it was left"),
        }
    }
}

#[test]
fn a_step_of_the_clock_between_two_runs_is_reported_in_both_directions() {
    let stopped = UnixNanos(1_000_000_000_000);
    let hour = Duration::from_secs(3600);
    let boot = |name: &str, elapsed| {
        Some(BootTime {
            boot: name.to_owned(),
            elapsed,
        })
    };
    let saved = Saved {
        lease: String::new(),
        boot: boot("a", hour),
        state: State { stopped, ..state() },
    };
    let passed = Duration::from_secs(5);
    let step = |name, wall| {
        let boot = boot(name, hour + passed);
        clock_step(&saved, &Moment { wall, boot })
    };
    let right = stopped.plus(passed);
    assert_eq!(step("a", right), None);
    assert_eq!(step("a", right.plus(hour)), Some(ClockStep::Forward(hour)));
    assert_eq!(
        step("a", right.minus(Duration::from_secs(4))),
        Some(ClockStep::Back(Duration::from_secs(4)))
    );
    assert_eq!(step("b", right.plus(hour)), None, "another boot");
}

#[test]
fn an_older_state_that_is_put_back_is_refused() {
    let (folder, mut dir) = opened();
    let file = folder.path().join("state_dir/state");
    found(&mut dir);
    dir.leave(&state(), &at(UnixNanos(10))).expect("room");
    let old = fs::read(&file).expect("it was left");
    assert!(matches!(found(&mut dir), Found::State(_)));
    for _ in 0..2 {
        fs::write(&file, &old).expect("room");
        assert!(
            matches!(found(&mut dir), Found::Refused(Refusal::NotTheLast)),
            "put back while it ran, or after"
        );
    }
    dir.leave(&state(), &at(UnixNanos(10))).expect("room");
    fs::remove_file(folder.path().join("state_dir/lease")).expect("it is there");
    assert!(matches!(
        found(&mut dir),
        Found::Refused(Refusal::NotTheLast)
    ));
}

#[test]
fn files_are_private_regular_and_no_links() {
    use std::os::unix::fs::symlink;

    let (folder, mut dir) = opened();
    let (inner, victim) = (
        folder.path().join("state_dir"),
        folder.path().join("victim"),
    );
    fs::write(&victim, "precious").expect("room");
    symlink(&victim, inner.join(STATE_NEW)).expect("a link");
    symlink(&victim, inner.join(LEASE_NEW)).expect("a link");
    found(&mut dir);
    dir.leave(&state(), &at(UnixNanos(10))).expect("room");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    for name in [LOCK, STATE, LEASE] {
        assert_eq!(mode(&inner.join(name)), 0o600, "{name}");
    }
    // Replace the state with a link, a FIFO and a directory.
    fs::remove_file(inner.join(STATE)).expect("it is there");
    symlink(&victim, inner.join(STATE)).expect("a link");
    assert!(
        matches!(found(&mut dir), Found::Refused(why) if why.to_string().contains("symbolic link"))
    );
    rustix::fs::mkfifoat(CWD, inner.join(STATE), PRIVATE_FILE).expect("a FIFO");
    assert!(matches!(found(&mut dir), Found::Refused(why) if why.to_string().contains("FIFO")));
    drop(dir);
    for name in [LOCK, LEASE] {
        fs::remove_file(inner.join(name)).expect("it is there");
        symlink(&victim, inner.join(name)).expect("a link");
        let refused = StateDir::open(&inner).and_then(|mut dir| {
            let (found, _) = dir.take_up(&at(UnixNanos(11)))?;
            Ok(found)
        });
        let error = refused.expect_err("a link").to_string();
        assert!(
            error.contains("symbolic link") && error.contains(name),
            "{error}"
        );
        fs::remove_file(inner.join(name)).expect("it is there");
    }
    assert_eq!(
        fs::read_to_string(&victim).expect("it is there"),
        "precious"
    );
}

#[test]
fn every_refusal_has_a_label_of_the_metric() {
    let refusals = [
        Refusal::Missing,
        Refusal::Unreadable(io::Error::other("x")),
        Refusal::Damaged(String::new()),
        Refusal::NotTheLast,
        Refusal::Old(AGE_MAX),
        Refusal::Ahead(AGE_MAX),
    ];
    assert_eq!(
        refusals.map(|refusal| refusal.reason()),
        crate::metrics::REJECTED_STATE
    );
}

#[test]
fn one_server_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = StateDir::open(folder.path()).expect("a folder");
    let refused = StateDir::open(folder.path()).expect_err("it is taken");
    assert!(
        refused.kind() == io::ErrorKind::ResourceBusy
            && refused.to_string().contains("stop that server"),
        "{refused}"
    );
    drop(dir);
    StateDir::open(folder.path()).expect("it is free again");
}

#[test]
fn any_changed_byte_is_noticed() {
    let (folder, mut dir) = opened();
    found(&mut dir);
    dir.leave(&state(), &at(UnixNanos(10))).expect("room");
    let whole = fs::read(folder.path().join("state_dir/state")).expect("it was left");
    assert!(parse(&whole).is_ok());
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        assert!(parse(&changed).is_err(), "byte {at}");
        assert!(parse(&whole[..at]).is_err(), "cut at {at}");
    }
}

/// A checksum proves no good intention.
#[test]
fn a_deeply_nested_state_is_rejected() {
    for nested in [
        vec![0x91; 100_000],
        [b"\x81\xa1x", &[0x91; 2000][..]].concat(),
    ] {
        let refused = parse(&sealed_bytes(&nested)).map(|_| ());
        assert!(matches!(refused, Err(Refusal::Damaged(_))), "{refused:?}");
    }
}
