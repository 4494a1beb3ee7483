//! Chapter 3: lease and use.

use std::io::Write;

use leasehold_client::Lease;

use super::search;
use super::stage::{CANARY, Stage, Work};
use super::story::{Failure, Seen, Story, ensure, short};

pub(super) async fn tell(stage: &mut Stage, story: &mut Story<'_>) -> Seen<()> {
    let ground = stage.ground.clone();
    let files = stage.place.clone();
    let work = stage.work().await?;
    let (orders, stock) = (principal(&work.orders), principal(&work.stock));
    let seen = format!("roles {} and {}; passwords not printed", short(&orders), short(&stock));
    story.line("agent/triage leases orders.read, stock.read", &seen)?;
    let session = ground.login(&work.orders.credential()).await;
    let roles = ground.leased().await;
    let what = format!("{} {}", ground.prompt(), short(&orders));
    story.claim(4, &what, roles.and_then(|roles| bounded(&roles, &orders, &stock)))?;
    let session = session?;
    story.claim(5, "triage> select count(*) from orders", session.read().await)?;
    match session.delete().await {
        Ok(None) => story.not_here(6, "triage> delete from orders")?,
        Ok(Some(told)) => story.claim(6, "triage> delete from orders", Ok(told))?,
        Err(why) => story.claim(6, "triage> delete from orders", Err(why))?,
    }
    plant(&files.log())?;
    let paths = stage.files()?;
    story.claim(7, "password bytes in store, WAL, TRACE log", nowhere(&paths, stage.work().await?))?;
    Ok(())
}

fn principal(lease: &Lease) -> String {
    lease.lease().principal
}

/// Each role is there, may log in, and is a member of its one group.
fn bounded(roles: &[super::ground::Role], orders: &str, stock: &str) -> Seen {
    for (name, group) in [(stock, "stock_reader"), (orders, "orders_reader")] {
        let role = roles.iter().find(|role| role.name == name);
        let role = role.ok_or_else(|| Failure::new(format!("no role {name}")))?;
        ensure(role.alive && role.groups == [group], || format!("{role:?}"))?;
        if name == orders {
            return Ok(format!("member of {{{}}}, {}", role.groups.join(", "), role.bounds));
        }
    }
    Err(Failure::new("no role"))
}

/// The store's canary came through the broker, as the task's purpose; this one lies at the end of the log.
fn plant(log: &std::path::Path) -> Seen<()> {
    let mut file = std::fs::OpenOptions::new().append(true).open(log)?;
    Ok(writeln!(file, "{CANARY}-log")?)
}

fn nowhere(files: &[std::path::PathBuf], work: &Work) -> Seen {
    let mut hits = 0;
    for lease in [&work.orders, &work.stock] {
        let credential = lease.credential();
        let password = credential.expose("password").ok_or_else(|| Failure::new("no password"))?;
        hits += search::count_secret(files, password)?;
    }
    ensure(hits == 0, || format!("{hits} hits"))?;
    let (log, store): (Vec<_>, Vec<_>) = files.iter().cloned().partition(|file| file.ends_with("broker.log"));
    ensure(search::count(&log, "serving")? > 0, || "the broker logged nothing".to_owned())?;
    let planted = [search::count(&store, CANARY)?, search::count(&log, &format!("{CANARY}-log"))?];
    ensure(!planted.contains(&0), || format!("the canary was not found: {planted:?}"))?;
    Ok("0 hits (planted canaries in the same files: 2 of 2 found)".to_owned())
}
