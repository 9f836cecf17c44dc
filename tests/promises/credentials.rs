//! Credentials of open sessions when the rights of their clients change.

use anyhow::{Context, Result};
use tickcast::client::{Client, ConnectOptions, FeedUrl, Token};
use tickcast::config::Config;
use tickcast::protocol::Encoding;

use crate::auth::sha256;
use crate::harness::{Feed, Tracked, market, subscribe};

/// Config with the keys `a.secret`, `b.secret` of the role `reader`, and other keys of `auth`.
fn config(ids: &[&str], rest: &str) -> String {
    let hash = sha256("secret");
    let key = |id: &&str| format!("{{id: {id}, sha256: {hash}, role: reader}}");
    let keys: Vec<String> = ids.iter().map(key).collect();
    let keys = keys.join(", ");
    market(
        2,
        100,
        &format!(
            "roles: {{reader: {{topics: [\"*\"]}}, public: {{topics: [\"quote:*\"]}}, late: {{topics: [\"*\"], delay: 300ms}}}}\n\
             auth: {{scheme: keys, keys: [{keys}, {{id: late, sha256: {hash}, role: late}}]{rest}}}"
        ),
    )
}

/// Connection that presents a key in its handshake.
async fn with_key(feed: &Feed, key: &str) -> Result<Tracked> {
    let url: FeedUrl = feed.address.to_string().parse()?;
    let options = ConnectOptions {
        token: Some(Token::new(key)),
        ..ConnectOptions::new(Encoding::Msgpack)
    };
    Tracked::welcome(Client::connect_by(&url, &options).await?).await
}

async fn reload(feed: &mut Feed, config: &str) -> Result<()> {
    let text = format!("listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\n{config}");
    feed.app.reload(&Config::parse(&text, "test")?).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_anonymous_role_ends_the_sessions_without_credentials() -> Result<()> {
    let mut feed = Feed::start(&config(&["a"], ", anonymous: public")).await?;
    let mut anonymous = Vec::new();
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        client.subscribe(subscribe(&["quote:*"])).await?;
        client.events(1).await?;
        anonymous.push(client);
    }
    let mut client = with_key(&feed, "a.secret").await?;
    client.subscribe(subscribe(&["quote:*"])).await?;
    reload(&mut feed, &config(&["a"], "")).await?;
    for mut client in anonymous {
        let (bye, code) = client.closed().await?;
        let bye = bye.context("a bye before the close")?;
        assert_eq!((bye.code, bye.reconnect, code), (401, false, 4401));
        assert!(
            bye.message.contains("connect with a token"),
            "{}",
            bye.message
        );
    }
    client.events(50).await?;
    client.ledger().await?;
    // Clients that come later must authenticate, and have their time to do so.
    let mut later = feed.client(Encoding::Json).await?;
    assert_eq!(later.welcome.auth, "required");
    reload(&mut feed, &config(&["a", "b"], "")).await?;
    later.client.authenticate(&Token::new("b.secret")).await?;
    later.subscribe(subscribe(&["quote:*"])).await?;
    later.events(1).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_auth_into_a_delayed_role_is_final_and_the_handshake_is_accepted() -> Result<()> {
    let feed = Feed::start(&config(&["a"], "")).await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        client
            .client
            .authenticate(&Token::new("late.secret"))
            .await?;
        let (bye, code) = client.closed().await?;
        let bye = bye.context("a bye before the close")?;
        assert_eq!((bye.code, bye.reconnect, code), (409, false, 4409));
        let remedy = "present the token in the handshake (`Authorization: Bearer TOKEN`";
        assert!(bye.message.contains(remedy), "{}", bye.message);
        let client = with_key(&feed, "late.secret").await?;
        assert_eq!(client.welcome.auth, "ok");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sessions_of_a_removed_key_end_and_those_of_others_continue() -> Result<()> {
    let mut feed = Feed::start(&config(&["a", "b"], "")).await?;
    let mut removed = Vec::new();
    for _ in 0..100 {
        removed.push(with_key(&feed, "a.secret").await?);
    }
    let mut other = with_key(&feed, "b.secret").await?;
    other.subscribe(subscribe(&["quote:*", "trade:*"])).await?;
    reload(&mut feed, &config(&["b"], "")).await?;
    for mut client in removed {
        let (bye, code) = client.closed().await?;
        assert_eq!((bye.map(|bye| bye.code), code), (Some(402), 4402));
    }
    other.events(50).await?;
    other.ledger().await?;
    assert_eq!(feed.counted("authentications", "revoked"), 100);
    Ok(())
}
