package http

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/medilab/webhooks/projections"
)

// The items of the lists that are long and asked for often, as encoding/json would encode them, which
// takes several times as long.

// appendCall encodes a call.
func appendCall(dst []byte, c projections.Call) []byte {
	dst = appendID(append(dst, `{"call_id":`...), c.ID)
	dst = appendID(append(dst, `,"delivery_id":`...), c.DeliveryID)
	dst = appendID(append(dst, `,"event_id":`...), c.EventID)
	dst = appendText(append(dst, `,"event_type":`...), c.EventType)
	dst = appendID(append(dst, `,"webhook_id":`...), c.WebhookID)
	dst = appendInt(append(dst, `,"attempt":`...), c.Attempt)
	dst = appendText(append(dst, `,"url":`...), c.URL)
	dst = appendText(append(dst, `,"status":`...), c.Status)
	dst = appendText(append(dst, `,"outcome":`...), c.Outcome)
	dst = appendOrNull(append(dst, `,"response_status":`...), c.ResponseStatus, appendInt)
	dst = appendOrNull(append(dst, `,"duration_ms":`...), c.DurationMS, appendMilliseconds)
	dst = appendOrNull(append(dst, `,"error":`...), c.Error, appendText)
	dst = appendTime(append(dst, `,"created_at":`...), c.CreatedAt)
	dst = appendOrNull(append(dst, `,"next_attempt_at":`...), c.NextAttemptAt, appendTime)
	dst = strconv.AppendBool(append(dst, `,"test":`...), c.Test)
	dst = strconv.AppendBool(append(dst, `,"late":`...), c.Late)
	return append(appendGone(dst, c.Gone), '}')
}

// appendDelivery encodes a delivery.
func appendDelivery(dst []byte, d projections.Delivery) []byte {
	dst = appendID(append(dst, `{"delivery_id":`...), d.ID)
	dst = appendID(append(dst, `,"event_id":`...), d.EventID)
	dst = appendText(append(dst, `,"event_type":`...), d.EventType)
	dst = appendID(append(dst, `,"webhook_id":`...), d.WebhookID)
	dst = appendOrNull(append(dst, `,"batch_id":`...), d.BatchID, appendID)
	dst = appendText(append(dst, `,"state":`...), d.State)
	dst = appendInt(append(dst, `,"attempts":`...), d.Attempts)
	dst = appendOrNull(append(dst, `,"next_attempt_at":`...), d.NextAttemptAt, appendTime)
	dst = appendOrNull(append(dst, `,"waiting_behind":`...), d.WaitingBehind, appendID)
	dst = appendOrNull(append(dst, `,"reason":`...), d.Reason, appendText)
	dst = appendOrNull(append(dst, `,"outcome":`...), d.Outcome, appendText)
	dst = appendOrNull(append(dst, `,"response_status":`...), d.ResponseStatus, appendInt)
	dst = appendOrNull(append(dst, `,"error":`...), d.Error, appendText)
	dst = appendTime(append(dst, `,"created_at":`...), d.CreatedAt)
	dst = appendTime(append(dst, `,"updated_at":`...), d.UpdatedAt)
	dst = appendInt(append(dst, `,"version":`...), d.Version)
	return append(dst, '}')
}

// appendOrNull encodes what is pointed to, or null.
func appendOrNull[T any](dst []byte, value *T, appendValue func([]byte, T) []byte) []byte {
	if value == nil {
		return append(dst, "null"...)
	}
	return appendValue(dst, *value)
}

func appendID[T ~[16]byte](dst []byte, id T) []byte {
	dst = append(hex.AppendEncode(append(dst, '"'), id[:4]), '-')
	dst = append(hex.AppendEncode(dst, id[4:6]), '-')
	dst = append(hex.AppendEncode(dst, id[6:8]), '-')
	dst = append(hex.AppendEncode(dst, id[8:10]), '-')
	return append(hex.AppendEncode(dst, id[10:]), '"')
}

func appendInt[T ~int | ~int64](dst []byte, n T) []byte { return strconv.AppendInt(dst, int64(n), 10) }

// appendMilliseconds encodes a duration in whole microseconds.
func appendMilliseconds(dst []byte, ms float64) []byte {
	return strconv.AppendFloat(dst, ms, 'f', -1, 64)
}

func appendTime(dst []byte, at time.Time) []byte {
	return append(at.AppendFormat(append(dst, '"'), time.RFC3339Nano), '"')
}

// appendText encodes text, that with other than plain ASCII by encoding/json.
func appendText[T ~string](dst []byte, text T) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return append(dst, bytes.TrimSuffix(encode(text), []byte{'\n'})...)
		}
	}
	return append(append(append(dst, '"'), text...), '"')
}
