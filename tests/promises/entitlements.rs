//! Entitlements: a client sees the topics of its role through every interface, in the modes and
//! within the limits of the role, also after a reload; each refusal names its rule.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tickcast::config::Config;
use tickcast::protocol::{
    Control, DeliveryWish, Encoding, Entry, Mode, Op, Refusal, ResumeFrom, Seq, ServerMessage,
    SnapshotWish, Subscribe, TopicsAsked, TopicsChange,
};

use crate::harness::{DEADLINE, Feed, Stopwatch, Tracked, exchange, subscribe, wish};
use crate::publish::post;

/// Config with a role for clients without credentials and a push source of these symbols.
fn config(role: &str, symbols: &[&str]) -> String {
    let instruments: Vec<String> = symbols
        .iter()
        .map(|symbol| format!("{{symbol: {symbol}}}"))
        .collect();
    format!(
        "sources: [{{name: in, kind: push, open: true, stale_after: 1h, instruments: [{}]}}]\n\
         roles: {{public: {{publish: {{in: [\"*\"]}}, {role}}}}}\nauth: {{anonymous: public}}\n",
        instruments.join(", ")
    )
}

async fn reload(feed: &mut Feed, text: &str) -> Result<()> {
    let text = format!("listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\n{text}");
    feed.app.reload(&Config::parse(&text, "test")?).await;
    Ok(())
}

/// Publishes a trade and a quote of each symbol.
async fn publish(feed: &Feed, symbols: &[&str]) -> Result<()> {
    let line = |symbol: &&str| {
        format!(
            "{{\"ch\":\"trade\",\"sym\":\"{symbol}\",\"px\":\"1\",\"qty\":\"1\"}}\n\
             {{\"ch\":\"quote\",\"sym\":\"{symbol}\",\"bid\":\"1\",\"bidq\":\"1\",\"ask\":\"2\",\"askq\":\"1\"}}\n"
        )
    };
    let body: String = symbols.iter().map(line).collect();
    let (status, report) = post(feed, "application/x-ndjson", "", body.as_bytes()).await?;
    let accepted = format!("\"accepted\":{}", 2 * symbols.len());
    ensure!(status == 200 && report.contains(&accepted), "{report}");
    Ok(())
}

fn rule(rule: &str) -> String {
    format!("not entitled: role \"public\" allows {rule}")
}

/// Names and settings of entries.
fn named(entries: &[Entry]) -> Vec<String> {
    let mut names: Vec<String> = entries.iter().map(|entry| entry.topic.clone()).collect();
    names.sort();
    names
}

async fn topics_change(client: &mut Tracked) -> Result<TopicsChange> {
    client
        .control("topics", |control| match control {
            Control::Topics(change) => Some(change.clone()),
            _ => None,
        })
        .await
}

/// Everything that a client receives, as text, until a trade of `last` arrives.
async fn received_until(client: &mut Tracked, last: &str, all: &mut String) -> Result<()> {
    client
        .until("the last trade", |message| {
            all.extend([&format!("{message:?}"), "\n"]);
            let ServerMessage::Events(events) = message else {
                return None;
            };
            let is_last = |event: &tickcast::protocol::DataEvent| event.topic.to_string() == last;
            events.iter().any(is_last).then_some(())
        })
        .await
}

