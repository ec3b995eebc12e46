//! A Unix socket to listen on: in place of a dead one, never of one that lives, and gone when it is
//! no longer needed.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Why nobody can listen at a path.
#[derive(Debug)]
pub enum Obstacle {
    /// Another program listens there.
    Taken,
    /// Something that is no socket has the name.
    NotASocket,
    Io(io::Error),
}

/// The file of a listening socket; it goes when this is dropped, provided that it is still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let metadata = fs::symlink_metadata(&self.path);
        if metadata.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`, without blocking. `bind` makes the socket, with the mode that it is to have.
///
/// # Errors
/// What is in the way. A socket whose owner has died is not.
pub fn listen(
    path: &Path,
    bind: impl FnOnce(&Path) -> io::Result<UnixListener>,
) -> Result<(UnixListener, SocketFile), Obstacle> {
    // Two programs that start at once must not both find the other's socket dead.
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let lock = fs::File::open(directory).map_err(Obstacle::Io)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(
        |error| match error {
            rustix::io::Errno::WOULDBLOCK => Obstacle::Taken,
            error => Obstacle::Io(error.into()),
        },
    )?;
    remove_stale(path)?;
    let listener = bind(path).map_err(Obstacle::Io)?;
    listener.set_nonblocking(true).map_err(Obstacle::Io)?;
    let metadata = fs::symlink_metadata(path).map_err(Obstacle::Io)?;
    let identity = (metadata.dev(), metadata.ino());
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// Removes the socket of a program that has died.
fn remove_stale(path: &Path) -> Result<(), Obstacle> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Obstacle::Io(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(Obstacle::NotASocket),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(Obstacle::Io)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Obstacle::Io(error)),
        // Someone listens, or would if they were not so busy.
        _ => Err(Obstacle::Taken),
    }
}
