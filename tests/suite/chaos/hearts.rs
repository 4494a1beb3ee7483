//! The heartbeats of a load: one heart for each agent beats for every task that its agent has not let go of, to whichever
//! broker answers, until all is looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use leasehold_proto::v1;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::agents::{Line, is_answered, is_final};

/// The grace of every task that heartbeats hold, in seconds: the shortest there is.
pub(super) const GRACE: i64 = 30;
/// So long, in milliseconds, a task that is called lost was silent at least. Brokers tell each other what they heard once
/// in a quarter of the grace, so that what one heard in the last quarter may die with it; 2.5 s are for the tick by which
/// they do, and for the moment between a beat and its answer.
const SILENCE: i64 = GRACE * 1000 * 3 / 4 - 2_500;
/// The pause between two beats.
const BEAT: Duration = Duration::from_secs(2);
/// How long a heart waits for an answer before it beats elsewhere.
const ANSWER: Duration = Duration::from_secs(5);

/// What is known of the beats of one task.
#[derive(Clone, Debug)]
struct Pulse {
    agent: &'static str,
    /// Its agent has not let go of it.
    beats: bool,
    /// When the last beat that a broker took was sent, in milliseconds; or when the task was asked for.
    last: i64,
    /// When a beat was sent that was refused for good.
    refused: Option<i64>,
}

/// The beats of all tasks.
#[derive(Default)]
pub(super) struct Beats(Mutex<BTreeMap<String, Pulse>>);

impl Beats {
    /// A task is open since this question at the earliest.
    pub(super) fn begin(&self, task: &str, agent: &'static str, asked: i64) {
        let pulse = Pulse { agent, beats: true, last: asked, refused: None };
        self.0.lock().unwrap().insert(task.to_owned(), pulse);
    }

    /// Its agent lets go of it.
    pub(super) fn stop(&self, task: &str) {
        self.note(task, |pulse| pulse.beats = false);
    }

    fn note(&self, task: &str, note: impl FnOnce(&mut Pulse)) {
        if let Some(pulse) = self.0.lock().unwrap().get_mut(task) {
            note(pulse);
        }
    }

    fn of(&self, agent: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        let here =
            all.iter().filter(|(_, pulse)| pulse.agent == agent && pulse.beats && pulse.refused.is_none());
        here.map(|(task, _)| task.clone()).collect()
    }
}

/// Hearts at work, until they are dropped.
#[derive(Default)]
pub(super) struct Hearts {
    pub(super) beats: Arc<Beats>,
    at_work: Vec<JoinHandle<()>>,
}

impl Drop for Hearts {
    fn drop(&mut self) {
        self.at_work.iter().for_each(JoinHandle::abort);
    }
}

impl Hearts {
    /// The heart of one agent begins.
    pub(super) fn begin(&mut self, agent: &'static str, line: Line) {
        self.at_work.push(tokio::spawn(beat(agent, line, self.beats.clone())));
    }

    /// Whether it beats for this task: its agent holds it by heartbeats, and has not let go of it.
    pub(super) fn hold(&self, task: &str) -> bool {
        self.beats.0.lock().unwrap().get(task).is_some_and(|pulse| pulse.beats)
    }

    /// Whether its agent held it by heartbeats, and has let go of it: it ends, whether or not its agent said how.
    pub(super) fn let_go_of(&self, task: &str) -> bool {
        self.beats.0.lock().unwrap().get(task).is_some_and(|pulse| !pulse.beats)
    }

    /// A task ended as lost at this time, in milliseconds: it must have been silent before that, by heartbeats that some
    /// broker took.
    pub(super) fn explain_loss(&self, task: &str, ended: i64) {
        let all = self.beats.0.lock().unwrap();
        let pulse = all.get(task).unwrap_or_else(|| panic!("{task} is lost, and only its deadline holds it"));
        let silence = pulse.refused.unwrap_or(ended).min(ended) - pulse.last;
        assert!(silence >= SILENCE, "{task} is lost {silence} ms after a beat that was answered: {pulse:?}");
    }
}

async fn beat(agent: &'static str, mut line: Line, beats: Arc<Beats>) {
    let mut tick = interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for task in beats.of(agent) {
            let Some(mut client) = line.client().await else { break };
            let (sent, request) = (now(), v1::HeartbeatRequest { task: task.clone(), ..Default::default() });
            match timeout(ANSWER, client.tasks.heartbeat(request)).await {
                Ok(Ok(_)) => beats.note(&task, |pulse| pulse.last = sent),
                Ok(Err(status)) if is_final(&status) => beats.note(&task, |pulse| pulse.refused = Some(sent)),
                Ok(Err(status)) if is_answered(&status) => {}
                Ok(Err(_)) | Err(_) => line.hang_up(),
            }
        }
    }
}

/// The host's time, which brokers go by, in milliseconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
