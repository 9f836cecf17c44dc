//! The public interface of the library: five modules.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::layers::sources;

/// Modules that other programs may use.
const PUBLIC: [&str; 5] = ["client", "load", "market", "protocol", "topic"];

/// The public modules of `src/lib.rs` without the feature `internals`.
fn public_modules(lib: &str) -> BTreeSet<&str> {
    let mut before = "";
    let mut found = BTreeSet::new();
    for line in lib.lines() {
        let name = line
            .strip_prefix("pub mod ")
            .and_then(|rest| rest.strip_suffix(';'));
        found.extend(name.filter(|_| before != r#"#[cfg(feature = "internals")]"#));
        before = line;
    }
    found
}

#[test]
fn only_the_documented_modules_are_public() -> Result<()> {
    let modules = public_modules(include_str!("../../src/lib.rs"));
    assert_eq!(modules, BTreeSet::from(PUBLIC));
    for (name, text) in sources("src")? {
        assert!(!text.contains("doc(hidden)"), "{name} hides a public item");
    }
    Ok(())
}
