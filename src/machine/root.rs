//! Where the system's files are.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest of the system's files that is read whole, in bytes: none is near it.
const LONGEST: u64 = 1 << 20;

/// The directory under which `proc` and `sys` are.
#[derive(Debug, Clone)]
pub(crate) struct Root(PathBuf);

impl Default for Root {
    fn default() -> Self {
        Root::at(Path::new("/"))
    }
}

impl Root {
    pub(crate) fn at(directory: &Path) -> Self {
        Root(directory.to_owned())
    }

    /// The file of that name, which is absolute in the system whose files these are.
    pub(crate) fn path(&self, name: &Path) -> PathBuf {
        self.0.join(name.strip_prefix("/").unwrap_or(name))
    }

    /// What is in a file; `None` if it is not there, may not be read, or is no text.
    pub(crate) fn text(&self, name: impl AsRef<Path>) -> Option<String> {
        let mut text = String::new();
        fs::File::open(self.path(name.as_ref())).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// The number that is in a file, and nothing else.
    pub(crate) fn number(&self, name: impl AsRef<Path>) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }
}
