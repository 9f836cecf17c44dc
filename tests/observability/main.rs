//! Observability: metrics, dashboards, rules and alerts agree, and a real Prometheus has data for
//! all of them. A separate binary, so that nothing else runs during the measurements.

mod alerts;
mod dashboards;
mod packaging;
mod prometheus;
