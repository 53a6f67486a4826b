package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
)

func TestReceiveVerifiesBothSignatures(t *testing.T) {
	const body = `{"event_type":"patient.created","attempt":1}`
	at := time.Now()
	sign := func(secret string) http.Header {
		key := domain.NewSigningKey(domain.NewSecret(secret))
		return http.Header{
			"X-Webhook-Signature": {string(key.AppendGuide(nil, []byte(body)))},
			"Webhook-Id":          {"d1"},
			"Webhook-Timestamp":   {strconv.FormatInt(at.Unix(), 10)},
			"Webhook-Signature":   {string(key.AppendStandard(nil, "d1", at, []byte(body)))},
		}
	}
	tests := []struct {
		name   string
		secret string
		header http.Header
		want   verdict
	}{
		{"right secret", "webhook-secret-key", sign("webhook-secret-key"), valid},
		{"base64 secret", "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0", sign("whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0"), valid},
		{"other secret", "other", sign("webhook-secret-key"), wrong},
		{"unsigned", "other", http.Header{}, missing},
		{"no secret given", "", sign("webhook-secret-key"), unchecked},
		{"no secret at all", "", http.Header{}, absent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := deliver(t, receiveOptions{secret: tt.secret, status: 204, json: true}, tt.header, body, 204)
			var call receivedCall
			if err := json.Unmarshal([]byte(got), &call); err != nil {
				t.Fatalf("%v in %s", err, got)
			}
			if call.Signature != tt.want || call.Standard != tt.want {
				t.Errorf("signatures are %q and %q, want %q", call.Signature, call.Standard, tt.want)
			}
			if string(call.Body) != body || call.Answered != 204 || call.Path != "/hook?a=1" {
				t.Errorf("printed %s", got)
			}
		})
	}
}

// Of a whsk_ secret receivers have the public key that the webhook shows.
func TestReceiveVerifiesByThePublicKey(t *testing.T) {
	const body = `{"attempt":1}`
	at := time.Now()
	pair := func(fill string) domain.Secret {
		private := ed25519.NewKeyFromSeed([]byte(strings.Repeat(fill, ed25519.SeedSize)))
		return domain.NewSecret("whsk_" + base64.StdEncoding.EncodeToString(private))
	}
	for signer, want := range map[string]verdict{"a": valid, "b": wrong} {
		header := http.Header{
			"Webhook-Id": {"d1"}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)},
			"Webhook-Signature": {"v1,AAAA " + string(domain.NewSigningKey(pair(signer)).AppendStandard(nil, "d1", at, []byte(body)))},
		}
		var call receivedCall
		got := deliver(t, receiveOptions{secret: pair("a").PublicKey(), status: 204, json: true}, header, body, 204)
		if err := json.Unmarshal([]byte(got), &call); err != nil || call.Standard != want || call.Signature != absent {
			t.Errorf("signed by %s: %v, %s", signer, err, got)
		}
	}
}

// A public key that is mistyped is no secret with which all signatures are wrong.
func TestReceiveRefusesWhatIsNoPublicKey(t *testing.T) {
	const key = "whpk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for secret, accepted := range map[string]bool{key: true, key[:len(key)-1]: false, key + "A": false, "whpk_": false, "whpk_AAAA": false, "whpk-AAAA": true} {
		err := receiveOptions{status: http.StatusOK, secret: secret}.check()
		if (err == nil) != accepted || err != nil && (!strings.Contains(err.Error(), "is not the public key of a webhook") || strings.Contains(err.Error(), "AAA")) {
			t.Errorf("%s: %v", secret, err)
		}
	}
}

