//! Every kind of caller, each proven as it is in the world, and what it is told.

use std::error::Error as _;

use http::uri::PathAndQuery;
use prost::bytes::{Buf, BufMut};
use serde_json::json;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt;

use crate::bearer::{Bearer, now, token, world_with};
use crate::ci::Github;
use crate::federation::Partner;
use crate::owners::{People, at_the_admin_door};
use crate::raw;
use crate::world::{Client, World, eventually};

/// Messages as bytes, so that every call is made by the same code.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// How a caller is proven.
pub(super) enum How {
    /// By its connection, or not at all.
    Channel(Channel),
    /// By a token, with a proof for each call.
    Token(Bearer, String),
    /// By a token, with one proof for all calls of a kind: a hop that plays them again.
    Replay(Bearer, String),
}

impl How {
    fn channel(&self) -> &Channel {
        match self {
            Self::Channel(channel) => channel,
            Self::Token(bearer, _) | Self::Replay(bearer, _) => &bearer.channel,
        }
    }

    /// What a caller gets for a call, in a word.
    pub(super) async fn ask(&self, world: &World, call: &str, request: &[u8]) -> String {
        let made = match self {
            Self::Channel(_) => Request::new(request.to_vec()),
            Self::Token(bearer, token) | Self::Replay(bearer, token) => {
                bearer.request(&format!("/{call}"), token, now(world), request.to_vec())
            }
        };
        if let Self::Replay(..) = self {
            let mut first = Request::new(request.to_vec());
            *first.metadata_mut() = made.metadata().clone();
            ask(self.channel(), call, first).await;
        }
        ask(self.channel(), call, made).await
    }

    /// What it gets for a call that is anybody's.
    async fn comes(&self, world: &World) -> String {
        self.ask(world, "leasehold.v1.IdentityService/WhoAmI", &[]).await
    }
}

/// What a caller gets for a call that comes with nothing but its connection.
pub(super) async fn answer(channel: &Channel, call: &str, request: Vec<u8>) -> String {
    ask(channel, call, Request::new(request)).await
}

async fn ask(channel: &Channel, call: &str, request: Request<Vec<u8>>) -> String {
    let mut grpc = Grpc::new(channel.clone());
    let path: PathAndQuery = format!("/{call}").parse().unwrap();
    let answer = match grpc.ready().await {
        Ok(()) => grpc.server_streaming(request, path, Bytes).await.map(drop),
        Err(_) => return "no handshake".into(),
    };
    match answer {
        Ok(()) => "ok".into(),
        Err(status) => match status.get_details_error_info() {
            Some(info) => info.reason,
            None if status.source().is_some() => "no handshake".into(),
            None => format!("{:?}", status.code()),
        },
    }
}

/// Who the matrix is about.
pub(super) struct Caller {
    /// The door that it comes to: `bearer` is the agents' for tokens.
    pub(super) door: &'static str,
    pub(super) name: &'static str,
    pub(super) how: How,
}

const fn caller(door: &'static str, name: &'static str, how: How) -> Caller {
    Caller { door, name, how }
}

/// A broker that every kind of caller can come to, and those who vouch for them.
pub(super) struct Everybody {
    pub(super) world: World,
    github: Github,
    people: People,
    partner: Partner,
    former: Partner,
}

const PARTNER: &str = "partner.leasehold.test";
/// Federated no longer, though its agent is registered.
const FORMER: &str = "former.leasehold.test";
/// Who signs in with which groups, and what they are in the matrix: `nora` and `rex` are in no config. `owner` owns what
/// the calls are about, `other-owner` another agent; neither has a role.
const PEOPLE: [(&str, &str, &[&str]); 7] = [
    ("person", "nora", &["other"]),
    ("owner", "ana", &[]),
    ("other-owner", "ben", &[]),
    ("person-viewer", "vic", &[]),
    ("person-revoker", "rex", &["oncall"]),
    ("person-auditor", "kim", &[]),
    ("person-admin", "ada", &[]),
];

impl Everybody {
    pub(super) async fn new() -> Self {
        let (github, people) = (Github::start().await, People::new().await);
        let named = ["vic", "kim", "ada"]
            .map(|name| format!("{name} = {{ issuer = \"https://idp.example\", subject = \"{name}\" }}\n"));
        let roles =
            "\"person:vic\" = [\"viewer\"]\n\"person:kim\" = [\"auditor\"]\n\"person:ada\" = [\"admin\"]\n";
        let setup = Partner::welcome(github.setup(), &[PARTNER, FORMER])
            .replace("[groups]", &format!("{}[groups]", named.concat()))
            .replace("[identity.spiffe]", &format!("{roles}[identity.spiffe]"));
        let setup = people.welcome(setup, "ada");
        let world = world_with(&setup).await;
        let partner = Partner::new(&world, PARTNER).await;
        let former = Partner::new(&world, FORMER).await;
        Self { world, github, people, partner, former }
    }

    /// All of them.
    pub(super) async fn callers(&self) -> Vec<Caller> {
        let mut callers = self.by_certificate().await;
        callers.extend(self.by_token().await);
        callers.extend(self.people().await);
        callers.extend(self.federated().await);
        callers.push(caller("admin", "uid", How::Channel(self.world.admin().await.channel)));
        callers
    }

