package domain

import (
	"fmt"
	"strings"
	"testing"
)

func TestCheckHeaders(t *testing.T) {
	fine := []Header{{"X-API-Key", "your-api-key"}, {"Authorization", "Bearer crm-api-token"}, {"X-Analytics-Key", ""},
		{"accept", "*/*"}, {"X-Long", strings.Repeat("v", 4096)}, {"Webhook", "~ !"}, {"X-Webhooks", "1"}, {"Contents", "1"}}
	if got := CheckHeaders(fine); len(got) != 0 {
		t.Fatalf("got %v", got)
	}
	refused := []string{"Host", "hOST", "Content-Type", "content-length", "Content-Foo", "Transfer-Encoding", "Connection",
		"Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Proxy-Authenticate", "TE", "te", "Trailer", "Upgrade", "Cookie", "EXPECT",
		"user-agent", "X-Webhook-Event", "x-webhook-anything", "X-WEBHOOK-ID", "webhook-id", "Webhook-Signature",
		"Idempotency-Key", "X-Idempotency-Key", "x-IDEMPOTENCY-key", "", "a b", "a:b", "a\r\nb", "имя", "a\x00", strings.Repeat("n", 201)}
	for _, name := range refused {
		got := CheckHeaders([]Header{{name, "v"}})
		if len(got) != 1 || !strings.HasPrefix(got[0].Field, "headers.") || got[0].Message == "" {
			t.Errorf("%q: got %v", name, got)
		}
	}
	for _, value := range []string{"a\nb", "a\r\nX-Evil: 1", "тест", "\x7f", "\x00", "a\tb", strings.Repeat("s", 4097)} {
		got := CheckHeaders([]Header{{"X-Secret", value}})
		if len(got) != 1 || got[0].Field != "headers.X-Secret" || strings.Contains(got[0].Message, value) {
			t.Errorf("%.20q: got %v", value, got)
		}
	}
	if got := CheckHeaders([]Header{{"X-A", "1"}, {"x-a", "2"}}); len(got) != 1 || got[0].Field != "headers.x-a" {
		t.Errorf("a double name: got %v", got)
	}
	if got := CheckHeaders([]Header{{"Host", "a"}, {"X-A", "1"}, {"Cookie", "2"}}); len(got) != 2 {
		t.Errorf("all are named: got %v", got)
	}
	var many []Header
	for i := range 51 {
		many = append(many, Header{fmt.Sprintf("X-%d", i), "v"})
	}
	if got := CheckHeaders(many[:50]); len(got) != 0 {
		t.Errorf("50 are fine: got %v", got)
	}
	if got := CheckHeaders(many); len(got) != 1 || got[0].Field != "headers" {
		t.Errorf("51 are not: got %v", got)
	}
}

func TestSortedHeaders(t *testing.T) {
	if got := headerNames(SortedHeaders(map[string]string{"b": "1", "a": "2", "C": "3"})); got != "C a b" {
		t.Fatalf("got %q", got)
	}
}

func TestCheckURL(t *testing.T) {
	for _, text := range []string{
		"https://crm.example.com/webhooks/patients", "http://127.0.0.1:9000", "http://[::1]:8080/x", "HTTPS://Example.com/a?b=c&d=%20",
		"https://клиника.рф/приём", "http://localhost/", "https://example.com:", "http://a/" + strings.Repeat("p", 2039),
	} {
		if err := CheckURL(text); err != nil {
			t.Errorf("%.60q: %v", text, err)
		}
	}
	for _, text := range []string{
		"", "example.com", "/path", "ftp://example.com", "file:///etc/passwd", "javascript:alert(1)", "http://", "https:///x", "http:example.com",
		"http://user@example.com", "http://user:s3cret@example.com/", "http://:80/", "http://exa mple.com", "http://example.com/a b", "http://example.com/\n",
		"http://example.com/\u00a0", "http://example.com/\u0085", "http://example.com\\@evil/", "http://example.com/#!/view/1", "http://example.com/#",
		"http://example.com:0/", "http://example.com:65536/", "http://example.com:port/", "http://[::1", "http://%zz/", "http://a/\xff", "http://@host/",
		"http://a/" + strings.Repeat("p", 2040), " http://example.com",
	} {
		err := CheckURL(text)
		if KindOf(err) != KindInvalid || len(FieldsOf(err)) != 1 || FieldsOf(err)[0].Field != "url" {
			t.Errorf("%.60q: got %v", text, err)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the message shows the url: %v", err)
		}
	}
}
