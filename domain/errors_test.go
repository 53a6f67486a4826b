package domain

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestErrorConstructorsSetKindAndMessage(t *testing.T) {
	for _, c := range []struct {
		err  *Error
		kind Kind
		text string
	}{
		{ErrInvalid("name", "is required"), Invalid, "the request has invalid fields: name is required"},
		{ErrInvalidFields([]FieldError{{"a", "x"}, {"b", "y"}}), Invalid, "the request has invalid fields: a x; b y"},
		{ErrMalformed("no JSON"), Malformed, "no JSON"},
		{ErrNotFound("webhook"), NotFound, "webhook not found"},
		{ErrConflict("taken"), Conflict, "taken"},
		{ErrStale("old"), Stale, "old"},
		{ErrTooLarge("big"), TooLarge, "big"},
		{ErrUnauthorized("who"), Unauthorized, "who"},
		{ErrForbidden("no"), Forbidden, "no"},
		{ErrThrottled("slow"), Throttled, "slow"},
		{ErrUnavailable("stopping", io.EOF), Unavailable, "stopping: EOF"},
		{ErrInternal("append", io.EOF), Internal, "append: EOF"},
		{&Error{Kind: Stale}, Stale, "stale"},
	} {
		t.Run(c.text, func(t *testing.T) {
			if c.err.Kind != c.kind || c.err.Error() != c.text {
				t.Fatalf("got %v %q", c.err.Kind, c.err.Error())
			}
			wrapped := fmt.Errorf("doing: %w", c.err)
			if KindOf(wrapped) != c.kind || !errors.Is(wrapped, c.kind) {
				t.Fatalf("wrapping lost kind %v", c.kind)
			}
		})
	}
}

func TestKindOfForeignErrorsIsInternal(t *testing.T) {
	if k := KindOf(io.EOF); k != Internal {
		t.Fatalf("got %v", k)
	}
	if k := KindOf(fmt.Errorf("x: %w", NotFound)); k != NotFound {
		t.Fatalf("a bare kind in the chain: got %v", k)
	}
	if errors.Is(io.EOF, NotFound) {
		t.Fatal("a foreign error has no kind")
	}
}

func TestErrorIsFindsCauseAndSentinel(t *testing.T) {
	err := ErrInternal("load", io.EOF)
	if !errors.Is(err, io.EOF) {
		t.Fatal("the cause is not found")
	}
	sentinel := ErrConflict("taken")
	if !errors.Is(fmt.Errorf("x: %w", ErrConflict("taken")), sentinel) {
		t.Fatal("same kind and message should match")
	}
	if errors.Is(ErrConflict("other"), sentinel) {
		t.Fatal("another message should not match")
	}
}

func TestCheckFieldsIsANilInterfaceWithoutFields(t *testing.T) {
	if err := CheckFields(nil); err != nil {
		t.Fatalf("got %v", err)
	}
	err := CheckFields([]FieldError{{"url", "is required"}})
	if got := FieldsOf(fmt.Errorf("x: %w", err)); len(got) != 1 || got[0].Field != "url" {
		t.Fatalf("got %v", got)
	}
	if FieldsOf(io.EOF) != nil {
		t.Fatal("a foreign error has no fields")
	}
}

func TestEveryKindHasAName(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if k.String() == "" || seen[k.String()] {
			t.Fatalf("kind %d: name %q missing or double", k, k.String())
		}
		seen[k.String()] = true
	}
	if Kind(200).String() != "internal" {
		t.Fatal("an unknown kind reads as internal")
	}
}
