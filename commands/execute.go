package commands

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// races is how often a use case decides again after another writer was first.
const races = 100

// Execute appends what decide returns, and decides again when another writer was
// first, the configuration that it decided by has changed, or the log lost its tail: each
// time, decide loads what it decides on. A unit without writes is nothing to append. The
// error is decide's or that of Append.
func (d *Directory) Execute(ctx context.Context, decide func(ctx context.Context) (eventstore.Unit, error)) (eventstore.Appended, error) {
	for attempt := 1; ; attempt++ {
		generation := d.log.Generation()
		unit, err := decide(ctx)
		if err != nil || len(unit.Writes) == 0 {
			return eventstore.Appended{}, err
		}
		if unit.Generation == 0 {
			unit.Generation = generation
		}
		appended, err := d.Append(ctx, unit)
		if err == nil || !eventstore.IsConflict(err) && !outdated(err) || attempt == races {
			return appended, err
		}
	}
}

// Append appends a unit as Log.Append does. For each event of the clinic in it, it
// decides whom the event goes to, by the configuration that stands before the event in
// the log. Once it returns, after success or a conflict, the directory holds what the
// log has of the unit's webhooks and tokens.
func (d *Directory) Append(ctx context.Context, unit eventstore.Unit) (eventstore.Appended, error) {
	if d.Tracer != nil {
		return d.traceAppend(ctx, unit)
	}
	return d.append(ctx, unit)
}

func (d *Directory) append(ctx context.Context, unit eventstore.Unit) (eventstore.Appended, error) {
	if once, ok := ctx.Value(onceKey{}).(*Once); ok && len(unit.Writes) > 0 && !once.used.Load() {
		return d.appendOnce(ctx, once, unit)
	}
	return d.appendUnit(ctx, unit)
}

func (d *Directory) appendUnit(ctx context.Context, unit eventstore.Unit) (eventstore.Appended, error) {
	configures := slices.ContainsFunc(unit.Writes, func(w eventstore.Write) bool { return eventstore.IsConfiguration(w.Stream) })
	if !configures { // else the erasure of a renewal would destroy its key
		if err := d.Renewed(ctx); err != nil {
			return eventstore.Appended{}, err
		}
	}
	appended, err := d.decideAndAppend(ctx, unit, configures)
	if !configures || err == nil && d.current() && d.Position() >= appended.First || err != nil && !eventstore.IsConflict(err) {
		return appended, err
	}
	return appended, errors.Join(err, d.CatchUp(ctx))
}

// decideAndAppend decides by the newest configuration that is known here, again when the
// log has a newer one. Changes of this process let those go first that decide again in no
// time. A unit that lost several races, because deciding takes longer than the next change
// is away, holds off further changes, of all processes.
func (d *Directory) decideAndAppend(ctx context.Context, unit eventstore.Unit, configures bool) (eventstore.Appended, error) {
	const patience = 3
	if configures {
		if err := d.log.AwaitConfiguration(ctx); err != nil {
			return eventstore.Appended{}, err
		}
		d.deciding.Lock()
		defer d.deciding.Unlock()
	}
	appended, err := d.tryAppend(ctx, unit)
	known := eventstore.Position(-1)
	if unit.Configuration != nil { // the caller decided by it, and decides again
		return appended, err
	}
	for lost := 1; outdated(err); lost++ {
		switch {
		case lost == 1 && !configures && !d.isCostly(unit):
			d.deciding.RLock()
			defer d.deciding.RUnlock()
		case lost == patience:
			release, err := d.holdConfiguration(ctx)
			if err != nil {
				return eventstore.Appended{}, err
			}
			defer release()
		}
		if err := d.CatchUp(ctx); err != nil {
			return eventstore.Appended{}, err
		}
		if unit.Generation != 0 && unit.Generation != d.log.Generation() {
			return eventstore.Appended{}, eventstore.ErrTailLost // so is the rest that the unit was decided by
		}
		if d.Configuration() == known { // nothing newer than what was refused
			return eventstore.Appended{}, fmt.Errorf("%w: the configuration of the log cannot be read", eventstore.ErrUnavailable)
		}
		known = d.Configuration()
		appended, err = d.tryAppend(ctx, unit)
	}
	return appended, err
}

// isCostly reports whether deciding the unit may take a millisecond or more.
func (d *Directory) isCostly(unit eventstore.Unit) bool {
	return slices.ContainsFunc(unit.Writes, func(w eventstore.Write) bool {
		return slices.ContainsFunc(w.Events, func(e eventstore.NewEvent) bool {
			t, ok := e.Value.(domain.EventTriggered)
			return ok && !t.Imported && d.Costly(domain.EventType(t.EventType), t.EventData)
		})
	})
}

