//! Which directories to watch, so that no change of what a path leads to goes unseen.
//!
//! A watch on the file itself dies with its inode, and a symlink that is swapped names neither
//! the file nor its directory. So every directory in which a name of the path is looked up
//! through a symlink is watched, and the one that holds the file.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// Symlinks followed, at most: the kernel's limit.
const SYMLINKS_MAX: u32 = 40;

/// A directory and which one it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub path: PathBuf,
    /// Device and inode, to notice another directory in its place.
    identity: (u64, u64),
    /// Where the file system knows: a new directory may get the inode of one just deleted, but
    /// not its watch.
    born: Option<SystemTime>,
}

/// What a file looked like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appearance {
    identity: (u64, u64),
    len: u64,
    changed: (i64, i64),
}

impl Appearance {
    /// Of the file that `path` leads to; `None` if there is none.
    pub fn of(path: &Path) -> Option<Appearance> {
        fs::metadata(path).ok().map(|metadata| Appearance {
            identity: identity(&metadata),
            len: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The directories to watch for the file at the absolute `path`, without duplicates, the one
/// nearest to the file last. Where a part of the path does not exist, the last one is the deepest
/// that does: whatever appears will appear there.
pub(super) fn directories(path: &Path) -> Vec<Directory> {
    let mut found = Vec::new();
    let mut resolved = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = names(path);
    let mut symlinks = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        match fs::read_link(&next) {
            Ok(target) if symlinks < SYMLINKS_MAX => {
                symlinks += 1;
                note(&mut found, &resolved);
                if target.is_absolute() {
                    resolved = PathBuf::from("/");
                }
                for name in names(&target).into_iter().rev() {
                    rest.push_front(name);
                }
            }
            _ if rest.is_empty() || !next.is_dir() => break,
            _ => resolved = next,
        }
    }
    note(&mut found, &resolved);
    found
}

fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

fn note(found: &mut Vec<Directory>, path: &Path) {
    found.retain(|directory| directory.path != path);
    if let Ok(metadata) = fs::metadata(path) {
        let (identity, born) = (identity(&metadata), metadata.created().ok());
        found.push(Directory { path: path.to_owned(), identity, born });
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn watched(root: &Path, path: &str) -> Vec<String> {
        let relative = |directory: Directory| {
            directory.path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
        };
        directories(&root.join(path)).into_iter().map(relative).collect()
    }

    #[test]
    fn every_directory_that_can_change_the_outcome_is_watched() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        for name in ["plain", "mounted/..2026_1", "elsewhere/deep"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("plain/vipr.toml"), "").unwrap();
        fs::write(root.join("mounted/..2026_1/vipr.toml"), "").unwrap();
        fs::write(root.join("elsewhere/deep/other.toml"), "").unwrap();
        symlink("..2026_1", root.join("mounted/..data")).unwrap();
        symlink("..data/vipr.toml", root.join("mounted/vipr.toml")).unwrap();
        symlink("../elsewhere/deep/other.toml", root.join("plain/link.toml")).unwrap();
        symlink(root.join("plain"), root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();

        let rows: [(&str, &[&str]); 8] = [
            ("plain/vipr.toml", &["plain"]),
            ("plain/missing.toml", &["plain"]),
            ("missing/below/vipr.toml", &[""]),
            ("mounted/vipr.toml", &["mounted", "mounted/..2026_1"]),
            ("plain/link.toml", &["plain", "elsewhere/deep"]),
            ("absolute/vipr.toml", &["", "plain"]),
            ("plain/../plain/vipr.toml", &["plain"]),
            ("loop", &[""]),
        ];
        for (path, expected) in rows {
            assert_eq!(watched(&root, path), expected, "{path}");
        }
    }

    #[test]
    fn another_directory_of_the_same_name_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("conf");
        fs::create_dir(&path).unwrap();
        let before = directories(&path.join("vipr.toml"));
        assert_eq!(before, directories(&path.join("vipr.toml")));
        fs::rename(&path, directory.path().join("old")).unwrap();
        fs::create_dir(&path).unwrap();
        assert_ne!(before, directories(&path.join("vipr.toml")));
    }
}
