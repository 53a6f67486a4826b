package sources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/migrations/testdb"
)

// rig is a database with a log and what takes events.
type rig struct {
	testing.TB
	pool   *pgxpool.Pool
	intake *Intake
	taken  chan string
}

func newRig(t testing.TB) *rig {
	t.Helper()
	pool, err := eventstore.OpenPool(t.Context(), testdb.New(t), 10)
	r := &rig{TB: t, pool: pool, taken: make(chan string, 10_000)}
	r.check(err)
	t.Cleanup(pool.Close)
	quiet := slog.New(slog.DiscardHandler)
	directory := commands.NewDirectory(quiet)
	log := eventstore.Open(eventstore.Config{
		Pool: pool, Observers: []eventstore.Observer{directory.Observe},
		Codec: func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
	})
	t.Cleanup(log.Close)
	r.check(directory.Open(t.Context(), log))
	c := &commands.Commands{Log: log, Directory: directory, Catalog: domain.BuiltinCatalog(), Pool: pool}
	r.intake = &Intake{Commands: c, Read: http.ReadMessage, Logger: quiet, Taken: func(_, outcome string) { r.taken <- outcome }}
	return r
}

func (r *rig) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// run takes from the sources until the returned function is called.
func (r *rig) run(sources string) (stop func()) {
	r.Helper()
	var err error
	r.intake.Sources, err = Parse(sources)
	r.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil { // a lease that a busy machine loses is not the end, as in the product
			r.runOnce(ctx)
		}
	}()
	stop = func() { cancel(); <-ended }
	r.Cleanup(stop)
	return stop
}

// runOnce takes from the sources as one node, until ctx ends or the node's lease is lost.
func (r *rig) runOnce(ctx context.Context) {
	node, err := eventstore.Join(ctx, r.pool, r.intake.Commands.Log.Clock(), "test", r.intake.Logger, nil)
	if err != nil {
		if ctx.Err() == nil {
			r.Error(err)
		}
		return
	}
	renewed := make(chan struct{})
	renew, stop := context.WithCancel(context.WithoutCancel(ctx)) // what ends needs the lease
	go func() {
		defer close(renewed)
		if err := node.Run(renew); err != nil {
			r.Log(err)
		}
	}()
	r.intake.Run(ctx, node)
	stop()
	<-renewed
}

// await waits for the outcomes of n messages.
func (r *rig) await(n int) (accepted, parked int) {
	r.Helper()
	deadline := time.After(2 * time.Minute)
	for range n {
		select {
		case outcome := <-r.taken:
			if outcome == OutcomeAccepted {
				accepted++
			} else {
				parked++
			}
		case <-deadline:
			r.Fatalf("of %d messages %d were accepted and %d parked", n, accepted, parked)
		}
	}
	return accepted, parked
}

type recorded struct{ Stream, Actor, Data string }

// events returns what the log has, in its order.
func (r *rig) events() []recorded {
	r.Helper()
	rows, err := r.pool.Query(r.Context(), `SELECT stream, metadata::json->>'actor', convert_from(data, 'UTF8') FROM medilab.events WHERE type = 'event.triggered' ORDER BY position`)
	r.check(err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[recorded])
	r.check(err)
	return all
}

func body(n int) string {
	return fmt.Sprintf(`{"event_type":"patient.created","event_data":{"n": %d.0},"event_id":"patient-%d"}`, n, n)
}

const (
	structured = `{"specversion":"1.0","id":"ce-1","source":"/his","type":"patient.updated","time":"2026-01-02T03:04:05Z","correlationid":"c-1","data":{"b":1,"a":2.00}}`
	unknown    = `{"event_type":"patient.unheard_of","event_data":{"n":1},"event_id":"u"}`
	text       = "no JSON \x00\xff"
)

