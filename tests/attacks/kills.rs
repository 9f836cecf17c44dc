//! Kills and restarts with clients that resume: an epoch and a sequence number never mean two
//! different events, whatever happens to the state file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tickcast::client::{Accounts, Client, ClientError, Positions};
use tickcast::protocol::{Control, DataEvent, Encoding, Op, Seq, ServerMessage, Subscribe};

use crate::arena::{DEADLINE, Target, is_full, market};

/// Events that a client reads in each round.
const EVENTS_A_ROUND: usize = 50;

/// All events seen so far, by topic, epoch and sequence number.
#[derive(Default)]
struct Seen(HashMap<(String, String, u64), DataEvent>);

impl Seen {
    fn note(&mut self, epoch: &str, event: &DataEvent) -> Result<()> {
        let key = (event.topic.to_string(), epoch.to_owned(), event.seq.0);
        match self.0.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(event.clone());
            }
            Entry::Occupied(entry) => ensure!(
                entry.get() == event,
                "two events at {:?}: {:?} and {event:?}",
                entry.key(),
                entry.get(),
            ),
        }
        Ok(())
    }
}

/// Client that resumes where it was.
struct Returning {
    positions: Positions,
    /// Positions of the latest request.
    asked: HashMap<String, Seq>,
    recovered: usize,
}

impl Returning {
    /// Connects, resumes and reads events.
    async fn connect(&mut self, target: &Target, seen: &mut Seen) -> Result<(Client, Accounts)> {
        let mut client = Client::connect(target.feed, Encoding::Msgpack).await?;
        let (mut accounts, from) = (Accounts::default(), self.positions.resume_from());
        let asked = from.iter().flat_map(|from| &from.seqs);
        self.asked = asked
            .map(|(topic, seq)| (topic.to_string(), *seq))
            .collect();
        let request = Subscribe {
            topics: ["trade:*", "quote:*"].map(Into::into).to_vec(),
            from,
            ..Subscribe::default()
        };
        client.request(Op::Subscribe(request)).await?;
        let mut events = 0;
        while events < EVENTS_A_ROUND {
            let message = tokio::time::timeout(DEADLINE, client.next()).await??;
            events += self.take(&message, &mut accounts, seen)?;
        }
        Ok((client, accounts))
    }

    /// Takes a message into account; returns its number of events.
    fn take(
        &mut self,
        message: &ServerMessage,
        accounts: &mut Accounts,
        seen: &mut Seen,
    ) -> Result<usize> {
        accounts.take(message)?;
        self.positions.take(message);
        match message {
            ServerMessage::Events(events) => {
                for event in events {
                    let account = accounts.get(&event.topic.to_string());
                    seen.note(&account.context("an account")?.epoch, event)?;
                }
                return Ok(events.len());
            }
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                for event in &snapshot.events {
                    seen.note(&snapshot.epoch, event)?;
                }
            }
            ServerMessage::Control(Control::Subscribed(subscribed)) => {
                let entries = subscribed.ok.iter().flat_map(|entry| &entry.matched);
                for entry in entries.flatten() {
                    if entry.recovered == Some(true) {
                        self.recovered += 1;
                        accounts.resume(&entry.topic, self.asked[&entry.topic]);
                    }
                }
            }
            ServerMessage::Control(_) => {}
        }
        Ok(0)
    }
}

/// Changes a byte of a file, or cuts it, at a place that depends on the round.
fn damage(file: &Path, round: usize) -> Result<()> {
    let mut bytes = std::fs::read(file)?;
    ensure!(!bytes.is_empty(), "no state was saved");
    let at = round * 7919 % bytes.len();
    if round.is_multiple_of(2) {
        bytes[at] ^= 1 << (round % 8);
    } else {
        bytes.truncate(at);
    }
    Ok(std::fs::write(file, bytes)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_epoch_and_number_means_two_events_over_kills_and_damaged_state() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    let config = market(&format!("state_dir: {}", state.display()));
    let mut seen = Seen::default();
    let mut clients: Vec<Returning> = (0..2)
        .map(|_| Returning {
            positions: Positions::default(),
            asked: HashMap::new(),
            recovered: 0,
        })
        .collect();
    for round in 0..if is_full() { 200 } else { 10 } {
        let mut target = Target::start(&config)?;
        let mut open = Vec::new();
        for client in &mut clients {
            open.push(client.connect(&target, &mut seen).await?);
        }
        // Every other run is killed: one began without a usable state, the next one with one.
        if round % 2 == 0 {
            target.kill()?;
            continue;
        }
        target.terminate()?;
        for (client, (socket, accounts)) in clients.iter_mut().zip(&mut open) {
            loop {
                match tokio::time::timeout(DEADLINE, socket.next()).await? {
                    Ok(message) => {
                        client.take(&message, accounts, &mut seen)?;
                    }
                    Err(ClientError::Closed { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        target.wait()?;
        if round % 4 == 3 {
            damage(&state.join("state"), round)?;
        }
    }
    for client in &clients {
        ensure!(client.recovered > 0, "no topic was ever recovered");
    }
    let epochs: std::collections::HashSet<_> = seen.0.keys().map(|(_, epoch, _)| epoch).collect();
    ensure!(epochs.len() > 3, "{epochs:?}");
    Ok(())
}
