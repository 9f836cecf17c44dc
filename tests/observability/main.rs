//! Observability: metrics, dashboards, rules and alerts agree, and a real Prometheus has data for
//! all of them. A separate binary, so that nothing else runs during the measurements.

mod alerts;
mod cluster;
mod dashboards;
#[expect(dead_code, reason = "a part of it serves the tests of the cluster")]
#[path = "../cluster/nats.rs"]
mod nats;
mod packaging;
#[expect(dead_code, reason = "a part of it serves the tests of the cluster")]
#[path = "../cluster/process.rs"]
mod process;
mod prometheus;
