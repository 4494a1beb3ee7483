"""An agent in Python: py-spiffe says who it is, grpcio carries what it asks. It works until its standard input ends."""

import os
import select
import sys
import uuid

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.duration_pb2 import Duration
from spiffe import X509Source

from leasehold.v1 import common_pb2 as common
from leasehold.v1 import identity_service_pb2 as identity
from leasehold.v1 import identity_service_pb2_grpc as identity_grpc
from leasehold.v1 import lease_service_pb2 as lease_
from leasehold.v1 import lease_service_pb2_grpc as lease_grpc
from leasehold.v1 import task_service_pb2 as task_
from leasehold.v1 import task_service_pb2_grpc as task_grpc


class Broker:
    """The broker, over a channel with the newest SVID: grpcio takes key and certificate once for each channel."""

    def __init__(self, source, addr):
        self.source, self.addr = source, addr
        self.svid = self.channel = None

    def fresh(self):
        """Connects anew once the SVID has rotated, long before the broker ends the old connection."""
        svid = self.source.svid
        if svid is not self.svid:
            if self.channel:
                self.channel.close()  # nothing is under way: this program asks one thing at a time
            self.svid, self.channel = svid, connect(self.source, svid, self.addr)
        return self

    def identity(self):
        return identity_grpc.IdentityServiceStub(self.fresh().channel)

    def tasks(self):
        return task_grpc.TaskServiceStub(self.fresh().channel)

    def leases(self):
        return lease_grpc.LeaseServiceStub(self.fresh().channel)


def connect(source, svid, addr):
    own = svid.spiffe_id.trust_domain
    authorities = source.get_bundle_for_trust_domain(own).x509_authorities
    mutual = grpc.ssl_channel_credentials(
        root_certificates=pem(authorities),
        private_key=svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate_chain=pem(svid.cert_chain),
    )
    # grpcio checks host names, not SPIFFE IDs: the DNS name in the broker's SVID stands for its id.
    broker = os.environ.get("LEASEHOLD_HOST", f"leasehold.{own}")
    return grpc.secure_channel(addr, mutual, [("grpc.ssl_target_name_override", broker)])


def pem(certificates):
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def work(broker):
    me = broker.identity().WhoAmI(identity.WhoAmIRequest(), timeout=30)
    say("connected", me.id, me.svid_expires_at.seconds)
    opened = broker.tasks().OpenTask(
        task_.OpenTaskRequest(
            request_id=uuid.uuid4().hex,  # the same id again would be the same task
            purpose="interop, in Python",
            scope=[common.ScopePair(intent="orders.read", target="orders")],
            liveness=common.Liveness(deadline=common.Liveness.Deadline()),
        ),
        timeout=30,
    )
    task = opened.task.id
    say("opened", task)
    granted = broker.leases().RequestLease(
        lease_.RequestLeaseRequest(task=task, intent="orders.read", target="orders", request_id="lease", attempt=1),
        timeout=30,
    )
    lease = granted.lease.id
    say("leased", lease, granted.credential.public["user"], str(bool(granted.credential.secret["password"])).lower())

    renewals = 0
    while not ended(sys.stdin, 0.2):
        renewals += 1
        request = lease_.RenewLeaseRequest(lease=lease, ttl=Duration(seconds=600), request_id=f"renewal-{renewals}")
        broker.leases().RenewLease(request, timeout=30)
        me = broker.identity().WhoAmI(identity.WhoAmIRequest(), timeout=30)
        say("renewed", renewals, me.svid_expires_at.seconds)

    request = task_.CompleteTaskRequest(task=task, wait=Duration(seconds=20))
    done = broker.tasks().CompleteTask(request, timeout=30)
    say("completed", task, len(done.pending))


def ended(source, seconds):
    """Whether it has nothing more to read, after a while."""
    ready, _, _ = select.select([source], [], [], seconds)
    return bool(ready) and not os.read(source.fileno(), 4096)


def say(*words):
    print(*words, flush=True)


if __name__ == "__main__":
    with X509Source(timeout_in_seconds=30) as source:  # SPIFFE_ENDPOINT_SOCKET
        work(Broker(source, os.environ["LEASEHOLD_ADDR"]))
