//! Kernel modules in an order in which they can be loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Error, Result, elf, read};

/// A module, ready to be loaded after those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// The modules of one kernel: `lib/modules/VERSION`.
#[derive(Clone, Debug)]
pub struct Modules {
    root: PathBuf,
    /// By name, with underscores.
    files: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// Finds all modules below a folder.
    pub fn find(root: &Path) -> Result<Modules> {
        let mut files = BTreeMap::new();
        let mut pending = vec![root.to_owned()];
        while let Some(folder) = pending.pop() {
            let entries = fs::read_dir(&folder)
                .map_err(|error| Error(format!("{}: cannot be read: {error}", folder.display())))?;
            for entry in entries.flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    pending.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        if files.is_empty() {
            return Err(Error(format!(
                "{}: there is no kernel module in it: name the modules of the kernel that boots",
                root.display()
            )));
        }
        Ok(Modules { root: root.to_owned(), files })
    }

    /// These modules and all that they depend on, each after what it depends on.
    ///
    /// A module that this kernel does not have is taken for built in if it is another's
    /// dependency, and is an error if it was asked for.
    pub fn in_order(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut ordered = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            let name = normal(name);
            if !self.files.contains_key(&name) {
                return Err(Error(format!(
                    "the kernel has no module {name} (looked below {})",
                    self.root.display()
                )));
            }
            self.visit(&name, &mut seen, &mut ordered)?;
        }
        Ok(ordered)
    }

    /// Whether there is such a module.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(&normal(name))
    }

    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        ordered: &mut Vec<Module>,
    ) -> Result<()> {
        // A circle would end here too, but modules have none.
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else { return Ok(()) };
        let content = content(path)?;
        let depends = elf::depends(&content)
            .ok_or_else(|| Error(format!("{}: not a kernel module", path.display())))?;
        for dependency in depends {
            self.visit(&normal(&dependency), seen, ordered)?;
        }
        ordered.push(Module { name: name.to_owned(), content });
        Ok(())
    }
}

/// Modules are asked for by either letter.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".xz").unwrap_or(name);
    name.strip_suffix(".ko").map(normal)
}

/// Plain, as what loads it may not know how to unpack it.
fn content(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return read(path);
    }
    let output = Command::new("xz").arg("-dc").arg(path).stderr(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(output.stdout),
        _ => Err(Error(format!(
            "{}: xz cannot unpack it: install it (apt-get install xz-utils)",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::module;
    use super::*;

    fn fixture(modules: &[(&str, &str)]) -> (tempfile::TempDir, Modules) {
        let root = tempfile::tempdir().unwrap();
        for (path, depends) in modules {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, module(format!("depends={depends}\0").as_bytes())).unwrap();
        }
        let modules = Modules::find(root.path()).unwrap();
        (root, modules)
    }

    fn names(modules: &Modules, wanted: &[&str]) -> Vec<String> {
        modules.in_order(wanted).unwrap().into_iter().map(|module| module.name).collect()
    }

    #[test]
    fn each_module_comes_after_what_it_depends_on_and_once() {
        let (_root, modules) = fixture(&[
            ("net/bridge.ko", "stp,llc"),
            ("net/stp.ko", "llc"),
            ("net/llc.ko", ""),
            ("virtio/virtio_net.ko", "virtio,net_failover"),
            ("virtio/net_failover.ko", "failover"),
            ("virtio/failover.ko", ""),
            ("virtio/virtio.ko", ""),
            ("not-a-module.txt", ""),
        ]);
        assert_eq!(names(&modules, &["bridge", "llc"]), ["llc", "stp", "bridge"]);
        assert_eq!(
            names(&modules, &["virtio_net", "bridge"]),
            ["virtio", "failover", "net_failover", "virtio_net", "llc", "stp", "bridge"]
        );
    }

    #[test]
    fn either_letter_names_a_module_and_a_dependency_may_be_built_in() {
        let (_root, modules) = fixture(&[("a/ip-vs.ko", "nf-conntrack"), ("a/x.ko", "built_in")]);
        assert_eq!(names(&modules, &["ip_vs"]), ["ip_vs"]);
        assert_eq!(names(&modules, &["ip-vs", "x"]), ["ip_vs", "x"]);
    }

    #[test]
    fn what_is_asked_for_must_be_there() {
        let (root, modules) = fixture(&[("a/x.ko", "")]);
        let error = modules.in_order(&["9p"]).unwrap_err().to_string();
        assert!(error.contains("no module 9p"), "{error}");
        fs::write(root.path().join("a/y.ko"), "#!/bin/sh\n").unwrap();
        let modules = Modules::find(root.path()).unwrap();
        let error = modules.in_order(&["y"]).unwrap_err().to_string();
        assert!(error.ends_with("a/y.ko: not a kernel module"), "{error}");
        assert!(Modules::find(&root.path().join("none")).is_err());
    }
}
