package mail_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/mail"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// post is an SMTP server that passes on what it takes.
type post struct {
	refuses atomic.Bool
	rcpt    func(to string) error // nil: takes all
	spam    string                // is refused in a text
	got     chan letter
}

type letter struct {
	to, user, subject, text string
}

// serve starts the server at a port of its own, and returns its address.
func (p *post) serve(t *testing.T) (addr string) {
	t.Helper()
	p.got = make(chan letter, 100)
	server := smtp.NewServer(p)
	server.AllowInsecureAuth = true
	server.ErrorLog = silent{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		_ = server.Close()
		group.Wait()
	})
	return listener.Addr().String()
}

type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

func (p *post) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{post: p}, nil }

type session struct {
	*post
	to, user string
}

func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if password != "p@ss" {
			return smtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}), nil
}

func (s *session) Mail(string, *smtp.MailOptions) error { return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.refuses.Load() {
		return &smtp.SMTPError{Code: 451, Message: "not now"}
	}
	if s.rcpt != nil {
		if err := s.rcpt(to); err != nil {
			return err
		}
	}
	s.to += " " + to
	return nil
}

func (s *session) Data(r io.Reader) error {
	message, err := netmail.ReadMessage(r)
	if err != nil {
		return err
	}
	var body io.Reader = message.Body
	if message.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	if s.spam != "" && strings.Contains(string(text), s.spam) {
		return &smtp.SMTPError{Code: 554, Message: "looks like spam"}
	}
	subject, _ := new(mime.WordDecoder).DecodeHeader(message.Header.Get("Subject"))
	s.got <- letter{s.to, s.user, subject, string(text)}
	return err
}

func (s *session) Reset()        { s.to = "" }
func (s *session) Logout() error { return nil }

// next returns the next letter, which both recipients get.
func (p *post) next(t *testing.T) letter {
	t.Helper()
	got, other := <-p.got, <-p.got
	if got.to != " duty@clinic.test" || other.to != " it@clinic.test" || got.subject != other.subject || got.text != other.text {
		t.Errorf("not the same to both: %+v, %+v", got, other)
	}
	return got
}

// node is one process that sends alerts by e-mail.
type node struct {
	t         *testing.T
	pool      *pgxpool.Pool
	log       *eventstore.Log
	directory *commands.Directory
	tried     chan error
	turned    atomic.Int64 // by how much its clock is ahead
	stop      func()
}

func start(t *testing.T, url, server string, settings ...func(*mail.Outbox)) *node {
	t.Helper()
	pool, err := eventstore.OpenPool(t.Context(), url, 8)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, pool: pool, directory: commands.NewDirectory(slog.New(slog.DiscardHandler)), tried: make(chan error, 100)}
	n.log = eventstore.Open(eventstore.Config{
		Pool: pool, Logger: slog.New(slog.DiscardHandler),
		Codec:     func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
		Inline:    []eventstore.Inline{mail.Queue{}},
		Observers: []eventstore.Observer{n.directory.Observe},
	})
	if err := n.directory.Open(t.Context(), n.log); err != nil {
		t.Fatal(err)
	}
	sender, err := mail.ParseServer(server, "Дежурный <duty@clinic.test>, it@clinic.test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	member, err := eventstore.Join(ctx, pool, n.log.Clock(), t.Name(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	outbox := &mail.Outbox{
		Log: n.log, Pool: pool, Directory: n.directory, Sender: sender, PanelURL: "https://hooks.clinic.test/admin",
		Logger: slog.New(slog.DiscardHandler), Tried: func(err error) { n.tried <- err }, Poll: 20 * time.Millisecond,
		Now: func() time.Time { return time.Now().Add(time.Duration(n.turned.Load())) },
	}
	for _, set := range settings {
		set(outbox)
	}
	var group sync.WaitGroup
	group.Go(func() { _ = member.Run(ctx) })
	group.Go(func() { outbox.Run(ctx, member) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
		_ = member.Leave(context.Background())
		n.log.Close()
		pool.Close()
	})
	t.Cleanup(n.stop)
	return n
}

