//! The traces that come with the project, and traces in directories.

use std::io;
use std::path::{Path, PathBuf};

/// The file names that are taken for traces in a directory end so.
pub const ENDINGS: [&str; 2] = ["trace", "log"];

/// The directory of the project's own recordings: beside the sources that this program was built from, else in the
/// current directory.
pub fn directory() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    [beside, PathBuf::from("samples")].into_iter().find(|path| path.is_dir())
}

/// The traces in a directory, by name: its files that end in `.trace` or `.log`.
///
/// # Errors
/// Returns an error if the directory cannot be read.
pub fn traces_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut traces = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_trace = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        if is_trace && path.is_file() {
            traces.push(path);
        }
    }
    traces.sort();
    Ok(traces)
}
