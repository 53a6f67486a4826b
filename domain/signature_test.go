package domain

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// guideVerify is the guide's verifier, word for word but for the language.
func guideVerify(payload, signature, secret string) bool {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(payload))
	return signature == "sha256="+hex.EncodeToString(m.Sum(nil))
}

const testBody = `{"event_type":"patient.created","event_data":{"name":"Иван <Иванов>"}}`

func TestGuideSignatureVerifiesAsTheGuideDoes(t *testing.T) {
	for _, secret := range []string{"webhook-secret-key", "s", "ключ-клиники", "whsec_c2VjcmV0LWJ5dGVz", strings.Repeat("k", 256)} {
		key := NewSigningKey(NewSecret(secret))
		for _, body := range []string{testBody, "", testBody} { // the state is reused
			got := string(key.AppendGuide(nil, []byte(body)))
			if !guideVerify(body, got, secret) || !key.VerifyGuide([]byte(body), got) {
				t.Fatalf("secret %q, body %q: %s does not verify", secret, body, got)
			}
			if key.VerifyGuide([]byte(body+" "), got) || key.VerifyGuide([]byte(body), "sha256=00") || key.VerifyGuide([]byte(body), "") {
				t.Fatal("a wrong signature verified")
			}
		}
	}
}

func TestGuideSignatureGolden(t *testing.T) {
	got := string(NewSigningKey(NewSecret("key")).AppendGuide(nil, []byte("The quick brown fox jumps over the lazy dog")))
	if got != "sha256=f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8" {
		t.Fatalf("got %s", got)
	}
}

func TestStandardSignatureVerifiesWithTheirLibrary(t *testing.T) {
	const id = "0190163d-8694-739b-aea5-966c26f8ad91"
	at := time.Unix(1705314605, 999)
	for _, secret := range []Secret{NewSecret("webhook-secret-key"), NewSecret("ключ"), GeneratedSecret([]byte("0123456789abcdefghijklmn"))} {
		key := NewSigningKey(secret)
		signature := string(key.AppendStandard(nil, id, at, []byte(testBody)))
		other := string(NewSigningKey(NewSecret("other")).AppendStandard(nil, id, at, []byte(testBody)))

		receiver, err := standardwebhooks.NewWebhookRaw([]byte(secret.Reveal()))
		if strings.HasPrefix(secret.Reveal(), "whsec_") {
			receiver, err = standardwebhooks.NewWebhook(secret.Reveal())
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, header := range []string{signature, signature + " " + other, other + " " + signature} {
			headers := http.Header{}
			headers.Set("webhook-id", id)
			headers.Set("webhook-timestamp", "1705314605")
			headers.Set("webhook-signature", header)
			if err := receiver.VerifyIgnoringTimestamp([]byte(testBody), headers); err != nil {
				t.Fatalf("%s: %v", header, err)
			}
			if !key.VerifyStandard(id, "1705314605", []byte(testBody), header) {
				t.Fatalf("%s does not verify", header)
			}
		}
		if key.VerifyStandard(id, "1705314606", []byte(testBody), signature) ||
			key.VerifyStandard(id, "soon", []byte(testBody), signature) ||
			key.VerifyStandard(id, "1705314605", []byte(testBody), other) {
			t.Fatal("a wrong signature verified")
		}
	}
}

func TestSigningKeyOfNoSecretIsNil(t *testing.T) {
	if NewSigningKey(Secret{}) != nil {
		t.Fatal("no secret must sign nothing")
	}
}

func TestSigningKeyIsSafeForConcurrentUse(t *testing.T) {
	key := NewSigningKey(NewSecret("k"))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				body := fmt.Sprint(g, i)
				if !guideVerify(body, string(key.AppendGuide(nil, []byte(body))), "k") {
					t.Error("wrong signature under concurrency")
				}
			}
		})
	}
	wg.Wait()
}

func TestCheckSecret(t *testing.T) {
	for _, c := range []struct {
		name, secret string
		ok           bool
	}{
		{"none", "", true},
		{"plain", "webhook-secret-key", true},
		{"longest", strings.Repeat("x", 256), true},
		{"too long", strings.Repeat("x", 257), false},
		{"too long in bytes", strings.Repeat("я", 129), false},
		{"standard", "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789")), true},
		{"standard, not base64", "whsec_$$$", false},
		{"standard, nothing", "whsec_", false},
		{"standard, two lines", "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789")) + "\n", false},
		{"not UTF-8", "a\xff", false},
		{"the mask", Masked, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := CheckSecret("secret", NewSecret(c.secret))
			if (len(got) == 0) != c.ok {
				t.Fatalf("got %v", got)
			}
			for _, f := range got {
				if f.Field != "secret" || strings.Contains(f.Message, "$$$") {
					t.Fatalf("got %+v", f)
				}
			}
			if NewSigningKey(NewSecret(c.secret)) == nil && c.secret != "" {
				t.Fatal("any secret makes a key")
			}
		})
	}
}

func TestSecretNeverShowsItsText(t *testing.T) {
	s := NewSecret("open-sesame")
	type holder struct {
		Public  Secret
		private Secret
		list    []Secret
	}
	h := holder{s, s, []Secret{s}}
	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h), fmt.Sprintf(verb, map[string]Secret{"a": s}))
	}
	encoded, err := json.Marshal(map[string]any{"a": s, "b": h, "c": &s})
	if err != nil {
		t.Fatal(err)
	}
	var logged, gobbed bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "secret", s, "holder", h)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "secret", s, "holder", h)
	if err := gob.NewEncoder(&gobbed).Encode(s); err == nil {
		shown = append(shown, gobbed.String())
	}
	shown = append(shown, string(encoded), logged.String(), s.String(), s.GoString())
	for _, text := range shown {
		for _, leak := range []string{"sesame", hex.EncodeToString([]byte("sesame"))} {
			if strings.Contains(strings.ToLower(text), leak) {
				t.Errorf("shows the secret: %s", text)
			}
		}
	}
	if s.String() != Masked || (Secret{}).String() != "" || s.Reveal() != "open-sesame" {
		t.Error("masking is wrong")
	}
}

func TestSigningAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("pools drop values under the race detector")
	}
	key := NewSigningKey(NewSecret("webhook-secret-key"))
	body, dst := []byte(testBody), make([]byte, 0, 256)
	at := time.Unix(1705314605, 0)
	allocs := testing.AllocsPerRun(100, func() {
		dst = key.AppendStandard(key.AppendGuide(dst[:0], body), "0190163d-8694-739b-aea5-966c26f8ad91", at, body)
	})
	if allocs > 2 {
		t.Fatalf("%v allocations for two signatures", allocs)
	}
}

func BenchmarkSign(b *testing.B) {
	key := NewSigningKey(NewSecret("webhook-secret-key"))
	body, dst := bytes.Repeat([]byte("x"), 500), make([]byte, 0, 256)
	at := time.Unix(1705314605, 0)
	b.ReportAllocs()
	for b.Loop() {
		dst = key.AppendStandard(key.AppendGuide(dst[:0], body), "0190163d-8694-739b-aea5-966c26f8ad91", at, body)
	}
}
