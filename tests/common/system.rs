//! What tests on the real system need: processes of their own for limits that hold for a whole process, and file systems of their own.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

/// Says that a test has not tested something, and why: in its output, which `cargo test` shows with `--nocapture`.
pub fn skip(what: &str, why: impl std::fmt::Display) {
    // To the terminal, not to the harness: nobody shall believe that it was tested.
    let _ = io::Write::write_all(&mut io::stderr(), format!("SKIPPED: {what}: {why}\n").as_bytes());
}

/// Runs the test of that name in a process of its own: there, `body` is called, and its panic is that of the test. `prepare` says how the
/// process begins.
pub fn in_child(test: &str, prepare: impl FnOnce(&mut Command), body: impl FnOnce()) {
    const CHILD: &str = "TIERPOOL_TEST_IN_CHILD";
    if env::var(CHILD).is_ok_and(|name| name == test) {
        return body();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, test);
    prepare(&mut command);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}", output.status);
    text.lines().filter(|line| line.starts_with("SKIPPED")).for_each(|line| eprintln!("{line}"));
}

/// An empty directory, which goes with this.
pub struct Dir(PathBuf);

impl Dir {
    /// In the directory for temporary files.
    pub fn new() -> Self {
        Self::within(&env::temp_dir())
    }

    /// In that directory.
    pub fn within(parent: &Path) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let dir = parent.join(format!("tierpool-test-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&dir).unwrap();
        Dir(dir)
    }

    /// How many names are in it.
    pub fn names(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Default for Dir {
    fn default() -> Self {
        Self::new()
    }
}

impl AsRef<Path> for Dir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn outcome(code: i32) -> io::Result<()> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Mounts a file system of that kind for `body`, where only the thread that runs it sees it; it goes with that thread. Skipped, with a word,
/// where that is not permitted.
pub fn with_file_system(kind: &str, options: &str, body: impl FnOnce(&Path) + Send) {
    let dir = Dir::new();
    let text = |text: &str| CString::new(text).unwrap();
    let (path, source, kind_text, options_text) =
        (text(dir.as_ref().to_str().unwrap()), text("none"), text(kind), text(options));
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
        Ok(()) => body(dir.as_ref()),
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
