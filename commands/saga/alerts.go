package saga

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// AlertBasis returns what alerts are judged by, all as it was at one place in the
// log: the figures of every webhook that was called, and the alerts that are open.
type AlertBasis interface {
	// WaitFor returns once the read models hold the log up to the position.
	WaitFor(ctx context.Context, position eventstore.Position) error
	AlertBasis(ctx context.Context) (at eventstore.Position, figures map[domain.WebhookID]domain.CallFigures, open []domain.AlertKey, err error)
	// GivenUp returns, at one place in the log, the webhooks whose alert of the kind
	// given_up is open, and when the last of the alert's deliveries was given up that has
	// not been delivered or cancelled since; zero: each has.
	GivenUp(ctx context.Context) (at eventstore.Position, last map[domain.WebhookID]time.Time, err error)
}

// Alerts raises and resolves alerts. It reads the log as its own reader, so one
// node does it for all: what follows from a call is decided where the call is
// read, what follows from time by a scan on that node. Nothing of its state is
// lost with it: the node that takes over begins from the read models, and an
// alert is raised at its version in its stream or not at all, so that deciding
// twice appends once.
type Alerts struct {
	Log       *eventstore.Log
	Directory *commands.Directory
	Basis     AlertBasis
	Rules     domain.AlertRules
	Interval  time.Duration // between two scans
	Logger    *slog.Logger

	mu    sync.Mutex // one page or one scan at a time
	state *alertState
}

// readerAlerts is the alerts' place in the log.
const readerAlerts = "alerts"

// alertState is the fold of the log by which alerts are decided.
type alertState struct {
	position eventstore.Position
	figures  map[domain.WebhookID]*domain.CallFigures
	open     map[domain.AlertKey]bool
}

// AddTo makes the node a reader for alerts while the router runs.
func (a *Alerts) AddTo(ctx context.Context, router *message.Router, node *eventstore.Node) error {
	a.forget()
	const (
		linger = 100 * time.Millisecond // an alert may be that late
		page   = 5000
	)
	subscription, err := a.Log.Subscribe(ctx, node, eventstore.Reader{Name: readerAlerts, PageSize: page, Linger: linger, Interested: concernsAlerts})
	if err != nil {
		return err
	}
	router.AddConsumerHandler(readerAlerts, "log", subscription, subscription.Handler(a.apply))
	return nil
}

// forget makes the next page or scan begin from the read models: the log may have lost
// what was folded.
func (a *Alerts) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = nil
}

// concernsAlerts reports whether a batch may raise or resolve something at once.
func concernsAlerts(batch []eventstore.Event) bool {
	for i := range batch {
		switch batch[i].Value.(type) {
		case domain.DeliverySucceeded, domain.DeliveryAttemptFailed, domain.DeliveryCancelled, domain.WebhookDeleted, domain.WebhookActivated, domain.WebhookDeactivated:
			return true
		}
	}
	return false
}

// Run scans for what follows from time, on the node that reads for all, until
// ctx ends. The first scan is at once: what is open may have ended while no node ran.
func (a *Alerts) Run(ctx context.Context, node *eventstore.Node) {
	const again = 5 * time.Second
	for pause := time.Duration(0); eventstore.Wait(ctx, pause, node.LacksChanged()); {
		pause = a.Interval
		if err := a.scan(ctx, node); err != nil && ctx.Err() == nil {
			a.Logger.Warn("alerts not looked for, trying again", "error", err)
			pause = min(pause, again)
		}
	}
}

