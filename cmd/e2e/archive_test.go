package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// The commands archive what was delivered, and bring it back, while the server runs: what it
// answers meanwhile says what is archived, and what is pending arrives.
func TestArchiveCommands(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, func(w http.ResponseWriter, c harness.Call) {
		if c.Header.Get("X-Webhook-Event") == "visit.created" && c.Attempt() == "1" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	p := start(t)
	w := p.register(in.URL, `{"events":["*"],"retry_delay":86400}`)
	event := p.trigger(`{"event_type":"patient.created","event_data":{"n":1}}`)
	pending := p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	p.awaitCalls(w.ID, 2)
	dir := filepath.Join(t.TempDir(), "archive")
	export := []string{"archive", "export", "--to", "2100-01-01", dir}
	p.command(0, "", export...)
	p.command(1, "", "archive", "import", t.TempDir())
	if out := p.command(0, "", "archive", "list", dir); !strings.Contains(out, "good") {
		t.Errorf("the list is %s", out)
	}
	p.command(0, "", "audit", "verify")
	type archived struct {
		To int64 `json:"archived_to"`
	}
	for _, path := range []string{"/webhooks/events/" + event, "/webhooks/events/" + event + "/explain"} {
		var problem archived
		if p.api(http.StatusNotFound, "GET", path, "", &problem); problem.To == 0 {
			t.Errorf("%s does not say what is archived", path)
		}
	}
	var gone archived
	p.api(http.StatusGone, "GET", "/audit/events?after=1", "", &gone)
	if status, _ := p.request("GET", fmt.Sprintf("/api/v1/audit/events?after=%d", gone.To), ""); status != http.StatusOK {
		t.Errorf("from what is archived on, the log is %d", status)
	}
	var stats struct {
		Total int     `json:"total_calls"`
		Since *string `json:"covered_from"`
	}
	if p.api(http.StatusOK, "GET", "/webhooks/"+w.ID+"/stats", "", &stats); stats.Total != 2 || stats.Since == nil {
		t.Errorf("statistics are %+v", stats)
	}
	p.api(http.StatusAccepted, "POST", "/webhooks/deliveries/"+p.deliveries(pending)[0].ID+"/retry", "", nil)
	p.awaitCalls(w.ID, 2) // one is archived
	p.command(0, "", "archive", "import", dir)
	p.command(0, "", "audit", "verify")
	p.awaitCalls(w.ID, 3)
	p.api(http.StatusOK, "GET", "/webhooks/events/"+event+"/explain", "", nil)
	stats.Since = nil
	p.api(http.StatusOK, "GET", "/webhooks/"+w.ID+"/stats", "", &stats)
	if stats.Total != 3 || stats.Since != nil {
		t.Errorf("statistics are %+v", stats)
	}
}
