//! Authentication: keys, tokens, tickets, and the states of a session.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use data_encoding::BASE64URL_NOPAD;
use futures_util::{SinkExt, StreamExt};
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tickcast::client::decode_server_message;
use tickcast::config::Config;
use tickcast::protocol::{Control, Encoding, Op, ServerMessage};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{Feed, Stopwatch, Tracked, deadline, market, subscribe};

/// Hexadecimal SHA-256 of a secret.
pub(crate) fn sha256(secret: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(secret))
}

/// Config with the scheme `keys` and two keys: `alice.secret-a` and `bob.secret-b`.
fn with_keys(rest: &str) -> String {
    let (a, b) = (sha256("secret-a"), sha256("secret-b"));
    market(
        2,
        50,
        &format!(
            "roles: {{reader: {{topics: [\"*\"]}}, quotes: {{topics: [\"quote:*\"]}}, operator: {{admin: true, metrics: true}}}}\n\
             auth: {{scheme: keys, keys: [{{id: alice, sha256: {a}, role: reader}}, {{id: bob, sha256: {b}, role: quotes}}]{rest}}}"
        ),
    )
}

pub(crate) async fn authenticate(client: &mut Tracked, token: &str) -> Result<()> {
    client
        .ask(Op::Auth {
            token: token.to_owned(),
        })
        .await
}

/// Waits for `authenticated`; returns its expiry.
async fn authenticated(client: &mut Tracked) -> Result<Option<u64>> {
    client
        .control("authenticated", |control| match control {
            Control::Authenticated(answer) => Some(answer.expires),
            _ => None,
        })
        .await
}

/// GET request with an `Authorization` header; returns status and head.
async fn get(feed: &Feed, path: &str, more: &str) -> Result<(u16, String)> {
    request(feed, "GET", path, more).await
}