// turn makes it later, so that what had to wait is sent.
func (n *node) turn() { n.turned.Add(int64(15 * time.Minute)) }

func (n *node) append(stream string, expected int64, change domain.Change) {
	n.t.Helper()
	n.appendAll(write(stream, expected, change))
}

func (n *node) appendAll(writes ...eventstore.Write) {
	n.t.Helper()
	if _, err := n.directory.Append(n.t.Context(), eventstore.Unit{Writes: writes}); err != nil {
		n.t.Fatal(err)
	}
}

func write(stream string, expected int64, change domain.Change) eventstore.Write {
	return eventstore.Write{Stream: stream, Expected: expected, Events: []eventstore.NewEvent{{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change}}}
}

// awaitNone waits until nothing is to be sent.
func (n *node) awaitNone() {
	n.t.Helper()
	harness.Until(n.t, "nothing is to be sent", func() bool {
		return n.rows() == 0
	})
}

// rows returns how many alerts wait.
func (n *node) rows() (rows int) {
	n.t.Helper()
	if err := n.pool.QueryRow(n.t.Context(), `SELECT count(*) FROM medilab.alert_mails`).Scan(&rows); err != nil {
		n.t.Fatal(err)
	}
	return rows
}

// Alerts go to everybody by one of two nodes, also what a server did not take at first, or
// what a node that is gone has left; what was acknowledged does not.
func TestAlertsAreSent(t *testing.T) {
	var p post
	server := "smtp://alerts%40clinic.test:p%40ss@" + p.serve(t)
	url := testdb.New(t)
	p.refuses.Store(true)
	n := start(t, url, server)
	w := domain.WebhookID(uuid.New())
	n.append(w.Stream(), 0, domain.WebhookRegistered{ID: w, Number: 7, Name: "Лаборатория", Events: []string{"*"}, PayloadVersion: domain.PayloadV1, Active: true})
	key := domain.AlertKey{Webhook: w, Kind: domain.AlertGivenUp}
	id := domain.AlertID(uuid.New())
	n.append(key.Stream(), 0, domain.WebhookAlertRaised{ID: id, WebhookID: w, Kind: key.Kind, Message: "a delivery ran out of retries"})
	if err := <-n.tried; err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("tried with %v", err)
	}
	n.stop()
	p.refuses.Store(false)
	nodes := []*node{start(t, url, server), start(t, url, server)}
	turn := func() {
		for _, n := range nodes {
			n.turn()
		}
	}
	got := p.next(t)
	if got.user != "alerts@clinic.test" {
		t.Errorf("sent by %s", got.user)
	}
	if want := "[MediLab] A delivery was given up / Доставка не удалась, повторов больше не будет — Лаборатория (webhook 7)"; got.subject != want {
		t.Errorf("the subject is %q, want %q", got.subject, want)
	}
	for _, want := range []string{"Доставка не удалась", "a delivery ran out of retries", "https://hooks.clinic.test/admin#/webhooks/" + w.String() + "/calls?status=failed"} {
		if !strings.Contains(got.text, want) {
			t.Errorf("the text lacks %q:\n%s", want, got.text)
		}
	}
	nodes[0].awaitNone()
	turn()
	nodes[1].append(key.Stream(), 1, domain.WebhookAlertResolved{ID: id, WebhookID: w, Kind: key.Kind, Message: "delivered"})
	if got := p.next(t); !strings.Contains(got.subject, "Resolved: A delivery was given up / Снято: Доставка") || !strings.Contains(got.text, "Снято: ") {
		t.Errorf("%+v", got)
	}
	nodes[0].append(key.Stream(), 2, domain.WebhookAlertResolved{ID: id, WebhookID: w, Kind: key.Kind, Acknowledged: true})
	nodes[0].append(domain.AlertKey{Kind: domain.AlertNode}.Stream(), 0, domain.WebhookAlertRaised{ID: id, Kind: domain.AlertNode, Message: "the server web/1 lacks memory"})
	if got := p.next(t); got.subject != "[MediLab] A server lacks something, deliveries wait / Серверу чего-то не хватает, доставки ждут" || !strings.Contains(got.text, "/admin#/alerts") {
		t.Errorf("%+v", got)
	}
	other := domain.AlertKey{Webhook: w, Kind: domain.AlertTimeout}
	nodes[0].awaitNone()
	turn()
	nodes[0].appendAll(write(key.Stream(), 3, domain.WebhookAlertRaised{ID: id, WebhookID: w, Kind: key.Kind}),
		write(other.Stream(), 0, domain.WebhookAlertRaised{ID: domain.AlertID(uuid.New()), WebhookID: w, Kind: other.Kind}))
	if got := p.next(t); got.subject != "[MediLab] 2 alerts / Оповещений: 2" {
		t.Errorf("%+v", got)
	}
	nodes[0].awaitNone()
	if len(p.got) > 0 {
		t.Errorf("sent too: %+v", <-p.got)
	}
}

