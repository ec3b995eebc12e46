//! What virtual machines boot: a kernel of the distribution's, and archives that the kernel
//! unpacks into its first file system.
//!
//! Nothing here needs root, and the same input makes the same bytes.

pub mod cpio;
pub mod disk;
pub mod elf;
pub mod guest;
pub mod image;
pub mod modules;
pub mod packages;
pub mod vmlinux;

use std::fs;
use std::path::Path;

/// Why something could not be built: a line that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(line: impl Into<String>) -> Error {
        Error(line.into())
    }
}

/// Reads a file that must be there.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error(format!("{}: cannot be read: {error}", path.display())))
}

/// Writes a file, and the folders above it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all);
    written
        .and_then(|()| fs::write(path, bytes))
        .map_err(|error| Error(format!("{}: cannot be written: {error}", path.display())))
}
