//! Each check, by the line that breaks it.

mod ci;
mod people;

use std::fs;
use std::path::PathBuf;

use leasehold_law::caller::CallerId;
use leasehold_law::catalog::{Class, Floor};
use leasehold_law::param::{ParamKind, ParamValue, Params, TextRule};
use leasehold_law::quota::{Holder, Quota, Rate};
use leasehold_law::subject::Subject;
use leasehold_law::time::Span;

use super::testing::kinds;
use super::*;

/// The example of DESIGN.md section 4.
const EXAMPLE: &str = include_str!("tests/example.toml");
const POLICY: &str = r#"
@id("triage-reads-orders-briefly")
forbid (principal in AgentGroup::"soc", action == Action::"orders.read", resource == Target::"orders-db")
when { context.ttl > duration("15m") };
"#;

/// A folder with a config in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(config: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("policies/orders.cedar", POLICY);
        folder.write("conf.d/none.toml", "");
        folder.write("installation.key", "not read by a check");
        folder.write("leasehold.toml", config);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, trust: Trust) -> Result<Loaded, Vec<Problem>> {
        Config::load(&self.path("leasehold.toml"), &kinds(), trust)
    }

    /// What is wrong, with paths relative to the folder.
    fn problems(&self, trust: Trust) -> Vec<String> {
        self.load(trust).err().unwrap_or_default().iter().map(|problem| self.shown(problem)).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.load(Trust::Production).unwrap().warnings.iter().map(|problem| self.shown(problem)).collect()
    }

    fn shown(&self, problem: &Problem) -> String {
        problem.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// A line that can be left out.
const TLS: &str = "tls     = \"verify-full\"";
const SQLITE: &str = "sqlite = \"/var/lib/leasehold/leases.db\"";

#[test]
fn a_shared_store_names_the_files_to_read_later() {
    let shared = "postgres = { url_file = \"store.url\", sslrootcert = \"/etc/roots.pem\" }";
    let folder = Folder::with(&EXAMPLE.replace(SQLITE, shared));
    let Loaded { config, .. } = folder.load(Trust::Production).unwrap();
    let url_file = folder.path("store.url");
    let expect = SharedStore { url_file, sslrootcert: Some("/etc/roots.pem".into()), verify: true };
    assert_eq!(config.store, Store::Postgres(expect));
}

/// An agent of a partner may ask; nobody there may ever operate.
#[test]
fn agents_may_be_of_a_federated_trust_domain_and_operators_may_not() {
    let federated = EXAMPLE
        .replace("[identity.spiffe]", "[identity.spiffe]\nfederates_with = [\"other.example\"]")
        .replace("[agents.\"spiffe://prod", "[agents.\"spiffe://other");
    let config = Folder::with(&federated).load(Trust::Production).unwrap().config;
    assert_eq!(config.identity.spiffe.federates_with, ["other.example".to_owned()].into());
    let agent: CallerId = "spiffe://other.example/agent/triage".parse().unwrap();
    assert!(config.catalog.agents.contains_key(&agent));
    let operator = federated.replace("spiffe://prod.example/operator/ir", "spiffe://other.example/ir");
    let problems = Folder::with(&operator).problems(Trust::Production);
    assert!(
        problems.iter().any(|problem| problem.contains("in trust domain `other.example`")),
        "{problems:?}"
    );
}

#[test]
fn the_example_of_the_design_loads() {
    let folder = Folder::with(EXAMPLE);
    let Loaded { config, warnings } = folder.load(Trust::Production).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.broker.installation_key, folder.path("installation.key"));
    assert_eq!(config.listen.admin[1], AdminAddr::Tcp("0.0.0.0:8444".parse().unwrap()));
    assert_eq!(config.operators[&"uid:0".parse().unwrap()], Role::ALL.into());
    assert_eq!(config.operators.values().next().unwrap().len(), 2);
    assert_eq!(config.store, Store::Sqlite("/var/lib/leasehold/leases.db".into()));
    assert_eq!(config.tasks, Tasks::default());
    let floors = &config.catalog.floors;
    assert_eq!(floors.base[&Class::ReadOnly], Floor::Permit);
    assert_eq!(floors.production[&Class::Reversible], Floor::Ask);
    assert!(floors.production_labels["env"].contains("prod"));
    assert_eq!(config.catalog.groups["oncall"].len(), 2);
    assert_eq!(config.people["ana"].name(), "00u1ana");
    assert_eq!(config.policies.len(), 1);
}

