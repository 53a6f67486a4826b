package domain

import "testing"

// One thing is one.
func TestMessagesCountInWords(t *testing.T) {
	once := AlertRules{}
	for message, want := range map[string]string{
		FindGivenUp(Call{EventType: "visit.created", Attempt: 1}, 7).Message: "a delivery of visit.created ran out of retries after 1 attempt",
		FindGivenUp(Call{EventType: "visit.created", Attempt: 4}, 7).Message: "a delivery of visit.created ran out of retries after 4 attempts",
		once.failures(CallFigures{Failures: 1}).Message:                      "1 call failed in a row",
		once.failures(CallFigures{Failures: 11}).Message:                     "11 calls failed in a row",
	} {
		if message != want {
			t.Errorf("it says %q, want %q", message, want)
		}
	}
}
