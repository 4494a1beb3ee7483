//! TaskService: open, look, change scope, watch, heartbeat, complete, abort.

use leasehold_law::behalf::OnBehalfOf;
use leasehold_law::cause::Cause;
use leasehold_law::id::TaskId;
use leasehold_law::request::MAX_REASON_BYTES;
use leasehold_law::task::Task;
use leasehold_proto::v1::{self, task_service_server::TaskService};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::layers::no_bearer;
use super::watch::{self, TaskStream};
use super::{Api, asker, read, standing, write};
use crate::broker::{Asker, Broker, Ended, Refused, TaskFilter};
use crate::identity::bearer::BearerRefused;

#[tonic::async_trait]
impl TaskService for Api {
    async fn open_task(
        &self,
        request: Request<v1::OpenTaskRequest>,
    ) -> Result<Response<v1::OpenTaskResponse>, Status> {
        let asker = asker(&request)?;
        let mut wire = request.into_inner();
        let person = self.person_behind(&asker, wire.on_behalf_of.take());
        let open = read::open_request(wire, self.broker.default_grace())?;
        let opened = self.broker.open_task(&asker, open, person).await?;
        Ok(Response::new(v1::OpenTaskResponse {
            task: Some(view(&self.broker, &opened.task)),
            decisions: opened.decisions.iter().map(write::pair_decision).collect(),
        }))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let own = standing(&request)?.own();
        let id = read::parse("task", &request.into_inner().task)?;
        let task = self.broker.task(own.as_ref(), id).await?;
        let stops = self.broker.stops(own.as_ref(), &task).await?;
        let stops = stops.iter().map(write::stop).collect();
        Ok(Response::new(v1::Task { stops, ..view(&self.broker, &task) }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let own = standing(&request)?.own();
        let wire = request.into_inner();
        let size = read::page_size(wire.page_size)?;
        let tasks = self.broker.tasks(own.as_ref(), self.task_filter(&wire, own.is_none())?, size).await?;
        let next_page_token = next_page(&tasks, size, |task| task.terms.id.to_string());
        let wanted = |task: &&Task| wanted_task(&wire, task);
        let tasks = tasks.iter().filter(wanted).map(|task| view(&self.broker, task)).collect();
        Ok(Response::new(v1::ListTasksResponse { tasks, next_page_token }))
    }

    async fn change_scope(
        &self,
        request: Request<v1::ChangeScopeRequest>,
    ) -> Result<Response<v1::ChangeScopeResponse>, Status> {
        let asker = asker(&request)?;
        let wire = request.into_inner();
        let id = read::parse("task", &wire.task)?;
        let (scope, wait) = (read::scope(wire.scope)?, read::wait(wire.wait)?);
        let change = self.broker.change_scope(&asker, id, scope, wait).await?;
        let (leases, pending) = write::settled(&change.settled);
        Ok(Response::new(v1::ChangeScopeResponse {
            task: Some(view(&self.broker, &change.task)),
            leases,
            pending,
            decisions: change.decisions.iter().map(write::pair_decision).collect(),
        }))
    }

    type WatchTaskStream = TaskStream;

    async fn watch_task(
        &self,
        request: Request<v1::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        let asker = asker(&request)?;
        let id = read::parse("task", &request.into_inner().task)?;
        Ok(Response::new(watch::task(self.broker.clone(), asker, id).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let asker = asker(&request)?;
        let wire = request.into_inner();
        let id = read::parse("task", &wire.task)?;
        let (mut task, pulse) = self.broker.heartbeat(&asker, id).await?;
        // After the beat, which counts whatever the token is worth.
        if let Some(newer) = self.person_behind(&asker, wire.on_behalf_of).await? {
            task = self.broker.renew_session(&asker, id, &newer).await?;
        }
        Ok(Response::new(v1::HeartbeatResponse {
            state: write::task_state(&task.state).into(),
            lost_at: pulse.lost_at.map(write::moment),
            deadline: Some(write::moment(task.terms.deadline)),
            version: task.version,
            session_until: task.session_until.map(write::moment),
        }))
    }

    async fn complete_task(
        &self,
        request: Request<v1::CompleteTaskRequest>,
    ) -> Result<Response<v1::CompleteTaskResponse>, Status> {
        let asker = asker(&request)?;
        let wire = request.into_inner();
        let (id, wait) = (task_id(&wire.task)?, read::wait(wire.wait)?);
        let Ended { task, settled } =
            self.broker.end_own_task(&asker, id, Cause::TaskCompleted, wait).await?;
        let (leases, pending) = write::settled(&settled);
        let task = Some(view(&self.broker, &task));
        Ok(Response::new(v1::CompleteTaskResponse { task, leases, pending }))
    }

    async fn abort_task(
        &self,
        request: Request<v1::AbortTaskRequest>,
    ) -> Result<Response<v1::AbortTaskResponse>, Status> {
        let asker = asker(&request)?;
        let wire = request.into_inner();
        let (id, wait) = (task_id(&wire.task)?, read::wait(wire.wait)?);
        let reason = read::text("reason", wire.reason, MAX_REASON_BYTES)?;
        self.broker.note_abort(&asker, id, &reason).await?;
        let Ended { task, settled } = self.broker.end_own_task(&asker, id, Cause::TaskAborted, wait).await?;
        let (leases, pending) = write::settled(&settled);
        let task = Some(view(&self.broker, &task));
        Ok(Response::new(v1::AbortTaskResponse { task, leases, pending }))
    }
}

impl Api {
    /// The person that a token says this caller acts for.
    async fn person_behind(
        &self,
        asker: &Asker,
        wire: Option<v1::OnBehalfOf>,
    ) -> Result<Option<OnBehalfOf>, Refused> {
        let Some(wire) = wire else { return Ok(None) };
        let token = Zeroizing::new(wire.token);
        self.subjects.verify(&token, &asker.id).await.map(Some).map_err(no_subject)
    }

    /// Names of the config mean something to operators only: agents could find out by them who is there.
    fn task_filter(&self, wire: &v1::ListTasksRequest, by_operator: bool) -> Result<TaskFilter, Refused> {
        let mut refs = wire.refs.iter().map(|(key, value)| (key.clone(), value.clone()));
        let reference = refs.next();
        if refs.next().is_some() {
            return Err(Refused::field("refs", "takes one reference to search by"));
        }
        let person = match wire.person.as_str() {
            "" => None,
            name if by_operator => Some(self.broker.person(name)?),
            name => Some(read::person("person", name)?),
        };
        let live = [v1::TaskState::Open, v1::TaskState::Ending].map(i32::from);
        Ok(TaskFilter {
            agent: read::parse_optional("agent", &wire.agent)?,
            reference,
            person,
            live: !wire.states.is_empty() && wire.states.iter().all(|state| live.contains(state)),
            ending: false,
            before: read::parse_optional("page_token", &wire.page_token)?,
        })
    }
}

fn no_subject(why: BearerRefused) -> Refused {
    match why {
        BearerRefused::Token(refused) if !refused.is_ours => {
            Refused::field("on_behalf_of.token", refused.what).next(refused.next)
        }
        other @ (BearerRefused::Token(_) | BearerRefused::Missing(_) | BearerRefused::Busy) => {
            no_bearer(other)
        }
    }
}

fn task_id(text: &str) -> Result<TaskId, Refused> {
    read::parse("task", text)
}

/// A task with what only memory knows: whether its agent is silent.
pub(super) fn view(broker: &Broker, task: &Task) -> v1::Task {
    write::task(task, broker.is_silent(task), broker.drifts(task))
}

/// What the store's filter does not say; a page may hold fewer rows than asked for (AIP-158).
fn wanted_task(wire: &v1::ListTasksRequest, task: &Task) -> bool {
    let opened = task.terms.opened_at;
    let state = i32::from(write::task_state(&task.state));
    (wire.states.is_empty() || wire.states.contains(&state))
        && read::moment(wire.opened_after).is_none_or(|after| opened >= after)
        && read::moment(wire.opened_before).is_none_or(|before| opened < before)
}

/// The token of the next page: where this one ended, if it is full.
pub(super) fn next_page<T>(rows: &[T], size: usize, id: impl Fn(&T) -> String) -> String {
    if rows.len() < size { String::new() } else { rows.last().map(id).unwrap_or_default() }
}
