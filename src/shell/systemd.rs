//! Telling the service manager how far we are: the datagram protocol of sd_notify(3).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Everything is in place: frames are being handled.
pub const READY: &str = "READY=1";
/// On the way out.
pub const STOPPING: &str = "STOPPING=1";

/// Sends `state` to the service manager, if there is one; a failure is no reason not to route.
pub fn notify(state: &str) {
    if let Some(address) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&address, state)
    {
        log::warn!("systemd: cannot send {state}: {error}");
    }
}

/// `address` is a path, or, after an `@`, a name in the abstract namespace.
fn send(address: &OsStr, state: &str) -> io::Result<()> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_arrives_at_a_path_and_at_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@vipr-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name[1..]).unwrap()).unwrap();
        for (address, socket) in [(path.as_os_str(), by_path), (OsStr::new(&name), by_name)] {
            send(address, READY).unwrap();
            let mut buffer = [0; 32];
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"READY=1");
        }
        assert!(send(OsStr::new("/nowhere/notify"), READY).is_err());
    }
}
