package domain

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// The few events that make up nearly all of a log are read back by code written
// out for the exact form in which AppendJSON stores them, several times as fast
// as encoding/json: it decides how long a rebuild takes. Whatever is not of that
// form to the letter (an older version's, an escaped text) goes the general way,
// so that both ways give the same.

func init() {
	fastFirst(func(s *storedForm) (Change, bool) {
		c := DeliverySucceeded{Call: s.call()}
		return c, s.end("}")
	}, DeliverySucceeded{})
	fastFirst(func(s *storedForm) (Change, bool) {
		c := DeliveryAttemptFailed{Call: s.call()}
		if s.has(`,"next_attempt_at":`) {
			c.NextAttemptAt = s.time()
		}
		if s.has(`,"gave_up":`) {
			c.GaveUp = GaveUp(s.text())
		}
		return c, s.end("}")
	}, DeliveryAttemptFailed{})
	fastFirst(func(s *storedForm) (Change, bool) {
		c := s.dispatched()
		return c, s.end("]}")
	}, EventDispatched{})
	fastFirst(func(s *storedForm) (Change, bool) {
		c := s.triggered()
		return c, !s.bad && json.Valid(c.EventData)
	}, EventTriggered{})
}

// fastFirst tries the fast way before the registered one.
func fastFirst(fast func(*storedForm) (Change, bool), zero Change) {
	general := codecs[zero.ChangeType()]
	codecs[zero.ChangeType()] = func(data []byte) (Change, error) {
		if c, ok := fast(&storedForm{rest: data}); ok {
			return c, nil
		}
		return general(data)
	}
}

// storedForm reads what AppendJSON wrote, from front to back. bad means that it
// is not of that form: nothing that was read counts.
type storedForm struct {
	rest []byte
	bad  bool
}

// has steps over the letters if they come next.
func (s *storedForm) has(letters string) bool {
	if s.bad || len(s.rest) < len(letters) || string(s.rest[:len(letters)]) != letters {
		return false
	}
	s.rest = s.rest[len(letters):]
	return true
}

func (s *storedForm) must(letters string) {
	if !s.has(letters) {
		s.bad = true
	}
}

// end tells whether the letters are all that is left, of a form that was good.
func (s *storedForm) end(letters string) bool {
	s.must(letters)
	return !s.bad && len(s.rest) == 0
}

// raw is the inside of the string that comes next; one with escapes is bad.
func (s *storedForm) raw() []byte {
	if s.bad || len(s.rest) == 0 || s.rest[0] != '"' {
		s.bad = true
		return nil
	}
	ascii := true
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			inside := s.rest[1:i]
			s.rest = s.rest[i+1:]
			if !ascii && !utf8.Valid(inside) {
				s.bad = true
			}
			return inside
		case c == '\\' || c < ' ':
			s.bad = true
			return nil
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	s.bad = true
	return nil
}

func (s *storedForm) text() string { return string(s.raw()) }

// common spares copies of the words that nearly every event repeats.
func (s *storedForm) common(words ...string) string {
	raw := s.raw()
	for _, word := range words {
		if string(raw) == word {
			return word
		}
	}
	return string(raw)
}

func (s *storedForm) uuid() (id [16]byte) {
	raw := s.raw()
	if len(raw) != 36 || raw[8] != '-' || raw[13] != '-' || raw[18] != '-' || raw[23] != '-' {
		s.bad = true
		return id
	}
	var digits [32]byte
	n := copy(digits[:], raw[:8])
	n += copy(digits[n:], raw[9:13])
	n += copy(digits[n:], raw[14:18])
	n += copy(digits[n:], raw[19:23])
	copy(digits[n:], raw[24:])
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		s.bad = true
	}
	return id
}

// int reads a number without sign that surely fits.
func (s *storedForm) int() (n int64) {
	const most = 18
	i := 0
	for ; i < len(s.rest) && i < most && '0' <= s.rest[i] && s.rest[i] <= '9'; i++ {
		n = 10*n + int64(s.rest[i]-'0')
	}
	if s.bad || i == 0 || i == most || i > 1 && s.rest[0] == '0' {
		s.bad = true
		return 0
	}
	s.rest = s.rest[i:]
	return n
}