const SYMBOLS: [&str; 3] = ["OPEN1", "OPEN2", "SECRET1"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_invisible_leaks_through_any_operation() -> Result<()> {
    let feed = Feed::start(&config(
        "topics: [\"*:OPEN*\", \"status:S*\"], channels: [trade, quote, ticker, bar]",
        &SYMBOLS,
    ))
    .await?;
    publish(&feed, &SYMBOLS).await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        let mut all = String::new();
        let patterns = ["trade:*", "quote:*", "ticker:*", "bar:*:1m", "status:*"];
        let near = [
            "quote:SECRE",
            "trade:SECRET",
            "quote:secret1",
            "bar:SECRET:1d",
            "trade:S*",
        ];
        let topics = [&patterns[..], &near].concat();
        let ops = [
            Op::Subscribe(Subscribe {
                from: Some(ResumeFrom {
                    epoch: feed_epoch(&client),
                    seqs: vec![
                        ("ticker:SECRE".into(), Seq(1)),
                        ("quote:OPEN".into(), Seq(1)),
                    ],
                    epochs: Vec::new(),
                }),
                ..subscribe(&topics)
            }),
            Op::Modify {
                topics: topics.iter().map(|topic| (*topic).into()).collect(),
                wish: wish(Mode::Raw, None),
            },
            Op::Resync {
                topics: topics.iter().map(|topic| (*topic).into()).collect(),
            },
            Op::Instruments {
                pattern: "*".into(),
            },
            Op::Instruments {
                pattern: "SECRET*".into(),
            },
            Op::Instruments {
                pattern: "S*".into(),
            },
            Op::Subscriptions,
            Op::Ledger,
            Op::Ping { t: 1 },
        ];
        for op in ops {
            client.ask(op).await?;
        }
        publish(&feed, &["SECRET1", "OPEN1"]).await?;
        received_until(&mut client, "trade:OPEN1", &mut all).await?;
        client.ledger().await?;
        ensure!(
            all.contains("trade:OPEN2") && all.contains("OPEN1"),
            "{all}"
        );
        assert!(!all.contains("SECRET1"), "{encoding:?}: {all}");
    }
    Ok(())
}