func (a *Alerts) scan(ctx context.Context, node *eventstore.Node) error {
	position, owned, err := a.Log.AcquireLease(ctx, node, readerAlerts, eventstore.LeaseTime)
	if err != nil || !owned {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.foldUpTo(ctx, position); err != nil {
		return err
	}
	if err := a.judge(ctx, a.Directory.Webhooks()); err != nil {
		return err
	}
	if err := a.judgeGivenUp(ctx); err != nil {
		return err
	}
	var lacks []domain.NodeLack
	for _, l := range node.Lacks() {
		lacks = append(lacks, domain.NodeLack{Node: l.Node, Lacks: domain.Outcome(l.Lacks)})
	}
	if err := a.decide(ctx, domain.Webhook{}, []domain.Finding{domain.JudgeNodes(lacks)}); err != nil {
		return err
	}
	return a.judgeLoss(ctx)
}

// apply decides what follows from a page.
func (a *Alerts) apply(ctx context.Context, page eventstore.Page) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.foldUpTo(ctx, page.Events[0].Position-1); err != nil {
		return err
	}
	touched := map[domain.WebhookID]bool{}
	for i := range page.Events {
		e := &page.Events[i]
		if e.Position <= a.state.position { // what the state began from has it
			if err := a.catchUp(ctx, e, touched); err != nil {
				a.state = nil
				return err
			}
			continue
		}
		a.state.position = e.Position
		if err := a.fold(ctx, e, touched); err != nil {
			a.state = nil // the page comes again
			return err
		}
	}
	webhooks := make([]domain.Webhook, 0, len(touched))
	for id := range touched {
		if w, ok := a.Directory.Webhook(id); ok {
			webhooks = append(webhooks, w)
		}
	}
	err := a.judge(ctx, webhooks)
	if err == nil {
		err = a.tellGivenUp(ctx, page)
	}
	if err != nil {
		a.state = nil
	}
	return err
}

// foldUpTo makes the state stand at the position or beyond it: it does already,
// unless this node has just become the reader or a page failed.
func (a *Alerts) foldUpTo(ctx context.Context, position eventstore.Position) error {
	if a.state != nil && a.state.position >= position {
		return nil
	}
	// The statistics are moments behind at most, where they are kept at all.
	const patience = 3 * time.Second
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := a.Basis.WaitFor(wait, position); err != nil {
		return err
	}
	at, figures, open, err := a.Basis.AlertBasis(ctx)
	if err != nil {
		return err
	}
	state := &alertState{position: at, figures: make(map[domain.WebhookID]*domain.CallFigures, len(figures)), open: make(map[domain.AlertKey]bool, len(open))}
	for id, f := range figures {
		state.figures[id] = &f
	}
	for _, key := range open {
		state.open[key] = true
	}
	a.state = state
	return a.judge(ctx, a.Directory.Webhooks())
}

// catchUp decides on a call that is in the figures already, so that they do not
// tell whether it was one that alone is reason for an alert.
func (a *Alerts) catchUp(ctx context.Context, e *eventstore.Event, touched map[domain.WebhookID]bool) error {
	c, ok := domain.CountedCall(e.Value)
	if !ok || c.Outcome != domain.OutcomeTimeout || c.IsSystem() {
		return nil
	}
	w, ok := a.Directory.Webhook(c.WebhookID)
	if !ok || !w.Exists() {
		return nil
	}
	touched[c.WebhookID] = true // the next calls may have resolved it
	finding := a.Rules.JudgeTimeout(w, domain.CallFigures{TimedOut: true})
	finding.At = int64(e.Position)
	return a.decide(ctx, w, []domain.Finding{finding})
}

// fold takes in one event, and decides at once what follows from a single call.
func (a *Alerts) fold(ctx context.Context, e *eventstore.Event, touched map[domain.WebhookID]bool) error {
	if call, ok := domain.CountedCall(e.Value); ok {
		return a.count(ctx, &call, e.RecordedAt, touched)
	}
	switch c := e.Value.(type) {
	case domain.WebhookAlertRaised:
		a.state.open[domain.AlertKey{Webhook: c.WebhookID, Kind: c.Kind}] = true
	case domain.WebhookAlertResolved:
		delete(a.state.open, domain.AlertKey{Webhook: c.WebhookID, Kind: c.Kind})
	case domain.WebhookActivated, domain.WebhookDeactivated, domain.WebhookDeleted:
		touched[domain.WebhookID(streamID(e.Stream))] = true
	}
	return nil
}

func (a *Alerts) count(ctx context.Context, call *domain.Call, at time.Time, touched map[domain.WebhookID]bool) error {
	f := a.state.figures[call.WebhookID]
	if f == nil {
		f = &domain.CallFigures{}
		a.state.figures[call.WebhookID] = f
	}
	failures := f.Failures
	f.Count(call.Outcome, call.IsSystem(), at)
	if f.Spotless() && !a.isOpen(call.WebhookID) {
		return nil // as nearly always
	}
	touched[call.WebhookID] = true
	w, ok := a.Directory.Webhook(call.WebhookID)
	if !ok || !w.Exists() {
		return nil
	}
	if f.Failures > failures && f.DeactivatesBy(w, at) {
		if err := a.deactivate(ctx, call.WebhookID, f, at); err != nil {
			return err
		}
	}
	return a.decide(ctx, w, a.Rules.JudgeCall(w, *f))
}

