//! Room 3: may this kind of caller use this call. One static table, printed as the committed matrix (law 13).

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::caller::CallerId;
use leasehold_law::catalog::Owner;
use leasehold_law::reason::Reason;

use crate::broker::{Asker, Refused, Whose};
use crate::config::Role;
use crate::identity::{Caller, Door};
use crate::registry::Registry;

/// What a call needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A proven identity, whosever.
    Proven,
    /// A registered agent; it sees its own alone.
    Agent,
    /// An operator with this role.
    Operator(Role),
    /// An operator with this role, for all; or a person who answers for agents, for those.
    OperatorOrOwner(Role),
}

/// One call, and what each door asks for it; a door that asks nothing does not serve it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The path on the wire, without the leading slash.
    pub call: &'static str,
    /// On the agents' door.
    pub agents: Option<Need>,
    /// On the admin door.
    pub admin: Option<Need>,
    /// Whether an operator changes something by it: then who sat at the keyboard goes on record too.
    pub acts: bool,
}

const fn agents(call: &'static str) -> Row {
    Row { call, agents: Some(Need::Agent), admin: None, acts: false }
}

const fn admin(call: &'static str, role: Role) -> Row {
    Row { call, agents: None, admin: Some(Need::Operator(role)), acts: false }
}

const fn act(call: &'static str, role: Role) -> Row {
    Row { acts: true, ..admin(call, role) }
}

const fn owners(call: &'static str, role: Role) -> Row {
    Row { call, agents: None, admin: Some(Need::OperatorOrOwner(role)), acts: false }
}

const fn both(call: &'static str, role: Role) -> Row {
    Row { call, agents: Some(Need::Agent), admin: Some(Need::Operator(role)), acts: false }
}

const fn open(call: &'static str) -> Row {
    Row { call, agents: Some(Need::Proven), admin: Some(Need::Proven), acts: false }
}

/// Every call there is. One without a row is refused, and a test fails.
pub const TABLE: &[Row] = &[
    agents("leasehold.v1.TaskService/OpenTask"),
    both("leasehold.v1.TaskService/GetTask", Role::Viewer),
    both("leasehold.v1.TaskService/ListTasks", Role::Viewer),
    agents("leasehold.v1.TaskService/ChangeScope"),
    agents("leasehold.v1.TaskService/WatchTask"),
    agents("leasehold.v1.TaskService/Heartbeat"),
    agents("leasehold.v1.TaskService/CompleteTask"),
    agents("leasehold.v1.TaskService/AbortTask"),
    agents("leasehold.v1.LeaseService/ListGrants"),
    agents("leasehold.v1.LeaseService/Propose"),
    agents("leasehold.v1.LeaseService/RequestLease"),
    agents("leasehold.v1.LeaseService/RenewLease"),
    agents("leasehold.v1.LeaseService/ReleaseLease"),
    both("leasehold.v1.LeaseService/GetLease", Role::Viewer),
    both("leasehold.v1.LeaseService/ListLeases", Role::Viewer),
    open("leasehold.v1.IdentityService/WhoAmI"),
    act("leasehold.v1.RevocationService/Revoke", Role::Revoker),
    admin("leasehold.v1.RevocationService/GetRevocation", Role::Revoker),
    admin("leasehold.v1.RevocationService/ListRevocations", Role::Revoker),
    admin("leasehold.v1.RevocationService/WatchRevocation", Role::Revoker),
    act("leasehold.v1.RevocationService/LiftRevocation", Role::Admin),
    admin("leasehold.v1.AuditService/Trace", Role::Auditor),
    admin("leasehold.v1.AuditService/Find", Role::Auditor),
    admin("leasehold.v1.AuditService/Export", Role::Auditor),
    admin("leasehold.v1.AuditService/Verify", Role::Auditor),
    admin("leasehold.v1.TargetService/ListTargets", Role::Admin),
    admin("leasehold.v1.TargetService/CheckTarget", Role::Admin),
    admin("leasehold.v1.TargetService/SetupTarget", Role::Admin),
    act("leasehold.v1.TargetService/SweepTarget", Role::Admin),
    // It mints, and whoever may only stop things must cause no mint.
    act("leasehold.v1.TargetService/DrillTarget", Role::Admin),
    owners("leasehold.v1.AgentService/ListAgents", Role::Viewer),
    owners("leasehold.v1.AgentService/GetAgent", Role::Viewer),
    act("leasehold.v1.AgentService/ApplyAgents", Role::Admin),
    act("leasehold.v1.AgentService/SetAgentStatus", Role::Admin),
    Row { acts: true, ..owners("leasehold.v1.AgentService/ReviewAgent", Role::Admin) },
    act("leasehold.v1.AgentService/OffboardOwner", Role::Admin),
    admin("leasehold.v1.AdminService/Status", Role::Viewer),
    act("leasehold.v1.AdminService/ConfirmClock", Role::Admin),
    open("grpc.health.v1.Health/Check"),
    open("grpc.health.v1.Health/Watch"),
    open("grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
];

/// What kinds of calls are counted apart at a door, so that one kind never takes the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It asks for something.
    Asks,
    /// It keeps a task alive, or gives something back: refusing that would only make more to do.
    GivesBack,
    /// Its answer stays open.
    StaysOpen,
}

