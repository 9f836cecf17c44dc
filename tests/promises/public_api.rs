//! Public interface of the library: five modules, and an example for each public type.

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

/// Names between `pub use` and `;` in a module file: its exported items.
fn exported(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for item in text.split("\npub use ").skip(1) {
        let list = item.split(';').next().unwrap_or_default();
        let list = list.rsplit("::").next().unwrap_or_default();
        let list = list.trim_matches(['{', '}', '\n', ' ']);
        names.extend(list.split(',').map(|name| name.trim().to_owned()));
    }
    names
}

/// Types declared in a text: names behind `pub struct` and `pub enum`.
fn declared(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines();
    lines.filter_map(|line| {
        let line = line
            .strip_prefix("pub struct ")
            .or_else(|| line.strip_prefix("pub enum "))?;
        line.split(|letter: char| !letter.is_alphanumeric()).next()
    })
}

/// Code blocks of doc comments, concatenated.
fn examples(text: &str) -> String {
    let mut found = String::new();
    let mut is_code = false;
    for line in text.lines().map(str::trim_start) {
        let Some(line) = line
            .strip_prefix("///")
            .or_else(|| line.strip_prefix("//!"))
        else {
            continue;
        };
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            is_code = !is_code && kind != "text";
        } else if is_code {
            found.push_str(line);
            found.push('\n');
        }
    }
    found
}

#[test]
fn each_public_type_is_used_in_an_example() -> Result<()> {
    let is_public = |name: &str| {
        let path = name.trim_start_matches("src/");
        let module = path.split(['/', '.']).next().unwrap_or_default();
        PUBLIC.contains(&module) || path == "lib.rs"
    };
    let files: Vec<(String, String)> = sources("src")?
        .into_iter()
        .filter(|(name, _)| is_public(name))
        .collect();
    let mut code: String = files.iter().map(|(_, text)| examples(text)).collect();
    for (_, text) in sources("examples")? {
        code.push_str(&text);
    }
    let words: BTreeSet<&str> = code
        .split(|letter: char| !letter.is_alphanumeric())
        .collect();
    let root = |name: &str| {
        let depth = name.matches('/').count();
        name.ends_with("/mod.rs") && depth == 2 || name == "src/topic.rs"
    };
    let exports: BTreeSet<String> = files
        .iter()
        .filter(|(name, _)| root(name))
        .flat_map(|(_, text)| exported(&format!("\n{text}")))
        .collect();
    let mut types = 0;
    let mut missing = Vec::new();
    for (name, text) in &files {
        for declared in declared(text) {
            if !root(name) && !exports.contains(declared) {
                continue;
            }
            types += 1;
            if !words.contains(declared) {
                missing.push(format!("{name}: {declared}"));
            }
        }
    }
    assert!(types > 80, "{types} types");
    assert!(
        missing.is_empty(),
        "{} of {types} public types occur in no example: {missing:#?}",
        missing.len()
    );
    Ok(())
}