func TestReceivePrintsForPeople(t *testing.T) {
	got := deliver(t, receiveOptions{status: 200}, http.Header{"X-Odd": {"a\x1b[2Jb"}}, "not JSON \x1b[31m", 200)
	for _, want := range []string{"#1 POST /hook?a=1", "answered 200", "not JSON", "X-Odd: a"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	if strings.Contains(got, "\x1b") {
		t.Errorf("an escape sequence got through: %q", got)
	}
}

// Headers are named as the guide and the service write them, not as Go's server does.
func TestReceiveNamesHeadersAsTheyAreSent(t *testing.T) {
	sent := domain.Headers(domain.PayloadV1, domain.Payload{Timestamp: time.Now()}, []byte("{}"), domain.Signer{Current: domain.NewSigningKey(domain.NewSecret("s"))})
	header := http.Header{}
	for _, h := range sent {
		header.Set(h.Name, h.Value)
	}
	got := deliver(t, receiveOptions{status: 200}, header, "{}", 200)
	for _, h := range sent {
		if !strings.Contains(got, "\n  "+h.Name+": ") {
			t.Errorf("%s is not in %s", h.Name, got)
		}
	}
	if len(sent) < 10 {
		t.Errorf("only %d headers", len(sent))
	}
}

func TestReceiveFailsAsOftenAsTold(t *testing.T) {
	deliver(t, receiveOptions{status: 200, failRate: 1}, nil, "{}", 500)
	deliver(t, receiveOptions{status: 200, failRate: 0}, nil, "{}", 200)
}

// In a rotation's overlap whoever knows either secret is told that it is right.
func TestReceiveVerifiesInARotation(t *testing.T) {
	const body = `{"attempt":1}`
	sign := func(secret string) string {
		return string(domain.NewSigningKey(domain.NewSecret(secret)).AppendGuide(nil, []byte(body)))
	}
	header := http.Header{"X-Webhook-Signature": {sign("new")}, "X-Webhook-Signature-Previous": {sign("old")}}
	for secret, want := range map[string]verdict{"new": valid, "old": validBefore, "other": wrong} {
		var call receivedCall
		if err := json.Unmarshal([]byte(deliver(t, receiveOptions{secret: secret, status: 200, json: true}, header, body, 200)), &call); err != nil {
			t.Fatal(err)
		}
		if call.Signature != want {
			t.Errorf("with the secret %q the signature is %q, want %q", secret, call.Signature, want)
		}
	}
}

// deliver makes one call and gives what was printed of it.
func deliver(t *testing.T, o receiveOptions, header http.Header, body string, wantStatus int) string {
	t.Helper()
	var out bytes.Buffer
	in := newInspector(o, &out)
	r := httptest.NewRequest(http.MethodPost, "/hook?a=1", io.NopCloser(strings.NewReader(body)))
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	in.ServeHTTP(w, r)
	if w.Code != wantStatus {
		t.Errorf("answered %d, want %d", w.Code, wantStatus)
	}
	return out.String()
}

func TestExitCodes(t *testing.T) {
	for line, want := range map[string]int{
		"version": 0, "version --json": 0, "help": 0, "nonsense": 2, "version extra": 2, "receive --nonsense": 2,
		"receive --status 99": 2, "receive --fail-rate 2": 2, "receive --addr 256.0.0.1:1 --secret whsec_zz": 2, "receive --addr 256.0.0.1:1": 1,
	} {
		if got := run(t.Context(), strings.Fields(line), strings.NewReader(""), io.Discard, io.Discard); got != want {
			t.Errorf("%s exits %d, want %d", line, got, want)
		}
	}
	if (receiveOptions{status: http.StatusOK, failRate: math.NaN()}).check() == nil {
		t.Error("a share of failures that is no number is accepted")
	}
}

// On a terminal the attempts of a delivery stand together, and a wrong signature is red.
func TestReceiveOnATerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("LC_ALL", "C")
	calls := func(out *os.File) {
		in := &inspector{options: receiveOptions{status: 500, secret: "s"}, key: domain.NewSigningKey(domain.NewSecret("s")), out: out, paint: newPaint(out)}
		for _, attempt := range []string{"1", "2"} {
			r := httptest.NewRequest(http.MethodPost, "/hook", strings.NewReader(`{"big":9007199254740993}`))
			r.Header = http.Header{"X-Webhook-Delivery-Id": {"d1"}, "X-Webhook-Attempt": {attempt}, "X-Webhook-Signature": {"sha256=00"}}
			in.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	t.Setenv("NO_COLOR", "")
	coloured := shownBy(t, calls)
	for _, want := range []string{"\x1b[31mWRONG\x1b[0m", "#2 attempt 2 of #1", "9007199254740993"} {
		if !strings.Contains(coloured, want) {
			t.Errorf("%q is not in %q", want, coloured)
		}
	}
	if n := strings.Count(coloured, "9007199254740993"); n != 1 {
		t.Errorf("the body is there %d times", n)
	}
	t.Setenv("NO_COLOR", "1")
	if plain := shownBy(t, calls); strings.Contains(plain, "\x1b") || !strings.Contains(plain, "signature: WRONG") {
		t.Errorf("without colour: %q", plain)
	}
}

// The view sends the calls that came and those that come, with numbers as they were sent; it
// answers under its own address alone.
func TestReceiveView(t *testing.T) {
	v := newReceiveView()
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = v.handler(server.Listener.Addr().String())
	server.Start()
	defer server.Close()
	call := func(n int) {
		v.add(&receivedCall{Number: n, Headers: map[string]string{"X-Webhook-Delivery-ID": "d1"}, raw: []byte(`{"big":9007199254740993}`)})
	}
	call(1)
	response, err := http.Get(server.URL + "/calls")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // of a test
	lines := bufio.NewScanner(response.Body)
	for n := 1; n <= 2; n++ {
		var data string
		for data == "" && lines.Scan() {
			data, _ = strings.CutPrefix(lines.Text(), "data: ")
			if !strings.HasPrefix(lines.Text(), "data: ") {
				data = ""
			}
		}
		var seen viewedCall
		if err := json.Unmarshal([]byte(data), &seen); err != nil || seen.Number != n || seen.Delivery != "d1" || !strings.Contains(seen.Text, "9007199254740993") {
			t.Errorf("sent %s: %v", data, err)
		}
		call(n + 1)
	}
	for host, want := range map[string]int{"": 200, "evil.example": 421} {
		r, err := http.NewRequest(http.MethodGet, server.URL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		page, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if page.Body.Close(); page.StatusCode != want || page.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("as %q: %d", host, page.StatusCode)
		}
	}
}

// A small body that would be large when it is indented is shown as it came.
func TestDeepBodiesStay(t *testing.T) {
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	if got := pretty([]byte(deep), ""); got != deep {
		t.Errorf("shown in %d bytes", len(got))
	}
	if got, want := pretty([]byte(`{"a":[1]}`), ""), "{\n  \"a\": [\n    1\n  ]\n}"; got != want {
		t.Errorf("shown as %q", got)
	}
}
