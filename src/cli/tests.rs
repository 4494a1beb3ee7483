use clap::CommandFactory;

use super::*;
use crate::cli::console::tests::captured;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

/// Every command down to the last, and every group of them, with its path.
fn commands() -> Vec<(String, clap::Command)> {
    fn collect(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        found.push((path.clone(), command.clone()));
        let below = command.get_subcommands().filter(|one| one.get_name() != "help");
        below.for_each(|one| collect(one, &path, found));
    }
    let mut found = Vec::new();
    collect(&Cli::command(), "", &mut found);
    assert!(found.len() > 40, "the commands are found");
    found
}

/// Wider than that help is never shown.
const WIDTH: usize = 100;

/// The example of a group is one of its commands, whole.
#[test]
fn every_command_and_every_group_has_help_with_an_example() {
    for (path, command) in commands() {
        assert!(command.get_about().is_some(), "{path} says what it does");
        let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(example.starts_with("Example: ") && example.contains(&path), "{path}: {example}");
        let long = example.lines().find(|line| line.chars().count() > WIDTH);
        assert_eq!(long, None, "{path}: it would be broken where nobody chose");
    }
}

#[test]
fn the_commands_are_those_of_the_papers() {
    let is_whole = |(_, one): &(String, clap::Command)| !one.is_subcommand_required_set();
    let paths: Vec<_> = commands().into_iter().filter(is_whole).map(|(path, _)| path).collect();
    insta::assert_snapshot!(paths.join("\n"));
}

/// One word for one thing, whichever command takes it; and no argument without a word of help.
#[test]
fn what_arguments_take_is_named_in_few_words() {
    let mut words = std::collections::BTreeSet::new();
    for (path, command) in commands() {
        for arg in command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        {
            assert!(arg.get_help().is_some() && !arg.is_hide_set(), "{path}: {}", arg.get_id());
            let takes = arg.get_action().takes_values().then(|| arg.get_value_names()).flatten();
            words.extend(takes.into_iter().flatten().map(ToString::to_string));
        }
    }
    insta::assert_snapshot!(words.into_iter().collect::<Vec<_>>().join("\n"));
}

fn check(line: &str, good: bool) {
    let words = line.split(' ').filter(|word| !word.is_empty());
    assert_eq!(Cli::try_parse_from(std::iter::once("leasehold").chain(words)).is_ok(), good, "{line}");
}

#[test]
fn lines_are_taken_or_refused() {
    check("whoami", true);
    check("whoami --output json", true);
    check("--output json grants", true);
    check("propose orders.read@orders-db --ttl 10m --param code=triage", true);
    check("propose orders.read", false);
    check("exec --lease A=a@db,ttl=1m --lease b@db -- psql -c x", true);
    check("exec --lease a@db", false);
    check("exec -- psql", true);
    check("task open a@db b@db --ref run=1 --deadline 20m", true);
    check("task open", false);
    check("task scope task_1 a@db b@db", true);
    check("task scope task_1 --add a@db --remove b@db", true);
    check("task scope task_1 a@db --add b@db", false);
    check("task scope task_1", false);
    check("task list --ref run=1 --state open", true);
    check("lease request a@db --task t --to file:/x --as pgpass", true);
    check("lease request a@db --task t --to fd:3", true);
    check("lease request a@db --task t --to fd:3 --reveal", false);
    check("lease request a@db --task t --to /x", false);
    check("lease list --live --target db --since 2h", true);
    check("lease list --at 2026-01-31T02:13:00Z", true);
    check("lease list --at yesterday", false);
    check("revoke --lease lease_1 --reason R", true);
    check("revoke --lease lease_1", false);
    check("revoke --reason R", false);
    check("revoke --lease lease_1 --task task_1 --reason R", false);
    check("revoke --incident inc_1 --reason R", false);
    check("revoke --owner person:ana --reason R --yes", true);
    check("revocations lift rev_1 --reason R", true);
    check("revocations lift rev_1", false);
    check("find lh9fk2", true);
    check("targets setup orders-db", true);
    check("drill run", true);
    check("drill run --target a --target b --output json", true);
    check("drill run orders-db", false);
    check("drill list", true);
    check("audit trace --last", true);
    check("audit trace", false);
    check("audit trace --last lease_1", false);
    check("audit verify file.jsonl", true);
    check("audit verify file.jsonl --from 3", false);
    check("audit verify --from 3", true);
    check("clock confirm --reason R", true);
    check("dev --postgres postgres://x", true);
    check("dev env triage", true);
    check("init dir --target a=postgres://x", true);
    check("serve --config f --dev-trust", true);
    check("demo --only 4 --keep", true);
    check("completion zsh", true);
    check("nonsense", false);
}

#[test]
fn what_the_broker_s_own_rooms_say_has_the_shape_of_every_error() {
    let check = |told: &str, expect: (&str, Option<&str>, Option<&str>)| {
        let found = parts(1, told);
        assert_eq!((found.what.as_str(), found.why.as_deref(), found.next.as_deref()), expect);
    };
    check("a", ("a", None, None));
    check("a\n  next: c", ("a", None, Some("c")));
    check("a\n  why: b\n  next: c", ("a", Some("b"), Some("c")));
    check("a: 1\nb: 2", ("a: 1\nb: 2", None, None));
}

#[tokio::test]
async fn local_commands_need_no_broker() {
    let (console, out, _) = captured(Format::Json, "");
    let mut session = Session::new(console, Options::default());
    assert_eq!(dispatch(Ask::Version, &mut session).await.ok(), Some(Exit::DONE));
    let told: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
    assert_eq!(told, serde_json::json!({"version": env!("CARGO_PKG_VERSION"), "commit": COMMIT}));
    let (console, out, _) = captured(Format::Text, "");
    let mut session = Session::new(console, Options::default());
    let bash = Ask::Completion { shell: clap_complete::Shell::Bash };
    assert_eq!(dispatch(bash, &mut session).await.ok(), Some(Exit::DONE));
    assert!(out.text().contains("revocations"));
}

#[tokio::test]
async fn without_an_identity_nothing_is_asked() {
    let (console, _, _) = captured(Format::Text, "");
    let mut session = Session::new(console, Options::default());
    let Cli { command: Command::Ask(ask), .. } = Cli::try_parse_from(["leasehold", "grants"]).unwrap() else {
        panic!("grants is an ask")
    };
    let problem = dispatch(ask, &mut session).await.err().unwrap();
    assert_eq!(problem.exit, Exit::UNREACHABLE);
}

#[tokio::test]
async fn a_secret_without_a_place_is_not_asked_for() {
    let (console, out, _) = captured(Format::Text, "");
    let mut session = Session::new(console, Options::default());
    let line = ["leasehold", "lease", "request", "a@db", "--task", "task_1"];
    let Cli { command: Command::Ask(ask), .. } = Cli::try_parse_from(line).unwrap() else { panic!("an ask") };
    let problem = dispatch(ask, &mut session).await.err().unwrap();
    // Before any connection: the options name no Workload API.
    assert_eq!(problem.exit, Exit::USAGE);
    assert!(out.text().is_empty());
}
