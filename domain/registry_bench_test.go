package domain

import (
	"encoding/json"
	"fmt"
	"testing"
)

// Contract: filters of ten thousand webhooks on one event type leave 20,000 decisions (a verdict
// on one event for one webhook) a second a core.
func BenchmarkDispatchFiltered(b *testing.B) {
	event := json.RawMessage(`{"patient_id":4711,"department":"cardiology","patient_type":"new","amount":1500.50,` +
		`"insurance":{"company":"Восток","number":"77-123"},"doctor":{"id":42,"name":"Иванов И. И."},"services":["ecg","consultation"],"comment":"<повторно>"}`)
	const webhooks = 10_000
	for _, c := range []struct {
		name    string
		filters func(i int) string
	}{
		{"a department each", func(i int) string { return fmt.Sprintf(`{"department":"d%d"}`, i) }},
		{"a patient each", func(i int) string { return fmt.Sprintf(`{"patient_id":%d}`, i) }},
		{"the guide's, amounts differ", func(i int) string {
			return fmt.Sprintf(`{"department":"cardiology","patient_type":"new","amount_min":%d}`, 1501+i)
		}},
		{"bounds alone", func(i int) string { return fmt.Sprintf(`{"amount_min":%d}`, 1501+i) }},
		{"expressions", func(i int) string { return fmt.Sprintf(`{"doctor.name":{"$regex":"^П.*%d$"}}`, i) }},
		{"a path each", func(i int) string { return fmt.Sprintf(`{"field_%d":1}`, i) }},
		{"alternatives", func(i int) string {
			return fmt.Sprintf(`{"$or":[{"department":"d%d"},{"insurance.company":"c%d"}]}`, i, i)
		}},
		{"all match", func(i int) string { return fmt.Sprintf(`{"department":"cardiology","amount_min":%d}`, i%1000) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := filtered(webhooks, c.filters)
			r.Recipients("visit.completed", event) // the first makes the index
			b.ReportAllocs()
			for b.Loop() {
				r.Recipients("visit.completed", event)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(b.N)*webhooks/b.Elapsed().Seconds(), "decisions/s")
		})
	}
}