#[test]
fn an_intent_a_grant_and_a_target_keep_what_was_written() {
    let folder = Folder::with(EXAMPLE);
    let config = folder.load(Trust::Production).unwrap().config;
    let intent = &config.catalog.intents["orders.read"];
    assert_eq!(intent.class, Class::ReadOnly);
    let codes = TextRule::Enum(vec!["triage".into(), "audit".into()]);
    assert_eq!(intent.params["reason_code"].kind, ParamKind::String(codes));
    let pair = "orders.read@orders-db".parse().unwrap();
    let grant = &config.catalog.grants[&pair];
    assert_eq!((grant.ttl.default, grant.ttl.life), (Span::from_mins(10), Span::from_mins(60)));
    assert_eq!(grant.recipe.0["connection_limit"], 5);
    assert!(grant.allow.contains("soc"));
    let target = &config.targets["orders-db"];
    assert_eq!(target.law.labels["env"], "prod");
    assert_eq!(target.table["connect"]["port"], 5432);
    assert_eq!(target.table["admin"]["password_file"], "/run/secrets/orders-admin");
    assert!(!target.table.contains_key("owner"));
    let line = |what: &str| EXAMPLE.lines().position(|line| line.starts_with(what)).unwrap() + 1;
    assert_eq!(target.lines.place("/connect/port").line, line("connect"));
    assert_eq!(target.lines.place("/connect/nothing").line, line("connect"));
    assert_eq!(target.lines.place("/nothing").line, line("[targets.orders-db]"));
    assert_eq!(
        config.recipe_place(&pair, "/member_of/0").unwrap().line,
        line("recipe = { member_of = [\"orders_reader")
    );
}

#[test]
fn quotas_hold_for_a_kind_and_by_name() {
    let folder = Folder::with(EXAMPLE);
    let quotas = folder.load(Trust::Production).unwrap().config.quotas;
    assert_eq!(quotas.agent, Quota { live: Some(10_000), rate: None }, "honest use is never troubled");
    assert_eq!((quotas.owner, quotas.target), (Quota::default(), Quota::default()));
    let config = EXAMPLE.replace(
        "[tasks]",
        r#"[quotas]
agent = { live = 100, rate = "20/s", burst = 40 }
owner = { live = 0 }
agents."spiffe://prod.example/agent/triage" = { live = "unlimited" }
owners."person:ana" = { live = 7, rate = "1/m" }
targets.orders-db = { rate = "5/10s" }
[tasks]"#,
    );
    let quotas = Folder::with(&config).load(Trust::Production).unwrap().config.quotas;
    let rate = Some(Rate { burst: 40, .."20/s".parse().unwrap() });
    assert_eq!(quotas.agent, Quota { live: Some(100), rate });
    assert_eq!(quotas.owner, Quota { live: Some(0), rate: None }, "0 means none");
    let triage = Holder::Agent("spiffe://prod.example/agent/triage".parse().unwrap());
    assert_eq!(quotas.of(&triage), Quota { live: None, rate }, "what a name leaves out it has from its kind");
    let ana = Quota { live: Some(7), rate: "1/m".parse().ok() };
    assert_eq!(quotas.of(&Holder::Owner("person:ana".parse().unwrap())), ana);
    let target = Quota { live: None, rate: "5/10s".parse().ok() };
    assert_eq!(quotas.of(&Holder::Target("orders-db".to_owned())), target);
}

