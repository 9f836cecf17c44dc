//! TLS of the commands, as people type them.

use anyhow::{Context, Result, bail};

use crate::certificates::Certificates;
use crate::harness::market;
use crate::terminal::{Served, run, serve};

/// Server with a self-signed certificate, its feed's address and its fingerprint.
fn self_signed() -> Result<(Served, String, String)> {
    let market = ["--sim-instruments", "3", "--sim-rate", "2000"];
    let tls = ["--self-signed", "--tls-listen", "127.0.0.1:0"];
    let served = serve(&[&tls[..], &market].concat())?;
    let mut words = served.banner.split_whitespace();
    let feed = words.find(|word| word.starts_with("wss://"));
    let feed = feed.context("no address with TLS")?.to_owned();
    let fingerprint = words.skip_while(|word| *word != "sha-256").nth(1);
    let fingerprint = fingerprint.context("no fingerprint")?.to_owned();
    Ok((served, feed, fingerprint))
}

/// Runs a command; its exit code, standard error and standard output.
fn run_and_read(arguments: &[&str]) -> Result<(Option<i32>, String, Vec<u8>)> {
    let output = run(arguments)?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), errors, output.stdout))
}

#[test]
fn tail_and_ready_trust_a_pinned_certificate_and_no_other() -> Result<()> {
    let (_served, feed, fingerprint) = self_signed()?;
    let tail = ["tail", "--connect", &feed, "--json", "--topics", "trade:*"];
    let tail = [&tail[..], &["--count", "20"]].concat();
    let pin = ["--tls-fingerprint", &fingerprint];
    let (code, errors, lines) = run_and_read(&[&tail[..], &pin].concat())?;
    assert_eq!(code, Some(0), "{errors}");
    assert!(lines.split(|byte| *byte == b'\n').count() > 20);
    let (code, errors, _) = run_and_read(&tail)?;
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("--tls-fingerprint"), "{errors}");
    let other = ["--tls-fingerprint", &"0F".repeat(32)];
    assert_eq!(run_and_read(&[&tail[..], &other].concat())?.0, Some(1));

    let page = feed.replace("wss://", "https://").replace("/v1/feed", "");
    let (code, errors, _) = run_and_read(&[&["ready", &page][..], &pin].concat())?;
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(run_and_read(&["ready", &page])?.0, Some(1));
    Ok(())
}

#[test]
fn load_verifies_its_ledgers_over_tls() -> Result<()> {
    let (_served, feed, _) = self_signed()?;
    let load = ["load", "--connect", &feed, "-c", "30", "-d", "1s", "--json"];
    let clients = [
        "--topics",
        "quote:*,trade:*",
        "--slow",
        "10%",
        "--churn",
        "5",
    ];
    let (code, errors, outcome) =
        run_and_read(&[&load[..], &clients, &["--tls-insecure"]].concat())?;
    assert_eq!(code, Some(0), "{errors}");
    let outcome: serde_json::Value = serde_json::from_slice(&outcome)?;
    let ledger = &outcome["ledger"];
    assert!(ledger["delivered"].as_u64() > Some(1000), "{outcome}");
    assert_eq!(ledger["connections"], 30, "{outcome}");
    Ok(())
}

#[test]
fn a_server_does_not_start_with_wrong_certificates() -> Result<()> {
    let certificates = Certificates::new()?;
    let other = Certificates::new()?;
    std::fs::copy(other.path("server.key"), certificates.path("server.key"))?;
    let config = certificates.path("feeds.yaml");
    std::fs::write(&config, market(1, 100, &certificates.section("")))?;
    let config = config.display().to_string();
    for command in [&["check", &config][..], &["serve", "--config", &config]] {
        let output = run(command)?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("server.key"), "{errors}");
    }
    let missing =
        "listen: off\nsources: [{name: s, kind: sim, instruments: [{symbol: A, start: 1}]}]";
    let Err(error) = tickcast::config::Config::parse(missing, "f") else {
        bail!("a server needs an address")
    };
    assert!(
        error.to_string().contains("no address for clients"),
        "{error}"
    );
    Ok(())
}
