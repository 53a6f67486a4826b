package domain

import (
	"encoding/base64"
	"strconv"
)

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

func appendBase64(dst, data []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, data)
	return append(dst, '"')
}

// timeStored is RFC 3339 with the microseconds that Postgres keeps.
const timeStored = "2006-01-02T15:04:05.999999Z07:00"