// An alert that was acknowledged before its e-mail was sent needs none.
func TestAcknowledgedIsNotSent(t *testing.T) {
	var p post
	p.refuses.Store(true)
	n := start(t, testdb.New(t), "smtp://"+p.serve(t))
	w := domain.WebhookID(uuid.New())
	known, other := domain.AlertKey{Webhook: w, Kind: domain.AlertTimeout}, domain.AlertKey{Webhook: w, Kind: domain.AlertGivenUp}
	id := domain.AlertID(uuid.New())
	n.append(known.Stream(), 0, domain.WebhookAlertRaised{ID: id, WebhookID: w, Kind: known.Kind})
	<-n.tried
	n.append(known.Stream(), 1, domain.WebhookAlertAcknowledged{ID: id, WebhookID: w, Kind: known.Kind})
	n.append(known.Stream(), 2, domain.WebhookAlertResolved{ID: id, WebhookID: w, Kind: known.Kind, Acknowledged: true})
	n.append(other.Stream(), 0, domain.WebhookAlertRaised{ID: domain.AlertID(uuid.New()), WebhookID: w, Kind: other.Kind})
	p.refuses.Store(false)
	if got := p.next(t); !strings.Contains(got.subject, "A delivery was given up") {
		t.Errorf("%+v", got)
	}
	n.awaitNone()
	if len(p.got) > 0 {
		t.Errorf("sent too: %+v", <-p.got)
	}
}

// What waits about earlier alerts of the same kind and webhook is not sent either: "resolved"
// would be the last that is told of an alert that is open.
func TestAcknowledgedIsNotSaidToBeResolved(t *testing.T) {
	var p post
	n := start(t, testdb.New(t), "smtp://"+p.serve(t))
	w := domain.WebhookID(uuid.New())
	keys := []domain.AlertKey{{Webhook: w, Kind: domain.AlertTimeout}, {Kind: domain.AlertNode}, {Webhook: w, Kind: domain.AlertGivenUp}}
	first, second := domain.AlertID(uuid.New()), domain.AlertID(uuid.New())
	for _, key := range keys {
		n.append(key.Stream(), 0, domain.WebhookAlertRaised{ID: first, WebhookID: key.Webhook, Kind: key.Kind})
		n.awaitNone()
		p.next(t)
	}
	for i, key := range keys {
		n.append(key.Stream(), 1, domain.WebhookAlertResolved{ID: first, WebhookID: key.Webhook, Kind: key.Kind})
		n.append(key.Stream(), 2, domain.WebhookAlertRaised{ID: second, WebhookID: key.Webhook, Kind: key.Kind})
		if i < 2 {
			n.append(key.Stream(), 3, domain.WebhookAlertAcknowledged{ID: second, WebhookID: key.Webhook, Kind: key.Kind})
		}
	}
	n.turn()
	if got := p.next(t); !strings.Contains(got.subject, "A delivery was given up") {
		t.Errorf("sent %+v", got)
	}
	n.awaitNone()
}