// checkMixed sends events of every form, twice, and looks for each once.
func (r *rig) checkMixed(source string, send func(id, body string)) {
	r.Helper()
	for range 2 {
		send("m-1", body(1))
		send("m-2", structured)
		send("m-3", unknown)
		send("m-4", text)
		send("m-5", strings.Replace(structured, "/his", "/lis", 1)) // the same id of another system
	}
	if accepted, parked := r.await(10); accepted != 6 || parked != 4 {
		r.Errorf("%d accepted and %d parked", accepted, parked)
	}
	events := r.events()
	if len(events) != 3 || !strings.Contains(events[2].Data, `"source":"/lis"`) {
		r.Fatalf("the log has %v", events)
	}
	for i, want := range []string{`"event_data":{"n": 1.0}`, `"event_data":{"b":1,"a":2.00}`} {
		if e := events[i]; !strings.Contains(e.Data, want) || e.Actor != "source:"+source {
			r.Errorf("event %d is %v", i, e)
		}
	}
	for _, want := range []string{`"occurred_at":"2026-01-02T03:04:05Z"`, `"correlation_id":"c-1"`, `"source":"/his"`} {
		if !strings.Contains(events[1].Data, want) {
			r.Errorf("the CloudEvent is %s, without %s", events[1].Data, want)
		}
	}
}

// checkParked looks for the refused messages of a source and mends one.
func (r *rig) checkParked(source string, want int) {
	r.Helper()
	parked, _, err := outbox.Parked(r.Context(), r.pool, 0, 100)
	r.check(err)
	if len(parked) != want {
		r.Fatalf("%d messages are parked, want %d: %+v", len(parked), want, parked)
	}
	at := slices.IndexFunc(parked, func(p outbox.ParkedEvent) bool { return p.EventType == "" })
	var raw string
	if err := json.Unmarshal(parked[at].EventData, &raw); err != nil || raw != "no JSON \x00\uFFFD" {
		r.Errorf("the raw text is %s: %v", parked[at].EventData, err)
	}
	at = slices.IndexFunc(parked, func(p outbox.ParkedEvent) bool { return p.EventType == "patient.unheard_of" })
	if parked[at].EmittedBy != "source:"+source || !strings.Contains(parked[at].Reason, "event_type") {
		r.Errorf("parked is %+v", parked[at])
	}
	r.intake.Commands.Catalog = domain.BuiltinCatalog().With([]domain.EventType{"patient.unheard_of"})
	accepted, err := outbox.RetryParked(r.Context(), r.intake.Commands, commands.Caller{Actor: "admin"}, parked[at].ID, nil)
	r.check(err)
	events := r.events()
	last := events[len(events)-1]
	if last.Stream != accepted.EventID.Stream() || last.Actor != "source:"+source {
		r.Errorf("the retried event is %v", last)
	}
}

// jetStreams starts a cluster of NATS servers, which the end of the test stops. The last of
// several is a process of its own.
func jetStreams(t testing.TB, n int) (servers []*server.Server, last *testbed.Process, urls []string) {
	t.Helper()
	var routes []*url.URL
	var hosts []string
	for range n {
		address, err := testbed.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		routes, hosts = append(routes, &url.URL{Scheme: "nats", Host: address}), append(hosts, address)
	}
	for i := range n {
		if i > 0 && i == n-1 {
			break
		}
		s, err := server.NewServer(natsOptions(i, server.RANDOM_PORT, t.TempDir(), routes))
		if err != nil {
			t.Fatal(err)
		}
		go s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("NATS does not start")
		}
		urls = append(urls, s.Addr().String())
	}
	if n == 1 {
		return servers, nil, urls
	}
	address, err := testbed.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(address[strings.LastIndexByte(address, ':')+1:])
	is, err := json.Marshal(serverProcess{port, t.TempDir(), hosts})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServerProcess$")
	cmd.Env = append(os.Environ(), asServer+"="+string(is))
	if last, err = testbed.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = last.Signal(syscall.SIGKILL); <-last.Done() })
	return servers, last, append(urls, address)
}

