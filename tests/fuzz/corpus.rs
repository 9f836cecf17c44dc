//! Seed inputs of the targets.

use std::path::PathBuf;

/// Seeds of a target: the files of its corpus with their names, in order.
pub(crate) fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder().join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| unreachable!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no seeds in {}", folder.display());
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = std::fs::read(path).expect("a seed can be read");
        (name.into_owned(), bytes)
    };
    files.iter().map(read).collect()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}
