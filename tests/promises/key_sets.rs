//! Key sets of identity providers at an address.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tickcast::protocol::{Control, Encoding};

use crate::auth::{authenticate, seconds};
use crate::harness::{DEADLINE, Feed, Stopwatch, Tracked, market};

/// HTTPS server on its own port that answers each request with the present text.
struct KeyServer {
    address: std::net::SocketAddr,
    ca: String,
    /// Status line and body of the responses.
    response: Arc<Mutex<(String, String)>>,
    requests: Arc<AtomicUsize>,
}

impl KeyServer {
    fn start(body: String) -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der())
            .map_err(|error| anyhow::anyhow!(error))?;
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let server = Self {
            address: listener.local_addr()?,
            ca: certified.cert.pem(),
            response: Arc::new(Mutex::new(("200 OK".to_owned(), body))),
            requests: Arc::default(),
        };
        let (response, requests) = (Arc::clone(&server.response), Arc::clone(&server.requests));
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that gives up ends its connection only.
                let _ended = Self::serve(stream, &config, &response, &requests);
            }
        });
        Ok(server)
    }

    fn serve(
        stream: std::io::Result<std::net::TcpStream>,
        config: &Arc<ServerConfig>,
        response: &Mutex<(String, String)>,
        requests: &AtomicUsize,
    ) -> Result<()> {
        let connection = rustls::ServerConnection::new(Arc::clone(config))?;
        let mut tls = rustls::StreamOwned::new(connection, stream?);
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            tls.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        requests.fetch_add(1, Ordering::SeqCst);
        let (status, body) = response
            .lock()
            .map_err(|error| anyhow::anyhow!("{error}"))?
            .clone();
        let length = body.len();
        write!(
            tls,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        tls.conn.send_close_notify();
        Ok(tls.flush()?)
    }

    fn answer(&self, status: &str, body: String) -> Result<()> {
        *self
            .response
            .lock()
            .map_err(|error| anyhow::anyhow!("{error}"))? = (status.to_owned(), body);
        Ok(())
    }
}

/// Issuer with an Ed25519 key.
struct Issuer {
    kid: &'static str,
    pair: Ed25519KeyPair,
}

impl Issuer {
    fn new(kid: &'static str) -> Result<Self> {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let key = key.map_err(|error| anyhow::anyhow!("{error}"))?;
        let pair = Ed25519KeyPair::from_pkcs8(key.as_ref());
        let pair = pair.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self { kid, pair })
    }

    fn jwk(&self) -> Value {
        let point = BASE64URL_NOPAD.encode(self.pair.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": point})
    }

    fn token(&self, feed: &Feed) -> String {
        let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let claims = json!({"sub": "user", "exp": seconds(feed) + 600.0});
        let header = part(json!({"alg": "EdDSA", "kid": self.kid}));
        let message = format!("{header}.{}", part(claims));
        let signed = self.pair.sign(message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(signed.as_ref()))
    }
}