func natsOptions(i, port int, dir string, routes []*url.URL) *server.Options {
	options := &server.Options{
		ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir,
		NoSigs: true, NoLog: true, Username: "clinic", Password: "s3cret-of-nats",
	}
	if len(routes) > 1 {
		port, _ := strconv.Atoi(routes[i].Port())
		options.Cluster = server.ClusterOpts{Name: "clinic", Host: "127.0.0.1", Port: port}
		options.Routes = routes
	}
	return options
}

// asServer holds what the server of a process of its own is to be.
const asServer = "MEDILAB_TEST_NATS"

// TestServerProcess is the process of a server, which can be frozen.
func TestServerProcess(t *testing.T) {
	text := os.Getenv(asServer)
	if text == "" {
		t.Skip("it is started by TestJetStreamCluster")
	}
	var is serverProcess
	if err := json.Unmarshal([]byte(text), &is); err != nil {
		t.Fatal(err)
	}
	var routes []*url.URL
	for _, host := range is.Routes {
		routes = append(routes, &url.URL{Scheme: "nats", Host: host})
	}
	s, err := server.NewServer(natsOptions(len(routes)-1, is.Port, is.Dir, routes))
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.WaitForShutdown()
}

type serverProcess struct {
	Port   int
	Dir    string
	Routes []string
}

func stream(t testing.TB, urls []string, replicas int) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(strings.Join(urls, ","), nats.UserInfo("clinic", "s3cret-of-nats"), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the cluster has a leader", func() bool {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "clinic", Subjects: []string{"clinic.>"}, Replicas: replicas})
		return err == nil
	})
	return js
}

func TestJetStream(t *testing.T) {
	r := newRig(t)
	_, _, urls := jetStreams(t, 1)
	js := stream(t, urls, 1)
	r.run("nats://clinic:s3cret-of-nats@" + urls[0] + "/?stream=clinic&subject=clinic.events")
	_, err := js.Publish(t.Context(), "clinic.other", []byte(body(9))) // not asked for
	r.check(err)
	r.checkMixed("clinic", func(_, body string) {
		_, err := js.Publish(t.Context(), "clinic.events", []byte(body))
		r.check(err)
	})
	r.checkParked("clinic", 3) // each text has a place of its own in the stream
}

// Messages of a stream that was made anew are events of their own, though their places are those
// of others.
func TestJetStreamMadeAnew(t *testing.T) {
	r := newRig(t)
	_, _, urls := jetStreams(t, 1)
	for n := range 2 {
		js := stream(t, urls, 1)
		_, err := js.Publish(t.Context(), "clinic.events", fmt.Appendf(nil, `{"event_type":"patient.created","event_data":{"n":%d}}`, n))
		r.check(err)
		stop := r.run("nats://clinic:s3cret-of-nats@" + urls[0] + "/?stream=clinic")
		if accepted, _ := r.await(1); accepted != 1 {
			t.Errorf("message %d is parked", n)
		}
		stop()
		r.check(js.DeleteStream(t.Context(), "clinic"))
	}
}

// A server of the cluster is frozen, thawed, and another one killed while events are published:
// each that was is in the log once.
func TestJetStreamCluster(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	servers, last, urls := jetStreams(t, 3)
	js := stream(t, urls, 3)
	r.run("nats://clinic:s3cret-of-nats@" + strings.Join(urls, ",") + "?stream=clinic")
	const all, freeze, thaw, kill = 400, 100, 200, 300
	for n := range all {
		switch n {
		case freeze:
			r.check(last.Signal(syscall.SIGSTOP))
		case thaw:
			r.check(last.Signal(syscall.SIGCONT))
		case kill:
			servers[1].Shutdown()
		}
		harness.Until(t, fmt.Sprintf("event %d is published", n), func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := js.Publish(ctx, "clinic.events", []byte(body(n)))
			return err == nil
		})
	}
	seen := map[string]bool{}
	for len(seen) < all { // a publication that was tried again is there twice
		r.await(1)
		for _, e := range r.events()[len(seen):] {
			if seen[e.Stream] {
				t.Fatalf("%s is in the log twice", e.Stream)
			}
			seen[e.Stream] = true
		}
	}
}

