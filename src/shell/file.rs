//! Reading the configuration file. Parsing it is [`config`]'s business.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::{self, Diagnostics, Snapshot, TEXT_BYTES_MAX};
use crate::director::examine_certificates;

/// Bytes of a file of certificates: a system's bundle of all there are is a quarter of it.
const CERTIFICATES_BYTES_MAX: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("configuration {}: {source}{}", path.display(), remedy(source))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("configuration {}: larger than {TEXT_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("configuration {}: not UTF-8 text (first wrong byte at offset {offset})", path.display())]
    NotText { path: PathBuf, offset: usize },
    /// It was read, and says something wrong.
    #[error("{0}")]
    Refused(Diagnostics),
    /// A file that it names will not do.
    #[error("configuration {}: {what}", path.display())]
    File { path: PathBuf, what: String },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; name another with -c FILE or VIPR_CONFIG",
        _ => "",
    }
}

/// The text of the file.
///
/// # Errors
/// Every [`LoadError`] but `Refused`.
pub fn read(path: &Path) -> Result<String, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| LoadError::NotText {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// What a text read from `path` means, with the files that it names.
///
/// # Errors
/// [`LoadError::Refused`], [`LoadError::File`].
pub fn parse(path: &Path, text: &str) -> Result<Snapshot, LoadError> {
    let mut snapshot =
        config::parse(text, &path.display().to_string()).map_err(LoadError::Refused)?;
    let taken_in = snapshot.take_in_files(certificates);
    taken_in.map_err(|what| LoadError::File { path: path.to_owned(), what })?;
    Ok(snapshot)
}

/// The text of a file of certificates; else what is wrong with it.
pub fn certificates(path: &str) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let mut bounded = file.take(CERTIFICATES_BYTES_MAX + 1);
    bounded.read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > CERTIFICATES_BYTES_MAX {
        return Err(format!("larger than {CERTIFICATES_BYTES_MAX} bytes"));
    }
    examine_certificates(&text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_said_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vipr.toml");
        let message = |path: &Path| read(path).unwrap_err().to_string();

        let missing = message(&path);
        assert!(missing.contains("vipr.toml") && missing.contains("-c FILE"), "{missing}");
        assert!(message(directory.path()).contains("directory"));
        fs::write(&path, b"name = \"\xff\"").unwrap();
        assert!(message(&path).contains("offset 8"));
        fs::write(&path, vec![b'#'; TEXT_BYTES_MAX + 1]).unwrap();
        assert!(message(&path).contains("larger"));
        fs::write(&path, "# fine").unwrap();
        assert_eq!(read(&path).unwrap(), "# fine");
    }
}
