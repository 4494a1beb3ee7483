//! One's own database: the statements of `targets setup`, shown, asked about, run, and how to take them back.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use leasehold_backend::Statement;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use super::RunError;
use super::config::Target;
use crate::dev::admin_role::{self, told};
use crate::dev::files::write_private;
use crate::init::database::statements;
use crate::server;

/// Gives the broker its role in this database, unless it has one that works.
pub(super) async fn set_up(
    url: &str,
    dir: &Path,
    yes: bool,
    out: &mut dyn Write,
) -> Result<Target, RunError> {
    let route = Route::read(url)?;
    let file = dir.join("local.password");
    if !route.admin_logs_in(&file).await {
        let root = connect(&route.root, "as the user that the URL names").await?;
        let statements = statements();
        agree(&route, &statements, yes, out)?;
        run(&root, &statements).await?;
        give_password(&root, &file).await?;
        removal(&statements, out).map_err(RunError::Output)?;
    }
    Ok(Target::Postgres { host: route.host, port: route.port, dbname: route.dbname, password_file: file })
}

/// Where the database is.
struct Route {
    root: Config,
    host: String,
    port: u16,
    dbname: String,
}

impl Route {
    /// Only on this host: dev has no roots to check a server's certificate under.
    fn read(url: &str) -> Result<Self, RunError> {
        // The parser's words may repeat the URL, and there may be a password in it.
        let mut root: Config = url
            .parse()
            .map_err(|_| wrong("the URL cannot be read; write postgres://USER@localhost/DATABASE"))?;
        if let (None, Ok(password)) = (root.get_password(), std::env::var("PGPASSWORD")) {
            root.password(password);
        }
        let host = match root.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => return Err(wrong("the URL names no host; write postgres://USER@localhost/DATABASE")),
        };
        let address = host.parse::<std::net::IpAddr>();
        if host != "localhost"
            && !host.starts_with('/')
            && !address.is_ok_and(|address| address.is_loopback())
        {
            return Err(wrong(
                "dev is for a database on this host; for another use `leasehold init` and `serve`",
            ));
        }
        let port = root.get_ports().first().copied().unwrap_or(5432);
        let dbname = root.get_dbname().or(root.get_user()).unwrap_or("postgres").to_owned();
        Ok(Self { root, host, port, dbname })
    }

    /// Whether an earlier dev has set it up.
    async fn admin_logs_in(&self, file: &Path) -> bool {
        let Ok(password) = std::fs::read_to_string(file) else { return false };
        let mut config = self.root.clone();
        config.user(admin_role::ADMIN).password(password.trim());
        connect(&config, "").await.is_ok()
    }
}

fn wrong(what: &str) -> RunError {
    RunError::Database(what.to_owned())
}

async fn connect(config: &Config, who: &str) -> Result<Client, RunError> {
    let (client, connection) = config
        .connect(NoTls)
        .await
        .map_err(|error| RunError::Database(format!("cannot log in {who}: {}", told(&error))))?;
    // It ends with the client.
    tokio::spawn(connection);
    Ok(client)
}

fn agree(route: &Route, statements: &[Statement], yes: bool, out: &mut dyn Write) -> Result<(), RunError> {
    show(route, statements, out).map_err(RunError::Output)?;
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(wrong("nothing was run: say `--yes` where there is no terminal"));
    }
    write!(out, "Run these? [y/N] ").and_then(|()| out.flush()).map_err(RunError::Output)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(RunError::Output)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(wrong("nothing was run")),
    }
}

fn show(route: &Route, statements: &[Statement], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "To lease on database {} of {}:{}, dev runs there:", route.dbname, route.host, route.port)?;
    for statement in statements.iter().filter(|statement| !statement.undo) {
        writeln!(out, "  {:<90} -- {}", statement.text, statement.why)?;
    }
    writeln!(out, "and gives `{}` a password that it keeps in a file of mode 0600.", admin_role::ADMIN)
}

/// What is there already stays: an earlier run may have been stopped half-way.
async fn run(root: &Client, statements: &[Statement]) -> Result<(), RunError> {
    for statement in statements.iter().filter(|statement| !statement.undo) {
        match root.batch_execute(&statement.text).await {
            Ok(()) => {}
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => {}
            Err(error) => {
                return Err(RunError::Database(format!("{}: {}", statement.text, told(&error))));
            }
        }
    }
    Ok(())
}

async fn give_password(root: &Client, file: &Path) -> Result<(), RunError> {
    let io = |path: &Path| {
        let path: PathBuf = path.to_owned();
        move |error| RunError::Io { path, error }
    };
    let entropy = server::entropy();
    let password =
        admin_role::new_password(entropy.as_ref()).map_err(|error| RunError::Database(error.to_string()))?;
    let made = admin_role::make(root, &password, entropy.as_ref()).await;
    made.map_err(|error| RunError::Database(error.to_string()))?;
    if file.exists() {
        std::fs::remove_file(file).map_err(io(file))?;
    }
    write_private(file, &password).map_err(io(file))
}

fn removal(statements: &[Statement], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "To remove these roles later, when no lease is left:")?;
    statements
        .iter()
        .filter(|statement| statement.undo)
        .try_for_each(|statement| writeln!(out, "  {}", statement.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_on_this_host_is_taken() {
        let check = |url: &str, expect: Result<(&str, u16, &str), &str>| {
            let told = Route::read(url);
            match (told, expect) {
                (Ok(route), Ok(expect)) => {
                    assert_eq!((route.host.as_str(), route.port, route.dbname.as_str()), expect, "{url}");
                }
                (Err(error), Err(expect)) => {
                    let told = error.to_string();
                    assert!(told.contains(expect) && !told.contains("hunter2"), "{url}: {told}");
                }
                (told, expect) => panic!("{url}: {:?}, not {expect:?}", told.map(|route| route.host)),
            }
        };
        check("postgres://me@localhost/app", Ok(("localhost", 5432, "app")));
        check("postgres://me:hunter2@127.0.0.1:6000", Ok(("127.0.0.1", 6000, "me")));
        check("host=/run/postgresql dbname=app user=me", Ok(("/run/postgresql", 5432, "app")));
        check("postgres://me:hunter2@db1.internal/app", Err("on this host"));
        check("postgres://me:hunter2@localhost:port/app", Err("cannot be read"));
        check("postgres:///app", Err("names no host"));
    }
}
