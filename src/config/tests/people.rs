//! `[people]`, `[identity.people]` and `[personal_agents]`: who signs in, has agents, and stands behind them.

use super::*;

#[test]
fn people_sign_in_and_have_agents_of_their_own() {
    let people = "[identity.people]\nissuer = \"https://idp.example\"\nclient_id = \"leasehold\"\nca_file = \"idp.pem\"\n\
        operators = { claim = \"groups\", roles = { oncall = [\"viewer\", \"revoker\"] } }\n\
        [personal_agents.coding]\npeople = [\"ben\", \"group:data-platform\"]\ngroups = [\"soc\"]\nautonomy = \"act\"\n[store]";
    let text = EXAMPLE
        .replace("[store]", people)
        .replace("[operators]", "bearer = \"0.0.0.0:8445\"\ncertificate = \"web.pem\"\nkey = \"web.key\"\n[operators]\n\"person:ana\" = [\"viewer\"]");
    let folder = Folder::with(&text);
    let Loaded { config, warnings } =
        folder.load(Trust::Production).unwrap_or_else(|found| panic!("{found:?}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    let [issuer] = &config.identity.people[..] else { panic!("one issuer") };
    assert_eq!((issuer.issuer.as_str(), issuer.client_id.as_str()), ("https://idp.example", "leasehold"));
    assert_eq!(
        (issuer.ca_file.clone(), issuer.max_life),
        (Some(folder.path("idp.pem")), Span::from_mins(60))
    );
    assert_eq!(issuer.claim.as_deref(), Some("groups"));
    assert_eq!(issuer.roles["oncall"], BTreeSet::from([Role::Viewer, Role::Revoker]));
    let ana = "oidc:https://idp.example|00u1ana".parse().unwrap();
    assert_eq!(config.operators[&ana], BTreeSet::from([Role::Viewer]));
    for (person, subject) in [("ana", "00u1ana"), ("ben", "00u2ben")] {
        let id: CallerId = format!("personal:https://idp.example|{subject}/coding").parse().unwrap();
        assert_eq!(config.catalog.agents[&id].owner.to_string(), format!("person:{person}"));
    }
}

#[test]
fn a_quota_names_a_person_s_agent_as_records_do() {
    let agent = |subject: &str| format!("personal:https://idp.example|{subject}/coding");
    let with = |name: &str| {
        let text = format!(
            "[identity.people]\nissuer = \"https://idp.example\"\nclient_id = \"leasehold\"\n\
             [personal_agents.coding]\npeople = [\"ana\", \"ben\"]\nautonomy = \"act\"\n\
             [quotas]\nagents.\"{name}\" = {{ live = 2, rate = \"5/m\" }}\n[store]"
        );
        let doors = "bearer = \"0.0.0.0:8445\"\n[operators]";
        Folder::with(&EXAMPLE.replace("[store]", &text).replace("[operators]", doors))
    };
    let quotas = with(&agent("00u1ana")).load(Trust::Production).unwrap().config.quotas;
    let of = |subject: &str| quotas.of(&Holder::Agent(agent(subject).parse().unwrap()));
    assert_eq!(of("00u1ana"), Quota { live: Some(2), rate: "5/m".parse().ok() });
    assert_eq!(of("00u2ben"), quotas.agent, "of one person's agent, not of all that are called so");
    let found = with(&agent("00u1anna")).problems(Trust::Production);
    let hint = format!("no agent `{}` is defined; did you mean `{}`?", agent("00u1anna"), agent("00u1ana"));
    assert!(found[0].contains(&hint), "{found:?}");
}

#[test]
fn agents_act_for_people_by_tokens_of_an_audience_of_its_own() {
    let config = |on_behalf_of: &str| {
        let people = "[identity.people]\nissuer = \"https://idp.example\"\nclient_id = \"leasehold\"\n";
        EXAMPLE.replace("[store]", &format!("{people}on_behalf_of = {on_behalf_of}\n[store]"))
    };
    let triage = "spiffe://prod.example/agent/triage";
    let folder = Folder::with(&config(&format!(
        "{{ audience = \"for-people\", clients = {{ portal = [\"{triage}\"] }} }}"
    )));
    let people =
        folder.load(Trust::Production).unwrap_or_else(|found| panic!("{found:?}")).config.identity.people;
    let taken = people[0].on_behalf_of.as_ref().unwrap();
    assert_eq!(taken.audience, "for-people");
    assert_eq!(taken.clients["portal"], BTreeSet::from([triage.parse().unwrap()]));
    let check = |text: &str, expect: &str| {
        let found = Folder::with(&config(text)).problems(Trust::Production);
        assert!(found.iter().any(|problem| problem.contains(expect)), "{text}: {found:?}");
    };
    check("{ audience = \"leasehold\" }", "`leasehold` is the audience of sign-ins, workloads or jobs");
    check("{ clients = {} }", "`identity.people.on_behalf_of.audience` is missing");
    check("{ audience = \"\" }", "audience");
    check("{ audience = \"a\", client = {} }", "did you mean `clients`?");
    check("{ audience = \"a\", clients = { portal = [\"triage\"] } }", "`triage` is not a workload");
    check(
        "{ audience = \"a\", clients = { portal = [\"uid:0\"] } }",
        "`uid:0` is not a workload, and acts for nobody",
    );
}

#[test]
fn whoever_may_act_for_people_and_is_not_registered_is_warned_of() {
    let taken = "on_behalf_of = { audience = \"for-people\", clients = { portal = [\"spiffe://prod.example/agent/triage\", \
        \"spiffe://prod.example/agent/portal\", \"spiffe://prod.example/x/1\"] } }";
    let text = EXAMPLE.replace(
        "[store]",
        &format!(
            "[identity.people]\nissuer = \"https://idp.example\"\nclient_id = \"leasehold\"\n{taken}\n[store]"
        ),
    );
    let pattern = "[agents.\"spiffe://prod.example/x/*\"]\nowner = \"person:ana\"\nautonomy = \"act\"\n";
    insta::assert_snapshot!(Folder::with(&(text + pattern)).warnings().join("\n"), @"leasehold.toml:19:103: `spiffe://prod.example/agent/portal` may act for people, and nobody registered it: it is refused until it is, here or by `leasehold agents apply`");
}

#[test]
fn a_person_is_named_as_their_issuer_can_name_them() {
    let text = EXAMPLE.replace("00u1ana", "ana maria");
    let found = Folder::with(&text).problems(Trust::Production);
    assert!(found.iter().any(|problem| problem.contains("are visible ASCII")), "{found:?}");
}

#[test]
fn people_may_sign_in_at_several_issuers() {
    let people = "[identity.people.staff]\nissuer = \"https://idp.example\"\nclient_id = \"leasehold\"\n\
        [identity.people.guests]\nissuer = \"https://guests.example/\"\nclient_id = \"x\"\nmax_life = \"10m\"\n[store]";
    let text =
        EXAMPLE.replace("[store]", people).replace("[operators]", "bearer = \"0.0.0.0:8445\"\n[operators]");
    let config = Folder::with(&text).load(Trust::Production).unwrap().config;
    let issuers: Vec<_> = config.identity.people.iter().map(|issuer| issuer.issuer.as_str()).collect();
    assert_eq!(issuers, ["https://guests.example/", "https://idp.example"]);
    let no_door = Folder::with(&EXAMPLE.replace("[store]", people)).problems(Trust::Production);
    assert!(no_door.iter().any(|problem| problem.contains("no door takes them")), "{no_door:?}");
    let jobs = text.replace("client_id = \"x\"", "client_id = \"leasehold\"");
    let jobs = jobs.replace("[identity.spiffe]", "[identity.spiffe]\njwt = {}");
    let problems = Folder::with(&jobs).problems(Trust::Production);
    assert!(
        problems.iter().any(|problem| problem.contains("people need another `client_id`")),
        "{problems:?}"
    );
    let twice = text.replace("guests.example/", "idp.example");
    let problems = Folder::with(&twice).problems(Trust::Production);
    assert!(problems.iter().any(|problem| problem.contains("is named twice")), "{problems:?}");
}