#[test]
fn five_mistakes_are_five_problems_with_their_lines() {
    let broken = EXAMPLE
        .replace("name = \"broker-1\"", "nmae = \"broker-1\"")
        .replace("grace = \"60s\"", "grace = \"60 seconds\"")
        .replace("person:ana", "person:anna")
        .replace("intent = \"orders.purge\"", "intent = \"orders.prune\"")
        .replace("max = \"15m\"", "max = \"5m\"");
    insta::assert_snapshot!(Folder::with(&broken).problems(Trust::Production).join("\n"), @r#"
    leasehold.toml:3:1: unknown key `broker.nmae`; did you mean `name`?
    leasehold.toml:29:9: `60 seconds` is not a length of time; write it like `90s`, `15m` or `1h30m`
    leasehold.toml:49:10: no intent `orders.prune` is defined; did you mean `orders.purge`?
    leasehold.toml:58:1: ttl needs 0 < default <= max <= life; this is default 10m, max 5m, life 1h
    leasehold.toml:61:9: no person `anna` is defined; did you mean `ana`?
    "#);
}

/// What is unexpected when this change to the example should make one problem, on a line of the change.
fn misreported((from, to, expect): &(&str, &str, &str)) -> Option<String> {
    let at = EXAMPLE.find(from).unwrap_or_else(|| panic!("no {from} in the example"));
    let config = EXAMPLE.replacen(from, to, 1);
    let found = Folder::with(&config).load(Trust::Production).err().unwrap_or_default();
    let first = config[..at].matches('\n').count() + 1;
    let lines = first..=first + to.matches('\n').count();
    match found.as_slice() {
        [one] if one.what.contains(expect) && lines.contains(&one.line) => None,
        other => Some(format!("{to}\n  wanted on {lines:?}: {expect}\n  found: {other:#?}")),
    }
}

#[test]
fn each_mistake_is_named_on_its_line() {
    let misreported: Vec<_> = MISTAKES.iter().filter_map(misreported).collect();
    assert!(misreported.is_empty(), "{}", misreported.join("\n"));
}

const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "[tasks]",
        "[quotas]\nagent = { life = 1 }\n[tasks]",
        "unknown key `quotas.agent.life`; did you mean `live`?",
    ),
    (
        "[tasks]",
        "[quotas]\nagent = { live = -1 }\n[tasks]",
        "`live` is 0 or more, or \"unlimited\"; this is -1",
    ),
    ("[tasks]", "[quotas]\nagent = { rate = \"20\" }\n[tasks]", "`20` is not a rate; write it like `20/s`"),
    ("[tasks]", "[quotas]\nowner = { burst = 2 }\n[tasks]", "write `rate` beside it"),
    ("[tasks]", "[quotas]\ntarget = { rate = \"1/s\", burst = 0 }\n[tasks]", "a whole number from 1 on"),
    ("[tasks]", "[quotas]\ntargets.orders = { live = 1 }\n[tasks]", "no target `orders` is defined"),
    ("[tasks]", "[quotas]\nowners.ana = { live = 1 }\n[tasks]", "`ana` is not an owner"),
    ("[tasks]", "[taks]", "unknown key `taks`; did you mean `tasks`?"),
    ("name = \"broker-1\"", "name = 7", "`broker.name` takes text in quotes, not a number"),
    ("name = \"broker-1\"", "name = \"broker 1\"", "`broker 1` is not a name"),
    ("name = \"broker-1\"", "name = \"broker-1\"\nlabels = {}", "unknown key `broker.labels`"),
    ("\nname = \"broker-1\"", "", "`broker.name` is missing"),
    ("\"prod.example\"", "\"Prod.example\"", "`Prod.example` is not a trust domain"),
    ("agents = \"0.0.0.0:8443\"", "agents = \"localhost:8443\"", "`localhost:8443` is not an address"),
    ("agents = \"0.0.0.0:8443\"", "agents = \"unix:/a\"", "`unix:/a` is not an address"),
    (
        "[operators]",
        "per_caller = { connections = 0 }\n[operators]",
        "a bound per caller is 1 to 10000; this is 0",
    ),
    ("\"0.0.0.0:8444\"", "\"8444\"", "`8444` is not an address"),
    ("\"unix:/run/leasehold/admin.sock\"", "\"unix:\"", "the path of the socket is missing"),
    ("[\"unix:/run/leasehold/admin.sock\", \"0.0.0.0:8444\"]", "[]", "operators need a door"),
    ("[\"admin\"]", "[\"root\"]", "`root` is no value of `operators.uid:0[0]`"),
    ("[\"admin\"]", "[\"admin\", \"auditer\"]", "did you mean `auditor`?"),
    ("\"uid:0\"", "\"root\"", "`root` is not a workload or operator"),
    ("spiffe://prod.example/operator/ir", "spiffe://test.example/ir", "in trust domain `test.example`"),
    ("unix:/run/spire/agent.sock", "/run/spire/agent.sock", "is not a unix socket"),
    (
        "[identity.spiffe]",
        "[identity.spiffe]\nfederates_with = [\"Partner.example\"]",
        "`Partner.example` is not a trust domain",
    ),
    (
        "[identity.spiffe]",
        "[identity.spiffe]\nfederates_with = [\"prod.example\"]",
        "`prod.example` is the broker's own trust domain",
    ),
    (
        "[identity.spiffe]",
        "[identity.spiffe]\nfederates_with = [\"a.leasehold.test\"]",
        "`a.leasehold.test` is a dev trust domain",
    ),
    (
        "[agents.\"spiffe://prod",
        "[agents.\"spiffe://other",
        "write `federates_with = [\"other.example\"]` in [identity.spiffe]",
    ),
    ("[operators]", "handshakes_per_address = 0\n[operators]", "handshakes of one address are 1 to 512"),
    ("spiffe://prod.example/leasehold", "prod.example/leasehold", "is not a workload or operator"),
    ("sqlite = \"/var/lib/leasehold/leases.db\"", "sqlite = \"\"", "`store.sqlite` is empty"),
    (
        "sqlite = \"/var/lib",
        "postgres = { url_file = \"x\" }\nsqlite = \"/var/lib",
        "one of `sqlite` and `postgres`",
    ),
    (SQLITE, "postgres = \"x\"", "`store.postgres` takes a table, not text"),
    (SQLITE, "postgres = {}", "`store.postgres.url_file` is missing"),
    (SQLITE, "postgres = { url_file = \"x\", url = \"y\" }", "unknown key `store.postgres.url`"),
    (
        SQLITE,
        "postgres = { url_file = \"x\", tls = \"prefer\" }",
        "`prefer` is no value of `store.postgres.tls`",
    ),
    ("https://idp.example", "http://idp.example", "`http://idp.example` is not an issuer"),
    ("00u2ben", "00u1ana", "`ben` and `ana` are the same issuer and subject"),
    (
        "data-platform = [\"ana\"]",
        "data-platform = [\"anna\"]",
        "no person `anna` is defined; did you mean `ana`?",
    ),
    ("data-platform = [\"ana\"]", "data-platform = [\"ana\"]\n\"a b\" = []", "`a b` is not a name"),
    (
        "irreversible = \"ask\" }",
        "irreversible = \"deny\" }",
        "`deny` is no value of `policy.floor.irreversible`",
    ),
    ("irreversible = \"ask\" }", "irrevocable = \"ask\" }", "unknown key `policy.floor.irrevocable`"),
    ("grace = \"60s\"", "grace = \"29s\"", "grace is 30s to 10m; this is 29s"),
    ("grace = \"60s\"", "grace = \"11m\"", "grace is 30s to 10m; this is 11m"),
    ("default = \"1h\", max", "default = \"13h\", max", "0 < default <= max; this is default 13h, max 12h"),
    ("default = \"1h\", max", "default = \"0s\", max", "0 < default <= max"),
    (
        "backend = \"postgres\"",
        "backend = \"postgre\"",
        "no backend `postgre` is built in; did you mean `postgres`?",
    ),
    ("backend = \"postgres\"", "backend = \"memory\"", "the memory target guards nothing"),
    ("port = 5432", "port = \"5432\"", "`targets.orders-db.connect.port`: a port is a number"),
    ("connection_limit = 5", "connection_limit = 99999999999999999999", "the number of `connection_limit`"),
    ("owner   = \"group:data-platform\"", "owner   = \"data-platform\"", "`data-platform` is not an owner"),
    ("group:data-platform", "group:data", "no group `data` is defined; there is data-platform, oncall"),
    ("env = \"prod\", data", "env = \"a b\", data", "`a b` is no label"),
    ("class  = \"read-only\"", "class  = \"readonly\"", "did you mean `read-only`?"),
    ("{ enum = [\"triage\", \"audit\"] }", "{ enum = [] }", "an empty `enum` takes nothing"),
    (
        "{ enum = [\"triage\", \"audit\"] }",
        "{ enum = [\"a\"], pattern = \"*\" }",
        "`enum` or `pattern`, not both",
    ),
    ("{ enum = [\"triage\", \"audit\"] }", "{ min = 1 }", "`min` and `max` are for type `int`"),
    (
        "{ enum = [\"triage\", \"audit\"] }",
        "{ type = \"int\", min = 9, max = 1 }",
        "min 9 is greater than max 1",
    ),
    ("{ enum = [\"triage\", \"audit\"] }", "{ type = \"int\", enum = [\"a\"] }", "are for type `int`"),
    (
        "{ enum = [\"triage\", \"audit\"] }",
        "{ type = \"int\", pattern = \"*\" }",
        "`enum` and `pattern` for `string`",
    ),
    ("{ enum = [\"triage\", \"audit\"] }", "{ type = \"number\" }", "`number` is no value of"),
    ("targets = [\"orders-db\"]", "targets = []", "a grant needs a target"),
    (
        "targets = [\"orders-db\"]",
        "targets = [\"order-db\"]",
        "no target `order-db` is defined; did you mean `orders-db`?",
    ),
    (
        "intent = \"orders.read\"\n",
        "intent = \"orders.purge\"\n",
        "a grant for `orders.purge@orders-db` is defined twice",
    ),
    ("max = \"15m\"", "max = \"9m\"", "0 < default <= max <= life; this is default 10m, max 9m, life 1h"),
    (
        "max = \"15m\", life = \"1h\"",
        "max = \"25h\", life = \"2d\"",
        "the longest ttl is 1d; this is max 1d1h",
    ),
    ("max = \"15m\"", "max = \"15\"", "`15` is not a length of time"),
    ("agents:soc", "soc", "`soc` allows nobody; write `agents:GROUP`"),
    ("agents:soc", "agents:sok", "no agent is in a group `sok`; did you mean `soc`?"),
    ("[agents.\"spiffe://prod", "[agents.\"spiffe://other", "in trust domain `other.example`"),
    ("[agents.\"spiffe://prod.example/agent/triage\"]", "[agents.triage]", "`triage` is not a SPIFFE ID"),
    ("autonomy = \"act\"", "autonomy = \"acts\"", "did you mean `act`?"),
    ("autonomy = \"act\"", "autonomy = \"act\"\nautonomous = true", "unknown key `agents.spiffe://prod"),
    (
        "[agents.\"spiffe://prod.example/agent/triage\"]",
        "[agents.\"leasehold/drill\"]",
        "is the broker's own agent",
    ),
    ("\"uid:0\"", "\"person:eve\"", "no person `eve` is defined"),
    ("\"uid:0\"", "\"ci:github|1/2/prod\"", "`ci:github|1/2/prod` is automation: it asks for leases"),
    ("\"uid:0\"", "\"personal:https://idp.example|00u1/coding\"", "is automation: it asks for leases"),
    ("\"uid:0\"", "\"oidc:https://idp.example|00u1ana\"", "write `person:NAME` instead of"),
    (
        "[store]",
        "[personal_agents.coding]\npeople = [\"ana\"]\nautonomy = \"act\"\n[store]",
        "agents of [personal_agents] come with their person's token: write [identity.people] and `listen.bearer`",
    ),
    (
        "[store]",
        "[identity.people]\nissuer = \"http://idp.example\"\nclient_id = \"leasehold\"\n[store]",
        "`http://idp.example` is not an issuer",
    ),
    ("\"uid:0\"", "\"leasehold/drill\"", "`leasehold/drill` is the broker's own, and nobody else is it"),
    ("owner   = \"group:data-platform\"", "owner   = \"leasehold\"", "answers for its own drills alone"),
    (
        "[tasks]",
        "[quotas]\nowners.leasehold = { live = 1 }\n[tasks]",
        "no quota counts what `leasehold` drills",
    ),
    (
        "[agents.\"spiffe://prod.example/agent/triage\"]",
        "[agents.\"spiffe://prod.example/agent/*/x\"]",
        "a pattern has one `*`, as the end of its last segment",
    ),
    (
        "[agents.\"spiffe://prod.example/agent/triage\"]",
        "[agents.\"spiffe://other.example/agent/*\"]",
        "`spiffe://other.example/agent/*` is in trust domain `other.example`",
    ),
    (
        "[agents.\"spiffe://prod.example/agent/triage\"]",
        "[agents.\"spiffe://prod.example/leasehold\"]",
        "`spiffe://prod.example/leasehold` is an operator or the broker itself: one identity is never that and an agent",
    ),
    (
        "[agents.\"spiffe://prod.example/agent/triage\"]",
        "[agents.\"spiffe://prod.example/leaseh*\"]",
        "`spiffe://prod.example/leasehold` is an operator or the broker itself: one identity is never that and an agent",
    ),
    (
        "[agents.\"spiffe://prod.example/agent/triage\"]",
        "[agents.\"spiffe://prod.example/operator/ir\"]",
        "`spiffe://prod.example/operator/ir` is an operator or the broker itself",
    ),
    (
        "[tasks]",
        "[agents.\"spiffe://prod.example/x/*\"]\nowner = \"person:ana\"\nautonomy = \"act\"\n\
         [agents.\"spiffe://prod.example/x/a*\"]\nowner = \"person:ana\"\nautonomy = \"act\"\n[tasks]",
        "`spiffe://prod.example/x/a*` and `spiffe://prod.example/x/*` take in the same identities",
    ),
    (
        "[tasks]",
        "[agents.\"spiffe://prod.example/x/*\"]\nowner = \"person:ana\"\nautonomy = \"act\"\n\
         [quotas]\nagents.\"spiffe://prod.example/x/*\" = { live = 1 }\n[tasks]",
        "`spiffe://prod.example/x/*`: a quota names one agent, not a pattern",
    ),
    ("autonomy = \"act\"", "autonomy = \"act\"\nstatus = \"gone\"", "`gone` is no value of"),
    ("autonomy = \"act\"", "autonomy = \"act\"\nreviewed = \"1.10.2026\"", "`1.10.2026` is not a day"),
    (
        "autonomy = \"act\"",
        "autonomy = \"act\"\nreviewed = 2026-10-01T00:00:00Z",
        "`2026-10-01T00:00:00Z` is not a day",
    ),
    ("autonomy = \"act\"", "autonomy = \"act\"\nmanifest = \"md5:1\"", "a manifest's digest is `sha256:`"),
    (
        "[tasks]",
        "[registry]\nreview_every = \"1h\"\n[tasks]",
        "agents are reviewed every 1d or more seldom; this is 1h",
    ),
    ("[tasks]", "[registry]\non_drift = \"stop\"\n[tasks]", "`stop` is no value of `registry.on_drift`"),
    ("[tasks]", "[drill]\nevery = \"5m\"\n[tasks]", "targets are drilled every 10m to 31d; this is 5m"),
    ("[tasks]", "[drill]\n[tasks]", "`drill.every` is missing"),
    (TLS, "drill = \"orders.write\"", "there is no grant `orders.write@orders-db` to drill with"),
    (TLS, "drill = \"orders.purge\"", "`orders.purge@orders-db` needs people, and a drill asks nobody"),
    (TLS, "drill = \"orders.read\"", "parameter `reason_code` is required; write `drill = { intent"),
    (
        TLS,
        "drill = { intent = \"orders.read\", params = { reason_code = 1.5 } }",
        "parameter `reason_code` is text",
    ),
    (TLS, "drill = { params = {} }", "`targets.orders-db.drill.intent` is missing"),
    (TLS, "drill = 7", "`targets.orders-db.drill` takes text"),
    ("conf.d/*.toml", "conf.d/gone.toml", "cannot be read"),
    ("policies/*.cedar", "policies/[.cedar", "is not a pattern"),
];

