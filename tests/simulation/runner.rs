//! Worlds by seed: one, or many on two threads, each world on a runtime of its own.

use std::cell::RefCell;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::history::Told;
use crate::world::{Skip, live};

/// How many worlds are lived through at once: as many as CI has cores.
const AT_ONCE: usize = 2;
/// How much of the history of a world that failed is told.
const LAST: usize = 400;

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A number that the caller set in the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not `{text}`")))
}

/// Lives through one world. A panic anywhere in it is wrong: tasks would swallow it.
pub(crate) fn one(seed: u64, skip: Option<Skip>) -> Told {
    watch_panics();
    PANICS.with_borrow_mut(Vec::clear);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let mut told = runtime.block_on(live(seed, skip));
    drop(runtime);
    told.wrongs.extend(PANICS.take().into_iter().map(|panic| format!("panic: {panic}")));
    told
}

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            before(panic);
        }));
    });
}

/// Lives through the seeds below `seeds`; what failed, with how to see it again.
pub(crate) fn run(seeds: u64) -> Vec<String> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return failed;
            }
            let told = one(seed, None);
            if !told.wrongs.is_empty() {
                failed.push(report(seed, &told));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn report(seed: u64, told: &Told) -> String {
    let again = format!(
        "LEASEHOLD_SIM_SEED={seed} cargo test --workspace --all-features --test simulation nothing_leaks"
    );
    let last = told.lines.len().saturating_sub(LAST);
    if number("LEASEHOLD_SIM_BRIEF").is_none() {
        eprintln!("seed {seed}, the last of its history:\n{}", told.lines[last..].join("\n"));
    }
    format!("seed {seed}: {}\n  {again}", told.wrongs.join("\n  "))
}
