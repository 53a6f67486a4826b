package eventstore

import (
	"bytes"
	"strconv"
	"time"
)

// AppendLine appends the event as one line of JSON (NDJSON), without the newline: position,
// stream, version, type, data, metadata, recorded_at. Data is as it was appended, except that
// line breaks between its tokens become spaces.
func (e Event) AppendLine(dst []byte) []byte {
	dst = append(dst, `{"position":`...)
	dst = strconv.AppendInt(dst, int64(e.Position), 10)
	dst = append(dst, `,"stream":`...)
	dst = appendString(dst, e.Stream)
	dst = append(dst, `,"version":`...)
	dst = strconv.AppendInt(dst, e.Version, 10)
	dst = append(dst, `,"type":`...)
	dst = appendString(dst, e.Type)
	dst = append(dst, `,"data":`...)
	dst = appendOneLine(dst, e.Data)
	dst = append(dst, `,"metadata":`...)
	dst = appendOneLine(dst, e.Metadata)
	dst = append(dst, `,"recorded_at":"`...)
	dst = e.RecordedAt.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, `"}`...)
}

// appendOneLine appends JSON without its line breaks, which can only stand between tokens.
func appendOneLine(dst, json []byte) []byte {
	from := len(dst)
	dst = append(dst, json...)
	for _, lineBreak := range []byte("\n\r") {
		for at := from; ; at++ {
			next := bytes.IndexByte(dst[at:], lineBreak)
			if next < 0 {
				break
			}
			at += next
			dst[at] = ' '
		}
	}
	return dst
}
