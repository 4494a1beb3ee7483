//! The command while it runs: watched for its end, and for the end of its leases.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    time::{Duration, Instant},
};

use leasehold_client::{Lease, LeaseStage, LeaseStatus};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal as Signals, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    super::{
        parse::NamedPair,
        problem::{Exit, Problem},
        session::Session,
        view::{length, moment},
    },
    Folder, REFUSED,
    vars::{self, Variable},
};

/// Leases ended under the command.
const ENDED: Exit = Exit(124);
const NOT_RUNNABLE: Exit = Exit(126);
const NOT_FOUND: Exit = Exit(127);
/// Between SIGTERM and SIGKILL.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Between warnings that the broker is away.
const REMIND: Duration = Duration::from_secs(60);

type Leases = [(NamedPair, Lease)];

/// Runs the command to its end.
pub(super) async fn run(
    command: &[OsString],
    variables: &[Variable],
    leases: &Leases,
    folder: &Folder,
    session: &mut Session,
) -> Result<Exit, Problem> {
    // Before the start: a signal that comes between must not find nobody listening.
    let signals = Forwarded::listen()
        .map_err(|error| Problem::failed("cannot listen for signals").why(error.to_string()));
    let signals = signals.map_err(|problem| problem.exit(REFUSED))?;
    let child = start(command, variables)?;
    let (changes, _watchers) = watch(leases);
    let names = leases.iter().map(|(named, _)| named.pair.to_string()).collect();
    let refresh = |place: usize| match leases.get(place) {
        Some((_, lease)) => vars::write(folder, place, &lease.credential()),
        None => Ok(()),
    };
    Run { child, names, refresh, session }.supervise(changes, signals).await
}

fn start(command: &[OsString], variables: &[Variable]) -> Result<Child, Problem> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Problem::usage("no command").exit(REFUSED))?;
    let environment = variables.iter().map(|one| (one.name.as_str(), one.value.as_str()));
    Command::new(program).args(arguments).envs(environment).spawn().map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
        Problem::new(exit, format!("cannot run `{}`", program.display())).why(error.to_string())
    })
}

/// Signals that are passed on. A terminal sends SIGINT and SIGQUIT to the command itself; here they only must not
/// end the watch over it.
struct Forwarded {
    terminate: Signals,
    hangup: Signals,
    interrupt: Signals,
    quit: Signals,
}

impl Forwarded {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next one to pass on; `None` for one that only the terminal's own command should see.
    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            _ = self.terminate.recv() => Some(Signal::TERM),
            _ = self.hangup.recv() => Some(Signal::HUP),
            _ = self.interrupt.recv() => None,
            _ = self.quit.recv() => None,
        }
    }
}

/// A lease, by its place, and how it is doing.
type Change = (usize, LeaseStatus);

/// Gathers the changes of all leases; the watchers end when dropped.
fn watch(leases: &Leases) -> (mpsc::Receiver<Change>, JoinSet<()>) {
    let (sender, receiver) = mpsc::channel(16);
    let mut watchers = JoinSet::new();
    for (place, (_, lease)) in leases.iter().enumerate() {
        let (sender, mut status) = (sender.clone(), lease.status());
        watchers.spawn(async move {
            // A lease may have ended before anybody watched.
            status.mark_changed();
            while status.changed().await.is_ok() {
                let now = status.borrow_and_update().clone();
                if sender.send((place, now)).await.is_err() {
                    return;
                }
            }
        });
    }
    (receiver, watchers)
}

/// The command, the names of its leases, and how the files of one are written anew.
struct Run<'a, F> {
    child: Child,
    names: Vec<String>,
    refresh: F,
    session: &'a mut Session,
}

impl<F: Fn(usize) -> Result<(), Problem>> Run<'_, F> {
    async fn supervise(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut signals: Forwarded,
    ) -> Result<Exit, Problem> {
        let mut known = vec![0; self.names.len()];
        let mut away: Vec<Option<String>> = vec![None; self.names.len()];
        let mut remind = interval(REMIND);
        remind.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                status = self.child.wait() => return exit(status),
                signal = signals.next() => if let Some(signal) = signal { self.send(signal) },
                Some((place, status)) = changes.recv() => {
                    self.refresh(place, &status, &mut known);
                    if let Some(ended) = self.tell(place, &status, &mut away) {
                        return self.stop(&ended).await;
                    }
                }
                _ = remind.tick() => away.iter().flatten().for_each(|warning| self.session.console.note(warning)),
            }
        }
    }

    /// Puts a new credential where the old one lay.
    fn refresh(&mut self, place: usize, status: &LeaseStatus, known: &mut [u32]) {
        let Some((known, name)) = known.get_mut(place).zip(self.names.get(place)) else { return };
        if *known == status.credential {
            return;
        }
        *known = status.credential;
        let console = &mut self.session.console;
        match (self.refresh)(place) {
            Ok(()) => console
                .note(&format!("{} has a new credential in its file; new variables need a new start", name)),
            Err(problem) => console.note(&format!("warning: {}: {}", name, problem.what)),
        }
    }

    /// Says what changed; the cause once a lease has ended.
    fn tell(&mut self, place: usize, status: &LeaseStatus, away: &mut [Option<String>]) -> Option<String> {
        let pair = self.names.get(place).cloned().unwrap_or_default();
        let left =
            length(Duration::from_secs(status.ends.saturating_duration_since(Instant::now()).as_secs()));
        let warning = match &status.stage {
            LeaseStage::Ended { cause } => return Some(format!("{pair} ended: {cause}")),
            LeaseStage::BrokerAway { since, error } => Some(format!(
                "warning: the broker is away since {}; {pair} lasts for {left} more: {error}",
                moment(*since)
            )),
            LeaseStage::Last { reason } => {
                self.session.console.note(&format!("warning: {pair} ends in {left}: {reason}"));
                None
            }
            LeaseStage::Live => None,
        };
        let slot = away.get_mut(place)?;
        if slot.is_none()
            && let Some(warning) = &warning
        {
            self.session.console.note(warning);
        }
        *slot = warning;
        None
    }

    fn send(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // It may have ended just now; then its status is about to be read.
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
            tracing::debug!(%error, ?signal, "not delivered");
        }
    }

    /// SIGTERM, a few seconds, SIGKILL.
    async fn stop(mut self, cause: &str) -> Result<Exit, Problem> {
        self.session.console.note(&format!("{cause}; stopping the command"));
        self.send(Signal::TERM);
        if timeout(LAST_WORDS, self.child.wait()).await.is_err() {
            self.session.console.note("it did not stop; killing it");
            // Reaped with its parent at the latest.
            drop(self.child.kill().await);
        }
        Ok(ENDED)
    }
}

