//! Request and release against the memory target: everything but a target's own time.

use std::time::Duration;

use crate::callers::drive;
use crate::table::{Table, millis};
use crate::world::{Setup, World};

const RUN: Duration = Duration::from_secs(8);

pub(crate) async fn run(table: &mut Table) {
    let mut world = World::with(Setup { policy: policies(50), ..Setup::default() }).await;
    let p50 = drive(&world, 1, RUN).await.requests.percentile(50);
    table.row(
        "request, one caller, memory",
        format!("p50 {}", millis(p50)),
        "p50 under 3 ms",
        p50 < Duration::from_millis(3),
    );
    let many = drive(&world, 64, RUN).await;
    let (rate, p99) = (many.rate, many.requests.percentile(99));
    table.row(
        "request + release, 64 callers, memory, durable",
        format!(
            "{rate:.0} leases/s, request p50 {} p99 {}, {} of processor a lease",
            millis(many.requests.percentile(50)),
            millis(p99),
            millis(many.processor)
        ),
        "3,000 leases/s, p99 under 60 ms",
        rate >= 3000.0 && p99 < Duration::from_millis(60),
    );
    world.stop().await;
}

/// Policies of the kinds that people write, the one that the grant makes beside them.
pub(crate) fn policies(count: usize) -> String {
    let one = |n: usize| match n % 3 {
        0 => format!(
            "@id(\"brief-{n}\") forbid (principal in AgentGroup::\"soc\", action == Action::\"orders.read\", \
             resource == Target::\"orders\") when {{ context.ttl > duration(\"{}m\") }};\n",
            30 + n
        ),
        1 => format!(
            "@id(\"prod-{n}\") forbid (principal, action, resource) when {{ resource.labels has env && \
             resource.labels.env == \"sealed-{n}\" }};\n"
        ),
        _ => format!(
            "@id(\"stock-{n}\") permit (principal in AgentGroup::\"soc\", action == Action::\"stock.read\", \
             resource == Target::\"stock\") when {{ context.ttl <= duration(\"{n}m\") }};\n"
        ),
    };
    (0..count).map(one).collect()
}
