//! Tokens of our own clients: presented by each command, refused with a remedy, and renewed.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tickcast::app::App;
use tickcast::client::{Client, ConnectOptions, FeedUrl, Token};
use tickcast::config::Config;
use tickcast::protocol::Encoding;

use crate::auth::{jwt, seconds, sha256, with_jwt};
use crate::harness::{Feed, Tracked, market, subscribe};
use crate::terminal::TICKCAST;

/// Output of a command.
struct Ran {
    code: Option<i32>,
    errors: String,
    output: String,
}

/// Command of the program, without a token in its environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(TICKCAST);
    command.args(arguments).env_remove("TICKCAST_TOKEN");
    command
}

/// Runs a command to its end.
async fn run(mut command: Command) -> Result<Ran> {
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    Ok(Ran {
        code: output.status.code(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
    })
}

/// Server whose admin address is not a loopback one, so that it asks everybody for a token.
async fn start(config: &str) -> Result<(Feed, String, String)> {
    let text = format!("listen: 127.0.0.1:0\nadmin: {{listen: \"0.0.0.0:0\"}}\n{config}");
    let config = Config::parse(&text, "test").with_context(|| text.clone())?;
    let app = App::start(&config).await?;
    let admin = app.admin_address().context("an admin address")?;
    let address = app.address();
    let admin = format!("127.0.0.1:{}", admin.port());
    Ok((Feed { app, address }, address.to_string(), admin))
}

/// Config with the keys `op.canary-1`, which may do everything, and `quotes.canary-2`.
fn with_keys() -> String {
    let (a, b) = (sha256("canary-1"), sha256("canary-2"));
    market(
        2,
        200,
        &format!(
            "roles: {{op: {{topics: [\"*\"], admin: true, metrics: true}}, quotes: {{topics: [\"quote:*\"]}}}}\n\
             auth: {{scheme: keys, failures_per_minute: 1000, keys: [{{id: op, sha256: {a}, role: op}}, {{id: quotes, sha256: {b}, role: quotes}}]}}"
        ),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_presents_its_token() -> Result<()> {
    let (feed, address, admin) = start(&with_keys()).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("token");
    std::fs::write(&file, "op.canary-1\n")?;
    let file = file.display().to_string();
    let ways: [(&[&str], &str); 4] = [
        (&["--token", "op.canary-1"], ""),
        (&["--token-file", &file], ""),
        (&[], "op.canary-1"),
        // An option takes precedence over the environment.
        (&["--token-file", &file], "op.wrong"),
    ];
    let tail = ["tail", "--connect", &address, "--json", "--count", "5"];
    let (top, ready) = (["top", &admin, "--json"], ["ready", &admin]);
    for (options, variable) in ways {
        for arguments in [
            &tail[..],
            &top,
            &ready,
            &["fault", "list", "--admin", &admin],
        ] {
            let mut command = command(&[arguments, options].concat());
            command.env("TICKCAST_TOKEN", variable);
            let ran = run(command).await?;
            assert_eq!(
                ran.code,
                Some(0),
                "{arguments:?} {options:?}: {}",
                ran.errors
            );
        }
    }
    let load = [
        "load",
        "--connect",
        &address,
        "-c",
        "5",
        "-d",
        "1s",
        "--json",
    ];
    let load = [&load[..], &["--warmup", "0", "--token-file", &file]].concat();
    let ran = run(command(&load)).await?;
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    let outcome: Value = serde_json::from_str(&ran.output)?;
    assert_eq!(outcome["ledger"]["connections"], 5, "{outcome}");
    assert!(
        outcome["ledger"]["delivered"].as_u64() > Some(100),
        "{outcome}"
    );
    assert!(!ran.output.contains("canary"), "{}", ran.output);
    assert_eq!(feed.counted("authentications", "failed"), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_explained_with_the_remedy() -> Result<()> {
    let (_feed, address, admin) = start(&with_keys()).await?;
    let folder = tempfile::tempdir()?;
    let missing = folder.path().join("missing").display().to_string();
    let tail = ["tail", "--connect", &address, "--count", "1"];
    let load = ["load", "--connect", &address, "-c", "1", "-d", "1s"];
    let top = ["top", &admin, "--once"];
    let fault = ["fault", "list", "--admin", &admin];
    let commands = [&tail[..], &load, &top, &fault];
    let give = "give a token by --token-file PATH, --token TOKEN or TICKCAST_TOKEN";
    for arguments in commands {
        let without = run(command(arguments)).await?;
        assert_eq!(without.code, Some(1), "{arguments:?}: {}", without.errors);
        assert!(
            without.errors.contains("authentication required")
                || without.errors.contains("requires authentication"),
            "{}",
            without.errors
        );
        assert!(without.errors.contains(give), "{}", without.errors);
        let cases: [(&[&str], &[&str]); 4] = [
            (
                &["--token", "op.canary-9"],
                &["unknown key or wrong secret", "--token needs a token"],
            ),
            (
                &["--token", "op.canary 9"],
                &["invalid token: expected a key (ID.SECRET)"],
            ),
            (
                &["--token-file", &missing],
                &["cannot read the token in", "missing"],
            ),
            (
                &["--token", "a.b.canary"],
                &["401", "--token needs a token that this server accepts"],
            ),
        ];
        for (options, expected) in cases {
            let ran = run(command(&[arguments, options].concat())).await?;
            assert_eq!(ran.code, Some(1), "{arguments:?}: {}", ran.errors);
            for part in expected {
                assert!(ran.errors.contains(part), "{arguments:?}: {}", ran.errors);
            }
            assert!(!ran.errors.contains("canary"), "{}", ran.errors);
            assert_eq!(ran.errors.lines().count(), 1, "{}", ran.errors);
        }
    }
    for arguments in [&top[..], &fault] {
        let options = ["--token", "quotes.canary-2"];
        let ran = run(command(&[arguments, &options].concat())).await?;
        assert_eq!(ran.code, Some(1), "{}", ran.errors);
        let expected = "of the role is required; --token needs a token whose role has this right";
        assert!(ran.errors.contains(expected), "{}", ran.errors);
    }
    let both = ["--token", "op.canary-1", "--token-file", &missing];
    assert_eq!(
        run(command(&[&tail[..], &both].concat())).await?.code,
        Some(2)
    );
    Ok(())
}

/// Replaces a file by renaming, as other programs do.
fn replace(file: &Path, text: &str) -> Result<()> {
    let next = file.with_extension("next");
    std::fs::write(&next, text)?;
    Ok(std::fs::rename(&next, file)?)
}

/// Server for JSON Web Tokens, and a file for the token of a client.
async fn with_token_file(folder: &Path) -> Result<(Feed, std::path::PathBuf)> {
    let config = with_jwt(folder, ", failures_per_minute: 1000")?;
    Ok((Feed::start(&config).await?, folder.join("token")))
}

/// Starts `tail` of all trades and quotes as JSON lines, up to a number of events.
fn tail(feed: &Feed, file: &Path, count: &str) -> Result<std::process::Child> {
    let (address, file) = (feed.address.to_string(), file.display().to_string());
    let mut tail = command(&["tail", "--connect", &address, "--json", "--count", count]);
    tail.args(["--topics", "trade:*,quote:*", "--token-file", &file]);
    Ok(tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Waits for `tail` and verifies that each topic is complete; returns its standard error.
async fn complete(tail: std::process::Child) -> Result<String> {
    let output = tokio::task::spawn_blocking(move || tail.wait_with_output()).await??;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{errors}");
    let mut last: HashMap<String, u64> = HashMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        let number = message["seq"].as_u64();
        if let (Some(channel), Some(seq)) = (message["ch"].as_str(), number) {
            let topic = format!("{channel}:{}", message["sym"].as_str().unwrap_or_default());
            let before = last.insert(topic.clone(), seq).context("a snapshot")?;
            assert_eq!(seq, before + 1, "{topic} has a gap");
        } else if let (Some("snapshot"), Some(seq)) = (message["op"].as_str(), number) {
            let topic = message["topic"].as_str().unwrap_or_default();
            let before = last.insert(topic.to_owned(), seq);
            assert_eq!(before, None, "{topic} does not resume");
        }
        assert_ne!(message["op"], "gap", "{message}");
    }
    assert!(last.len() >= 4, "{last:?}");
    Ok(errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_renews_its_token_from_the_file_without_a_new_connection() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (feed, file) = with_token_file(folder.path()).await?;
    let ends = seconds(&feed) + 5.0;
    std::fs::write(&file, jwt("user-1", "reader", ends))?;
    let tail = tail(&feed, &file, "500")?;
    feed.until("the client", |feed| {
        feed.counted("authentications", "ok") == 1
    })
    .await?;
    replace(&file, &jwt("user-1", "reader", ends + 3600.0))?;
    let errors = complete(tail).await?;
    assert!(seconds(&feed) > ends, "the first token has ended");
    assert_eq!(errors, "");
    assert_eq!(feed.counted("authentications", "ok"), 2);
    assert_eq!(feed.counted("authentications", "expired"), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_resumes_with_a_token_that_comes_after_the_end_of_the_first() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (feed, file) = with_token_file(folder.path()).await?;
    std::fs::write(&file, jwt("user-1", "reader", seconds(&feed) + 3.0))?;
    let tail = tail(&feed, &file, "400")?;
    feed.until("the end of the token", |feed| {
        feed.counted("authentications", "expired") >= 2
    })
    .await?;
    replace(&file, &jwt("user-1", "reader", seconds(&feed) + 3600.0))?;
    let errors = complete(tail).await?;
    assert!(errors.contains("disconnected: token expired"), "{errors}");
    assert!(errors.contains("reconnected"), "{errors}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_renewed_ends_the_command_with_its_reason() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (feed, _) = with_token_file(folder.path()).await?;
    let address = feed.address.to_string();
    let token = jwt("user-1", "reader", seconds(&feed) + 3.0);
    let ran = run(command(&["tail", "--connect", &address, "--token", &token])).await?;
    assert_eq!(ran.code, Some(1));
    let expected = "disconnected: token expired (exp); --token needs a token";
    assert!(ran.errors.contains(expected), "{}", ran.errors);
    assert!(
        ran.errors.contains("use --token-file to renew it"),
        "{}",
        ran.errors
    );
    let ran = run(command(&["tail", "--connect", &address, "--token", &token])).await?;
    assert!(
        ran.errors.contains("HTTP 401: token expired"),
        "{}",
        ran.errors
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn load_renews_the_tokens_of_all_connections_and_its_ledgers_balance() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (feed, file) = with_token_file(folder.path()).await?;
    let ends = seconds(&feed) + 6.0;
    std::fs::write(&file, jwt("user-1", "reader", ends))?;
    let (address, path) = (feed.address.to_string(), file.display().to_string());
    let load = [
        "load",
        "--connect",
        &address,
        "-c",
        "20",
        "-d",
        "7s",
        "--json",
    ];
    let more = ["--warmup", "0", "--churn", "2", "--token-file", &path];
    let running = tokio::spawn(run(command(&[&load[..], &more].concat())));
    feed.until("all connections", |feed| {
        feed.counted("authentications", "ok") >= 21
    })
    .await?;
    replace(&file, &jwt("user-1", "reader", ends + 3600.0))?;
    let ran = running.await??;
    assert_eq!(ran.code, Some(0), "{} {}", ran.errors, ran.output);
    assert!(seconds(&feed) > ends, "the first token has ended");
    let outcome: Value = serde_json::from_str(&ran.output)?;
    assert_eq!(outcome["ledger"]["connections"], 20, "{outcome}");
    assert!(feed.counted("authentications", "ok") >= 41);
    assert_eq!(feed.counted("authentications", "expired"), 0);
    assert_eq!(feed.counted("authentications", "failed"), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn load_renews_the_tokens_of_connections_that_do_not_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (feed, file) = with_token_file(folder.path()).await?;
    let ends = seconds(&feed) + 3600.0;
    std::fs::write(&file, jwt("user-1", "reader", ends))?;
    let (address, path) = (feed.address.to_string(), file.display().to_string());
    let load = ["load", "--connect", &address, "-c", "10", "-d", "8s"];
    let more = ["--stalled", "50%", "--slow", "20%", "--slow-rate", "100"];
    let end = ["--warmup", "0", "--token-file", &path, "--json"];
    let running = tokio::spawn(run(command(&[&load[..], &more, &end].concat())));
    // One of them asks for the topics before the test.
    feed.until("all connections", |feed| {
        feed.counted("authentications", "ok") == 11
    })
    .await?;
    replace(&file, &jwt("user-1", "reader", ends + 3600.0))?;
    let ran = running.await??;
    assert_eq!(ran.code, Some(0), "{} {}", ran.errors, ran.output);
    let outcome: Value = serde_json::from_str(&ran.output)?;
    assert_eq!(outcome["ledger"]["connections"], 10, "{outcome}");
    // The server has announced no end, so that the connections that read keep their token.
    assert_eq!(feed.counted("authentications", "ok"), 11 + 7);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_renews_its_token_by_a_hook() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (feed, _) = with_token_file(folder.path()).await?;
    let url: FeedUrl = feed.address.to_string().parse()?;
    for encoding in Encoding::ALL {
        let begun = seconds(&feed);
        let calls = AtomicUsize::new(0);
        // The first token ends soon, the others last.
        let token = Token::hook(move || {
            let lasting = [2.0, 3600.0][calls.fetch_add(1, Ordering::Relaxed).min(1)];
            Ok(jwt("user-1", "reader", begun + lasting))
        });
        let options = ConnectOptions {
            token: Some(token),
            ..ConnectOptions::new(encoding)
        };
        let client = Client::connect_by(&url, &options).await?;
        let mut client = Tracked::welcome(client).await?;
        assert_eq!(client.welcome.auth, "ok");
        client.subscribe(subscribe(&["quote:*"])).await?;
        while seconds(&feed) < begun + 2.5 {
            client.events(1).await?;
        }
        client.ledger().await?;
    }
    assert_eq!(feed.counted("authentications", "ok"), 4);
    // A token that the program gets in another way.
    let mut client = feed.client(Encoding::Json).await?;
    let token = Token::new(jwt("user-1", "reader", seconds(&feed) + 3600.0));
    client.client.authenticate(&token).await?;
    client.subscribe(subscribe(&["quote:*"])).await?;
    client.events(1).await?;
    Ok(())
}
