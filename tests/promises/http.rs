//! HTTP routes next to the feed.

use anyhow::{Context, Result};
use serde_json::Value;
use tickcast::protocol::Encoding;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::harness::{Feed, deadline, exchange, market, subscribe};

#[tokio::test(flavor = "multi_thread")]
async fn http_snapshots_equal_those_of_the_feed() -> Result<()> {
    let feed = Feed::market(3, 3_000).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(subscribe(&["trade:*", "ticker:*"]))
        .await?;
    client.events(1_000).await?;
    let response: Value = serde_json::from_str(
        &feed
            .get("/v1/snapshot?topics=trade:S1,ticker%3A*,trade:NO,x&events=5")
            .await?,
    )?;
    let ok = response["ok"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let sizes: Vec<_> = ok
        .iter()
        .map(|one| {
            (
                one["topic"].as_str().unwrap_or_default(),
                one["events"].as_array().map_or(0, Vec::len),
            )
        })
        .collect();
    assert_eq!(
        sizes,
        [
            ("trade:S1", 5),
            ("ticker:S1", 1),
            ("ticker:S2", 1),
            ("ticker:S3", 1)
        ]
    );
    assert_eq!(ok[0]["events"][4]["seq"], ok[0]["seq"]);
    let codes: Vec<_> = response["err"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| one["code"].as_u64().unwrap_or(0))
        .collect();
    assert_eq!(codes, [412, 412]);
    let many: Value =
        serde_json::from_str(&feed.get("/v1/snapshot?topics=trade:*&events=1000").await?)?;
    assert_eq!(
        many["err"][0]["code"], 405,
        "more events than one response can contain"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn instruments_and_health_are_served() -> Result<()> {
    let feed = Feed::market(7, 10).await?;
    let response: Value = serde_json::from_str(&feed.get("/v1/instruments").await?)?;
    assert_eq!(
        (
            response["op"].as_str(),
            response["instruments"].as_array().map(Vec::len)
        ),
        (Some("instruments"), Some(7))
    );
    assert_eq!(
        (feed.get("/healthz").await?, feed.get("/readyz").await?),
        ("ok\n".into(), "ok\n".into())
    );
    assert!(feed.get("/").await?.contains("<title>tickcast</title>"));
    assert!(feed.get("/v1/snapshot").await?.contains("missing `topics`"));
    let refused = feed
        .http("DELETE /v1/instruments HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    assert!(
        refused.starts_with("HTTP/1.1 405") && refused.to_lowercase().contains("allow: get, head")
    );
    Ok(())
}

/// Threat 58: responses are produced as they are read, in a limited number at a time; unread ones
/// affect neither health checks nor the page.
#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_are_bounded_and_block_neither_health_checks_nor_the_page() -> Result<()> {
    let feed = Feed::start(&market(4_000, 10, "limits: {http_requests: 3}")).await?;
    let mut unread = Vec::new();
    for _ in 0..3 {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let mut stream = socket.connect(feed.address).await?;
        let request = b"GET /v1/instruments HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await?;
        stream.read_u8().await?;
        unread.push(stream);
    }
    for path in ["/v1/instruments", "/v1/snapshot?topics=trade:S1"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let refused = feed.http(&request).await?.to_lowercase();
        assert!(
            refused.starts_with("http/1.1 503") && refused.contains("retry-after"),
            "{refused}"
        );
    }
    assert_eq!(feed.counted("handshakes_rejected", "busy"), 2);
    assert_eq!(feed.get("/healthz").await?, "ok\n");
    assert!(feed.get("/").await?.contains("<title>"));
    drop(unread);
    let answered = async {
        loop {
            let body = feed.get("/v1/instruments").await?;
            if let Ok(response) = serde_json::from_str::<Value>(&body) {
                return anyhow::Ok(response);
            }
        }
    };
    let response = deadline(answered).await??;
    let list = response["instruments"]
        .as_array()
        .context("expected a list")?;
    let names: std::collections::HashSet<_> = list
        .iter()
        .filter_map(|one| one["symbol"].as_str())
        .collect();
    assert_eq!(
        (list.len(), names.len()),
        (4_000, 4_000),
        "the response is complete over all parts"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_snapshots_have_a_rate_limit_over_all_clients() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "limits: {http_requests_per_s: 1}")).await?;
    let mut refused = 0;
    for _ in 0..20 {
        let request = "GET /v1/snapshot?topics=trade:S1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        refused += u64::from(feed.http(request).await?.starts_with("HTTP/1.1 429"));
    }
    assert!(refused > 0, "no request was rejected with 429");
    assert_eq!(feed.counted("handshakes_rejected", "rate"), refused);
    let names = vec!["trade:S1"; 101].join(",");
    let many = feed.get(&format!("/v1/snapshot?topics={names}")).await?;
    assert!(!many.contains("\"ok\""), "{many}");
    Ok(())
}

/// The page and the client module: compressed on request, not sent twice, and under a strict
/// content security policy.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn the_page_is_served_compressed_with_an_etag_and_a_strict_policy() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let get = |path: &str, headers: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
        let feed = &feed;
        async move {
            feed.http(&request)
                .await
                .map(|response| response.to_lowercase())
        }
    };
    let (plain, packed) = (
        get("/tickcast.js", "").await?,
        get("/tickcast.js", "Accept-Encoding: br, gzip\r\n").await?,
    );
    assert!(
        plain.contains("content-type: text/javascript")
            && plain.contains("export function connect"),
        "{plain}"
    );
    let length = |response: &str| {
        response
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
            .unwrap_or(0)
    };
    assert!(
        packed.contains("content-encoding: gzip")
            && (1..length(&plain) / 2).contains(&length(&packed)),
        "{}",
        length(&packed)
    );
    let etag = plain
        .lines()
        .find_map(|line| line.strip_prefix("etag: w/"))
        .unwrap_or_default()
        .to_owned();
    assert!(
        get("/tickcast.js", &format!("If-None-Match: W/{etag}\r\n"))
            .await?
            .starts_with("http/1.1 304")
    );
    assert!(
        get("/tickcast.js", &format!("If-None-Match: {etag}\r\n"))
            .await?
            .starts_with("http/1.1 304")
    );
    assert!(
        get("/tickcast.js", "If-None-Match: \"other\"\r\n")
            .await?
            .starts_with("http/1.1 200")
    );
    let page = get("/", "").await?;
    let module = get("/tickcast.js", "").await?;
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for response in [&page, &module] {
        for (header, value) in [
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
        ] {
            let prefix = format!("{header}: ");
            let values = response
                .lines()
                .filter_map(|line| line.strip_prefix(&prefix));
            assert_eq!(values.collect::<Vec<_>>(), [value], "{header}");
        }
    }
    assert!(
        !page.contains(" style=") && !page.contains("onclick") && !page.contains("<script>"),
        "the page has inline scripts or styles"
    );
    for path in [
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
        "/app/../../Cargo.toml",
        "/vendor/README.md",
        "/package.json",
        "/app/%00",
        "/app\\main.js",
    ] {
        assert!(get(path, "").await?.starts_with("http/1.1 40"), "{path}");
    }
    Ok(())
}