async fn request(feed: &Feed, method: &str, path: &str, more: &str) -> Result<(u16, String)> {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
    let response = feed.http(&request).await?;
    let status = response.split(' ').nth(1).context("missing status")?;
    Ok((status.parse()?, response))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_first_message_opens_the_feed() -> Result<()> {
    let feed = Feed::start(&with_keys("")).await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        assert_eq!(client.welcome.auth, "required");
        client.ask(Op::Subscribe(subscribe(&["quote:S1"]))).await?;
        let (code, message) = client.error().await?;
        assert_eq!(code, 401, "{message}");
        client.ask(Op::Ping { t: 7 }).await?;
        client
            .control("pong", |control| match control {
                Control::Pong(pong) => Some(pong.t),
                _ => None,
            })
            .await?;
        authenticate(&mut client, "alice.secret-a").await?;
        assert_eq!(authenticated(&mut client).await?, None);
        let subscribed = client.subscribe(subscribe(&["quote:S1"])).await?;
        assert_eq!((subscribed.count, subscribed.err.len()), (1, 0));
        client.events(1).await?;
    }
    assert_eq!(feed.counted("authentications", "ok"), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_in_the_first_message_closes_with_4402() -> Result<()> {
    let feed = Feed::start(&with_keys("")).await?;
    let wrong = [
        "alice.secret-b",
        "carol.secret-a",
        "alice",
        "alice.",
        ".secret-a",
        "",
        "alice.secret-a ",
    ];
    for (at, token) in wrong.into_iter().enumerate() {
        let mut client = feed.client(Encoding::ALL[at % 2]).await?;
        authenticate(&mut client, token).await?;
        let (code, message) = client.error().await?;
        assert_eq!(code, 402, "{token}: {message}");
        assert!(!message.contains("secret-"), "{message}");
        let (bye, close) = client.closed().await?;
        let bye = bye.context("missing bye")?;
        assert_eq!((bye.code, bye.reconnect, close), (402, false, 4402));
    }
    assert_eq!(
        feed.counted("authentications", "failed"),
        wrong.len() as u64
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_authenticate_in_time_is_closed_with_4404() -> Result<()> {
    let feed = Feed::start(&with_keys(", timeout: 100ms")).await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        let (bye, close) = client.closed().await?;
        assert_eq!((bye.map(|bye| bye.code), close), (Some(404), 4404));
    }
    assert_eq!(feed.counted("authentications", "timeout"), 2);
    let mut client = feed.client(Encoding::Json).await?;
    authenticate(&mut client, "alice.secret-a").await?;
    authenticated(&mut client).await?;
    client.subscribe(subscribe(&["quote:S1"])).await?;
    client.events(20).await?;
    Ok(())
}

/// Connection whose handshake has further headers.
struct Upgraded(WebSocketStream<TcpStream>);

impl Upgraded {
    async fn next(&mut self) -> Result<ServerMessage> {
        loop {
            let message = deadline(self.0.next())
                .await?
                .context("the server has closed")??;
            if let Message::Text(text) = message {
                return Ok(decode_server_message(text.as_bytes(), Encoding::Json)?);
            }
        }
    }

    async fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.0.send(Message::text(text)).await?)
    }

    /// State in `welcome`.
    async fn welcome(&mut self) -> Result<String> {
        match self.next().await? {
            ServerMessage::Control(Control::Welcome(welcome)) => Ok(welcome.auth),
            other => bail!("expected welcome, received {other:?}"),
        }
    }
}

/// Handshake with further headers; returns the connection, or the status of the refusal.
async fn upgrade(
    feed: &Feed,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<Result<Upgraded, u16>> {
    let url = format!("ws://{}/v1/feed?encoding=json{query}", feed.address);
    let mut request = url.into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse()?);
    }
    let stream = TcpStream::connect(feed.address).await?;
    match deadline(client_async(request, stream)).await? {
        Ok((stream, _)) => Ok(Ok(Upgraded(stream))),
        Err(Error::Http(response)) => Ok(Err(response.status().as_u16())),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_requests_of_a_client_have_the_rate_of_its_role() -> Result<()> {
    let slow = "quotes: {topics: [\"quote:*\"], limits: {requests_per_s: 1}}";
    let config = with_keys("").replace("quotes: {topics: [\"quote:*\"]}", slow);
    let feed = Feed::start(&config).await?;
    let bob = "Authorization: Bearer bob.secret-b\r\n";
    let paths = ["/v1/instruments", "/v1/snapshot?topics=quote:S1"];
    for number in 0..5 {
        let (status, head) = get(&feed, paths[number % 2], bob).await?;
        assert_eq!(status, 200, "a burst of five seconds: {head}");
    }
    let mut refused = None;
    for _ in 0..100 {
        let (status, head) = get(&feed, paths[0], bob).await?;
        if status != 200 {
            refused = Some((status, head));
            break;
        }
    }
    let (status, head) = refused.context("no request was refused")?;
    assert_eq!(status, 429, "{head}");
    assert!(head.contains("\r\nretry-after: "), "{head}");
    assert!(
        head.contains("limits.requests_per_s of role \"quotes\""),
        "{head}"
    );
    assert_eq!(get(&feed, "/healthz", bob).await?.0, 200);
    let alice = "Authorization: Bearer alice.secret-a\r\n";
    for _ in 0..10 {
        assert_eq!(get(&feed, paths[0], alice).await?.0, 200, "another client");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_header_opens_the_feed_and_the_routes() -> Result<()> {
    let feed = Feed::start(&with_keys("")).await?;
    let bearer = "Authorization: Bearer alice.secret-a\r\n";
    for path in ["/v1/instruments", "/v1/snapshot?topics=quote:S1"] {
        let (status, head) = get(&feed, path, "").await?;
        assert_eq!(status, 401, "{path}");
        assert!(head.contains("www-authenticate: Bearer\r\n"), "{head}");
        let (status, head) = get(&feed, path, "Authorization: Bearer alice.wrong\r\n").await?;
        assert_eq!(status, 401, "{path}");
        assert!(head.contains("error=\"invalid_token\""), "{head}");
        assert!(head.ends_with("unknown key or wrong secret\n"), "{head}");
        assert_eq!(get(&feed, path, bearer).await?.0, 200, "{path}");
        for broken in ["Basic YTpi", "Bearer", "alice.secret-a"] {
            let header = format!("Authorization: {broken}\r\n");
            assert_eq!(get(&feed, path, &header).await?.0, 401, "{broken}");
        }
        let twice = bearer.repeat(2);
        assert_eq!(get(&feed, path, &twice).await?.0, 401, "twice");
    }
    for open in ["/", "/healthz", "/readyz"] {
        assert_eq!(get(&feed, open, "").await?.0, 200, "{open}");
    }
    let right = ("authorization", "bearer alice.secret-a");
    let Ok(mut client) = upgrade(&feed, "", &[right]).await? else {
        bail!("the handshake is refused");
    };
    assert_eq!(client.welcome().await?, "ok");
    client
        .send(r#"{"op":"subscribe","topics":["quote:S1"]}"#)
        .await?;
    while !matches!(client.next().await?, ServerMessage::Events(_)) {}
    let wrong = ("authorization", "Bearer alice.wrong");
    assert_eq!(upgrade(&feed, "", &[wrong]).await?.err(), Some(401));
    Ok(())
}

/// Secret of HS256.
const SECRET: &str = "a secret of at least thirty-two bytes";

/// Token of a subject that ends at this time, in seconds since 1970.
pub(crate) fn jwt(subject: &str, role: &str, exp: f64) -> String {
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let header = part(json!({"alg": "HS256", "typ": "JWT"}));
    let claims =
        part(json!({"iss": "id", "aud": "feed", "sub": subject, "role": role, "exp": exp}));
    let message = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(signed.as_ref()))
}

/// Config with the scheme `jwt`; the secret is in a file of the folder.
pub(crate) fn with_jwt(folder: &Path, rest: &str) -> Result<String> {
    let file = folder.join("secret");
    std::fs::write(&file, SECRET)?;
    Ok(market(
        2,
        50,
        &format!(
            "roles: {{reader: {{topics: [\"*\"]}}, quotes: {{topics: [\"quote:*\"]}}}}\n\
             auth: {{scheme: jwt, jwt: {{algorithms: [HS256], key_file: {}, issuer: id, audience: feed, leeway: 0, role_claim: role}}{rest}}}",
            file.display()
        ),
    ))
}

/// Time in seconds since 1970, by the clock of the server.
pub(crate) fn seconds(feed: &Feed) -> f64 {
    feed.app.clock().now().0 as f64 / 1e9
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_is_announced_renewed_and_then_closed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let feed = Feed::start(&with_jwt(folder.path(), "")?).await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        let first = jwt("user-1", "reader", seconds(&feed) + 30.0);
        authenticate(&mut client, &first).await?;
        let expires = authenticated(&mut client).await?.context("an end")?;
        assert!(expires as f64 / 1e9 < seconds(&feed) + 31.0);
        let (code, message) = client.error().await?;
        assert_eq!(code, 402, "the warning");
        assert!(message.contains("renew it with auth"), "{message}");
        client.subscribe(subscribe(&["quote:S1"])).await?;
        let second = jwt("user-1", "reader", seconds(&feed) + 2.0);
        authenticate(&mut client, &second).await?;
        authenticated(&mut client).await?;
        let (code, _) = client.error().await?;
        assert_eq!(code, 402, "the warning of the new token");
        client.events(5).await?;
        let (bye, close) = client.closed().await?;
        let bye = bye.context("missing bye")?;
        assert_eq!((bye.code, close), (402, 4402));
        assert!(bye.message.contains("expired"), "{}", bye.message);
    }
    assert_eq!(feed.counted("authentications", "expired"), 2);
    let mut client = feed.client(Encoding::Json).await?;
    let ends = seconds(&feed) + 3600.0;
    authenticate(&mut client, &jwt("user-1", "reader", ends)).await?;
    authenticated(&mut client).await?;
    authenticate(&mut client, &jwt("user-2", "reader", ends)).await?;
    let (code, message) = client.error().await?;
    assert_eq!(code, 402);
    assert!(message.contains("another subject"), "{message}");
    assert_eq!(client.closed().await?.1, 4402);
    Ok(())
}

/// The table of refused tokens is in `auth::tests::jwt`; here they arrive over sockets.
#[tokio::test(flavor = "multi_thread")]
async fn forged_and_expired_tokens_are_refused_in_every_place() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let feed = Feed::start(&with_jwt(folder.path(), ", failures_per_minute: 1000")?).await?;
    let good = jwt("user-1", "reader", seconds(&feed) + 600.0);
    let (head, _) = good.split_once('.').context("a token")?;
    let none = good.replacen(head, &BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#), 1);
    let forged = [
        jwt("user-1", "reader", seconds(&feed) - 1.0),
        jwt("user-1", "root", seconds(&feed) + 600.0),
        none,
        good.replace('.', ""),
        format!("{good}A"),
        "x".repeat(9000),
    ];
    for token in &forged {
        let mut client = feed.client(Encoding::Msgpack).await?;
        authenticate(&mut client, token).await?;
        assert_eq!(client.error().await?.0, 402);
        assert_eq!(client.closed().await?.1, 4402);
        let header = format!("Bearer {token}");
        let refused = upgrade(&feed, "", &[("authorization", &header)]).await?;
        assert_eq!(refused.err(), Some(401));
        let header = format!("Authorization: {header}\r\n");
        assert_eq!(get(&feed, "/v1/instruments", &header).await?.0, 401);
    }
    let header = format!("Authorization: Bearer {good}\r\n");
    assert_eq!(get(&feed, "/v1/instruments", &header).await?.0, 200);
    Ok(())
}

/// Text of a file with keys.
fn keys_file(ids: &[&str]) -> String {
    let key = |id: &&str| {
        let hash = sha256(&format!("secret-{id}"));
        format!("  - {{id: {id}, sha256: {hash}, role: reader}}\n")
    };
    format!("keys:\n{}", ids.iter().map(key).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_key_ends_its_sessions_within_five_seconds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("keys.yaml");
    std::fs::write(&file, keys_file(&["a", "b"]))?;
    let config = market(
        2,
        50,
        &format!(
            "roles: {{reader: {{topics: [\"*\"]}}}}\nauth: {{scheme: keys, keys_file: {}}}",
            file.display()
        ),
    );
    let feed = Feed::start(&config).await?;
    let mut clients = Vec::new();
    for id in ["a", "b"] {
        let mut client = feed.client(Encoding::Json).await?;
        authenticate(&mut client, &format!("{id}.secret-{id}")).await?;
        authenticated(&mut client).await?;
        client.subscribe(subscribe(&["quote:S1"])).await?;
        clients.push(client);
    }
    std::fs::write(&file, "keys: [{id: a")?;
    feed.until("the rejected file", |feed| {
        feed.counted("auth_keys_reloads", "rejected") == 1
    })
    .await?;
    for client in &mut clients {
        client.events(2).await?;
    }
    let begun = Stopwatch::start();
    std::fs::write(&file, keys_file(&["b", "c"]))?;
    let (bye, close) = clients[0].closed().await?;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((bye.map(|bye| bye.code), close), (Some(402), 4402));
    assert_eq!(feed.counted("authentications", "revoked"), 1);
    clients[1].events(2).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    authenticate(&mut client, "c.secret-c").await?;
    authenticated(&mut client).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_the_config_revokes_keys_and_changes_roles() -> Result<()> {
    let mut feed = Feed::start(&with_keys("")).await?;
    let mut clients = Vec::new();
    for token in ["alice.secret-a", "bob.secret-b"] {
        let mut client = feed.client(Encoding::Json).await?;
        authenticate(&mut client, token).await?;
        authenticated(&mut client).await?;
        clients.push(client);
    }
    let refused = clients[1].subscribe(subscribe(&["trade:S1"])).await?;
    assert_eq!(refused.err[0].code, 409);
    let text = with_keys("")
        .replace("role: quotes", "role: reader")
        .replace("id: alice", "id: carol");
    let config = format!("listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\n{text}");
    let reloaded = feed.app.reload(&Config::parse(&config, "test")?).await;
    assert!(
        reloaded.applied.contains(&"auth.keys".to_owned()),
        "{reloaded:?}"
    );
    assert_eq!(clients[0].closed().await?.1, 4402);
    let granted = clients[1].subscribe(subscribe(&["trade:S1"])).await?;
    assert_eq!(granted.count, 1);
    Ok(())
}

/// Response to `POST /v1/ticket`.
async fn ticket(feed: &Feed, more: &str) -> Result<String> {
    let more = format!("Content-Length: 0\r\n{more}");
    let (status, response) = request(feed, "POST", "/v1/ticket", &more).await?;
    let (_, body) = response.split_once("\r\n\r\n").context("missing body")?;
    anyhow::ensure!(status == 200, "{status}: {body}");
    let body: Value = serde_json::from_str(body)?;
    let ticket = body["ticket"].as_str().context("missing ticket")?;
    Ok(ticket.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_the_feed_once_for_its_origin() -> Result<()> {
    let origins = "allowed_origins: [self, \"https://app.example\"]\n";
    let feed = Feed::start(&(origins.to_owned() + &with_keys(""))).await?;
    let bearer = "Authorization: Bearer alice.secret-a\r\n";
    let page = ("origin", "https://app.example");
    let of_page = format!("{bearer}Origin: https://app.example\r\n");
    let query = format!("&ticket={}", ticket(&feed, &of_page).await?);
    let Ok(mut client) = upgrade(&feed, &query, &[page]).await? else {
        bail!("the ticket is refused");
    };
    assert_eq!(client.welcome().await?, "ok");
    client
        .send(r#"{"op":"subscribe","topics":["quote:S1"]}"#)
        .await?;
    while !matches!(client.next().await?, ServerMessage::Events(_)) {}
    assert_eq!(
        upgrade(&feed, &query, &[page]).await?.err(),
        Some(401),
        "used"
    );
    let own = format!("http://{}", feed.address);
    let query = format!("&ticket={}", ticket(&feed, &of_page).await?);
    let other = upgrade(&feed, &query, &[("origin", &own)]).await?;
    assert_eq!(other.err(), Some(401), "another origin");
    let query = format!("&ticket={}", ticket(&feed, bearer).await?);
    assert_eq!(upgrade(&feed, &query, &[page]).await?.err(), Some(401));
    assert_eq!(upgrade(&feed, "&ticket=x", &[page]).await?.err(), Some(401));
    for (more, status) in [
        ("", 401),
        ("Authorization: Bearer alice.x\r\n", 401),
        (&*format!("{bearer}Origin: https://evil.example\r\n"), 403),
    ] {
        let more = format!("Content-Length: 0\r\n{more}");
        let (found, _) = request(&feed, "POST", "/v1/ticket", &more).await?;
        assert_eq!(found, status, "{more}");
    }
    assert_eq!(get(&feed, "/v1/ticket", bearer).await?.0, 405);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_allowed_origins_may_ask_for_tickets() -> Result<()> {
    let origins = "allowed_origins: [self, \"https://app.example\"]\n";
    let feed = Feed::start(&(origins.to_owned() + &with_keys(""))).await?;
    let ask = |origin: &str| {
        format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n"
        )
    };
    for path in ["/v1/ticket", "/v1/instruments"] {
        let (status, head) = request(&feed, "OPTIONS", path, &ask("https://app.example")).await?;
        let head = head.to_lowercase();
        assert_eq!(status, 204, "{head}");
        assert!(
            head.contains("access-control-allow-origin: https://app.example\r\n"),
            "{head}"
        );
        assert!(
            head.contains("access-control-allow-headers: authorization\r\n"),
            "{head}"
        );
        let (status, head) = request(&feed, "OPTIONS", path, &ask("https://evil.example")).await?;
        assert_eq!(status, 403, "{head}");
        assert!(
            !head.to_lowercase().contains("access-control-allow-origin"),
            "{head}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_credentials_have_the_anonymous_role() -> Result<()> {
    let feed = Feed::start(&with_keys(", anonymous: quotes")).await?;
    let mut client = feed.client(Encoding::Json).await?;
    assert_eq!(client.welcome.auth, "none");
    let subscribed = client
        .subscribe(subscribe(&["quote:S1", "trade:S1"]))
        .await?;
    assert_eq!((subscribed.count, subscribed.err[0].code), (1, 409));
    let (status, response) = get(&feed, "/v1/snapshot?topics=quote:S1,trade:S1", "").await?;
    assert_eq!(status, 200, "{response}");
    assert!(response.contains("\"topic\":\"quote:S1\""), "{response}");
    assert!(response.contains("\"code\":409"), "{response}");
    let wrong = "Authorization: Bearer alice.wrong\r\n";
    assert_eq!(get(&feed, "/v1/instruments", wrong).await?.0, 401);
    authenticate(&mut client, "alice.secret-a").await?;
    authenticated(&mut client).await?;
    let subscribed = client.subscribe(subscribe(&["trade:S1"])).await?;
    assert_eq!((subscribed.count, subscribed.err.len()), (2, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_auth_wait_for_its_outcome() -> Result<()> {
    let hash = tickcast::auth::NewKey::make("slow", true);
    let tickcast::auth::Secret::Argon2(argon2) = &hash.secret else {
        bail!("expected an Argon2 hash");
    };
    let config = market(
        2,
        50,
        &format!(
            "roles: {{reader: {{topics: [\"*\"]}}}}\nauth: {{scheme: keys, keys: [{{id: slow, argon2: \"{}\", role: reader}}]}}",
            argon2.text()
        ),
    );
    let feed = Feed::start(&config).await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        authenticate(&mut client, &hash.token).await?;
        client.ask(Op::Subscribe(subscribe(&["quote:S1"]))).await?;
        client.ask(Op::Ping { t: 1 }).await?;
        authenticated(&mut client).await?;
        assert_eq!(client.subscribed().await?.count, 1);
        client.events(1).await?;
    }
    // Many expensive checks at once: the turns of the shard stay short, further ones are refused.
    let mut clients = Vec::new();
    for number in 0..8 {
        let mut client = feed.client(Encoding::Json).await?;
        authenticate(&mut client, &format!("slow.wrong{number}")).await?;
        clients.push(client);
    }
    let mut other = feed.client(Encoding::Json).await?;
    authenticate(&mut other, &hash.token).await?;
    authenticated(&mut other).await?;
    for client in &mut clients {
        assert_eq!(client.closed().await?.1, 4402);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_roles_open_publishing_and_the_admin_address() -> Result<()> {
    let (a, b) = (sha256("secret-a"), sha256("secret-b"));
    let feed = Feed::start(&format!(
        "sources: [{{name: in, kind: push, token_sha256: {}, instruments: [{{symbol: A}}, {{symbol: B}}]}}]\n\
         roles: {{publisher: {{publish: {{in: [A]}}}}, operator: {{admin: true}}, watcher: {{metrics: true}}}}\n\
         allowed_hosts: [admin.example]\n\
         auth: {{scheme: keys, keys: [{{id: p, sha256: {a}, role: publisher}}, {{id: o, sha256: {b}, role: operator}}, {{id: w, sha256: {a}, role: watcher}}]}}",
        sha256("of-the-source"),
    ))
    .await?;
    let lines = b"{\"ch\":\"trade\",\"sym\":\"A\",\"px\":\"1\",\"qty\":\"2\"}\n{\"ch\":\"trade\",\"sym\":\"B\",\"px\":\"1\",\"qty\":\"2\"}";
    let post = async |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        crate::publish::post(&feed, "application/x-ndjson", &header, lines).await
    };
    let (status, body) = post("p.secret-a").await?;
    let report: Value = serde_json::from_str(&body)?;
    assert_eq!((status, &report["accepted"]), (200, &json!(1)), "{report}");
    assert_eq!(report["errors"][0]["code"], json!(409), "{report}");
    let (_, body) = post("of-the-source").await?;
    let report: Value = serde_json::from_str(&body)?;
    assert_eq!(report["accepted"], json!(2), "{report}");
    assert_eq!(post("o.secret-b").await?.0, 403);
    assert_eq!(post("p.secret-b").await?.0, 401);
    let admin = feed.app.admin_address().context("an admin address")?;
    let status = async |path: &str, more: &str, host: &str| -> Result<u16> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
        let response = crate::harness::exchange(admin, request.as_bytes()).await?;
        Ok(response
            .split(' ')
            .nth(1)
            .context("missing status")?
            .parse()?)
    };
    for (path, right, wrong) in [
        ("/metrics", "w.secret-a", "o.secret-b"),
        ("/v1/admin/sources", "o.secret-b", "w.secret-a"),
    ] {
        assert_eq!(
            status(path, "", "localhost").await?,
            200,
            "a program on the machine"
        );
        let through_proxy = "admin.example";
        assert_eq!(status(path, "", through_proxy).await?, 401, "{path}");
        for (token, expected) in [(right, 200), (wrong, 403), ("w.x", 401)] {
            let header = format!("Authorization: Bearer {token}\r\n");
            assert_eq!(
                status(path, &header, through_proxy).await?,
                expected,
                "{path}"
            );
        }
    }
    assert_eq!(status("/healthz", "", "admin.example").await?, 200);
    Ok(())
}
