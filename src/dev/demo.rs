//! `leasehold demo`: the story of the README in under a minute, on throwaway parts, told as a sceptic would believe it.
//!
//! The parent runs everything but the broker: the target, the Workload API, the stalling proxy, the agents. The broker is
//! a child of the same program. No claim rests on the broker's word.

mod ask;
#[cfg(feature = "postgres")]
mod attacker;
mod broker;
mod crash;
mod ends;
mod evasion;
mod ground;
mod later;
mod lease;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod programs;
mod scope;
mod search;
mod stage;
mod story;
mod vanishing;
mod who;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use stage::Stage;
use story::{CLAIMS, Failure, Seen, Story};
use vanishing::Vanishing;

/// How the story is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Leaves the folder with config, store, log and export, and says where it is.
    pub keep: bool,
    /// Tells one chapter alone, 1 to 8, with what it needs.
    pub only: Option<u32>,
    /// Where PostgreSQL's programs are; looked for otherwise.
    pub pg_bin: Option<PathBuf>,
    /// Tells it as on a machine without PostgreSQL.
    pub without_postgres: bool,
    /// The program that is started as the broker; this one otherwise.
    pub program: Option<PathBuf>,
}

/// A chapter and its claims.
struct Chapter {
    number: u32,
    title: &'static str,
    claims: &'static [u32],
}

const STORY: [Chapter; 8] = [
    Chapter { number: 1, title: "Who are you", claims: &[1, 2] },
    Chapter { number: 2, title: "Ask first", claims: &[3] },
    Chapter { number: 3, title: "Lease and use", claims: &[4, 5, 6, 7] },
    Chapter { number: 4, title: "The scope narrows in the middle of a query", claims: &[8, 9] },
    Chapter {
        number: 5,
        title: "The attacker's turn: a client with `-c post_auth_delay=3 -c role=orders_reader` logs in just before the revoke",
        claims: &[10],
    },
    Chapter { number: 6, title: "Three ways to end", claims: &[11, 12, 13, 14] },
    Chapter { number: 7, title: "kill -9 the broker while it mints", claims: &[15] },
    Chapter { number: 8, title: "Prove it later, without us", claims: &[16, 17] },
];

/// The chapter in which the agent that vanishes is collected.
const VANISHED: u32 = 6;

const NOT_SHOWN: &str = "Not there yet: people's approvals, AWS. Not promised: root on the broker's host can rewrite the \
    journal back to the last outside checkpoint; a process with the agent's uid can read what the agent reads.";

/// Tells the story. Success is every checked claim holding; 2 for a chapter that is not there.
pub async fn run(options: &Options, out: &mut dyn Write) -> ExitCode {
    if options.only.is_some_and(|only| STORY.iter().all(|chapter| chapter.number != only)) {
        // Where even that cannot be written, the code says it.
        let _ = writeln!(out, "there are chapters 1 to {}", STORY.len());
        return ExitCode::from(2);
    }
    let mut story = Story::begin(out);
    let told = tokio::select! {
        told = tell(options, &mut story) => told,
        // What was set up goes with the story, children first.
        _ = tokio::signal::ctrl_c() => Err(Failure::new("it was interrupted")),
    };
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let _ = story.say(&format!("the demo cannot go on: {why}"));
            ExitCode::FAILURE
        }
    }
}

async fn tell(options: &Options, story: &mut Story<'_>) -> Seen<bool> {
    let told: Vec<&Chapter> =
        STORY.iter().filter(|chapter| options.only.is_none_or(|n| n == chapter.number)).collect();
    let mut stage = Stage::set(options).await?;
    let vanishes = told.iter().any(|chapter| chapter.number == VANISHED);
    let vanished = if vanishes { Vanishing::begin(&stage).await.map(Some) } else { Ok(None) };
    introduce(&stage, story, vanishes)?;
    match vanished {
        Ok(vanishing) => stage.vanishing = vanishing,
        Err(why) => story.line("the agent that vanishes", &why.to_string())?,
    }
    for chapter in &told {
        story.say(&format!("{} {}", chapter.number, chapter.title))?;
        let ended = chapter.tell(&mut stage, story).await;
        story.close(chapter.claims, ended)?;
    }
    let claims: Vec<u32> = told.iter().flat_map(|chapter| chapter.claims).copied().collect();
    finish(stage, options, story, &claims)
}

fn introduce(stage: &Stage, story: &mut Story<'_>, vanishes: bool) -> Seen<()> {
    let broker = stage.broker.as_ref().map(|broker| broker.pid).unwrap_or_default();
    let killed = if vanishes { " One agent was just killed: see 6." } else { "" };
    let (target, prompt) = (stage.ground.name(), stage.ground.prompt());
    story.say(&format!(
        "{target} (throwaway), SQLite, X.509-SVIDs over TLS 1.3, broker = child process {broker}.{killed}"
    ))?;
    let witness = stage.ground.witness();
    Ok(story.say(&format!("Lines with {prompt} are {witness}. The broker's word is never the proof."))?)
}

fn finish(stage: Stage, options: &Options, story: &mut Story<'_>, claims: &[u32]) -> Seen<bool> {
    let target = stage.ground.name();
    if claims.len() == CLAIMS {
        story.say(NOT_SHOWN)?;
    }
    if options.keep {
        story.say(&format!("kept: {}", stage.keep().display()))?;
    }
    Ok(story.end(&target, claims)?)
}

impl Chapter {
    async fn tell(&self, stage: &mut Stage, story: &mut Story<'_>) -> Seen<()> {
        match self.number {
            1 => who::tell(stage, story).await,
            2 => ask::tell(stage, story).await,
            3 => lease::tell(stage, story).await,
            4 => scope::tell(stage, story).await,
            5 => evasion::tell(stage, story).await,
            6 => ends::tell(stage, story).await,
            7 => crash::tell(stage, story).await,
            _ => later::tell(stage, story).await,
        }
    }
}