// An acknowledged alert that is resolved and raised again within one batch is told of again.
func TestQueueKeepsTheOrder(t *testing.T) {
	w := domain.WebhookID(uuid.New())
	statements, _, err := mail.Queue{}.Statements([]eventstore.Event{
		{Value: domain.WebhookAlertRaised{WebhookID: w}}, {Value: domain.WebhookAlertAcknowledged{WebhookID: w}}, {Value: domain.WebhookAlertRaised{WebhookID: w}},
	})
	var verbs []string
	for _, s := range statements {
		verbs = append(verbs, strings.Fields(s.SQL)[0])
	}
	if got := strings.Join(verbs, " "); err != nil || got != "INSERT DELETE INSERT" {
		t.Errorf("%s, %v", got, err)
	}
}

// What follows an e-mail about the same kind of alerts and webhook waits, and is told together.
// Others do not wait.
func TestFlappingIsToldTogether(t *testing.T) {
	var p post
	n := start(t, testdb.New(t), "smtp://"+p.serve(t))
	w := domain.WebhookID(uuid.New())
	timeout := domain.AlertKey{Webhook: w, Kind: domain.AlertTimeout}
	var version int64
	raise := func() domain.AlertID {
		id := domain.AlertID(uuid.New())
		n.append(timeout.Stream(), version, domain.WebhookAlertRaised{ID: id, WebhookID: w, Kind: timeout.Kind, Message: `"kind":"node" took 1 s`})
		version++
		return id
	}
	resolve := func(id domain.AlertID) {
		n.append(timeout.Stream(), version, domain.WebhookAlertResolved{ID: id, WebhookID: w, Kind: timeout.Kind, Message: "a call ended in time"})
		version++
	}
	wants := func(subject string, texts ...string) {
		t.Helper()
		got := p.next(t)
		if !strings.HasPrefix(got.subject, "[MediLab] "+subject) {
			t.Errorf("got %q, want %q", got.subject, subject)
		}
		for _, want := range texts {
			if strings.Count(got.text, want) != 1 {
				t.Errorf("want %q once:\n%s", want, got.text)
			}
		}
	}
	id := raise()
	wants("A call ran out its timeout", "took 1 s")
	n.awaitNone()
	for range 60 { // more than go into one e-mail
		resolve(id)
		id = raise()
	}
	resolve(id)
	for i, key := range []domain.AlertKey{{Webhook: w, Kind: domain.AlertGivenUp}, {Webhook: domain.WebhookID(uuid.New()), Kind: timeout.Kind}, {Kind: domain.AlertNode}} {
		n.append(key.Stream(), 0, domain.WebhookAlertRaised{ID: domain.AlertID(uuid.New()), WebhookID: key.Webhook, Kind: key.Kind})
		wants([]string{"A delivery was given up", "A call ran out its timeout", "A server lacks"}[i])
	}
	n.turn()
	wants("Resolved: A call ran out its timeout", "a call ended in time", "raised: 60, resolved: 61", "возникло: 60, снято: 61", "MediLab Webhooks")
	n.awaitNone()
	raise()
	n.append(domain.AlertKey{Kind: domain.AlertLogLost}.Stream(), 0, domain.WebhookAlertRaised{ID: id, Kind: domain.AlertLogLost})
	wants("The database lost")
	n.turn()
	wants("A call ran out its timeout", "took 1 s")
	n.awaitNone()
}

