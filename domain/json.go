package domain

import (
	"errors"

	"github.com/medilab/webhooks/domain/strictjson"
)

// CheckJSON is strictjson.Check; what it refuses is Malformed.
func CheckJSON(data []byte) error { return malformed(strictjson.Check(data)) }

// ObjectFields is strictjson.Fields; what is not an object is Malformed.
func ObjectFields(data []byte, yield func(key string, raw []byte) error) error {
	return malformed(strictjson.Fields(data, yield))
}

// ArrayElements is strictjson.Elements; what is not an array is Malformed.
func ArrayElements(data []byte, yield func(index int, raw []byte) error) error {
	return malformed(strictjson.Elements(data, yield))
}

// malformed makes a Malformed error of what strictjson refused; other errors stay.
func malformed(err error) error {
	if refused, ok := errors.AsType[strictjson.Error](err); ok {
		return &Error{Kind: KindMalformed, Message: refused.Message, Public: refused.Public}
	}
	return err
}

// JSONText returns the text of raw, a JSON string that has passed CheckJSON, and reports
// whether it is one.
func JSONText(raw []byte) (string, bool) {
	text, ok := strictjson.Text(raw)
	return string(text), ok
}
