package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands/emit"
)

//go:embed clinic.sql
var tables string

// change is what happens to one row, and the event that says so.
type change struct {
	event, table string
	from, to     string // the row's status; from "" makes a new row
}

// changes has all 25 types of events.
var changes = []change{
	{"patient.created", "patients", "", "active"}, {"patient.updated", "patients", "active", "active"}, {"patient.deleted", "patients", "active", "deleted"},
	{"appointment.created", "appointments", "", "scheduled"}, {"appointment.updated", "appointments", "scheduled", "scheduled"},
	{"appointment.cancelled", "appointments", "scheduled", "cancelled"}, {"appointment.completed", "appointments", "scheduled", "completed"},
	{"visit.created", "visits", "", "open"}, {"visit.updated", "visits", "open", "open"}, {"visit.completed", "visits", "open", "completed"},
	{"queue.entry_created", "queue", "", "waiting"}, {"queue.entry_updated", "queue", "waiting", "waiting"},
	{"queue.entry_called", "queue", "waiting", "called"}, {"queue.entry_completed", "queue", "called", "completed"},
	{"payment.created", "payments", "", "pending"}, {"payment.completed", "payments", "pending", "completed"},
	{"payment.failed", "payments", "pending", "failed"}, {"payment.refunded", "payments", "completed", "refunded"},
	{"user.created", "users", "", "active"}, {"user.updated", "users", "active", "active"}, {"user.deleted", "users", "active", "deleted"},
	{"system.backup_completed", "backups", "", "completed"}, {"system.backup_failed", "backups", "", "failed"},
	{"system.maintenance_start", "maintenance", "", "running"}, {"system.maintenance_end", "maintenance", "running", "ended"},
}

// scenes are what happens in a clinic: changes that belong together, in one transaction. The first
// steps play them in this order, later ones by their weight.
var scenes = []struct {
	weight int
	events []string
}{
	{1, []string{"user.created"}},
	{8, []string{"patient.created", "appointment.created"}},
	{8, []string{"appointment.created"}},
	{4, []string{"appointment.updated"}},
	{12, []string{"queue.entry_created"}},
	{6, []string{"queue.entry_updated"}},
	{12, []string{"queue.entry_called", "visit.created"}},
	{8, []string{"visit.updated"}},
	{12, []string{"visit.completed", "queue.entry_completed", "appointment.completed", "payment.created"}},
	{10, []string{"payment.completed"}},
	{1, []string{"payment.refunded"}},
	{3, []string{"payment.created", "payment.failed"}},
	{3, []string{"appointment.cancelled"}},
	{5, []string{"patient.updated"}},
	{1, []string{"patient.created", "patient.deleted"}},
	{1, []string{"user.created", "user.updated"}},
	{1, []string{"user.deleted"}},
	{1, []string{"system.backup_completed"}},
	{1, []string{"system.backup_failed"}},
	{1, []string{"system.maintenance_start"}},
	{1, []string{"system.maintenance_end"}},
}

// kinds are the clinic's tables: the column with a row's number, and what a new row has besides its
// number and status.
var kinds = map[string]struct{ key, names, values string }{
	"patients":     {"patient_id", "name, sex, birth_date, phone, department", "@name, @sex, date '1940-01-01' + @days::int, @phone, @department"},
	"appointments": {"appointment_id", "patient_id, department, service, starts_at", somePatient + ", @department, @service, date_trunc('hour', now()) + @hours::int * interval '1 hour'"},
	"visits":       {"visit_id", "patient_id, department, room", somePatient + ", @department, @room"},
	"queue":        {"entry_id", "patient_id, number, room", somePatient + ", @number, @room"},
	"payments":     {"payment_id", "patient_id, amount, method", somePatient + ", @hours::int * 100, @method"},
	"users":        {"user_id", "name, role, department", "@name, @role, @department"},
	"backups":      {"backup_id", "kind", "'full'"},
	"maintenance":  {"maintenance_id", "reason", "'upgrade of the registry'"},
}

const somePatient = `(SELECT patient_id FROM clinic.patients WHERE status = 'active' ORDER BY md5(patient_id::text || @pick) LIMIT 1)`

// updates are what a change does to its row besides the status.
var updates = map[string]string{
	"patient.updated": ", phone = @phone", "appointment.updated": ", starts_at = starts_at + interval '1 hour'", "visit.updated": ", room = @room",
	"queue.entry_updated": ", room = @room", "queue.entry_called": ", room = @room", "user.updated": ", role = @role",
}

