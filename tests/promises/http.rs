//! The HTTP routes beside the feed.

use anyhow::Result;
use serde_json::Value;
use tickcast::protocol::Encoding;

use crate::harness::{Feed, market, subscribe};

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_over_http_are_those_of_the_feed() -> Result<()> {
    let feed = Feed::market(3, 3_000).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(subscribe(&["trade:*", "ticker:*"]))
        .await?;
    client.events(1_000).await?;
    let answer: Value = serde_json::from_str(
        &feed
            .get("/v1/snapshot?topics=trade:S1,ticker%3A*,trade:NO,x&events=5")
            .await?,
    )?;
    let ok = answer["ok"]
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
    let codes: Vec<_> = answer["err"]
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
        "more events than one answer holds"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn instruments_and_health_are_served() -> Result<()> {
    let feed = Feed::market(7, 10).await?;
    let answer: Value = serde_json::from_str(&feed.get("/v1/instruments").await?)?;
    assert_eq!(
        (
            answer["op"].as_str(),
            answer["instruments"].as_array().map(Vec::len)
        ),
        (Some("instruments"), Some(7))
    );
    assert_eq!(
        (feed.get("/healthz").await?, feed.get("/readyz").await?),
        ("ok\n".into(), "ok\n".into())
    );
    assert!(feed.get("/").await?.contains("<title>tickcast</title>"));
    assert!(
        feed.get("/v1/snapshot")
            .await?
            .contains("name what is wanted")
    );
    let refused = feed
        .http("DELETE /v1/instruments HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await?;
    assert!(
        refused.starts_with("HTTP/1.1 405") && refused.to_lowercase().contains("allow: get, head")
    );
    Ok(())
}

/// The page and the client module: compressed where that is understood, not sent twice, and under a policy that lets nothing else in.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_compressed_with_an_etag_and_a_strict_policy() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let get = |path: &str, headers: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
        let feed = &feed;
        async move {
            feed.http(&request)
                .await
                .map(|answer| answer.to_lowercase())
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
    let length = |answer: &str| {
        answer
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
    assert!(
        page.contains(
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'"
        ),
        "{page}"
    );
    assert!(
        !page.contains(" style=") && !page.contains("onclick") && !page.contains("<script>"),
        "nothing inline"
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

/// People develop their own pages against a feed on loopback; pages of other sites get nothing.
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
                "GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n"
            );
            let answer = feed.http(&request).await?.to_lowercase();
            assert_eq!(
                answer.contains(&format!("access-control-allow-origin: {origin}\r\n")),
                may,
                "{path} for {origin}: {answer}"
            );
            assert!(answer.contains("vary: origin"));
        }
    }
    Ok(())
}

/// Threat 27: on a port that others can reach metrics are not there, but on the operators' own.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_operators() -> Result<()> {
    let open = market(1, 10, "").replace("sources:", "shards: 1\nsources:");
    let config = tickcast::config::Config::parse(
        &format!("listen: 0.0.0.0:0\nadmin: {{listen: 127.0.0.1:0}}\n{open}"),
        "test",
    )?;
    let app = tickcast::app::App::start(&config).await?;
    let get = |address: std::net::SocketAddr| async move {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], address.port()));
        crate::harness::exchange(
            address,
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await
    };
    assert!(get(app.address()).await?.starts_with("HTTP/1.1 404"));
    let admin = app
        .admin_address()
        .ok_or_else(|| anyhow::anyhow!("an admin address"))?;
    assert!(
        get(admin)
            .await?
            .contains("tickcast_events_published_total")
    );
    Ok(())
}
