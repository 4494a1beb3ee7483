//! The whole road on a real PostgreSQL.

use leasehold_proto::v1;

use crate::child::{PAIR, Rig};
use crate::site::{Site, login, login_config, works};
use crate::world::eventually;

#[tokio::test]
async fn a_lease_is_used_narrowed_in_mid_query_and_dies_with_its_task() {
    let site = Site::shared();
    let mut rig = Rig::new(site, site.port()).await;
    rig.start(&[]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let granted = agent.lease(&task, PAIR).await.unwrap();
    let credential = granted.credential.unwrap();
    let session = login(&login_config(&credential)).await.unwrap();
    assert!(works(&session).await);
    let ended = agent.complete(&task).await.unwrap();
    assert_eq!(ended.pending, Vec::<String>::new());
    assert!(!works(&session).await, "a session outlived its lease");
    assert!(login(&login_config(&credential)).await.is_err());
    assert_eq!(site.roles(&rig.mark).await, Vec::<String>::new());
    eventually("revoked", || async { rig.leases().await[0].state() == v1::LeaseState::Revoked }).await;
    rig.journal().await;
}