// statement returns the SQL that makes the change and returns the row.
func (c change) statement() string {
	of := kinds[c.table]
	if c.from == "" {
		return fmt.Sprintf(`INSERT INTO clinic.%[1]s AS t (%[2]s, status, %[3]s)
			SELECT (SELECT coalesce(max(%[2]s), 0) + 1 FROM clinic.%[1]s), '%[4]s', %[5]s RETURNING row_to_json(t)`, c.table, of.key, of.names, c.to, of.values)
	}
	return fmt.Sprintf(`UPDATE clinic.%[1]s AS t SET status = '%[2]s', revision = revision + 1%[3]s
		WHERE %[4]s = (SELECT %[4]s FROM clinic.%[1]s WHERE status = '%[5]s' ORDER BY md5(%[4]s::text || @pick) LIMIT 1) RETURNING row_to_json(t)`,
		c.table, c.to, updates[c.event], of.key, c.from)
}

var (
	surnames    = []string{"Морозов", "Лебедев", "Козлов", "Новиков", "Соколов", "Зайцев", "Волков", "Орлов", "Белов", "Комаров", "Киселёв", "Гусев"}
	men         = []string{"Илья", "Артём", "Максим", "Роман", "Павел", "Тимур", "Глеб", "Степан"}
	women       = []string{"Алина", "Вера", "Дарья", "Ксения", "Марина", "Полина", "Софья", "Яна"}
	departments = []string{"cardiology", "surgery", "pediatrics", "neurology", "ophthalmology", "laboratory"}
	services    = []string{"consultation", "ECG", "ultrasound", "blood test", "MRI", "vaccination"}
	roles       = []string{"doctor", "nurse", "registrar", "head_of_department"}
	methods     = []string{"card", "cash", "insurance"}
)

// madeUp returns values for the statements, all of them made up.
func madeUp(r *rand.Rand) pgx.NamedArgs {
	of := func(list []string) string { return list[r.IntN(len(list))] }
	name, sex := of(men)+" "+of(surnames), "male"
	if r.IntN(2) == 0 {
		name, sex = of(women)+" "+of(surnames)+"а", "female"
	}
	return pgx.NamedArgs{
		"name": name, "sex": sex, "days": r.IntN(30_000), "phone": fmt.Sprintf("+7000%07d", r.IntN(1e7)), "department": of(departments),
		"service": of(services), "hours": 1 + r.IntN(200), "room": fmt.Sprint(100 + r.IntN(40)), "number": fmt.Sprintf("%c-%03d", 'A'+r.IntN(4), r.IntN(1000)),
		"method": of(methods), "role": of(roles), "pick": fmt.Sprint(r.Uint32()),
	}
}

// clinic changes its tables and emits what has changed.
type clinic struct {
	db   *pgxpool.Pool
	seed int64
}

// run makes so many steps a second until ctx ends, or, if last is not 0, until the step last.
func (c *clinic) run(ctx context.Context, rate float64, last int) error {
	if _, err := c.db.Exec(ctx, tables); err != nil {
		return err
	}
	if _, err := c.db.Exec(ctx, `INSERT INTO clinic.progress VALUES ($1, 0) ON CONFLICT DO NOTHING`, c.seed); err != nil {
		return err
	}
	ticker := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer ticker.Stop()
	for {
		step, err := c.step(ctx)
		if err != nil || last > 0 && step >= last {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// step plays the next scene in one transaction and returns its number. What it makes up depends on the
// seed and the number alone.
func (c *clinic) step(ctx context.Context) (step int, err error) {
	err = pgx.BeginFunc(ctx, c.db, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `UPDATE clinic.progress SET step = step + 1 WHERE seed = $1 RETURNING step`, c.seed).Scan(&step); err != nil {
			return err
		}
		r := rand.New(rand.NewPCG(uint64(c.seed), uint64(step)))
		played := play(ctx, tx, sceneOf(step, r), step, r)
		if errors.Is(played, errMistake) {
			return nil
		}
		return played
	})
	return step, err
}

func sceneOf(step int, r *rand.Rand) []string {
	if step <= len(scenes) {
		return scenes[step-1].events
	}
	total := 0
	for _, s := range scenes {
		total += s.weight
	}
	at := r.IntN(total)
	for _, s := range scenes {
		if at -= s.weight; at < 0 {
			return s.events
		}
	}
	panic("unreachable")
}

// errMistake is why a part of a transaction is rolled back, and with it what it emitted.
var errMistake = errors.New("the registrar has made a mistake")

// play makes the changes of a scene and emits their events, in a part of the transaction that is now
// and then rolled back. A change that fits no row is left out.
func play(ctx context.Context, tx pgx.Tx, scene []string, step int, r *rand.Rand) error {
	return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		for _, c := range changes {
			if !slices.Contains(scene, c.event) {
				continue
			}
			var row json.RawMessage
			err := tx.QueryRow(ctx, c.statement(), madeUp(r)).Scan(&row)
			if errors.Is(err, pgx.ErrNoRows) {
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", c.event, err)
			}
			event := emit.Event{Type: c.event, Data: row, Source: "clinic", CorrelationID: fmt.Sprint("step-", step)}
			if _, err := emit.Emit(ctx, tx, event); err != nil {
				return err
			}
		}
		if step%29 == 0 {
			return errMistake
		}
		return nil
	})
}
