// Package mail sends alerts by e-mail. What is to be sent stands in a table, in the
// transaction that appends the alert, until a server has taken it: by one of the nodes, and
// at least once.
package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Queue puts alerts that are raised or resolved into the table. Nobody is told any more of
// an acknowledged alert: what waits about its kind and webhook is deleted, as the end of an
// earlier alert would read as the end of this one.
type Queue struct{}

// Statements implements eventstore.Inline.
func (Queue) Statements(events []eventstore.Event) (statements []eventstore.Statement, _ []string, _ error) {
	var types []string
	var data [][]byte
	insert := func() {
		if len(types) > 0 {
			statements = append(statements, eventstore.Statement{SQL: `INSERT INTO medilab.alert_mails (type, data) SELECT * FROM unnest($1::text[], $2::bytea[])`, Args: []any{types, data}})
		}
		types, data = nil, nil
	}
	for i := range events {
		if isNotice(&events[i]) {
			types, data = append(types, events[i].Type), append(data, events[i].Data)
		} else if c, ok := events[i].Value.(domain.WebhookAlertAcknowledged); ok {
			insert()
			statements = append(statements, eventstore.Statement{SQL: `DELETE FROM medilab.alert_mails WHERE ` + about + ` = $1`, Args: []any{aboutOf(c)}})
		}
	}
	insert()
	return statements, nil, nil
}

func isNotice(e *eventstore.Event) bool {
	switch c := e.Value.(type) {
	case domain.WebhookAlertRaised:
		return true
	case domain.WebhookAlertResolved:
		return !c.Acknowledged
	}
	return false
}

// Sender sends e-mails to those who are told of alerts.
type Sender interface {
	Recipients() []string
	// Send sends an e-mail to each of the addresses, and returns one error per address, nil
	// if it was delivered.
	Send(ctx context.Context, to []string, subject, text string) []error
}

// Outbox sends what Queue put into the table.
type Outbox struct {
	Log       *eventstore.Log
	Pool      *pgxpool.Pool
	Directory *commands.Directory
	Sender    Sender
	PanelURL  string // of the admin panel
	Logger    *slog.Logger
	Tried     func(err error) // is called with the outcome of each e-mail to each recipient
	Poll      time.Duration   // between two looks for what other nodes put there
	Now       func() time.Time

	late sync.WaitGroup       // goroutines of sendLate
	told map[string]time.Time // when an e-mail went out, or its text was refused, by notice.about
}

const (
	lease       = "alert_mails"
	together    = 50               // notices in one e-mail
	quiet       = 15 * time.Minute // between two e-mails about one kind of alerts of one webhook
	rest        = time.Second      // between two looks, however much is appended: a look reads all that waits
	overdue     = quiet + 5*time.Minute
	sendTimeout = time.Minute
	longestWait = 5 * time.Minute    // between two tries
	lateTries   = 20                 // for a recipient who is refused while others are accepted: over an hour
	kept        = 7 * 24 * time.Hour // then nobody wants to hear of it any more
)

// Run sends until ctx ends. While the server does not take e-mails it tries again after
// pauses that grow; nothing else waits for it.
func (o *Outbox) Run(ctx context.Context, node *eventstore.Node) {
	appended, stop := o.Log.Appends(func(batch []eventstore.Event) bool {
		for i := range batch {
			if isNotice(&batch[i]) {
				return true
			}
		}
		return false
	})
	defer stop()
	defer o.late.Wait()
	o.told = map[string]time.Time{}
	for wait := o.Poll; ; {
		wake := appended
		if wait > o.Poll { // the server takes nothing now
			wake = nil
		}
		pause := min(wait, rest)
		if !eventstore.Wait(ctx, pause, nil) || !eventstore.Wait(ctx, wait-pause, wake) {
			return
		}
		more, err := o.send(ctx, node)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			wait = min(max(2*wait, o.Poll+1), longestWait)
			o.Logger.Warn("an e-mail about alerts was not sent, trying again", "in", wait.String(), "error", err)
		case more:
			wait = 0
		default:
			wait = o.Poll
		}
	}
}

// notice is what an e-mail says of one kind of alerts about one webhook.
type notice struct {
	ids    []int64
	about  string        // that kind and webhook
	change domain.Change // the last
	at     time.Time

	raised, resolved int       // how often
	since            time.Time // the first
}

// about is the SQL of notice.about. The rows hold JSON without spaces; to parse it could fail
// by one of them.
const about = `concat(substring(encode(data, 'escape') FROM '"kind":"([^"]*)"'), ' ', substring(encode(data, 'escape') FROM '"webhook_id":"([^"]*)"'))`

// aboutOf returns notice.about of an alert.
func aboutOf(c domain.WebhookAlertAcknowledged) string {
	if c.WebhookID == (domain.WebhookID{}) {
		return string(c.Kind) + " "
	}
	return string(c.Kind) + " " + c.WebhookID.String()
}

