package eventstore

import (
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

// The buffer of an array is as large as the array, whatever the sizes of its elements.
func TestArraysTakeTheirSize(t *testing.T) {
	m := pgtype.NewMap()
	useArrays(m)
	const large, n = 1 << 20, 1000
	elements := make([][]byte, n)
	elements[0] = make([]byte, large)
	buf, err := m.Encode(pgtype.ByteaArrayOID, pgtype.BinaryFormatCode, elements, nil)
	if err != nil || cap(buf) > 2*large {
		t.Errorf("%d bytes take %d, %v", len(buf), cap(buf), err)
	}
}
