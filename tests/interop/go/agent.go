// An agent in Go: go-spiffe says who it is, grpc-go carries what it asks. It works until its standard input ends.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "leasehold.dev/leasehold/v1"
)

// The broker ends a connection when the SVID behind it ends. What was under way then is asked again, on a new
// connection with the newest SVID. These calls may be: they read, end, or carry a request id. RequestLease is not
// among them: it shows a credential once, and a second try takes a higher `attempt`. ABORTED says that the first try is
// still being worked on.
const again = `{"methodConfig": [{
	"name": [
		{"service": "leasehold.v1.IdentityService"},
		{"service": "leasehold.v1.TaskService"},
		{"service": "leasehold.v1.LeaseService", "method": "RenewLease"}
	],
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE", "ABORTED"]
	}
}]}`

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx) // SPIFFE_ENDPOINT_SOCKET
	check(err)
	defer source.Close()
	connection, err := connect(source, os.Getenv("LEASEHOLD_ADDR"))
	check(err)
	defer connection.Close()
	work(ctx, connection)
}

// One connection for life: it comes again by itself, each time with the newest SVID.
func connect(source *workloadapi.X509Source, addr string) (*grpc.ClientConn, error) {
	svid, err := source.GetX509SVID()
	if err != nil {
		return nil, err
	}
	broker, err := spiffeid.FromSegments(svid.ID.TrustDomain(), "leasehold")
	if err != nil {
		return nil, err
	}
	mutual := grpccredentials.MTLSClientCredentials(source, source, tlsconfig.AuthorizeID(broker))
	return grpc.NewClient(addr, grpc.WithTransportCredentials(mutual), grpc.WithDefaultServiceConfig(again))
}

func work(ctx context.Context, connection *grpc.ClientConn) {
	identity := v1.NewIdentityServiceClient(connection)
	tasks := v1.NewTaskServiceClient(connection)
	leases := v1.NewLeaseServiceClient(connection)

	me, err := identity.WhoAmI(ctx, &v1.WhoAmIRequest{})
	check(err)
	say("connected", me.Id, me.SvidExpiresAt.Seconds)
	opened, err := tasks.OpenTask(ctx, &v1.OpenTaskRequest{
		RequestId: rand.Text(), // the same id again would be the same task
		Purpose:   "interop, in Go",
		Scope:     []*v1.ScopePair{{Intent: "orders.read", Target: "orders"}},
		Liveness:  &v1.Liveness{Kind: &v1.Liveness_Deadline_{Deadline: &v1.Liveness_Deadline{}}},
	})
	check(err)
	task := opened.Task.Id
	say("opened", task)
	granted, err := leases.RequestLease(ctx, &v1.RequestLeaseRequest{
		Task: task, Intent: "orders.read", Target: "orders", RequestId: "lease", Attempt: 1,
	})
	check(err)
	lease := granted.Lease.Id
	say("leased", lease, granted.Credential.Public["user"], len(granted.Credential.Secret["password"]) > 0)

	for n, done := 1, endOf(os.Stdin); waits(done, 200*time.Millisecond); n++ {
		_, err := leases.RenewLease(ctx, &v1.RenewLeaseRequest{
			Lease: lease, Ttl: durationpb.New(10 * time.Minute), RequestId: fmt.Sprint("renewal-", n),
		})
		check(err)
		me, err := identity.WhoAmI(ctx, &v1.WhoAmIRequest{})
		check(err)
		say("renewed", n, me.SvidExpiresAt.Seconds)
	}

	ended, err := tasks.CompleteTask(ctx, &v1.CompleteTaskRequest{Task: task, Wait: durationpb.New(20 * time.Second)})
	check(err)
	say("completed", task, len(ended.Pending))
}

// Whether the work goes on after a while.
func waits(done <-chan struct{}, while time.Duration) bool {
	select {
	case <-done:
		return false
	case <-time.After(while):
		return true
	}
}

func endOf(input io.Reader) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, input)
	}()
	return done
}

func say(step string, what ...any) {
	fmt.Println(append([]any{step}, what...)...)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