// deactivate deactivates a webhook of which nothing but failures came for too long.
func (a *Alerts) deactivate(ctx context.Context, id domain.WebhookID, f *domain.CallFigures, at time.Time) error {
	_, err := a.Directory.Execute(ctx, func(context.Context) (unit eventstore.Unit, err error) {
		if w, _ := a.Directory.Webhook(id); f.DeactivatesBy(w, at) {
			unit.Writes = deactivation(w, domain.DeactivatedFailing, eventstore.Metadata{Actor: ActorAlerts})
		}
		return unit, nil
	})
	return err
}

// isOpen reports whether any alert of the webhook is.
func (a *Alerts) isOpen(webhook domain.WebhookID) bool {
	return len(a.state.open) > 0 && slices.ContainsFunc(domain.AlertKinds, func(kind domain.AlertKind) bool {
		return a.state.open[domain.AlertKey{Webhook: webhook, Kind: kind}]
	})
}

// judge looks at the webhooks as they are now.
func (a *Alerts) judge(ctx context.Context, webhooks []domain.Webhook) error {
	now := a.Log.Clock().Now()
	for _, w := range webhooks {
		var f domain.CallFigures
		if have := a.state.figures[w.ID]; have != nil {
			f = *have
		}
		if err := a.decide(ctx, w, a.Rules.Judge(w, f, now)); err != nil {
			return err
		}
	}
	return nil
}

// decide appends what the findings change. Nearly always that is nothing.
func (a *Alerts) decide(ctx context.Context, w domain.Webhook, findings []domain.Finding) error {
	for _, finding := range findings {
		key := domain.AlertKey{Webhook: w.ID, Kind: finding.Kind}
		if finding.Kind == domain.AlertTimeout && finding.At == 0 {
			finding.At = int64(a.state.position)
		}
		if a.state.open[key] == finding.Holds {
			continue
		}
		open, err := a.append(ctx, w, key, finding)
		if err != nil {
			return fmt.Errorf("alert: %w", err)
		}
		if a.state.open[key] = open; !open {
			delete(a.state.open, key)
		}
	}
	return nil
}

// append decides on the alert's stream as it is, and appends the decision with
// the event that notifies subscribers. It reports whether the alert is open then.
func (a *Alerts) append(ctx context.Context, w domain.Webhook, key domain.AlertKey, finding domain.Finding) (open bool, err error) {
	decided := false
	_, err = a.Directory.Execute(ctx, func(ctx context.Context) (unit eventstore.Unit, err error) {
		alert, err := commands.FoldAlert(ctx, a.Log, key)
		if err != nil {
			return unit, err
		}
		change := domain.DecideAlert(alert, w.ID, finding)
		if decided = change != nil; !decided { // it was decided already
			open = alert.Open
			return unit, nil
		}
		open = finding.Holds
		return alertUnit(w, key, alert, change, a.Log.Clock().Now())
	})
	if err == nil && decided {
		a.Logger.Info("alert", "webhook", w.ID.String(), "kind", string(key.Kind), "open", finding.Holds, "message", finding.Message)
	}
	return open, err
}

// alertUnit is the alert's change and, unless it was acknowledged before, the event about it,
// in one.
func alertUnit(w domain.Webhook, key domain.AlertKey, alert domain.Alert, change domain.Change, now time.Time) (eventstore.Unit, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return eventstore.Unit{}, err
	}
	triggered := domain.AlertEvent(w, change, now)
	metadata := eventstore.Metadata{Actor: ActorAlerts}
	unit := eventstore.Unit{Writes: []eventstore.Write{commands.Write(key.Stream(), alert.Version, metadata, change)}}
	if resolved, ok := change.(domain.WebhookAlertResolved); !ok || !resolved.Acknowledged {
		unit.Writes = append(unit.Writes, commands.Write(domain.EventID(id).Stream(), 0, metadata, triggered))
	}
	return unit, nil
}

// ActorAlerts is who raises and resolves alerts.
const ActorAlerts = "system:alerts"