/// The command's own code; 128 and the signal, as shells have it.
fn exit(status: io::Result<ExitStatus>) -> Result<Exit, Problem> {
    let status =
        status.map_err(|error| Problem::failed("lost sight of the command").why(error.to_string()))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(Exit(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use leasehold_client::Options;

    use super::*;
    use crate::cli::console::{Format, tests::captured};

    fn check_start(command: &str, expect: Exit) {
        let problem = start(&[command.into()], &[]).err().unwrap();
        assert_eq!(problem.exit, expect, "{command}");
    }

    #[tokio::test]
    async fn what_cannot_be_run_exits_as_env_does() {
        check_start("/nowhere/at-all", NOT_FOUND);
        check_start("/etc/passwd", NOT_RUNNABLE);
    }

    async fn check_exit(script: &str, expect: u8) {
        let mut child = start(&["sh".into(), "-c".into(), script.into()], &[]).ok().unwrap();
        assert_eq!(exit(child.wait().await).ok(), Some(Exit(expect)), "{script}");
    }

    #[tokio::test]
    async fn the_command_s_code_is_passed_on() {
        check_exit("exit 0", 0).await;
        check_exit("exit 7", 7).await;
        check_exit("kill -9 $$", 137).await;
    }

    #[tokio::test]
    async fn variables_reach_the_command() {
        let variables = [Variable::shown("LEASEHOLD_TEST", "seen")];
        let script = "test \"$LEASEHOLD_TEST\" = seen".into();
        let mut child = start(&["sh".into(), "-c".into(), script], &variables).ok().unwrap();
        assert_eq!(exit(child.wait().await).ok(), Some(Exit::DONE));
    }

    fn status(stage: LeaseStage, credential: u32) -> LeaseStatus {
        LeaseStatus { stage, ends: Instant::now() + Duration::from_secs(600), credential }
    }

    /// Runs a script under one lease that changes so, and gives the exit, what was noted, and what was refreshed.
    async fn supervised(script: &str, changes: Vec<LeaseStatus>) -> (Exit, String, usize) {
        let (console, _, noted) = captured(Format::Text, "");
        let mut session = Session::new(console, Options::default());
        let child = start(&["sh".into(), "-c".into(), script.into()], &[]).ok().unwrap();
        let (sender, receiver) = mpsc::channel(16);
        for status in changes {
            sender.send((0, status)).await.unwrap();
        }
        let refreshed = Cell::new(0);
        let refresh = |_| {
            refreshed.set(refreshed.get() + 1);
            Ok(())
        };
        let run = Run { child, names: vec!["a@db".to_owned()], refresh, session: &mut session };
        let exit = run.supervise(receiver, Forwarded::listen().unwrap()).await.ok().unwrap();
        (exit, noted.text(), refreshed.get())
    }

    #[tokio::test]
    async fn a_command_without_its_lease_is_stopped() {
        let revoked = status(LeaseStage::Ended { cause: "operator".into() }, 0);
        let (exit, noted, _) = supervised("exec sleep 1000", vec![revoked]).await;
        assert_eq!(exit, ENDED);
        assert_eq!(noted, "leasehold: a@db ended: operator; stopping the command\n");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_listen_is_killed() {
        let revoked = status(LeaseStage::Ended { cause: "operator".into() }, 0);
        // The shell stays the parent of `sleep`, and both ignore SIGTERM.
        let (exit, noted, _) = supervised("trap '' TERM; sleep 1000 & wait; wait", vec![revoked]).await;
        assert_eq!(exit, ENDED);
        assert!(noted.ends_with("it did not stop; killing it\n"), "{noted}");
    }

    #[tokio::test]
    async fn a_command_outlives_the_broker_s_absence() {
        let away =
            LeaseStage::BrokerAway { since: std::time::SystemTime::UNIX_EPOCH, error: "no route".into() };
        let (exit, noted, _) = supervised("sleep 0.2; exit 7", vec![status(away, 0)]).await;
        assert_eq!(exit, Exit(7));
        assert!(
            noted
                .starts_with("leasehold: warning: the broker is away since 1970-01-01T00:00:00Z; a@db lasts")
        );
    }

    #[tokio::test]
    async fn the_last_stretch_and_new_credentials_are_told() {
        let last = LeaseStage::Last { reason: "its full life is reached".into() };
        let changes = vec![status(LeaseStage::Live, 1), status(last, 1)];
        let (exit, noted, refreshed) = supervised("sleep 0.2", changes).await;
        assert_eq!((exit, refreshed), (Exit::DONE, 1));
        assert!(noted.contains("a@db has a new credential"), "{noted}");
        assert!(noted.contains("its full life is reached"), "{noted}");
    }
}
