package admin_test

import (
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// The overview is of the range that is chosen, and the menu counts what there is, by itself. On a
// phone the menu says where one is, too.
func TestTheOverviewHasRangesAndTheMenuCounts(t *testing.T) {
	u := newUser(t, "en")
	url, _ := receiver(t)
	u.webhook("Laboratory", url+"/broken", `,"max_retries":0`)
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	harness.Until(t, "it has failed", func() bool {
		return len(u.api("GET", "/webhooks/deliveries?state=failed", "")["items"].([]any)) == 1
	})
	u.signIn("API token", "Sign in")
	count := func(section, want string) {
		t.Helper()
		u.Wait(`document.querySelector('#menu a[href="#/` + section + `"] .count')?.innerText === '` + want + `'`)
	}
	count("webhooks", "1")
	count("deliveries", "1")
	u.Wait(`document.querySelector('.live.on')`)
	u.webhook("CRM", url+"/hook", "")
	count("webhooks", "2")

	note := func(figure, want string) {
		t.Helper()
		u.Wait(`[...document.querySelectorAll('.figure')].find(f => f.innerText.startsWith('` + figure + `'))?.querySelector('.delta').innerText === '` + want + `'`)
	}
	note("Not delivered", "in 24 hours")
	for chip, words := range map[string][2]string{"15 minutes": {"in 15 minutes", "by the minute"}, "1 year": {"in a year", "by the day"}} {
		u.Click(chip)
		note("Not delivered", words[0])
		note("Success rate", "1 call")
		u.See(words[1])
	}
	u.open("overview?from=2020-01-01T00:00:00Z&to=2020-01-03T00:00:00Z")
	note("Not delivered", "in the chosen time")
	u.See("There were no calls in this period.")
	u.Is(`!document.body.innerText.includes('Three steps')`)

	u.Size(390, 844)
	u.open("overview?range=1y")
	u.Wait(`(chip => chip.left >= 0 && chip.right <= document.querySelector('.ranges').getBoundingClientRect().right)(document.querySelector('.ranges [aria-current]').getBoundingClientRect())`)
	u.Is(`(chip => document.elementFromPoint(chip.x + 9, chip.y + 9).matches('[aria-current]'))(document.querySelector('.ranges [aria-current]').getBoundingClientRect())`)
	u.open("system")
	u.Wait(`document.querySelector('#menu .more')?.ariaCurrent === 'true'`)
	u.Click("More")
	u.Click("Jobs")
	u.Wait(`document.querySelector('h1')?.innerText === 'Jobs' && document.querySelector('#menu .more').ariaCurrent === 'true'`)
	u.Click("Webhooks")
	u.Wait(`document.querySelector('h1')?.innerText === 'Webhooks' && document.querySelector('#menu .more').ariaCurrent === null`)
}
