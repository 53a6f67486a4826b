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
		{Invalid("name", "is required"), KindInvalid, "the request has invalid fields: name is required"},
		{InvalidFields([]FieldError{{Field: "a", Message: "x"}, {Field: "b", Message: "y"}}), KindInvalid, "the request has invalid fields: a x; b y"},
		{Malformed("no JSON"), KindMalformed, "no JSON"},
		{NotFound("webhook"), KindNotFound, "webhook not found"},
		{Conflict("taken"), KindConflict, "taken"},
		{Stale("old"), KindStale, "old"},
		{TooLarge("big"), KindTooLarge, "big"},
		{Unauthorized("who"), KindUnauthorized, "who"},
		{Forbidden("no"), KindForbidden, "no"},
		{Throttled("slow"), KindThrottled, "slow"},
		{Unavailable("stopping", io.EOF), KindUnavailable, "stopping: EOF"},
		{Internal("append", io.EOF), KindInternal, "append: EOF"},
		{&Error{Kind: KindStale}, KindStale, "stale"},
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
	if k := KindOf(io.EOF); k != KindInternal {
		t.Fatalf("got %v", k)
	}
	if k := KindOf(fmt.Errorf("x: %w", KindNotFound)); k != KindNotFound {
		t.Fatalf("a bare kind in the chain: got %v", k)
	}
	//lint:ignore SA1032 the foreign error is what is asked about
	if errors.Is(io.EOF, KindNotFound) {
		t.Fatal("a foreign error has no kind")
	}
}

func TestErrorIsFindsCauseAndSentinel(t *testing.T) {
	err := Internal("load", io.EOF)
	if !errors.Is(err, io.EOF) {
		t.Fatal("the cause is not found")
	}
	sentinel := Conflict("taken")
	if !errors.Is(fmt.Errorf("x: %w", Conflict("taken")), sentinel) {
		t.Fatal("same kind and message should match")
	}
	if errors.Is(Conflict("other"), sentinel) {
		t.Fatal("another message should not match")
	}
}

func TestCheckFieldsIsANilInterfaceWithoutFields(t *testing.T) {
	if err := CheckFields(nil); err != nil {
		t.Fatalf("got %v", err)
	}
	err := CheckFields([]FieldError{{Field: "url", Message: "is required"}})
	if got := FieldsOf(fmt.Errorf("x: %w", err)); len(got) != 1 || got[0].Field != "url" {
		t.Fatalf("got %v", got)
	}
	if FieldsOf(io.EOF) != nil {
		t.Fatal("a foreign error has no fields")
	}
}

func TestEveryKindHasAName(t *testing.T) {
	seen := map[string]bool{}
	for i := range kindNames {
		k := Kind(i)
		if k.String() == "" || seen[k.String()] {
			t.Fatalf("kind %d: name %q missing or double", k, k.String())
		}
		seen[k.String()] = true
	}
	if Kind(200).String() != "internal" {
		t.Fatal("an unknown kind reads as internal")
	}
}
