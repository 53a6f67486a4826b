package http_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkTrigger is the way of an event from the request to the durable answer,
// without the network.
func BenchmarkTrigger(b *testing.B) {
	s := newService(b)
	const body = `{"event_type":"patient.created","event_data":{"patient_id":123,"name":"Иван Иванов","phone":"+7900123456"},"source":"manual"}`
	b.ReportAllocs()
	b.SetParallelism(256)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := httptest.NewRequest("POST", trigger, strings.NewReader(body))
			r.Header.Set("Authorization", "Bearer "+adminToken)
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			if s.handler.ServeHTTP(w, r); w.Code != http.StatusAccepted {
				b.Errorf("%d %s", w.Code, w.Body)
			}
		}
	})
}