/// Pages under development on a loopback origin can read a feed on loopback; pages of other sites
/// cannot.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_loopback_origin_may_read_the_get_routes() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    for path in [
        "/tickcast.js",
        "/v1/instruments",
        "/v1/snapshot?topics=ticker:*",
        "/healthz",
    ] {
        for (origin, may) in [
            ("http://localhost:3000", true),
            ("http://[::1]:5173", true),
            ("https://evil.example", false),
            ("null", false),
        ] {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n"
            );
            let response = feed.http(&request).await?.to_lowercase();
            assert_eq!(
                response.contains(&format!("access-control-allow-origin: {origin}\r\n")),
                may,
                "{path} for {origin}: {response}"
            );
            assert!(response.contains("vary: origin"));
        }
    }
    Ok(())
}

/// Threat 55: a web page that rebinds its own host name to this machine gets no response on either
/// port, and cannot publish on either.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_hosts_are_rejected_first_on_both_ports() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "admin: {metrics_on_feed: true}").replace(
        "sources: [",
        "allowed_hosts: [feed.example]\nsources: [{name: in, kind: push, open: true, instruments: [{symbol: P}]}, ",
    ))
    .await?;
    let admin = feed
        .app
        .admin_address()
        .context("the admin listener is enabled")?;
    let status = async |address, request: &str, host: &str| -> Result<String> {
        let request = format!(
            "{request} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n\r\n"
        );
        let response = exchange(address, request.as_bytes()).await?;
        Ok(response[9..12].to_owned())
    };
    let (port, admin_port) = (feed.address.port(), admin.port());
    for (address, port, request) in [
        (feed.address, port, "GET /"),
        (feed.address, port, "GET /v1/feed"),
        (feed.address, port, "GET /v1/instruments"),
        (feed.address, port, "GET /metrics"),
        (feed.address, port, "GET /healthz"),
        (feed.address, port, "GET /nothing"),
        (feed.address, port, "POST /v1/publish"),
        (admin, admin_port, "GET /metrics"),
        (admin, admin_port, "GET /v1/admin/connections"),
        (admin, admin_port, "GET /nothing"),
    ] {
        for host in [format!("evil.example:{port}"), "evil.example".to_owned()] {
            assert_eq!(
                status(address, request, &host).await?,
                "421",
                "{request} {host}"
            );
        }
        for host in [
            format!("localhost:{port}"),
            format!("127.0.0.1:{port}"),
            "feed.example".to_owned(),
        ] {
            assert_ne!(
                status(address, request, &host).await?,
                "421",
                "{request} {host}"
            );
        }
    }
    assert_eq!(feed.counted("handshakes_rejected", "host"), 20);
    Ok(())
}

/// Threat 27: metrics are for operators; on the feed's port only if configured, for direct requests
/// from this machine.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_to_operators_only() -> Result<()> {
    let status = async |address, more: &str| -> Result<String> {
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{more}Connection: close\r\n\r\n");
        Ok(exchange(address, request.as_bytes()).await?[9..12].to_owned())
    };
    let by_default = Feed::market(1, 10).await?;
    let admin = by_default
        .app
        .admin_address()
        .context("the admin listener is enabled")?;
    assert_eq!(status(admin, "").await?, "200");
    assert_eq!(status(by_default.address, "").await?, "404");
    let feed = Feed::start(&market(1, 10, "admin: {metrics_on_feed: true}")).await?;
    assert_eq!(status(feed.address, "").await?, "200");
    for mark in [
        "X-Forwarded-For: 192.0.2.1\r\n",
        "Forwarded: for=192.0.2.1\r\n",
        "Via: 1.1 proxy\r\n",
        "X-Real-IP: 192.0.2.1\r\n",
    ] {
        assert_eq!(status(feed.address, mark).await?, "404", "{mark}");
    }
    Ok(())
}
