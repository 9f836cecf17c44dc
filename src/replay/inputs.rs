//! Inputs of a replay: expands folders, patterns, archives and compressed files.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::error::ReplayError;
use super::metered::{Counted, Metered, PackedBytes};
use super::unsupported;
use crate::files::open_regular;

/// Bytes read to detect the type of a file.
const MAGIC_BYTES: usize = 512;
/// Max nesting of folders.
const FOLDERS_DEEP: usize = 8;
/// Maximum number of files and archive entries of a source.
const INPUTS_MAX: usize = 4096;

/// One file, or one entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    pub path: PathBuf,
    /// Its number and its name in a zip archive.
    pub entry: Option<(usize, String)>,
    /// True if the config names the file itself. Others are skipped if they cannot be replayed.
    pub is_explicit: bool,
}

impl Input {
    /// Name in messages and in a checkpoint.
    pub(super) fn name(&self) -> String {
        let path = self.path.display();
        match &self.entry {
            None => path.to_string(),
            Some((_, entry)) => format!("{path}!{entry}"),
        }
    }
}

/// Files found for a source's names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub inputs: Vec<Input>,
    /// Names of skipped files, each with the reason.
    pub skipped: Vec<(String, String)>,
}

/// Lists the inputs to be opened, in order.
pub(super) fn list(patterns: &[PathBuf]) -> Result<Listing, ReplayError> {
    let mut listing = Listing::default();
    for pattern in patterns {
        let name = file_name(pattern);
        if name.contains('*') {
            let found = matching(pattern, &name)?;
            for path in found {
                add(&mut listing, path, false)?;
            }
        } else if pattern.is_dir() {
            walk(&mut listing, pattern, FOLDERS_DEEP)?;
        } else {
            add(&mut listing, pattern.clone(), true)?;
        }
    }
    if listing.inputs.len() > INPUTS_MAX {
        let error = format!("more than {INPUTS_MAX} files; split them over several sources");
        return Err(ReplayError::new(&patterns[0], error, true));
    }
    Ok(listing)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn matching(pattern: &Path, name: &str) -> Result<Vec<PathBuf>, ReplayError> {
    let folder = pattern
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut found = entries(folder).map_err(|error| ReplayError::new(pattern, error, false))?;
    let matcher = matcher(name).map_err(|error| ReplayError::new(pattern, error, true))?;
    found.retain(|path| !path.is_dir() && matcher.is_match(file_name(path)));
    if found.is_empty() {
        let error = "no file matches this pattern";
        return Err(ReplayError::new(pattern, error, false));
    }
    Ok(found)
}

fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let listed = std::fs::read_dir(folder)?;
    let mut found = listed
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    found.sort();
    Ok(found)
}

fn walk(listing: &mut Listing, folder: &Path, deep: usize) -> Result<(), ReplayError> {
    for path in entries(folder).map_err(|error| ReplayError::new(folder, error, false))? {
        if !path.is_dir() {
            add(listing, path, false)?;
        } else if file_name(&path).starts_with('.') || deep == 0 {
            let why = if deep == 0 {
                format!("folder nested more than {FOLDERS_DEEP} levels deep")
            } else {
                "hidden folder".to_owned()
            };
            listing.skipped.push((path.display().to_string(), why));
        } else {
            walk(listing, &path, deep - 1)?;
        }
    }
    Ok(())
}