const GIVE_BACK: &[&str] = &[
    "leasehold.v1.TaskService/Heartbeat",
    "leasehold.v1.TaskService/CompleteTask",
    "leasehold.v1.TaskService/AbortTask",
    "leasehold.v1.LeaseService/ReleaseLease",
];

const STAY_OPEN: &[&str] = &[
    "leasehold.v1.TaskService/WatchTask",
    "leasehold.v1.RevocationService/Revoke",
    "leasehold.v1.RevocationService/WatchRevocation",
    "leasehold.v1.AuditService/Export",
    "leasehold.v1.TargetService/DrillTarget",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

impl Lane {
    /// The lane of a call.
    #[must_use]
    pub fn of(call: &str) -> Self {
        if STAY_OPEN.contains(&call) {
            Self::StaysOpen
        } else if GIVE_BACK.contains(&call) {
            Self::GivesBack
        } else {
            Self::Asks
        }
    }
}

/// Whether a call changes something for operators.
#[must_use]
pub fn acts(call: &str) -> bool {
    TABLE.iter().any(|row| row.call == call && row.acts)
}

/// The name of a call that is served; anything else a caller made up.
#[must_use]
pub fn method(call: &str) -> Option<&'static str> {
    TABLE.iter().find(|row| row.call == call).map(|row| row.call)
}

/// Who operators are, and what they may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operators {
    named: BTreeMap<CallerId, BTreeSet<Role>>,
    groups: BTreeMap<(String, String), BTreeSet<Role>>,
}

impl Operators {
    /// Those that are named, and those whom their issuer puts into a group: by issuer and group.
    #[must_use]
    pub fn new(
        named: BTreeMap<CallerId, BTreeSet<Role>>,
        groups: BTreeMap<(String, String), BTreeSet<Role>>,
    ) -> Self {
        Self { named, groups }
    }

    /// Whether somebody is named.
    #[must_use]
    pub fn names(&self, id: &CallerId) -> bool {
        self.named.contains_key(id)
    }

    /// The roles that a caller holds. Groups count for a person alone, and those of one issuer for nobody of another.
    #[must_use]
    pub fn roles(&self, caller: &Caller) -> BTreeSet<Role> {
        let mut roles = self.named.get(caller.id()).cloned().unwrap_or_default();
        if let CallerId::Person(person) = caller.id() {
            let key = |group: &String| (person.issuer().to_owned(), group.clone());
            let told = caller.groups().iter().filter_map(|group| self.groups.get(&key(group)));
            roles.extend(told.flatten());
        }
        roles
    }
}

/// A caller that may use a call, and as what.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Anybody proven.
    Proven(Caller),
    /// A registered agent, for its own.
    Agent(Asker),
    /// An operator, for all.
    Operator(CallerId),
    /// A person, for the agents that they answer for, as these owners.
    Owner(Caller, BTreeSet<Owner>),
}

impl Standing {
    /// Whose own things the call is about; none for an operator, who sees all.
    #[must_use]
    pub fn own(&self) -> Option<Asker> {
        match self {
            Self::Proven(caller) | Self::Owner(caller, _) => Some(asker(caller)),
            Self::Agent(asker) => Some(asker.clone()),
            Self::Operator(_) => None,
        }
    }

    /// The proven identity.
    #[must_use]
    pub fn id(&self) -> &CallerId {
        match self {
            Self::Proven(caller) | Self::Owner(caller, _) => caller.id(),
            Self::Agent(asker) => &asker.id,
            Self::Operator(id) => id,
        }
    }

