//! A saved state is compared with the clock and with the last run; a state that does not fit is
//! rejected with the reason.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::app::{App, Stopped};
use tickcast::client::Client;
use tickcast::clock::Clock;
use tickcast::config::Config;
use tickcast::market::UnixNanos;
use tickcast::protocol::{Encoding, ServerMessage};
use tickcast::state::{Found, State, StateDir};

use crate::harness::{Feed, Tracked, market, subscribe};

async fn start(folder: &Path) -> Result<App> {
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: off}}\nstate_dir: {}\n{}",
        folder.display(),
        market(2, 400, "")
    );
    Ok(App::start(&Config::parse(&text, "test")?).await?)
}

async fn client(app: &App) -> Result<Tracked> {
    let client = Client::connect(app.address(), Encoding::Msgpack).await?;
    let mut client = Tracked::welcome(client).await?;
    client.subscribe(subscribe(&["trade:*", "quote:*"])).await?;
    Ok(client)
}

/// Epoch, and publication time of the newest of some live events.
async fn observe(app: &App) -> Result<(String, UnixNanos)> {
    let mut client = client(app).await?;
    let events = client.events(50).await?;
    let newest = events.iter().map(|event| event.tx).max();
    Ok((
        client.welcome.epoch.clone(),
        newest.context("missing events")?,
    ))
}

/// Rejected states counted by `/metrics`.
fn refused(app: &App, reason: &str) -> bool {
    let text = String::from_utf8_lossy(&app.metrics().render()).into_owned();
    text.contains(&format!(
        "tickcast_states_rejected_total{{reason=\"{reason}\"}} 1"
    ))
}

/// Changes a saved state as if the clock had been off by this duration when it was saved.
fn shift(folder: &Path, shift: impl Fn(UnixNanos) -> UnixNanos) -> Result<()> {
    let mut dir = StateDir::open(folder)?;
    let now = Clock::start().moment();
    let (Found::State(mut state), _) = dir.take_up(&now)? else {
        anyhow::bail!("no valid state was saved");
    };
    let state: &mut State = &mut state;
    (state.stopped, state.tx) = (shift(state.stopped), shift(state.tx));
    for source in &mut state.sources {
        // The position of a simulation begins with its start and the time of that start.
        let place = source.place.as_mut().context("missing position")?;
        let mut value = rmpv::decode::read_value(&mut &place[..])?;
        if let rmpv::Value::Array(fields) = &mut value {
            let begun = fields[1].as_u64().context("expected a time")?;
            fields[1] = shift(UnixNanos(begun)).0.into();
        }
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &value)?;
        *place = bytes.into();
    }
    dir.leave(state, &now)?;
    Ok(())
}

/// The clock was half an hour ahead at the stop, or was set back since: the simulation must not be
/// silent for that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_from_the_future_is_rejected_and_the_market_starts_at_the_current_time()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let app = start(folder.path()).await?;
    let (epoch, _) = observe(&app).await?;
    ensure!(app.stop().await == Stopped::Complete);
    let ahead = Duration::from_secs(1800);
    shift(folder.path(), |time| time.plus(ahead))?;
    let app = start(folder.path()).await?;
    ensure!(
        refused(&app, "ahead"),
        "the rejection is not counted by its reason"
    );
    let (next, tx) = observe(&app).await?;
    assert_ne!(next, epoch);
    assert!(
        tx < Clock::start().now().plus(Duration::from_secs(60)),
        "published now"
    );
    app.stop().await;
    // The opposite case: the clock was set forward, or the server was down for that long.
    let (back, hours) = (Duration::from_secs(7200), tempfile::tempdir()?);
    let app = start(hours.path()).await?;
    observe(&app).await?;
    app.stop().await;
    shift(hours.path(), |time| time.minus(back))?;
    let app = start(hours.path()).await?;
    ensure!(
        refused(&app, "old"),
        "the rejection is not counted by its reason"
    );
    observe(&app).await?;
    app.stop().await;
    Ok(())
}

/// A copy of an older state does not restore its epoch, or its numbers would be reused for other
/// events.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_older_state_begins_a_new_epoch() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("state");
    let app = start(folder.path()).await?;
    let (epoch, _) = observe(&app).await?;
    app.stop().await;
    let old = std::fs::read(&file)?;
    let app = start(folder.path()).await?;
    assert_eq!(observe(&app).await?.0, epoch, "the last state is restored");
    app.stop().await;
    std::fs::write(&file, old)?;
    let app = start(folder.path()).await?;
    assert_ne!(observe(&app).await?.0, epoch);
    ensure!(
        refused(&app, "not_the_last"),
        "the rejection is not counted by its reason"
    );
    app.stop().await;
    Ok(())
}

/// The wall clock is set while the server runs: publication times follow, and never go back.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_follows_a_wall_clock_that_is_set_forward() -> Result<()> {
    let session = "session: {ping_after: 1h, drop_after: 2h}";
    let feed = Feed::start(&market(2, 400, session)).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["trade:S1"])).await?;
    client.events(20).await?;
    let clock = feed.app.clock();
    let set = clock.now().plus(Duration::from_secs(600));
    ensure!(clock.follow_time(set).stepped);
    let mut newest = UnixNanos(0);
    while newest < set {
        if let ServerMessage::Events(events) = client.next().await? {
            for event in events {
                ensure!(event.tx >= newest, "publication times went back");
                newest = event.tx;
            }
        }
    }
    client.ledger().await?;
    // Started before the clock was set: the market begins anew instead of catching up on decades.
    let set = clock.now().plus(Duration::from_secs(50 * 365 * 86_400));
    ensure!(clock.follow_time(set).stepped);
    // Earlier events may still be in transit.
    let mut later = self::client(&feed.app).await?;
    while !later.events(50).await?.iter().any(|event| event.tx >= set) {}
    Ok(())
}

/// A state that cannot be written is not a successful shutdown.
#[test]
fn an_unwritable_state_gives_exit_code_1() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state_dir");
    let arguments = [
        "--sim-instruments",
        "1",
        "--state-dir",
        &state.display().to_string(),
    ];
    let served = crate::terminal::serve(&arguments)?;
    // No file can be written under this name.
    std::fs::create_dir(state.join("state.new"))?;
    assert_eq!(served.terminate()?.code(), Some(1));
    std::fs::remove_dir(state.join("state.new"))?;
    let served = crate::terminal::serve(&arguments)?;
    assert_eq!(served.terminate()?.code(), Some(0));
    Ok(())
}
