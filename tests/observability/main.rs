//! Observability: the catalogue of metrics, dashboards, rules and alerts agree, and a real
//! Prometheus gets data for all of them. A binary of its own, so that nothing else runs beside what
//! is measured here.

mod alerts;
mod dashboards;
mod packaging;
mod prometheus;
