//! What whoever runs a feed sees: the catalogue of metrics, boards, rules and alerts agree, and a real Prometheus gets data for all
//! of them. A binary of its own, so that nothing else runs beside what is measured here.

mod alerts;
mod boards;
mod packaging;
mod prometheus;