#[test]
fn a_target_is_drilled_with_its_narrowest_reading_grant_or_with_what_is_named() {
    let plan = |config: &str| {
        let loaded = Folder::with(config).load(Trust::Production).unwrap();
        let plan = loaded.config.catalog.drills.get("orders-db").cloned();
        (plan.map(|plan| (plan.pair.intent, plan.params)), loaded.warnings.len())
    };
    let every = EXAMPLE.replace("[tasks]", "[drill]\nevery = \"6h\"\n[tasks]");
    assert_eq!(plan(EXAMPLE), (None, 0), "the one that reads needs a parameter");
    assert_eq!(plan(&every), (None, 1), "and a schedule that cannot be kept is worth a warning");
    assert_eq!(plan(&every.replace(TLS, "drill = false")), (None, 0));
    let optional =
        EXAMPLE.replace("{ enum = [\"triage\", \"audit\"] }", "{ enum = [\"a\"], optional = true }");
    assert_eq!(plan(&optional), (Some(("orders.read".into(), Params::new())), 0));
    let briefer = format!(
        "{optional}\n[intents.\"orders.count\"]\nclass = \"read-only\"\n[[grants]]\nintent = \"orders.count\"\n\
         targets = [\"orders-db\"]\nrecipe = {{ member_of = [\"x\"] }}\n\
         ttl = {{ default = \"1m\", max = \"1m\", life = \"5m\" }}"
    );
    assert_eq!(plan(&briefer).0.unwrap().0, "orders.count", "the shorter life is the narrower");
    let named =
        every.replace(TLS, "drill = { intent = \"orders.read\", params = { reason_code = \"audit\" } }");
    let audit = Params::from([("reason_code".into(), ParamValue::String("audit".into()))]);
    assert_eq!(plan(&named), (Some(("orders.read".into(), audit)), 0));
    let config = Folder::with(&named).load(Trust::Production).unwrap().config;
    assert_eq!(config.drill.every, Some(Span::from_mins(360)));
    assert!(!config.targets["orders-db"].table.contains_key("drill"), "the backend is not asked about it");
    assert!(config.catalog.agents.contains_key(&CallerId::Drill));
    let without = Folder::with(EXAMPLE).load(Trust::Production).unwrap().config;
    assert_ne!(without.digests, config.digests, "what is drilled is decided anew");
}