// What is held back on purpose is not overdue.
func TestOverdue(t *testing.T) {
	var p post
	p.refuses.Store(true)
	n := start(t, testdb.New(t), "smtp://"+p.serve(t), func(o *mail.Outbox) { o.Tried = func(error) {} })
	for i, kind := range []domain.AlertKind{domain.AlertTimeout, domain.AlertTimeout, domain.AlertGivenUp} {
		n.append(domain.AlertKey{Kind: kind}.Stream(), []int64{0, 1, 0}[i], domain.WebhookAlertRaised{ID: domain.AlertID(uuid.New()), Kind: kind})
	}
	for minutes, want := range map[int]int64{15: 0, 21: 1} {
		if _, err := n.pool.Exec(t.Context(), `UPDATE medilab.alert_mails SET at = clock_timestamp() - make_interval(mins => $1) WHERE data LIKE '%timeout%'`, minutes); err != nil {
			t.Fatal(err)
		}
		if got, err := mail.Overdue(t.Context(), n.pool); err != nil || got != want {
			t.Errorf("after %d minutes %d are overdue, want %d: %v", minutes, got, want, err)
		}
	}
}

// What waits is not read again with each alert that is appended.
func TestFlappingIsReadSeldom(t *testing.T) {
	var p post
	var looks atomic.Int64
	n := start(t, testdb.New(t), "smtp://"+p.serve(t), func(o *mail.Outbox) {
		o.Poll = 3 * time.Second
		now := o.Now
		o.Now = func() time.Time { // is asked once a look for the one kind that was told
			looks.Add(1)
			return now()
		}
	})
	key := domain.AlertKey{Kind: domain.AlertNode}
	raised := func(version int64) {
		n.append(key.Stream(), version, domain.WebhookAlertRaised{ID: domain.AlertID(uuid.New()), Kind: key.Kind})
	}
	raised(0)
	p.next(t)
	n.awaitNone()
	began, before := time.Now(), looks.Load()
	for version := range int64(60) {
		raised(1 + version)
	}
	if got, most := looks.Load()-before, 2+int64(time.Since(began)/time.Second); got > most {
		t.Errorf("looked %d times, want %d at most", got, most)
	}
}

// One message that the server refuses holds back no others.
func TestOthersGoWithoutWhatIsRefused(t *testing.T) {
	p := post{spam: "casino"}
	p.refuses.Store(true)
	n := start(t, testdb.New(t), "smtp://"+p.serve(t))
	var all []eventstore.Write
	for i := range 5 {
		key := domain.AlertKey{Webhook: domain.WebhookID(uuid.New()), Kind: domain.AlertTimeout}
		all = append(all, write(key.Stream(), 0, domain.WebhookAlertRaised{ID: domain.AlertID(uuid.New()), WebhookID: key.Webhook, Kind: key.Kind,
			Message: []string{"clinic 1", "clinic 2", "casino", "clinic 3", "clinic 4"}[i]}))
	}
	n.appendAll(all...)
	p.refuses.Store(false)
	var text string
	for strings.Count(text, "clinic ") < 4 {
		text += p.next(t).text
	}
	for _, want := range []string{"clinic 1", "clinic 2", "clinic 3", "clinic 4"} {
		if strings.Count(text, want) != 1 {
			t.Errorf("want %s once:\n%s", want, text)
		}
	}
	harness.Until(t, "only what is refused waits", func() bool {
		return n.rows() == 1
	})
	for len(n.tried) > 0 {
		<-n.tried
	}
	n.turn()
	if err := <-n.tried; err == nil || !strings.Contains(err.Error(), "looks like spam") {
		t.Errorf("tried again with %v", err)
	}
}

// However many texts the server refuses, what is behind them goes at once.
func TestManyRefusedHoldBackNone(t *testing.T) {
	p := post{spam: "casino"}
	p.refuses.Store(true)
	n := start(t, testdb.New(t), "smtp://"+p.serve(t), func(o *mail.Outbox) { o.Tried = func(error) {} })
	var all []eventstore.Write
	for i := range 13 {
		key := domain.AlertKey{Webhook: domain.WebhookID(uuid.New()), Kind: domain.AlertTimeout}
		message := "casino"
		if i == 12 {
			message = "clinic"
		}
		all = append(all, write(key.Stream(), 0, domain.WebhookAlertRaised{ID: domain.AlertID(uuid.New()), WebhookID: key.Webhook, Kind: key.Kind, Message: message}))
	}
	n.appendAll(all...)
	p.refuses.Store(false)
	harness.Until(t, "the one that is not refused is sent", func() bool { return len(p.got) == 2 })
	if got := p.next(t); !strings.Contains(got.text, "clinic") {
		t.Errorf("%+v", got)
	}
}