fn key_set(issuers: &[&Issuer]) -> String {
    json!({ "keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// Server whose tokens are signed by the keys of a key server, and the folder of `ca`, the certificates
/// that it trusts.
async fn start(keys: &KeyServer, ca: &str) -> Result<(Feed, TempDir)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, ca)?;
    let config = market(
        1,
        50,
        &format!(
            "roles: {{reader: {{topics: [\"*\"]}}}}\n\
             auth: {{scheme: jwt, failures_per_minute: 100000, jwt: {{algorithms: [EdDSA], jwks_url: \"https://localhost:{}/keys\", jwks_ca: {}, jwks_cooldown: 1s, \
             issuer: any, audience: any, role: reader}}}}",
            keys.address.port(),
            file.display()
        ),
    );
    let feed = Feed::start(&config).await?;
    feed.until("the first request for the keys", |feed| {
        feed.counted("auth_keys_reloads", "applied") + feed.counted("auth_keys_reloads", "rejected")
            > 0
    })
    .await?;
    Ok((feed, folder))
}

/// Presents a token of an issuer; returns the connection, and true if it is accepted.
async fn present(feed: &Feed, issuer: &Issuer) -> Result<(Tracked, bool)> {
    let mut client = feed.client(Encoding::Json).await?;
    authenticate(&mut client, &issuer.token(feed)).await?;
    let is_ok = client
        .control("an outcome", |control| match control {
            Control::Authenticated(_) => Some(true),
            Control::Error(_) => Some(false),
            _ => None,
        })
        .await?;
    Ok((client, is_ok))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_at_an_address_is_requested_again_and_kept_on_failure() -> Result<()> {
    let (old, new, unknown) = (Issuer::new("old")?, Issuer::new("new")?, Issuer::new("x")?);
    let keys = KeyServer::start(key_set(&[&old]))?;
    let (feed, _folder) = start(&keys, &keys.ca).await?;
    let outcome = async |issuer: &Issuer| present(&feed, issuer).await;
    let (mut first, is_ok) = outcome(&old).await?;
    assert!(is_ok, "the key of the set");
    // A failure and a response that is no key set keep the keys.
    for (status, body) in [("500 Oops", key_set(&[])), ("200 OK", "{}".to_owned())] {
        keys.answer(status, body)?;
        let rejected = feed.counted("auth_keys_reloads", "rejected");
        // Each unknown key asks again, at most once per cooldown.
        let begun = Stopwatch::start();
        while feed.counted("auth_keys_reloads", "rejected") == rejected {
            assert!(!outcome(&unknown).await?.1);
            assert!(begun.elapsed() < DEADLINE, "no request: {status}");
        }
        assert!(outcome(&old).await?.1, "{status}");
    }
    let before = keys.requests.load(Ordering::SeqCst);
    let begun = Stopwatch::start();
    for _ in 0..20 {
        assert!(!outcome(&unknown).await?.1);
    }
    let asked = keys.requests.load(Ordering::SeqCst) - before;
    let allowed = begun.elapsed().as_secs() as usize + 1;
    assert!(asked <= allowed, "{asked} requests, {allowed} allowed");
    // A new key is found by the first token that names it; the old one ends its sessions.
    keys.answer("200 OK", key_set(&[&new]))?;
    let begun = Stopwatch::start();
    while !outcome(&new).await?.1 {
        assert!(begun.elapsed() < DEADLINE, "no request for the new key");
    }
    assert_eq!(first.closed().await?.1, 4402);
    assert!(!outcome(&old).await?.1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_is_taken_from_a_trusted_server_only_without_redirects_and_within_a_bound()
-> Result<()> {
    let issuer = Issuer::new("a")?;
    let set = key_set(&[&issuer]);
    let (keys, other) = (
        KeyServer::start(set.clone())?,
        KeyServer::start(set.clone())?,
    );
    // The certificate of another server.
    let (feed, _folder) = start(&keys, &other.ca).await?;
    assert!(!present(&feed, &issuer).await?.1);
    assert_eq!(keys.requests.load(Ordering::SeqCst), 0);
    // A redirect, even to a server with a trusted certificate.
    let both = keys.ca.clone() + &other.ca;
    let port = other.address.port();
    let moved = format!("302 Found\r\nLocation: https://localhost:{port}/keys");
    keys.answer(&moved, String::new())?;
    let (feed, _folder) = start(&keys, &both).await?;
    assert!(!present(&feed, &issuer).await?.1);
    assert_eq!(other.requests.load(Ordering::SeqCst), 0);
    // A set that is valid, but too large.
    keys.answer("200 OK", set.clone() + &" ".repeat(256 * 1024))?;
    let (feed, _folder) = start(&keys, &keys.ca).await?;
    assert!(!present(&feed, &issuer).await?.1);
    assert!(keys.requests.load(Ordering::SeqCst) >= 2);
    // None of this is so for the set itself.
    keys.answer("200 OK", set)?;
    let (feed, _folder) = start(&keys, &keys.ca).await?;
    assert!(present(&feed, &issuer).await?.1);
    Ok(())
}
