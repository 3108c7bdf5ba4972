//! A PostgreSQL server for an hour: in a temporary directory, on a free port, from the programs of Debian's package
//! `postgresql`. It goes with its directory when dropped.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs};

use postgres::{Client, Config, NoTls};

/// The user that the pool connects as; not a superuser, so that limits apply to it.
pub const USER: &str = "app";

/// What `application_name` the pool's connections carry.
pub const APPLICATION: &str = "tierpool";

/// A running server, or one that [`stop`](Self::stop) has stopped.
pub struct Server {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    /// Who the server runs as if this process is root, which PostgreSQL declines to be.
    user: Option<(u32, u32)>,
}

impl Server {
    /// Starts a server; `None` if PostgreSQL is not installed.
    ///
    /// # Errors
    /// What its programs complain about.
    pub fn start() -> io::Result<Option<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(programs) = programs() else { return Ok(None) };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("tierpool-postgres-{}-{number}", process::id()));
        fs::create_dir(&directory)?;
        let user = unprivileged(&directory)?;
        if let Some((user, group)) = user {
            chown(&directory, Some(user), Some(group))?;
        }
        let mut server = Self { programs, directory, port: 0, user };
        server.run("initdb", &["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"])?;
        server.port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        server.restart()?;
        server.sql(&format!("CREATE ROLE {USER} LOGIN; GRANT ALL ON SCHEMA public TO {USER};"))?;
        Ok(Some(server))
    }

    /// How the pool reaches it.
    pub fn config(&self) -> Config {
        let mut config = self.config_as(USER);
        config.application_name(APPLICATION);
        config
    }

    fn config_as(&self, user: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(user).dbname("postgres").connect_timeout(Duration::from_secs(2));
        config
    }

    /// Runs statements as superuser.
    ///
    /// # Errors
    /// If the server cannot be reached, or says no.
    pub fn sql(&self, statements: &str) -> io::Result<()> {
        self.root().and_then(|mut root| root.batch_execute(statements)).map_err(io::Error::other)
    }

    /// The process numbers of the pool's connections on the server's side.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub fn backends(&self) -> io::Result<Vec<i32>> {
        self.ask("SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid")
    }

    /// Kills all of the pool's connections from the server's side, as a restart, a fail-over or an administrator does.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub fn kill_backends(&self) -> io::Result<usize> {
        self.ask("SELECT pid, pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name = $1")
            .map(|killed| killed.len())
    }

    fn ask(&self, question: &str) -> io::Result<Vec<i32>> {
        let rows = self.root().and_then(|mut root| root.query(question, &[&APPLICATION])).map_err(io::Error::other)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn root(&self) -> Result<Client, postgres::Error> {
        self.config_as("postgres").connect(NoTls)
    }

    /// Stops the server at once, as a crash does.
    ///
    /// # Errors
    /// If it is not running.
    pub fn stop(&self) -> io::Result<()> {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-w"])
    }

    /// Starts the server again, on the same port, and waits until it answers.
    ///
    /// # Errors
    /// If it is running, or cannot.
    pub fn restart(&self) -> io::Result<()> {
        let port = self.port;
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off -c max_connections=20"
        );
        self.run("pg_ctl", &["start", "-w", "-t", "30", "-o", &options, "-l", "log"]).map_err(|error| {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            io::Error::other(format!("{error}\n{log}"))
        })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<()> {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir(&self.directory);
        command.env("PGDATA", self.directory.join("data")).env("LC_ALL", "C.UTF-8");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        Err(io::Error::other(format!("{program}: {said}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.stop();
        _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where `pg_ctl` is: among the programs of the path, or where Debian puts those of the newest version.
fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let newest_first = versions.into_iter().rev().map(|(_, path)| path);
    let has = |directory: &PathBuf| ["initdb", "pg_ctl", "postgres"].iter().all(|name| directory.join(name).is_file());
    env::split_paths(&path).chain(newest_first).find(has)
}

/// User and group for a server, if this process is root: the package's own user, or nobody.
fn unprivileged(made_by_us: &Path) -> io::Result<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt;

    if fs::metadata(made_by_us)?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let find = |wanted: &str| {
        users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, user, group, ..] = fields[..] else { return None };
            (name == wanted).then(|| Some((user.parse().ok()?, group.parse().ok()?)))?
        })
    };
    let found = find("postgres").or_else(|| find("nobody"));
    found.map(Some).ok_or_else(|| io::Error::other("no user but root to run the server as"))
}