func (s *storedForm) time() time.Time {
	raw := s.raw()
	if s.bad || !strings.HasSuffix(string(raw), "Z") {
		s.bad = true
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, string(raw))
	if err != nil {
		s.bad = true
	}
	return at
}

func (s *storedForm) call() (c Call) {
	s.must(`{"event_id":`)
	c.EventID = s.uuid()
	s.must(`,"event_type":`)
	c.EventType = s.text()
	s.must(`,"webhook_id":`)
	c.WebhookID = s.uuid()
	s.must(`,"webhook_version":`)
	c.WebhookVersion = s.int()
	s.must(`,"payload_version":`)
	c.PayloadVersion = PayloadVersion(s.common(string(PayloadV1), string(PayloadV2), string(PayloadCloudEvents)))
	s.must(`,"attempt":`)
	c.Attempt = int(s.int())
	s.must(`,"url":`)
	c.URL = s.text()
	s.must(`,"started_at":`)
	c.StartedAt = s.time()
	s.must(`,"duration_us":`)
	c.Duration = s.int()
	s.must(`,"outcome":`)
	c.Outcome = Outcome(s.common(string(OutcomeSuccess), string(OutcomeTimeout)))
	if s.has(`,"error":`) {
		c.Error = s.text()
	}
	if s.has(`,"status":`) {
		c.Status = int(s.int())
	}
	s.response(&c)
	return c
}

func (s *storedForm) response(c *Call) {
	if s.has(`,"response_headers":[[`) {
		for {
			var h HeaderField
			h.Name = s.common("Content-Type", "Content-Length", "Date")
			s.must(`,`)
			h.Value = s.text()
			c.Header = append(c.Header, h)
			if !s.has(`],[`) {
				break
			}
		}
		s.must(`]]`)
	}
	if s.has(`,"response_body":`) {
		var err error
		if c.Body, err = base64.StdEncoding.AppendDecode(nil, s.raw()); err != nil {
			s.bad = true
		}
	}
	c.Truncated = s.has(`,"response_truncated":true`)
}

func (s *storedForm) dispatched() (c EventDispatched) {
	s.must(`{"event_id":`)
	c.EventID = s.uuid()
	s.must(`,"event_type":`)
	c.EventType = s.text()
	s.must(`,"size":`)
	c.Size = int(s.int())
	s.must(`,"deliveries":[{`)
	for !s.bad {
		var d Dispatch
		s.must(`"delivery_id":`)
		d.DeliveryID = s.uuid()
		s.must(`,`)
		d.Recipient = s.recipient()
		c.Deliveries = append(c.Deliveries, d)
		if !s.has(`,{`) {
			break
		}
	}
	return c
}

// recipient reads behind its brace, and its closing one.
func (s *storedForm) recipient() (r Recipient) {
	s.must(`"webhook_id":`)
	r.WebhookID = s.uuid()
	s.must(`,"webhook_version":`)
	r.WebhookVersion = s.int()
	if s.has(`,"batch_wait":`) {
		r.BatchWait = int(s.int())
		s.must(`,"batch_max":`)
		r.BatchMax = int(s.int())
	}
	s.must(`}`)
	return r
}

// triggered takes what is left after the name of event_data as its value.
func (s *storedForm) triggered() (c EventTriggered) {
	s.must(`{"event_type":`)
	c.EventType = s.text()
	if s.has(`,"source":`) {
		c.Source = s.text()
	}
	if s.has(`,"correlation_id":`) {
		c.CorrelationID = s.text()
	}
	if s.has(`,"recipients":[`) {
		c.Recipients = []Recipient{}
		if !s.has(`]`) {
			for more := true; more && !s.bad; more = s.has(`,`) {
				s.must(`{`)
				c.Recipients = append(c.Recipients, s.recipient())
			}
			s.must(`]`)
		}
	}
	s.must(`,"event_data":`)
	last := len(s.rest) - 1
	if s.bad || last < 1 || s.rest[last] != '}' || isSpace(s.rest[0]) || isSpace(s.rest[last-1]) {
		s.bad = true
		return c
	}
	c.EventData = json.RawMessage(s.rest[:last:last])
	return c
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