// holdConfiguration holds the configuration, for one unit of this process at a time: each
// needs a connection.
func (d *Directory) holdConfiguration(ctx context.Context) (release func(), err error) {
	select {
	case d.holding <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	change, err := d.log.HoldConfiguration(ctx)
	if err != nil {
		<-d.holding
		return nil, err
	}
	return func() { change(); <-d.holding }, nil
}

// outdated reports whether the unit was decided by another configuration than the log's.
func outdated(err error) bool {
	return errors.Is(err, eventstore.ErrConfigurationChanged) || errors.Is(err, eventstore.ErrTailLost)
}

func (d *Directory) tryAppend(ctx context.Context, unit eventstore.Unit) (eventstore.Appended, error) {
	if err := d.dispatch(ctx, &unit); err != nil {
		return eventstore.Appended{}, err
	}
	return d.log.Append(ctx, unit)
}

// dispatch writes into each event of the clinic in the unit whom it goes to, none
// included, and makes that a condition of the append. It encloses all content.
func (d *Directory) dispatch(ctx context.Context, unit *eventstore.Unit) error {
	now := d.snapshot.Load()
	task := d.log.Limiter.Task()
	defer task.End()
	events := 0
	for at, w := range unit.Writes {
		for i := range w.Events {
			triggered, ok := w.Events[i].Value.(domain.EventTriggered)
			if !ok {
				if err := d.enclose(ctx, unit, now, at, i); err != nil {
					return err
				}
				continue
			}
			eventType, work := domain.EventType(triggered.EventType), 0
			if !triggered.Imported && now.registry.Costly(eventType, triggered.EventData) {
				work = cpulimit.Expensive
			}
			if err := task.Spend(ctx, work); err != nil {
				return err
			}
			triggered.Recipients = []domain.Recipient{}
			if !triggered.Imported {
				triggered.Recipients = now.registry.Recipients(eventType, triggered.EventData)
			}
			decidedBy(unit, now)
			if err := d.conceal(ctx, unit, &triggered); err != nil {
				return err
			}
			w.Events[i].Data, w.Events[i].Value = stored(triggered)
			unit.Rows += len(triggered.Recipients)
			if events++; events > 1 && unit.Rows > maxDeliveries {
				return domain.Invalid("events", fmt.Sprintf("would make more than %d deliveries, which is too much at once; send fewer events in one batch", maxDeliveries))
			}
		}
	}
	return nil
}

// decidedBy makes the snapshot a condition of the unit's append. Its keys are those of the log's generation.
func decidedBy(unit *eventstore.Unit, now *snapshot) {
	unit.Configuration = &now.position
	unit.Generation = min(now.generation, cmp.Or(unit.Generation, now.generation))
}

// conceal finds the keys of an event of the clinic, and hashes the lines of its recipients.
func (d *Directory) conceal(ctx context.Context, unit *eventstore.Unit, triggered *domain.EventTriggered) (err error) {
	triggered.Keys, err = d.keysFor(ctx, unit, domain.EventType(triggered.EventType), triggered.EventData)
	if len(triggered.Recipients) > 0 {
		triggered.Keys.Prepare() // they encrypt what the receivers answer, too
	}
	for i, r := range triggered.Recipients {
		line := r.Line
		if err == nil {
			line, err = d.hashed(ctx, r.Line)
		}
		if line != r.Line { // else the recipients may be shared
			triggered.Recipients[i].Line = line
		}
	}
	return err
}

// keysFor returns the keys of an event's content, which the unit stores.
func (d *Directory) keysFor(ctx context.Context, unit *eventstore.Unit, eventType domain.EventType, data []byte) (envelope.Keys, error) {
	if d.Keys == nil {
		return nil, nil
	}
	return d.Keys.For(ctx, unit, eventType, data)
}

func (d *Directory) hashed(ctx context.Context, line domain.Line) (domain.Line, error) {
	if d.Keys == nil || line == domain.NoLine {
		return line, nil
	}
	var failed error
	line = line.Hashed(func(text []byte) []byte {
		var hash []byte
		hash, failed = d.Keys.Hash(ctx, text)
		return hash
	})
	return line, failed
}

// HashedText returns the hash of a text that might be guessed, with a secret.
func (d *Directory) HashedText(ctx context.Context, text string) (string, error) {
	if d.Keys == nil {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:]), nil
	}
	hash, err := d.Keys.Hash(ctx, []byte(text))
	return hex.EncodeToString(hash), err
}

// enclose encrypts content that is not the data of an event of the clinic, and hashes the
// line of a retry. What a receiver answered goes by the keys of what was sent, if that had
// any. The caller's writes stay as they are: the unit may be decided again.
func (d *Directory) enclose(ctx context.Context, unit *eventstore.Unit, now *snapshot, write, event int) (err error) {
	if d.Keys == nil {
		return nil
	}
	var enclosed domain.Change
	switch content := unit.Writes[write].Events[event].Value.(type) {
	case domain.DeliveryRetryRequested:
		if content.Line == domain.NoLine {
			return nil
		}
		content.Line, err = d.hashed(ctx, content.Line)
		enclosed = content
	case domain.Enveloped:
		if content.IsEnclosed() {
			return nil
		}
		tested, _ := content.(domain.DeliveryTested)
		decidedBy(unit, now)
		keys, failed := d.keysFor(ctx, unit, domain.EventType(tested.EventType), tested.EventData)
		enclosed, err = content.Enclosed(keys), failed
	default:
		return nil
	}
	if err != nil {
		return err
	}
	unit.Writes = slices.Clone(unit.Writes)
	events := slices.Clone(unit.Writes[write].Events)
	events[event].Data, events[event].Value = domain.AppendJSON(nil, enclosed), enclosed
	unit.Writes[write].Events = events
	return nil
}

// maxDeliveries bounds what several events in one unit may make: while they are queued, no
// other append is made. One event alone is bounded by the number of webhooks.
const maxDeliveries = 100_000

// stored returns the form in which the log keeps the event, and the event with a copy of
// its data, which is in there if it is in clear.
func stored(event domain.EventTriggered) ([]byte, domain.EventTriggered) {
	const around, sealed, key, recipient = 128, 40, 38, 90
	size := len(event.EventData)
	if len(event.Keys) > 0 {
		size += size/3 + sealed + key*len(event.Keys) // in base64
	}
	size += len(event.EventType) + len(event.Source) + len(event.CorrelationID) + len(event.Traceparent) + len(event.Tracestate)
	data := event.AppendJSON(make([]byte, 0, size+around+recipient*len(event.Recipients)))
	if len(event.Keys) > 0 {
		event.EventData = bytes.Clone(event.EventData)
		return data, event
	}
	end := len(data) - 1 // event_data is the last field, before the brace
	event.EventData = data[end-len(event.EventData) : end : end]
	return data, event
}