#[test]
fn dev_things_need_dev_trust_and_dev_trust_stays_on_loopback() {
    let dev = EXAMPLE.replace("prod.example", "demo.leasehold.test").replace("\"postgres\"", "\"memory\"");
    let local = dev.replace("0.0.0.0:", "127.0.0.1:");
    assert_eq!(Folder::with(&local).problems(Trust::Dev), Vec::<String>::new());
    let whats = |config: &str, trust| {
        let problems = Folder::with(config).load(trust).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.what).collect::<Vec<_>>()
    };
    assert_eq!(
        whats(&local, Trust::Production),
        [
            "`demo.leasehold.test` is a dev trust domain: it needs `--dev-trust`",
            "the memory target guards nothing: it needs `--dev-trust`"
        ]
    );
    assert_eq!(
        whats(&dev, Trust::Dev),
        [
            "`--dev-trust` opens doors on loopback only; write `127.0.0.1:8443`",
            "`--dev-trust` opens doors on loopback only; write `127.0.0.1:8444`"
        ]
    );
}

#[test]
fn mistakes_in_the_syntax_are_all_found_and_hide_no_others() {
    let broken = EXAMPLE
        .replace("name = \"broker-1\"", "name = broker-1")
        .replace("grace = \"60s\"", "grace = \"5s\"")
        .replace("autonomy = \"act\"", "autonomy = \"act");
    insta::assert_snapshot!(Folder::with(&broken).problems(Trust::Production).join("\n"), @r#"
    leasehold.toml:3:8: string values must be quoted, expected literal string
    leasehold.toml:29:9: grace is 30s to 10m; this is 5s
    leasehold.toml:63:16: invalid basic string, expected `"`
    "#);
}

#[test]
fn a_key_that_stands_twice_is_named_with_where_it_stood_first() {
    let twice = EXAMPLE
        .replace("grace = \"60s\"", "grace = \"60s\"\ngrace = \"61s\"")
        .replace("[targets.orders-db]", "[groups]\n[targets.orders-db]");
    let more = format!("{twice}\n[agents.\"spiffe://prod.example/agent/triage\"]\n");
    insta::assert_snapshot!(Folder::with(&more).problems(Trust::Production).join("\n"), @r"
    leasehold.toml:30:1: key `grace` is defined twice, first at leasehold.toml:29
    leasehold.toml:33:2: key `groups` is defined twice, first at leasehold.toml:21
    leasehold.toml:67:9: key `spiffe://prod.example/agent/triage` is defined twice, first at leasehold.toml:62
    ");
}

#[test]
fn a_name_that_two_files_define_names_both_places() {
    let folder = Folder::with(EXAMPLE);
    folder.write("conf.d/b.toml", "[people]\ncem = { issuer = \"https://idp.example\", subject = \"3\" }\n");
    folder.write(
        "conf.d/c.toml",
        "# team c\n[people]\ncem = { issuer = \"https://idp.example\", subject = \"4\" }\n[intents.\"orders.read\"]\nclass = \"reversible\"\n",
    );
    insta::assert_snapshot!(folder.problems(Trust::Production).join("\n"), @r#"
    conf.d/c.toml:3:1: person `cem` is defined twice, first at conf.d/b.toml:2
    conf.d/c.toml:4:10: intent `orders.read` is defined twice, first at leasehold.toml:41
    "#);
}

#[test]
fn a_pair_that_two_files_grant_names_both_places() {
    let folder = Folder::with(EXAMPLE);
    let grant = "[[grants]]\nintent = \"orders.read\"\ntargets = [\"orders-db\"]\nrecipe = {}\n\
                 ttl = { default = \"1m\", max = \"1m\", life = \"1m\" }\n";
    folder.write("conf.d/b.toml", grant);
    insta::assert_snapshot!(folder.problems(Trust::Production).join("\n"), @"conf.d/b.toml:3:12: a grant for `orders.read@orders-db` is defined twice, first at leasehold.toml:55");
}

#[test]
fn files_are_included_in_order_and_hold_definitions_only() {
    let folder = Folder::with(EXAMPLE);
    folder.write("conf.d/team.toml", "[groups]\nteam = [\"ana\"]\n[agents.\"spiffe://prod.example/a\"]\nowner = \"group:team\"\nautonomy = \"observe\"\n");
    assert_eq!(folder.load(Trust::Production).unwrap().config.catalog.agents.len(), 2);
    folder.write("conf.d/team.toml", "include = [\"x\"]\n[operators]\n\"uid:1\" = [\"admin\"]\n[gruops]\n");
    insta::assert_snapshot!(folder.problems(Trust::Production).join("\n"), @r#"
    conf.d/team.toml:1:11: `include` belongs in the main file; included files hold people, groups, agents, targets, intents and grants
    conf.d/team.toml:2:2: `operators` belongs in the main file; included files hold people, groups, agents, targets, intents and grants
    conf.d/team.toml:4:2: unknown key `gruops`; did you mean `groups`?
    "#);
}

#[test]
fn a_secret_that_anybody_may_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::with(&EXAMPLE.replace("/run/secrets/orders-admin", "orders-admin"));
    let file = folder.path("orders-admin");
    fs::write(&file, "hunter2").unwrap();
    for (mode, warns) in [(0o600, false), (0o640, false), (0o644, true)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let told = folder.warnings().join("\n");
        assert_eq!(told.contains("anybody on this host may read"), warns, "{mode:o}: {told}");
    }
}

#[test]
fn what_is_merely_odd_is_a_warning() {
    let folder = Folder::with(
        &EXAMPLE
            .replace("conf.d/*", "none/*")
            .replace("[\"admin\"]", "[\"viewer\"]")
            .replace("\"installation.key", "\"no.key"),
    );
    insta::assert_snapshot!(folder.warnings().join("\n"), @r#"
    leasehold.toml:1:12: no file matches `none/*.toml`
    leasehold.toml:5:20: `no.key` is not there, and serve needs it; `leasehold init DIR` makes one beside a config to start from
    leasehold.toml:10:2: nobody is an admin: no freeze can be lifted
    "#);
}

#[test]
fn a_config_that_is_not_there_is_one_problem() {
    let problems = Config::load(Path::new("/nowhere.toml"), &kinds(), Trust::Dev).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("/nowhere.toml:1: cannot be read"));
}

#[test]
fn floors_change_where_they_are_written_and_stay_where_not() {
    let floor = "floor = { external-reversible = \"permit\" }";
    let start = EXAMPLE.find("floor = {").unwrap();
    let end = start + EXAMPLE[start..].find('\n').unwrap();
    let config =
        Folder::with(&EXAMPLE.replace(&EXAMPLE[start..end], floor)).load(Trust::Production).unwrap().config;
    let floors = &config.catalog.floors;
    assert_eq!(floors.base[&Class::ExternalReversible], Floor::Permit);
    assert_eq!(floors.base[&Class::Irreversible], Floor::Ask);
}

#[test]
fn a_digest_changes_with_its_subject_alone() {
    let digests = |config: &str| Folder::with(config).load(Trust::Production).unwrap().config.digests;
    let before = digests(EXAMPLE);
    let changed = |from: &str, to: &str| {
        let after = digests(&EXAMPLE.replace(from, to));
        let differ = before.iter().filter(|(subject, digest)| after.get(*subject) != Some(*digest));
        differ.map(|(subject, _)| subject.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(before, digests(EXAMPLE));
    assert!(before.contains_key(&Subject::Policy));
    assert_eq!(
        changed("autonomy = \"act\"", "autonomy = \"observe\""),
        ["agent:spiffe://prod.example/agent/triage"]
    );
    assert_eq!(changed("max = \"15m\"", "max = \"16m\""), ["target:orders-db"]);
    assert_eq!(changed("port = 5432", "port = 5433"), ["target:orders-db"]);
    assert_eq!(changed("\"triage\", \"audit\"", "\"triage\""), ["target:orders-db"]);
    assert_eq!(changed("oncall = [\"ana\", \"ben\"]", "oncall = [\"ana\"]"), ["policy"]);
    assert_eq!(changed("reversible = \"ask\" } }", "reversible = \"permit\" } }"), ["policy"]);
    assert_eq!(changed("grace = \"60s\"", "grace = \"61s\""), Vec::<String>::new());
}

#[test]
fn a_policy_file_that_cannot_be_read_is_named() {
    let folder = Folder::with(&EXAMPLE.replace("policies/*.cedar", "policies/gone.cedar"));
    assert_eq!(folder.problems(Trust::Production).len(), 1);
    assert!(folder.problems(Trust::Production)[0].starts_with("policies/gone.cedar:1: cannot be read"));
}

#[test]
fn a_file_that_is_named_and_not_there_is_told() {
    let text = EXAMPLE.replace("/run/secrets/orders-admin", "orders.password");
    let folder = Folder::with(&text.replace("\"installation.key\"", "\"orders.key\""));
    let told = |name: &str| {
        let told = folder.load(Trust::Production).unwrap().config.unreadable_files();
        told.into_iter().find(|line| line.contains(name))
    };
    let shown = told("orders.password").unwrap();
    assert!(shown.contains("leasehold.toml:39:") && shown.contains("admin.password_file"), "{shown}");
    folder.write("orders.password", "x");
    assert_eq!(told("orders.password"), None);
    assert_eq!(told("orders.key"), None, "what is not there was told when the config was read");
    assert!(folder.warnings().join("\n").contains("orders.key` is not there"));
}

#[test]
fn a_group_that_nothing_lets_in_is_warned_of_once() {
    let warnings = |text: &str| Folder::with(text).warnings().join("\n");
    let idle = EXAMPLE.replace("groups = [\"soc\"]", "groups = [\"soc\", \"sco\"]")
        + "[agents.\"spiffe://prod.example/x/*\"]\nowner = \"person:ana\"\ngroups = [\"sco\"]\nautonomy = \"act\"\n";
    insta::assert_snapshot!(warnings(&idle), @"leasehold.toml:60:9: no grant lets in `agents:sco`, and no policy names it: being in it, an agent may ask for nothing; did you mean `soc`?");
    insta::assert_snapshot!(warnings(&EXAMPLE.replace("[tasks]", "[registry]\ngroups = [\"late\"]\n[tasks]")), @"leasehold.toml:28:2: no grant lets in `agents:late`, and no policy names it: being in it, an agent may ask for nothing");
    let folder = Folder::with(&idle);
    folder.write(
        "policies/sco.cedar",
        &POLICY.replace("\"soc\"", "\"sco\"").replace("triage-reads", "sco-reads"),
    );
    assert_eq!(folder.warnings(), Vec::<String>::new(), "a policy may let it in");
}

#[test]
fn paths_are_relative_to_the_folder_of_the_config() {
    let folder = Folder::with(&EXAMPLE.replace("/run/secrets/orders-admin", "orders.password"));
    let config = folder.load(Trust::Production).unwrap().config;
    let path = folder.path("orders.password");
    assert_eq!(config.targets["orders-db"].table["admin"]["password_file"], path.to_str().unwrap());
}

#[test]
fn a_file_that_ends_anywhere_is_problems_within_it() {
    for end in (0..EXAMPLE.len()).step_by(13) {
        let cut = &EXAMPLE[..end];
        let problems = Folder::with(cut).load(Trust::Production).err().unwrap_or_default();
        let last = cut.matches('\n').count() + 1;
        let outside: Vec<_> = problems.iter().filter(|problem| problem.line > last).collect();
        assert!(outside.is_empty(), "cut at {end}: {outside:?}");
    }
}

#[test]
fn who_was_never_reviewed_is_warned_of_where_reviews_are_asked_for() {
    let registry = "[registry]\nreview_every = \"180d\"\n[tasks]";
    let warnings = |text: &str| Folder::with(text).load(Trust::Production).unwrap().warnings;
    let found = warnings(&EXAMPLE.replace("[tasks]", registry));
    let said =
        "no `reviewed` for `spiffe://prod.example/agent/triage`: until it is reviewed it may only observe";
    assert_eq!(found.iter().map(|warning| warning.what.as_str()).collect::<Vec<_>>(), [said]);
    let reviewed = "autonomy = \"act\"\nreviewed = 2026-10-01";
    assert_eq!(warnings(&EXAMPLE.replace("[tasks]", registry).replace("autonomy = \"act\"", reviewed)), []);
}