// The same of a topic.
func TestKafkaTopicMadeAnew(t *testing.T) {
	message := func(at time.Time) string {
		m, err := kafkaMessages{}.Unmarshal(&sarama.ConsumerMessage{Topic: "clinic", Timestamp: at})
		if err != nil {
			t.Fatal(err)
		}
		return m.UUID
	}
	at := time.Now()
	first, again, anew := message(at), message(at), message(at.Add(time.Hour))
	if first != again || first == anew {
		t.Error("a message is not known again, or taken for that of another topic")
	}
}

func TestKafka(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "clinic"))
	r.check(err)
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	r.check(err)
	t.Cleanup(client.Close)
	stop := r.run("kafka://" + strings.Join(cluster.ListenAddrs(), ",") + "?topic=clinic&group=webhooks&name=his")
	send := func(_, body string) {
		r.check(client.ProduceSync(t.Context(), &kgo.Record{Topic: "clinic", Value: []byte(body)}).FirstErr())
	}
	r.checkMixed("his", send)
	r.checkParked("his", 3)
	// In binary mode the data is the message's, and the rest is in its headers.
	r.check(client.ProduceSync(t.Context(), &kgo.Record{Topic: "clinic", Partition: 1, Value: []byte(`{"binary":true}`), Headers: []kgo.RecordHeader{
		{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_type", Value: []byte("patient.created")}, {Key: "ce_id", Value: []byte("b-1")},
		{Key: "ce_source", Value: []byte("/his")}, {Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
		{Key: "tracestate", Value: []byte("rojo=00f067aa0ba902b7")},
	}}).FirstErr())
	r.await(1)
	events := r.events()
	if last := events[len(events)-1].Data; !strings.Contains(last, `{"binary":true}`) || !strings.Contains(last, "0af7651916cd43dd8448eb211c80319c") || !strings.Contains(last, `"tracestate":"rojo=00f067aa0ba902b7"`) {
		t.Errorf("the event in binary mode is %s", last)
	}
	stop()
	send("", body(2))
	r.run("kafka://" + strings.Join(cluster.ListenAddrs(), ",") + "?topic=clinic&group=webhooks&name=his")
	for !slices.ContainsFunc(r.events(), func(e recorded) bool { return strings.Contains(e.Data, `{"n": 2.0}`) }) {
		r.await(1) // what was not committed comes again
	}
	if events := r.events(); len(events) != 6 {
		t.Errorf("after a restart the log has %v", events)
	}
}

// rabbit starts a RabbitMQ with an empty folder.
func rabbit(t testing.TB) (uri string, restart func()) {
	t.Helper()
	const path = "/usr/lib/rabbitmq/bin/rabbitmq-server" // the one in PATH changes to another user
	if _, err := os.Stat(path); err != nil {
		t.Skip("Debian's rabbitmq-server is not installed")
	}
	dir := t.TempDir()
	host, err := testbed.FreeAddress()
	distribution, err2 := testbed.FreeAddress()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	port := host[strings.LastIndexByte(host, ':')+1:]
	environment := append(os.Environ(), "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+port, "RABBITMQ_NODENAME=test"+port+"@localhost",
		"RABBITMQ_DIST_PORT="+distribution[strings.LastIndexByte(distribution, ':')+1:], "RABBITMQ_MNESIA_BASE="+dir, "RABBITMQ_LOG_BASE="+dir,
		"RABBITMQ_ENABLED_PLUGINS_FILE="+dir+"/plugins", "RABBITMQ_PID_FILE="+dir+"/pid", "HOME="+dir)
	var running *exec.Cmd
	start := func() {
		running = exec.Command(path)
		running.Env = environment
		running.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := running.Start(); err != nil {
			t.Fatal(err)
		}
	}
	stop := func(by syscall.Signal) { _ = syscall.Kill(-running.Process.Pid, by); _ = running.Wait() }
	start()
	t.Cleanup(func() { stop(syscall.SIGKILL) })
	// A killed one may forget a queue that it was told of a moment before.
	return "amqp://guest:guest@" + host, func() { stop(syscall.SIGTERM); start() }
}

func TestParse(t *testing.T) {
	sources, err := Parse("nats://a:1,b/?stream=s&subject=x.>, amqps://u:p%40@h/v?queue=q , kafka://k1,k2:9?topic=t&group=g&name=other")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range sources {
		got = append(got, fmt.Sprint(s.Name, " ", s.hosts, " ", s.topic, s.filter, s.path, s.group, s.tls, s.secret()))
	}
	want := []string{"s [a:1 b:4222] sx.>medilab-webhooksfalse", "q [h:5672] qvmedilab-webhookstruep@", "other [k1:9092 k2:9] tgfalse"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	for _, wrong := range []string{
		"http://h", "h:1", "natss://h?stream=s", "amqp+tls://h?queue=q", "nats://?stream=s", "nats://h", "nats://h?stream=s&nope=1", "amqp://h?queue=a%zz", "kafka://h?topic=a,kafka://h?topic=a",
		"amqp://u:geheim%zz@h?queue=q", "nats://h?stream=a%20b",
		"amqp://u:geheim@h:99999999/?queue=q", "nats://h?stream=a&stream=b", "amqp://h:0?queue=q",
	} {
		if _, err := Parse(wrong); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// A redelivered message is one event, also when its id is the nil UUID.
func TestEventIDIsNeverNil(t *testing.T) {
	s := Source{Name: "s"}
	if id := s.eventID(uuid.Nil.String()); id == (domain.EventID{}) || id != s.eventID(uuid.Nil.String()) {
		t.Errorf("the event is %s", id)
	}
}

// A RabbitMQ that is restarted keeps what was not acknowledged, and sends it again.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	uri, restart := rabbit(t)
	r := newRig(t)
	connect := func() (channel *amqp091.Channel) {
		harness.Until(t, "RabbitMQ is ready", func() bool {
			conn, err := amqp091.Dial(uri)
			if err == nil {
				t.Cleanup(func() { conn.Close() })
				channel, err = conn.Channel()
			}
			return err == nil
		})
		return channel
	}
	channel := connect()
	_, err := channel.QueueDeclare("clinic", true, false, false, false, nil)
	r.check(err)
	r.check(channel.Confirm(false))
	publish := func(id, body string) {
		confirm, err := channel.PublishWithDeferredConfirmWithContext(t.Context(), "", "clinic", false, false,
			amqp091.Publishing{MessageId: id, DeliveryMode: amqp091.Persistent, Body: []byte(body)})
		r.check(err)
		if ok, err := confirm.WaitContext(t.Context()); !ok {
			r.check(errors.Join(errors.New("not confirmed"), err))
		}
	}
	r.run(uri + "/?queue=clinic")
	r.checkMixed("clinic", publish)
	r.checkParked("clinic", 2)
	for n := range 50 {
		publish("", body(100+n))
	}
	restart()
	channel = connect()
	_, err = channel.QueueDeclarePassive("clinic", true, false, false, false, nil)
	r.check(err)
	r.check(channel.Confirm(false))
	publish("", body(200))
	for len(r.events()) < 3+1+50+1 {
		r.await(1)
	}
	// Of a connection that ends nothing is taken for a message.
	parked, _, err := outbox.Parked(t.Context(), r.pool, 0, 100)
	r.check(err)
	if len(parked) != 1 {
		t.Errorf("%d messages are parked, want the one that no retry mended: %+v", len(parked), parked)
	}
}
