package domain

import (
	"slices"
	"strings"
	"testing"
)

// Texts that people are shown change neither a terminal nor the order of what stands around
// them, and scripts that are written from the right need no such characters.
func TestShownTexts(t *testing.T) {
	for _, text := range []string{"\x1b[31m", "a\nb", "a\tb", "\u009b31m", "\u2028", "abc\u202Efdp.exe", "\u2066x", "\x7f", "\x00", "\xff"} {
		for field, spec := range map[string]WebhookSpec{
			"name": {Name: Ask("n" + text)}, "description": {Description: Ask(text)}, "url": {URL: Ask("https://a.example/" + text)},
			"headers.X-A": {Headers: Ask([]Header{{"X-A", text}})},
		} {
			_, err := CheckSpec(BuiltinCatalog(), spec, false)
			if refused := FieldsOf(err); len(refused) != 1 || refused[0].Field != field {
				t.Errorf("%s %q: %v", field, text, err)
			}
		}
		if _, err := DecideCreateToken(TokenCreated{Name: text, Scopes: Scopes}); !slices.ContainsFunc(FieldsOf(err), func(f FieldError) bool { return f.Field == "name" }) {
			t.Errorf("a token's name %q: %v", text, err)
		}
	}
	for _, text := range []string{" ", "\u00a0\u3000", "\u200b\u200d", "\u2060", "\ufeff", "\u3164", "\u2800", "\u034f", "\ufe0f"} {
		_, err := CheckSpec(BuiltinCatalog(), WebhookSpec{Name: Ask(text), Description: Ask(text)}, false)
		if refused := FieldsOf(err); len(refused) != 1 || refused[0].Field != "name" {
			t.Errorf("%q cannot be seen: %v", text, err)
		}
	}
	for _, text := range []string{"Интеграция «CRM» №1", "👩\u200d⚕️", "מרפאה", "عيادة", "می\u200cخواهم", "e\u0301"} {
		if _, err := CheckSpec(BuiltinCatalog(), WebhookSpec{Name: Ask(text), Description: Ask(text)}, false); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for length, allowed := range map[int]bool{0: false, 1: true, MaxNameLength: true, MaxNameLength + 1: false} {
		if _, err := DecideCreateToken(TokenCreated{Name: strings.Repeat("Ж", length), Scopes: Scopes}); (err == nil) != allowed {
			t.Errorf("a token's name of %d characters: %v", length, err)
		}
	}
}