fn add(listing: &mut Listing, path: PathBuf, is_explicit: bool) -> Result<(), ReplayError> {
    if let Some(why) = unsupported::by_name(&file_name(&path)).filter(|_| !is_explicit) {
        listing
            .skipped
            .push((path.display().to_string(), why.to_owned()));
        return Ok(());
    }
    let added = is_zip(&path).and_then(|is_zip| {
        if is_zip {
            add_entries(listing, &path)
        } else {
            listing.inputs.push(Input {
                path: path.clone(),
                entry: None,
                is_explicit,
            });
            Ok(())
        }
    });
    match added {
        Err(error) if is_explicit => Err(error),
        Err(error) => {
            listing
                .skipped
                .push((path.display().to_string(), error.error));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn open(path: &Path) -> Result<File, ReplayError> {
    open_regular(path).map_err(|error| ReplayError::new(path, error, false))
}

fn is_zip(path: &Path) -> Result<bool, ReplayError> {
    let mut magic = Vec::new();
    let read = open(path)?.take(4).read_to_end(&mut magic);
    read.map_err(|error| ReplayError::new(path, error, false))?;
    Ok(magic == *b"PK\x03\x04" || magic == *b"PK\x05\x06")
}

/// The entries of a zip archive that may be recordings, in the archive's order.
fn add_entries(listing: &mut Listing, path: &Path) -> Result<(), ReplayError> {
    let fail = |error: String| ReplayError::new(path, error, true);
    let archive = zip::ZipArchive::new(open(path)?)
        .map_err(|error| fail(format!("cannot read the zip archive: {error}")))?;
    let (mut names, before) = (Vec::new(), listing.inputs.len());
    for at in 0..archive.len().min(INPUTS_MAX + 1) {
        let Some(Ok(name)) = archive.name_for_index(at) else {
            return Err(fail(format!("cannot read the name of archive entry {at}")));
        };
        let name = name.into_owned();
        let last = name.rsplit('/').next().unwrap_or_default().to_owned();
        if last.is_empty() || name.starts_with("__MACOSX/") {
            continue;
        }
        names.push(name.clone());
        if let Some(why) = unsupported::by_name(&last) {
            let name = format!("{}!{name}", path.display());
            listing.skipped.push((name, why.to_owned()));
            continue;
        }
        listing.inputs.push(Input {
            path: path.to_owned(),
            entry: Some((at, name)),
            is_explicit: false,
        });
    }
    if listing.inputs.len() == before {
        let error = if names.is_empty() {
            "the archive is empty".to_owned()
        } else {
            format!(
                "the archive contains no recording, only {}",
                names.join(", ")
            )
        };
        return Err(fail(error));
    }
    Ok(())
}

/// Inspected bytes, followed by the rest; an error follows the data that was read before it.
struct Peeked<R> {
    head: Cursor<Vec<u8>>,
    error: Option<std::io::Error>,
    rest: R,
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.head.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        match self.error.take() {
            Some(error) => Err(error),
            None => self.rest.read(buffer),
        }
    }
}

/// Inspects the first bytes.
fn peek<R: Read>(mut reader: R, bytes: usize) -> Peeked<R> {
    let mut head = Vec::new();
    let error = reader
        .by_ref()
        .take(bytes as u64)
        .read_to_end(&mut head)
        .err();
    Peeked {
        head: Cursor::new(head),
        error,
        rest: reader,
    }
}

/// The text at the start of a recording, and a reader of all of it.
pub(super) struct Opened<'r> {
    pub start: Vec<u8>,
    pub reader: Box<dyn Read + 'r>,
}

/// Bytes read to detect the format.
const LOOK_BYTES: usize = 64 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Calls `then` with the decompressed text and the name of the file or of the archive entry, which
/// helps to detect the format. `expansion_max`: bound of decompressed bytes per packed byte.
pub(super) fn with_text(
    input: &Input,
    expansion_max: u64,
    then: impl FnOnce(Opened<'_>, &str) -> Result<(), ReplayError>,
) -> Result<(), ReplayError> {
    let file = open(&input.path)?;
    let Some((at, name)) = &input.entry else {
        return with_plain(input, file, &file_name(&input.path), expansion_max, then);
    };
    let fail = |error: zip::result::ZipError| {
        let error = format!("cannot read the zip archive: {error}");
        ReplayError::new(Path::new(&input.name()), error, true)
    };
    let mut archive = zip::ZipArchive::new(file).map_err(fail)?;
    let packed = archive.by_index(*at).map_err(fail)?;
    let bytes = PackedBytes::of(packed.compressed_size());
    let packed = Metered::new(packed, bytes, expansion_max);
    let name = name.rsplit('/').next().unwrap_or(name);
    with_plain(input, packed, name, expansion_max, then)
}

fn with_plain<'r>(
    input: &Input,
    reader: impl Read + 'r,
    name: &str,
    expansion_max: u64,
    then: impl FnOnce(Opened<'_>, &str) -> Result<(), ReplayError>,
) -> Result<(), ReplayError> {
    let fail = |error: String| ReplayError::new(Path::new(&input.name()), error, true);
    let packed = peek(reader, MAGIC_BYTES);
    let bytes = PackedBytes::default();
    let plain: Box<dyn Read + 'r> = match packed.head.get_ref()[..] {
        [0x1f, 0x8b, ..] => {
            let packed = Counted::new(packed, bytes.clone());
            let decoder = flate2::read::MultiGzDecoder::new(packed);
            Box::new(Metered::new(decoder, bytes, expansion_max))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let packed = Counted::new(packed, bytes.clone());
            let decoder = zstd::Decoder::new(packed).map_err(|error| fail(error.to_string()))?;
            Box::new(Metered::new(decoder, bytes, expansion_max))
        }
        _ => Box::new(packed),
    };
    let mut plain = peek(plain, LOOK_BYTES);
    if plain.head.get_ref().starts_with(BYTE_ORDER_MARK) {
        plain.head.get_mut().drain(..BYTE_ORDER_MARK.len());
    }
    let start = plain.head.get_ref().clone();
    if start.is_empty() {
        let broken = plain.error.take().map(|error| error.to_string());
        return Err(fail(
            broken.unwrap_or_else(|| "the file is empty".to_owned()),
        ));
    }
    if let Some(why) = unsupported::by_magic(&start) {
        return Err(fail(why));
    }
    let reader = Box::new(plain);
    then(Opened { start, reader }, name)
}

/// Matcher of names by a pattern: `*` matches any characters, every other character itself.
fn matcher(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    let literals: Vec<_> = pattern.split('*').map(globset::escape).collect();
    let glob = GlobBuilder::new(&literals.join("*"))
        .backslash_escape(false)
        .build()?;
    Ok(glob.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_characters() {
        let matches = |pattern: &str, name: &str| {
            let matcher = matcher(pattern).expect("an escaped pattern is valid");
            matcher.is_match(name)
        };
        for (pattern, name) in [
            ("*.csv.gz", "a.csv.gz"),
            ("a*b*c", "aXbYc"),
            ("a**c", "ac"),
            ("*", ".hidden"),
            ("[1]{2}?!\\*", "[1]{2}?!\\3"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.csv", "a.csv.gz"),
            ("a*b", "ac"),
            ("[ab]*", "a"),
            ("?*", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        // Linear in the length of the name, whatever the pattern is.
        assert!(!matches(&"a*".repeat(60), &"b".repeat(200)));
        assert!(!matches(&format!("{}b", "a*".repeat(30)), &"a".repeat(200)));
    }
}
