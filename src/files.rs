//! Opening files that a configuration or an operator names, and decoding saved values.
//!
//! Only regular files are opened: a FIFO or a device may block its reader for ever.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use serde::de::DeserializeOwned;

/// Opens a regular file for reading. Never waits for a writer, regardless of the file type.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    refuse_special(&std::fs::metadata(path)?)?;
    // The path may point to another file by now.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
    refuse_special(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `bytes_max` bytes.
pub(crate) fn read_regular(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let message = format!("file too large: expected at most {} KiB", bytes_max >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Maximum nesting of a saved value; decoding is recursive.
const SAVED_DEPTH_MAX: usize = 32;

/// Decodes a value that was saved in MessagePack.
pub(crate) fn decode_saved<T: DeserializeOwned>(
    bytes: &[u8],
) -> Result<T, rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(SAVED_DEPTH_MAX);
    T::deserialize(&mut deserializer)
}

/// Returns an error that names the file type of anything but a regular file.
pub(crate) fn refuse_special(found: &std::fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    let kind = found.file_type();
    let name = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "a device"
    };
    let message = format!("{name} where a regular file is expected");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let fifo = folder.path().join("fifo");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(CWD, &fifo, mode).expect("a FIFO");
        let refused = |path: &Path| {
            read_regular(path, 8)
                .expect_err("it is refused")
                .to_string()
        };
        assert!(refused(&fifo).contains("a FIFO"), "{}", refused(&fifo));
        assert!(refused(folder.path()).contains("a directory"));
        assert!(refused(Path::new("/dev/zero")).contains("a device"));
        let file = folder.path().join("file");
        std::fs::write(&file, "12345678").expect("room");
        assert_eq!(read_regular(&file, 8).expect("it fits"), b"12345678");
        std::fs::write(&file, "123456789").expect("room");
        assert!(refused(&file).contains("too large"));
    }
}