/// Epoch of the server, as a client knows it.
fn feed_epoch(client: &Tracked) -> String {
    client.welcome.epoch.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_invisible_leaks_through_any_route() -> Result<()> {
    let role = "topics: [\"*:OPEN*\"], channels: [trade, ticker]";
    let feed = Feed::start(&config(role, &SYMBOLS)).await?;
    publish(&feed, &SYMBOLS).await?;
    for path in [
        "/",
        "/v1/instruments",
        "/v1/snapshot?topics=trade:*,quote:*,ticker:*,status:*,bar:*:1m",
        "/v1/snapshot?topics=trade:SECRE,trade:secret1,quote:S*,trade:OPEN9",
        "/v1/feed",
        "/v1/publish",
        "/healthz",
        "/metrics",
        "/v1/admin/sources",
        "/other",
    ] {
        let body = feed.get(path).await?;
        assert!(!body.contains("SECRET1"), "{path}: {body}");
    }
    let listed: Value = serde_json::from_str(&feed.get("/v1/instruments").await?)?;
    let listed = listed["instruments"].as_array().context("a list")?;
    let channels: Vec<_> = listed
        .iter()
        .map(|one| (&one["symbol"], &one["channels"]))
        .collect();
    let own = serde_json::json!(["trade", "ticker"]);
    assert_eq!(channels, [(&"OPEN1".into(), &own), (&"OPEN2".into(), &own)]);
    // A remote client with a role does not learn the names of sources.
    for (forwarded, shown) in [("", true), ("X-Forwarded-For: 10.0.0.1\r\n", false)] {
        let text = format!("{}\nready: {{require: [in]}}", config(role, &SYMBOLS));
        let starting = text.replace(
            "kind: push, open: true,",
            "kind: replay, files: [/nowhere.csv], ",
        );
        let starting = starting.replace("publish: {in: [\"*\"]}, ", "");
        let starting = starting.replace(
            "instruments: [{symbol: OPEN1}, {symbol: OPEN2}, {symbol: SECRET1}]",
            "symbol: A",
        );
        let feed = Feed::start(&starting).await?;
        let request = format!(
            "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{forwarded}\r\n"
        );
        let response = feed.http(&request).await?;
        assert!(response.contains("not ready"), "{response}");
        assert_eq!(response.contains("source in"), shown, "{response}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_topic_and_a_missing_one_get_the_same_answer_with_the_rule() -> Result<()> {
    let feed = Feed::start(&config("topics: [\"quote:OPEN*\", \"ticker:*\"]", &SYMBOLS)).await?;
    let allowed = rule("quote:OPEN*, ticker:*");
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        for topic in [
            "quote:SECRET1",
            "quote:SECRET9",
            "trade:OPEN1",
            "trade:*",
            "quote:S*",
            "bar:OPEN1:1m",
        ] {
            let answer = client.subscribe(subscribe(&[topic])).await?;
            assert_eq!(answer.err, [refusal(topic, 409, &allowed)], "{topic}");
            let path = format!("/v1/snapshot?topics={topic}");
            let snapshot: Value = serde_json::from_str(&feed.get(&path).await?)?;
            assert_eq!(snapshot["err"][0]["code"], 409, "{snapshot}");
            assert_eq!(snapshot["err"][0]["message"], allowed.as_str());
        }
        let answer = client
            .subscribe(subscribe(&["quote:OPENX", "quote:*"]))
            .await?;
        assert_eq!(
            named(answer.ok[0].matched.as_deref().unwrap_or_default()),
            ["quote:OPEN1", "quote:OPEN2"]
        );
        let unknown = "unknown topic; did you mean quote:OPEN2?";
        assert_eq!(answer.err, [refusal("quote:OPENX", 412, unknown)]);
    }
    Ok(())
}

fn refusal(topic: &str, code: u16, message: &str) -> Refusal {
    Refusal {
        topic: topic.to_owned(),
        code,
        message: message.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn atomic_requests_and_resumes_are_refused_by_the_rule() -> Result<()> {
    let feed = Feed::start(&config("topics: [\"quote:OPEN*\"]", &SYMBOLS)).await?;
    publish(&feed, &SYMBOLS).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    let atomic = Subscribe {
        atomic: true,
        ..subscribe(&["quote:OPEN1", "quote:SECRET1"])
    };
    let answer = client.subscribe(atomic).await?;
    let mut codes: Vec<_> = answer
        .err
        .iter()
        .map(|one| (&*one.topic, one.code))
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [("quote:OPEN1", 424), ("quote:SECRET1", 409)]);
    assert_eq!((answer.ok.len(), answer.count), (0, 0));
    // The position exists once the shard has read the published quote.
    let route = "/v1/snapshot?topics=quote:OPEN1";
    let published = async {
        while !feed.get(route).await?.contains("\"seq\":1") {}
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, published).await??;
    // A resume names topics that a pattern of the request covers, but the role does not.
    let resume = |seqs: &[&str]| Subscribe {
        from: Some(ResumeFrom {
            epoch: feed_epoch(&client),
            seqs: seqs.iter().map(|topic| ((*topic).into(), Seq(1))).collect(),
            epochs: Vec::new(),
        }),
        ..subscribe(&["quote:*", "quote:SECRET1"])
    };
    let request = resume(&[
        "quote:OPEN1",
        "quote:SECRET1",
        "quote:SECRET2",
        "trade:OPEN1",
    ]);
    let answer = client.subscribe(request).await?;
    let refused: Vec<_> = answer
        .err
        .iter()
        .map(|one| (&*one.topic, one.code, &*one.message))
        .collect();
    let allowed = rule("quote:OPEN*");
    let expected = ["quote:SECRET1", "quote:SECRET2", "trade:OPEN1"];
    assert_eq!(refused, expected.map(|topic| (topic, 409, &*allowed)));
    let recovered = answer.ok[0]
        .matched
        .iter()
        .flatten()
        .map(|one| one.recovered);
    assert_eq!(recovered.collect::<Vec<_>>(), [Some(true), None]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimum_interval_is_the_default_and_faster_modes_are_refused() -> Result<()> {
    let feed = Feed::start(&config("topics: [\"*\"], min_interval: 500ms", &SYMBOLS)).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let answer = client
        .subscribe(subscribe(&["quote:OPEN1", "ticker:*", "trade:OPEN1"]))
        .await?;
    let modes: Vec<_> = answer
        .ok
        .iter()
        .map(|entry| (&*entry.mode, entry.interval_ms))
        .collect();
    assert_eq!(modes, [("interval", Some(500)); 2]);
    let allowed = rule("* with mode interval of at least 500 ms");
    assert_eq!(answer.err, [refusal("trade:OPEN1", 409, &allowed)]);
    for mode in [Mode::Raw, Mode::Conflate, Mode::Interval(250)] {
        let request = Subscribe {
            wish: wish(mode, None),
            ..subscribe(&["quote:OPEN2"])
        };
        let answer = client.subscribe(request).await?;
        assert_eq!(
            answer.err,
            [refusal("quote:OPEN2", 409, &allowed)],
            "{mode:?}"
        );
        client
            .ask(Op::Modify {
                topics: vec!["quote:OPEN1".into()],
                wish: wish(mode, None),
            })
            .await?;
        let answer = client.subscribed().await?;
        assert_eq!(
            answer.err,
            [refusal("quote:OPEN1", 409, &allowed)],
            "{mode:?}"
        );
    }
    client
        .ask(Op::Modify {
            topics: vec!["quote:OPEN1".into()],
            wish: DeliveryWish {
                interval_ms: Some(1000),
                ..DeliveryWish::default()
            },
        })
        .await?;
    let answer = client.subscribed().await?;
    assert_eq!(answer.ok[0].interval_ms, Some(1000), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_grow_by_visible_instruments_only() -> Result<()> {
    let role = "topics: [\"*:OPEN*\"], limits: {topics: 3}";
    let mut feed = Feed::start(&config(role, &SYMBOLS)).await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        let answer = client.subscribe(subscribe(&["quote:*"])).await?;
        assert_eq!(answer.count, 2);
        let more = [&SYMBOLS[..], &["SECRET2", "OPEN3"]].concat();
        reload(&mut feed, &config(role, &more)).await?;
        let change = topics_change(&mut client).await?;
        assert_eq!(named(&change.added), ["quote:OPEN3"], "{change:?}");
        assert!(
            change.err.is_empty() && change.removed.is_empty(),
            "{change:?}"
        );
        // Beyond the limit of the role.
        let more = [&more[..], &["OPEN4"]].concat();
        reload(&mut feed, &config(role, &more)).await?;
        let change = topics_change(&mut client).await?;
        let refused: Vec<_> = change
            .err
            .iter()
            .map(|one| (&*one.topic, one.code))
            .collect();
        assert_eq!(refused, [("quote:OPEN4", 405)], "{change:?}");
        reload(&mut feed, &config(role, &SYMBOLS)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_and_adds_topics_of_connected_clients_within_five_seconds() -> Result<()> {
    let wide = config("topics: [\"quote:*\", \"trade:*\"]", &SYMBOLS);
    let narrow = config("topics: [\"quote:OPEN*\"]", &SYMBOLS);
    let mut feed = Feed::start(&wide).await?;
    let mut clients = Vec::new();
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        let answer = client
            .subscribe(subscribe(&[
                "quote:*",
                "trade:S*",
                "trade:SECRET1",
                "trade:OPEN1",
            ]))
            .await?;
        assert_eq!(answer.count, 5);
        clients.push(client);
    }
    let watch = Stopwatch::start();
    reload(&mut feed, &narrow).await?;
    let allowed = rule("quote:OPEN*");
    for client in &mut clients {
        let mut change = topics_change(client).await?;
        change.removed.sort_by(|a, b| a.topic.cmp(&b.topic));
        let expected = ["quote:SECRET1", "trade:OPEN1", "trade:SECRET1"];
        assert_eq!(
            change.removed,
            expected.map(|topic| refusal(topic, 409, &allowed))
        );
    }
    ensure!(
        watch.elapsed() < Duration::from_secs(5),
        "{:?}",
        watch.elapsed()
    );
    publish(&feed, &["SECRET1", "OPEN1"]).await?;
    for client in &mut clients {
        // Events of a removed topic would be an error of the accounts.
        client.events(1).await?;
        let held: Vec<_> = client
            .ledger()
            .await?
            .into_iter()
            .map(|one| one.topic)
            .collect();
        assert_eq!(held, ["quote:OPEN1", "quote:OPEN2"]);
        let answer = client.subscribe(subscribe(&["trade:OPEN1"])).await?;
        assert_eq!(answer.err, [refusal("trade:OPEN1", 409, &allowed)]);
        // A pattern of which nothing is visible can be given up.
        client
            .ask(Op::Unsubscribe(TopicsAsked::These(vec!["trade:S*".into()])))
            .await?;
        let refused = client
            .control("unsubscribed", |control| match control {
                Control::Unsubscribed(answer) => Some(answer.err.clone()),
                _ => None,
            })
            .await?;
        assert_eq!(refused, []);
    }
    // The pattern is still held: its topics return with the right to them. A name does not.
    reload(&mut feed, &wide).await?;
    for client in &mut clients {
        let change = topics_change(client).await?;
        assert_eq!(named(&change.added), ["quote:SECRET1"], "{change:?}");
        assert!(change.removed.is_empty());
        assert_eq!(client.ledger().await?.len(), 3);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_subscriptions_in_modes_that_are_no_longer_allowed() -> Result<()> {
    let mut feed = Feed::start(&config("topics: [\"*\"]", &SYMBOLS)).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(subscribe(&["quote:*", "ticker:OPEN1"]))
        .await?;
    let slow = Subscribe {
        wish: wish(Mode::Interval(1000), None),
        ..subscribe(&["quote:OPEN1"])
    };
    client.subscribe(slow).await?;
    reload(
        &mut feed,
        &config("topics: [\"*\"], min_interval: 250ms", &SYMBOLS),
    )
    .await?;
    let mut change = topics_change(&mut client).await?;
    change.removed.sort_by(|a, b| a.topic.cmp(&b.topic));
    let allowed = rule("* with mode interval of at least 250 ms");
    let expected = ["quote:*", "quote:OPEN2", "quote:SECRET1", "ticker:OPEN1"];
    assert_eq!(
        change.removed,
        expected.map(|topic| refusal(topic, 409, &allowed))
    );
    let held: Vec<_> = client
        .ledger()
        .await?
        .into_iter()
        .map(|one| one.topic)
        .collect();
    assert_eq!(held, ["quote:OPEN1"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_role_replace_those_of_the_server() -> Result<()> {
    let role = "topics: [\"*\"], snapshot_events: 7, limits: {topics: 2, requests_per_s: 3, connections: 2}";
    let mut feed = Feed::start(&config(role, &SYMBOLS)).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let limits = client.welcome.limits;
    assert_eq!(
        (limits.topics, limits.requests_per_s, limits.snapshot_events),
        (2, 3, 7)
    );
    let answer = client
        .subscribe(subscribe(&["quote:*", "quote:OPEN1"]))
        .await?;
    let refused: Vec<_> = answer
        .err
        .iter()
        .map(|one| (&*one.topic, one.code))
        .collect();
    assert_eq!((refused, answer.count), (vec![("quote:*", 405)], 1));
    let request = |events| Subscribe {
        snapshot: Some(SnapshotWish::Events(events)),
        ..subscribe(&["trade:OPEN1"])
    };
    let answer = client.subscribe(request(8)).await?;
    assert_eq!(
        (answer.err[0].code, &*answer.err[0].message),
        (400, "`snapshot` must be from 1 to 7 events")
    );
    // Of the burst of 15 requests, two are left for each that was made.
    for _ in 0..20 {
        client.ask(Op::Ping { t: 1 }).await?;
    }
    let (code, message) = client.error().await?;
    assert_eq!((code, &*message), (429, "more than 3 requests per second"));

    let second = feed.client(Encoding::Json).await?;
    let mut third = tickcast::client::Client::connect(feed.address, Encoding::Json).await?;
    let ServerMessage::Control(Control::Bye(bye)) = third.next().await? else {
        anyhow::bail!("expected bye");
    };
    assert_eq!((bye.code, bye.reconnect), (406, true));
    assert!(
        bye.message.contains("role \"public\" allows 2 connections"),
        "{}",
        bye.message
    );
    let closed = third.next().await.err().context("closed")?;
    assert!(
        matches!(
            closed,
            tickcast::client::ClientError::Closed { code: 4406, .. }
        ),
        "{closed}"
    );
    drop(second);
    feed.until("a free connection", |feed| {
        feed.metric("tickcast_connections") < 2.0
    })
    .await?;
    feed.client(Encoding::Json).await?;

    // A reload changes the limits of a connection.
    reload(
        &mut feed,
        &config("topics: [\"*\"], limits: {topics: 3}", &SYMBOLS),
    )
    .await?;
    let mut client = feed.client(Encoding::Json).await?;
    assert_eq!(client.subscribe(subscribe(&["quote:*"])).await?.count, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_publish_names_source_and_symbols() -> Result<()> {
    let text = config("topics: []", &SYMBOLS).replace("in: [\"*\"]", "in: [OPEN1, \"SE*\"]");
    let feed = Feed::start(&text).await?;
    let line = |symbol: &str| {
        format!("{{\"ch\":\"trade\",\"sym\":\"{symbol}\",\"px\":\"1\",\"qty\":\"1\"}}\n")
    };
    let body: String = ["OPEN1", "OPEN2", "MISSING", "SEX", "SECRET1"]
        .map(line)
        .concat();
    let (status, report) = post(&feed, "application/x-ndjson", "", body.as_bytes()).await?;
    let report: Value = serde_json::from_str(&report)?;
    assert_eq!(
        (status, &report["accepted"], &report["refused"]),
        (200, &2.into(), &3.into())
    );
    let errors = report["errors"].as_array().context("a list")?;
    let errors: Vec<_> = errors
        .iter()
        .map(|one| (one["line"].as_u64(), one["code"].as_u64()))
        .collect();
    assert_eq!(
        errors,
        [
            (Some(2), Some(409)),
            (Some(3), Some(409)),
            (Some(4), Some(412))
        ]
    );
    let message = "not entitled: role \"public\" may not publish symbol \"OPEN2\"";
    assert_eq!(report["errors"][0]["message"], message);
    assert_eq!(feed.counted("rejected_input", "not_entitled"), 2);
    // Without the right to any source.
    let text = config("topics: []", &SYMBOLS).replace("publish: {in: [\"*\"]}, ", "");
    let feed = Feed::start(&text).await?;
    let (status, report) = post(&feed, "application/x-ndjson", "", body.as_bytes()).await?;
    assert_eq!(status, 401, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_admin_are_separate_rights() -> Result<()> {
    for (rights, metrics, admin) in [
        ("topics: []", 403, 403),
        ("metrics: true", 200, 403),
        ("admin: true", 403, 200),
    ] {
        let feed = Feed::start(&config(rights, &SYMBOLS)).await?;
        let address = feed.app.admin_address().context("an admin address")?;
        for (path, expected) in [
            ("/metrics", metrics),
            ("/v1/admin/sources", admin),
            ("/v1/admin/connections", admin),
            ("/healthz", 200),
        ] {
            let request = |more: &str| {
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
            };
            let remote = request("X-Forwarded-For: 10.0.0.1\r\n");
            let response = exchange(address, remote.as_bytes()).await?;
            assert!(
                response.starts_with(&format!("HTTP/1.1 {expected}")),
                "{rights} {path}: {response}"
            );
            // Programs on this machine are trusted.
            let response = exchange(address, request("").as_bytes()).await?;
            assert!(
                response.starts_with("HTTP/1.1 200"),
                "{rights} {path}: {response}"
            );
        }
    }
    Ok(())
}