    /// Whose agents the call may be about.
    #[must_use]
    pub fn whose(&self) -> Whose {
        match self {
            Self::Operator(_) => Whose::Everybody,
            Self::Owner(_, owners) => Whose::Of(owners.clone()),
            Self::Proven(_) | Self::Agent(_) => Whose::Of(BTreeSet::new()),
        }
    }
}

fn asker(caller: &Caller) -> Asker {
    Asker { id: caller.id().clone(), proof: caller.proof() }
}

/// Whether a proven caller may use a call.
///
/// # Errors
/// UNKNOWN_AGENT for a workload that nobody registered, ROLE_MISSING for everything else.
pub fn check(
    call: &str,
    caller: &Caller,
    operators: &Operators,
    registry: &Registry,
) -> Result<Standing, Refused> {
    let row = TABLE.iter().find(|row| row.call == call).ok_or_else(|| no_such_call(call))?;
    let need = match caller.door() {
        Door::Agents => row.agents,
        Door::Admin => row.admin,
    };
    match need {
        None => Err(wrong_door(call, row)),
        Some(Need::Proven) => Ok(Standing::Proven(caller.clone())),
        Some(Need::Agent) if registry.knows(caller.id()) => Ok(Standing::Agent(asker(caller))),
        Some(Need::Agent) => Err(Refused::unknown_agent(caller.id())),
        Some(Need::Operator(role)) => operator(call, caller, role, operators, registry),
        Some(Need::OperatorOrOwner(role)) => {
            let answer = operator(call, caller, role, operators, registry);
            answer.or_else(|refused| owner(caller, registry).ok_or(refused))
        }
    }
}

fn operator(
    call: &str,
    caller: &Caller,
    role: Role,
    operators: &Operators,
    registry: &Registry,
) -> Result<Standing, Refused> {
    if !operators.roles(caller).contains(&role) {
        Err(role_missing(call, caller.id(), role))
    } else if registry.knows(caller.id()) {
        // Config refuses it too; whatever it says, one identity is never both.
        Err(both_at_once(call, caller.id()))
    } else {
        Ok(Standing::Operator(caller.id().clone()))
    }
}

/// No agent answers for agents, not even one in its person's session: it is no person.
fn owner(caller: &Caller, registry: &Registry) -> Option<Standing> {
    let CallerId::Person(person) = caller.id() else { return None };
    let owners = registry.owners_of_agents(person);
    let may = !owners.is_empty() && !registry.knows(caller.id());
    may.then(|| Standing::Owner(caller.clone(), owners))
}

fn both_at_once(call: &str, id: &CallerId) -> Refused {
    Refused::new(Reason::RoleMissing, format!("denied {call}"))
        .why(format!("{id} is registered as an agent: one identity is never agent and operator at once"))
        .next("give operators identities of their own")
}

fn no_such_call(call: &str) -> Refused {
    Refused::new(
        Reason::NotServed,
        format!("there is no call `{}`", call.chars().take(128).collect::<String>()),
    )
}

fn wrong_door(call: &str, row: &Row) -> Refused {
    let next = match row.admin {
        Some(_) => "use the admin door: leave out LEASEHOLD_ADDR, or set LEASEHOLD_ADMIN_ADDR",
        None => "use the agents' door: set SPIFFE_ENDPOINT_SOCKET and LEASEHOLD_ADDR",
    };
    Refused::new(Reason::RoleMissing, format!("denied {call}")).why("this door does not serve it").next(next)
}

fn role_missing(call: &str, id: &CallerId, role: Role) -> Refused {
    let refused = Refused::new(Reason::RoleMissing, format!("denied {call}"))
        .why(format!("{id} does not hold the role {role}"))
        .detail("role", role);
    match id {
        CallerId::Person(person) => refused.next(format!(
            "[people] NAME = {{ issuer = \"{}\", subject = \"{}\" }} and [operators] \"person:NAME\" = [\"{role}\"]",
            person.issuer(),
            person.name()
        )),
        CallerId::Agent(_)
        | CallerId::LocalUser(_)
        | CallerId::CiJob(_)
        | CallerId::KubeAccount(_)
        | CallerId::PersonalAgent(_)
        | CallerId::Drill => refused.next(format!("[operators] \"{id}\" = [\"{role}\"]")),
    }
}
