//! The distribution's packages, fetched and unpacked into a cache without being installed.
//!
//! `apt-get download` checks what it fetches against the distribution's signatures and needs no
//! root, and neither does `dpkg -x`. What was unpacked once is used again; `make clean` forgets it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::modules::Modules;
use super::{Error, Result};

/// The kernel that virtual machines boot: small, and with drivers for them.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Where packages are kept, unpacked.
#[derive(Clone, Debug)]
pub struct Packages {
    cache: PathBuf,
}

/// A kernel, and where its modules are.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub image: PathBuf,
    pub modules: PathBuf,
}

impl Kernel {
    /// `VIPR_LAB_KERNEL` and `VIPR_LAB_MODULES` where they are set, else the distribution's.
    pub fn find(packages: &Packages) -> Result<Kernel> {
        let named = |name| std::env::var_os(name).map(PathBuf::from);
        match (named("VIPR_LAB_KERNEL"), named("VIPR_LAB_MODULES")) {
            (Some(image), Some(modules)) => Ok(Kernel { image, modules }),
            (None, None) => packages.kernel(),
            _ => Err(Error::new(
                "VIPR_LAB_KERNEL and VIPR_LAB_MODULES go together: set both (as to \
                 /boot/vmlinuz-VERSION and /lib/modules/VERSION) or neither",
            )),
        }
    }

    pub fn modules(&self) -> Result<Modules> {
        Modules::find(&self.modules)
    }
}

impl Packages {
    pub fn new(cache: PathBuf) -> Packages {
        Packages { cache }
    }

    /// The folder with the contents of a package.
    pub fn unpacked(&self, package: &str) -> Result<PathBuf> {
        let folder = self.cache.join(package);
        if folder.is_dir() {
            return Ok(folder);
        }
        let failed = |error| Error(format!("{}: {error}", self.cache.display()));
        fs::create_dir_all(&self.cache).map_err(failed)?;
        // Whatever ends this early leaves nothing that would be taken for the whole.
        let work = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.cache);
        let work = work.map_err(failed)?;
        download(package, work.path())?;
        let archive = fs::read_dir(work.path())
            .map_err(failed)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| Error(format!("package {package}: apt-get download left no file")))?;
        let content = work.path().join("content");
        run(Command::new("dpkg").arg("-x").arg(&archive).arg(&content))?;
        let control = run(Command::new("dpkg-deb").arg("-f").arg(&archive))?;
        fs::write(content.join("control"), control).map_err(failed)?;
        match fs::rename(&content, &folder) {
            // Another run was quicker.
            Err(_) if folder.is_dir() => Ok(folder),
            renamed => renamed.map(|()| folder).map_err(failed),
        }
    }

    /// A field of a package's description, such as `Depends`.
    pub fn field(&self, package: &str, name: &str) -> Result<String> {
        let control = super::read(&self.unpacked(package)?.join("control"))?;
        let control = String::from_utf8_lossy(&control);
        let line = control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.unwrap_or_default().to_owned())
    }

    /// The package and the libraries' packages that it depends on, unpacked.
    pub fn with_libraries(&self, package: &str) -> Result<Vec<PathBuf>> {
        let mut names = vec![package.to_owned()];
        let mut index = 0;
        while let Some(name) = names.get(index).cloned() {
            index += 1;
            for field in ["Depends", "Pre-Depends"] {
                for dependency in self.field(&name, field)?.split(',') {
                    let library = dependency.trim().split([' ', '|', ':']).next().unwrap_or("");
                    let is_library = library.starts_with("lib") || library == "zlib1g";
                    if is_library && !names.iter().any(|name| name == library) {
                        names.push(library.to_owned());
                    }
                }
            }
        }
        names.iter().map(|name| self.unpacked(name)).collect()
    }

    fn kernel(&self) -> Result<Kernel> {
        let depends = self.field(KERNEL, "Depends")?;
        let package = depends.split([' ', ',']).find(|name| name.starts_with("linux-image-"));
        let package = package
            .ok_or_else(|| Error(format!("package {KERNEL}: it names no kernel: {depends}")))?;
        let folder = self.unpacked(package)?;
        let version = package.trim_start_matches("linux-image-");
        Ok(Kernel {
            image: folder.join(format!("boot/vmlinuz-{version}")),
            // Where /lib and /usr/lib are one, packages have them in the latter.
            modules: [format!("lib/modules/{version}"), format!("usr/lib/modules/{version}")]
                .iter()
                .map(|path| folder.join(path))
                .find(|path| path.is_dir())
                .ok_or_else(|| Error(format!("package {package}: it has no modules")))?,
        })
    }
}

fn download(package: &str, folder: &Path) -> Result<()> {
    eprintln!("fetching the package {package}");
    let fetch = || {
        run(Command::new("apt-get").args(["-q", "download", package]).current_dir(folder))
            .map(|_| ())
    };
    let Err(error) = fetch() else { return Ok(()) };
    // The lists may be missing, or older than the archive.
    let is_root = rustix::process::geteuid().is_root();
    if is_root && run(Command::new("apt-get").args(["-q", "update"])).is_ok() && fetch().is_ok() {
        return Ok(());
    }
    let remedy = if is_root {
        "is the archive reachable? apt-get update says more; or set VIPR_LAB_KERNEL and \
         VIPR_LAB_MODULES to a kernel of yours"
    } else {
        "the lists may be old (sudo apt-get update), or the archive is not reachable; or set \
         VIPR_LAB_KERNEL and VIPR_LAB_MODULES to a kernel of yours"
    };
    Err(Error(format!("package {package}: cannot be fetched ({error}): {remedy}")))
}

/// Runs a program to its end; gives what it printed.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error(format!(
            "{name} is not there: this fetches packages of Debian or a system made from it"
        )),
        _ => Error(format!("{name}: {error}")),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().rfind(|line| line.starts_with("E:")).or(said.lines().last());
    Err(Error(format!("{name}: {}", line.unwrap_or("it failed"))))
}