    async fn by_certificate(&self) -> Vec<Caller> {
        let (world, channel) = (&self.world, |client: Client| How::Channel(client.channel));
        let mut callers = Vec::new();
        for name in ["triage", "other", "nobody", "viewer", "revoker", "auditor", "admin"] {
            callers.push(caller("agents", name, channel(world.agent(name).await)));
            callers.push(caller("admin", name, channel(world.operator(name).await)));
        }
        let doors = [("agents", world.running().agents), ("admin", world.running().admin_tcp[0])];
        let strangers = doors.map(|(door, at)| caller(door, "stranger", How::Channel(raw::stranger(at))));
        callers.extend(strangers);
        callers
    }

    /// Workloads and jobs that come with tokens.
    async fn by_token(&self) -> Vec<Caller> {
        let world = &self.world;
        let id = |name: &str| json!(format!("spiffe://suite.leasehold.test/{name}"));
        let of = |name: &'static str| token(world, move |claims| claims["sub"] = id(name));
        let good = |name| async move { How::Token(Bearer::new(world).await, of(name)) };
        let stolen = of("agent/triage");
        let (owner, thief) = (Bearer::new(world).await, Bearer::new(world).await);
        let first = How::Token(owner, stolen.clone());
        first.comes(world).await;
        let old = token(world, |claims| claims["exp"] = claims["iat"].clone());
        let (job, at_admin) = (self.github.token("leasehold-ci"), self.github.token("leasehold-ci"));
        self.github.change("repository_id", json!("456"));
        let strange_job = self.github.token("leasehold-ci");
        let operator = of("operator/admin");
        vec![
            caller("bearer", "job", How::Token(Bearer::new(world).await, job)),
            caller("admin", "job", How::Token(at_the_admin_door(world).await, at_admin)),
            caller("bearer", "strange-job", How::Token(Bearer::new(world).await, strange_job)),
            caller("bearer", "nothing", How::Channel(Bearer::new(world).await.channel)),
            caller("admin", "nothing", How::Channel(at_the_admin_door(world).await.channel)),
            caller("bearer", "triage", good("agent/triage").await),
            caller("bearer", "other", good("agent/other").await),
            caller("bearer", "nobody", good("agent/nobody").await),
            caller("bearer", "operator", good("operator/admin").await),
            caller("admin", "operator-token", How::Token(at_the_admin_door(world).await, operator)),
            caller("bearer", "thief", How::Token(thief, stolen)),
            caller("bearer", "expired", How::Token(Bearer::new(world).await, old)),
            caller("bearer", "replay", How::Replay(Bearer::new(world).await, of("agent/triage"))),
        ]
    }

    /// People who have signed in, at either door, and an agent in the session of one who may do everything.
    async fn people(&self) -> Vec<Caller> {
        let world = &self.world;
        let mut callers = Vec::new();
        let signed_in = |subject, groups: &[&str]| self.people.signed_in(subject, groups, 300);
        for (name, subject, groups) in PEOPLE {
            let (there, here) = (Bearer::new(world).await, at_the_admin_door(world).await);
            callers.push(caller("bearer", name, How::Token(there, signed_in(subject, groups))));
            callers.push(caller("admin", name, How::Token(here, signed_in(subject, groups))));
        }
        let personal = Bearer::new(world).await.acting_as("coding");
        callers.push(caller("bearer", "personal", How::Token(personal, signed_in("ada", &[]))));
        let personal = at_the_admin_door(world).await.acting_as("coding");
        callers.push(caller("admin", "personal", How::Token(personal, signed_in("ada", &[]))));
        // The same agent, that leaves its name away once its token is known as an agent's.
        let (acts, token) = (Bearer::new(world).await.acting_as("coding"), signed_in("ada", &[]));
        let acts = How::Token(acts, token.clone());
        acts.comes(world).await;
        callers.push(caller("admin", "personal-token", How::Token(at_the_admin_door(world).await, token)));
        let (owner, stolen) = (at_the_admin_door(world).await, signed_in("ada", &[]));
        let first = How::Token(owner, stolen.clone());
        first.comes(world).await;
        callers.push(caller("admin", "thief", How::Token(at_the_admin_door(world).await, stolen)));
        let old = How::Token(at_the_admin_door(world).await, self.people.signed_in("ada", &[], 0));
        callers.push(caller("admin", "expired", old));
        let replay = How::Replay(at_the_admin_door(world).await, signed_in("ada", &[]));
        callers.push(caller("admin", "replay", replay));
        callers
    }

    /// Registered agents of other trust domains: of one that is federated, and of one that was until just now.
    async fn federated(&self) -> Vec<Caller> {
        let world = &self.world;
        let (agents, admin) = (world.running().agents, world.running().admin_tcp[0]);
        let mut callers = Vec::new();
        for (name, partner) in [("partner", &self.partner), ("former", &self.former)] {
            partner.join(world).await;
            for (door, at) in [("agents", agents), ("admin", admin)] {
                callers.push(caller(door, name, How::Channel(partner.client(at).await.channel)));
            }
            let token = partner.token(now(world).0 / 1000);
            callers.push(caller("bearer", name, How::Token(Bearer::new(world).await, token)));
        }
        // Whatever was open, and whatever was verified, is there before the bundle goes.
        let come_all = async || {
            for caller in &callers {
                let word = caller.how.comes(world).await;
                assert_eq!(word, "ok", "{} at {}", caller.name, caller.door);
            }
        };
        let is = async |caller: &Caller, word| caller.how.comes(world).await == word;
        let (partner, former) = (&callers[2], &callers[5]);
        eventually("their tokens count", async || is(partner, "ok").await && is(former, "ok").await).await;
        come_all().await;
        self.former.leave(world).await;
        eventually("the token counts no more", async || is(former, "NO_IDENTITY").await).await;
        callers
    }
}
