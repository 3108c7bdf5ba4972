//! What tests on the real system need: limits, and file systems of their own.

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::ptr;
use std::{fs, thread};

/// Says that a test has not tested something, and why: in its output, which `cargo test` shows with `--nocapture`.
pub fn skip(what: &str, why: impl std::fmt::Display) {
    // To the terminal, not to the harness: nobody shall believe that it was tested.
    let _ = io::Write::write_all(&mut io::stderr(), format!("SKIPPED: {what}: {why}\n").as_bytes());
}

/// How many names are in a directory.
pub fn names(dir: impl AsRef<Path>) -> usize {
    fs::read_dir(dir).unwrap().count()
}

fn outcome(code: i32) -> io::Result<()> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Mounts a file system of that kind for `body`, where only the thread that runs it sees it; it goes with that thread. Skipped, with a word,
/// where that is not permitted.
pub fn with_file_system(kind: &str, options: &str, body: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let text = |text: &str| CString::new(text).unwrap();
    let (path, source, kind_text, options_text) =
        (text(dir.path().to_str().unwrap()), text("none"), text(kind), text(options));
    let mount = || {
        // SAFETY: all strings end with a zero, and live until the calls return. The thread is a new one, which nobody else uses.
        unsafe {
            outcome(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            outcome(libc::mount(source.as_ptr(), c"/".as_ptr(), ptr::null(), private, ptr::null()))?;
            outcome(libc::mount(source.as_ptr(), path.as_ptr(), kind_text.as_ptr(), 0, options_text.as_ptr().cast()))
        }
    };
    let run = || match mount() {
        Ok(()) => body(dir.path()),
        Err(why) => skip(&format!("on a {kind} of its own"), format!("it cannot be mounted: {why}")),
    };
    let panic = thread::scope(|scope| scope.spawn(run).join()).err();
    if let Some(panic) = panic {
        std::panic::resume_unwind(panic);
    }
}

/// Changes how the file system at `dir` is mounted: `MS_RDONLY`, or nothing.
pub fn remount(dir: &Path, flags: libc::c_ulong) {
    let path = CString::new(dir.to_str().unwrap()).unwrap();
    // SAFETY: the strings end with a zero.
    let code =
        unsafe { libc::mount(c"none".as_ptr(), path.as_ptr(), ptr::null(), libc::MS_REMOUNT | flags, ptr::null()) };
    outcome(code).unwrap();
}

/// Sets how large this process may make a file; `None` for as large as it was allowed at first.
pub fn limit_file_size(bytes: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is there for both calls.
    unsafe {
        outcome(libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit)).unwrap();
        limit.rlim_cur = bytes.unwrap_or(limit.rlim_max);
        outcome(libc::setrlimit(libc::RLIMIT_FSIZE, &limit)).unwrap();
    }
}