// An address that the server refuses, for good or for a time, keeps no e-mail from others,
// and makes nobody get one twice.
func TestOthersGetWhatOneDoesNot(t *testing.T) {
	var p post
	var duty atomic.Int32 // the next answers to its address
	p.rcpt = func(to string) error {
		if to == "duty@clinic.test" && duty.Load() > 0 {
			return &smtp.SMTPError{Code: int(duty.Load()), Message: "not this one"}
		}
		return nil
	}
	n := start(t, testdb.New(t), "smtp://"+p.serve(t))
	raise := func(kind domain.AlertKind) {
		n.append(domain.AlertKey{Kind: kind}.Stream(), 0, domain.WebhookAlertRaised{ID: domain.AlertID(uuid.New()), Kind: kind})
	}
	tried := func(want string) {
		t.Helper()
		if err := <-n.tried; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("tried with %v, want %s", err, want)
		}
	}
	taken := func(to, kind string) {
		t.Helper()
		if got := <-p.got; got.to != " "+to || !strings.Contains(got.text, kind) {
			t.Errorf("%+v, want %s to %s", got, kind, to)
		}
		if err := <-n.tried; err != nil {
			t.Error(err)
		}
	}

	duty.Store(550)
	raise(domain.AlertNode)
	tried("550")
	taken("it@clinic.test", "node")
	n.awaitNone()

	duty.Store(451)
	raise(domain.AlertLogLost)
	tried("451")
	taken("it@clinic.test", "log_lost")
	tried("451")
	n.awaitNone()
	duty.Store(0)
	for err := range n.tried {
		if err == nil {
			break
		}
	}
	if got := <-p.got; got.to != " duty@clinic.test" || !strings.Contains(got.text, "log_lost") {
		t.Errorf("%+v", got)
	}

	raise(domain.AlertInactive)
	taken("duty@clinic.test", "inactive")
	taken("it@clinic.test", "inactive")
}

// The log names a recipient who had not got an e-mail that others have when the process ended.
func TestStoppedBeforeOneGotIt(t *testing.T) {
	p := post{rcpt: func(to string) error {
		if to == "duty@clinic.test" {
			return &smtp.SMTPError{Code: 451, Message: "not this one"}
		}
		return nil
	}}
	var logged bytes.Buffer
	n := start(t, testdb.New(t), "smtp://"+p.serve(t), func(o *mail.Outbox) { o.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	n.append(domain.AlertKey{Kind: domain.AlertNode}.Stream(), 0, domain.WebhookAlertRaised{ID: domain.AlertID(uuid.New()), Kind: domain.AlertNode})
	<-p.got
	n.awaitNone()
	n.stop()
	for _, want := range []string{"stopped before an e-mail about alerts reached a recipient", "duty@clinic.test", "error="} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log lacks %q: %s", want, logged.String())
		}
	}
}

func TestParseServer(t *testing.T) {
	for _, wrong := range [][2]string{{"mail.clinic.test", "a@b.test"}, {"http://mail.clinic.test", "a@b.test"}, {"smtp://", "a@b.test"},
		{"smtp://u:secret@h:x", "a@b.test"}, {"smtp://u:secret@h", "nobody"}, {"smtp://u:secret@h", ""}} {
		if _, err := mail.ParseServer(wrong[0], wrong[1]); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	for _, right := range []string{"smtp://h", "smtps://u:p@h", "smtp://u:p@h:2525?from=hooks@b.test"} {
		if _, err := mail.ParseServer(right, "a@b.test, c@d.test"); err != nil {
			t.Errorf("%q: %v", right, err)
		}
	}
}