// send sends the oldest of what waits, if this node is the one that does, and reports
// whether there may be more.
func (o *Outbox) send(ctx context.Context, node *eventstore.Node) (more bool, err error) {
	var some bool
	if err := o.Pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM medilab.alert_mails)`).Scan(&some); err != nil || !some {
		return false, eventstore.Doing("look for e-mails to send", err)
	}
	_, owned, err := o.Log.AcquireLease(ctx, node, lease, eventstore.LeaseTime)
	if err != nil || !owned {
		return false, err
	}
	if err := o.drop(ctx); err != nil {
		return false, err
	}
	notices, err := o.waiting(ctx)
	if err != nil || len(notices) == 0 {
		return false, err
	}
	more = len(notices) == together
	for {
		subject, text := o.compose(notices)
		if err = o.mail(ctx, subject, text); !textRefused(err) || len(notices) == 1 {
			break
		}
		notices, more = notices[:len(notices)/2], true // the others go without the one that is refused
	}
	if textRefused(err) { // it waits, and others are next: at once, or enough of these would hold them up
		o.told[notices[0].about] = o.Now()
		o.Logger.Warn("the text of an e-mail about an alert was refused, trying again", "in", quiet.String(), "error", err)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	var ids []int64
	for _, n := range notices {
		ids = append(ids, n.ids...)
		o.told[n.about] = o.Now()
	}
	_, err = o.Pool.Exec(ctx, `DELETE FROM medilab.alert_mails WHERE id = ANY($1)`, ids)
	return more, eventstore.Doing("note that an e-mail is sent", err)
}

// mail sends an e-mail to everybody, and fails if nobody gets it. Once somebody has it, the
// others are left out if they are refused for good, and are tried again without the rest.
func (o *Outbox) mail(ctx context.Context, subject, text string) error {
	to := o.Sender.Recipients()
	errs := o.try(ctx, to, subject, text)
	if !slices.Contains(errs, nil) {
		return errs[max(0, slices.IndexFunc(errs, textRefused))]
	}
	for i, err := range errs {
		switch {
		case err == nil:
		case refused(err):
			o.Logger.Error("a recipient of e-mails about alerts was refused", "to", to[i], "error", err)
		default:
			o.late.Go(func() { o.sendLate(ctx, to[i:i+1], err, subject, text) })
		}
	}
	return nil
}

// sendLate sends to one recipient what others have, after err. Nothing keeps it over a restart.
func (o *Outbox) sendLate(ctx context.Context, to []string, err error, subject, text string) {
	for wait, tries := o.Poll, 0; tries < lateTries; wait, tries = min(2*wait, longestWait), tries+1 {
		if !eventstore.Wait(ctx, wait, nil) {
			o.Logger.Warn("stopped before an e-mail about alerts reached a recipient", "to", to[0], "error", err)
			return
		}
		if err = o.try(ctx, to, subject, text)[0]; err == nil {
			return
		}
		if refused(err) {
			break
		}
	}
	o.Logger.Error("an e-mail about alerts did not reach a recipient", "to", to[0], "error", err)
}

func (o *Outbox) try(ctx context.Context, to []string, subject, text string) []error {
	limited, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	errs := o.Sender.Send(limited, to, subject, text)
	for _, err := range errs {
		if err == nil || ctx.Err() == nil {
			o.Tried(err)
		}
	}
	return errs
}

// waiting returns what to tell, the oldest first. What follows an e-mail about the same kind
// and webhook within quiet waits, to be told together. A node does not know what others sent:
// when the lease moves, such an e-mail comes early.
func (o *Outbox) waiting(ctx context.Context) ([]notice, error) {
	maps.DeleteFunc(o.told, func(_ string, at time.Time) bool { return o.Now().Sub(at) >= quiet })
	rows, _ := o.Pool.Query(ctx, `
		SELECT ids, about, type, data, at, raised, resolved, since
		FROM (
			SELECT array_agg(id) AS ids, `+about+` AS about, max(id) AS id, min(at) AS since,
				count(*) FILTER (WHERE type = $1) AS raised, count(*) FILTER (WHERE type = $2) AS resolved
			FROM medilab.alert_mails GROUP BY 2
		) AS notices JOIN (SELECT id, type, data, at FROM medilab.alert_mails) AS last USING (id)
		WHERE about <> ALL($3) ORDER BY since, id LIMIT $4`,
		domain.WebhookAlertRaised{}.ChangeType(), domain.WebhookAlertResolved{}.ChangeType(), slices.AppendSeq([]string{}, maps.Keys(o.told)), together)
	notices, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n notice, err error) {
		var name string
		var data []byte
		err = row.Scan(&n.ids, &n.about, &name, &data, &n.at, &n.raised, &n.resolved, &n.since)
		if err == nil {
			n.change, err = domain.Decode(name, data)
		}
		return n, err
	})
	return notices, eventstore.Doing("look for e-mails to send", err)
}

// drop deletes mails that are too old to send.
func (o *Outbox) drop(ctx context.Context) error {
	dropped, err := o.Pool.Exec(ctx, `DELETE FROM medilab.alert_mails WHERE at < clock_timestamp() - $1::interval`, kept)
	if err != nil {
		return fmt.Errorf("drop old e-mails: %w", err)
	}
	if n := dropped.RowsAffected(); n > 0 {
		o.Logger.Error("e-mails about alerts were given up, as no server took them", "alerts", n)
		o.Tried(errors.New("too old"))
	}
	return nil
}

// Overdue returns how many alerts wait for longer than those that are held back, those of one
// kind about one webhook as one.
func Overdue(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pool.QueryRow(ctx, `SELECT count(DISTINCT `+about+`) FROM medilab.alert_mails WHERE at < clock_timestamp() - $1::interval`, overdue).Scan(&n)
	return n, eventstore.Doing("count the overdue e-mails", err)
}
