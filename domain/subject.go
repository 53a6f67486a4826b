package domain

import (
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/domain/strictjson"
)

// A subject is a person whom events tell of, usually a patient. An event names its
// subjects in its data; what the log keeps of them is a keyed hash of the id.

// SubjectPaths say where event_data has the ids of its subjects: paths as filters have
// them, separated by commas.
type SubjectPaths [][]string

// ParseSubjectPaths reads a setting like "patient_id, patient.id".
func ParseSubjectPaths(text string) (paths SubjectPaths) {
	for path := range strings.SplitSeq(text, ",") {
		if path = strings.TrimSpace(path); path != "" {
			paths = append(paths, strings.Split(path, "."))
		}
	}
	return paths
}

// CheckSubjectPaths returns what is wrong with such a setting, "" if nothing is. One that names no
// path, or one that finds nobody, would leave patients' data to keys that no erasure destroys.
func CheckSubjectPaths(text string) string {
	paths := ParseSubjectPaths(text)
	if len(paths) == 0 {
		return filter.CheckPath("")
	}
	for _, path := range paths {
		if problem := filter.CheckPath(strings.Join(path, ".")); problem != "" {
			return problem
		}
	}
	return ""
}

// In returns the ids of the subjects of the data, each once: texts, and numbers, of which 1.0 and
// 1e0 are 1. Of an array it takes each element.
func (p SubjectPaths) In(eventData []byte) (ids []string) {
	for _, path := range p {
		ids = subjectsAt(ids, eventData, path)
	}
	return ids
}

func subjectsAt(ids []string, value []byte, path []string) []string {
	begin := strictjson.SkipSpace(value, 0)
	switch {
	case begin == len(value):
	case value[begin] == '[':
		for m := range strictjson.Members(value, begin) {
			ids = subjectsAt(ids, value[m.Off:m.End], path)
		}
	case value[begin] == '{' && len(path) > 0:
		for m := range strictjson.Members(value, begin) {
			if string(m.Key()) == path[0] {
				return subjectsAt(ids, value[m.Off:m.End], path[1:])
			}
		}
	case len(path) == 0:
		if id := subjectOf(value); id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func subjectOf(value []byte) string {
	if text, ok := strictjson.Text(value); ok {
		return string(text)
	}
	if c := value[0]; c == '-' || '0' <= c && c <= '9' {
		return plainNumber(string(value))
	}
	return ""
}

// plainNumber returns a JSON number without an exponent and needless digits. One that takes many
// digits so stays as it is.
func plainNumber(number string) string {
	const most = 40 // of the exponent, either way
	const longest = 100
	begin := strings.IndexAny(number, ".eE")
	if begin < 0 && number != "-0" || len(number) > longest {
		return number
	}
	if e := strings.IndexAny(number, "eE"); e >= 0 {
		if exponent, err := strconv.Atoi(number[e+1:]); err != nil || max(exponent, -exponent) > most {
			return number
		}
	}
	exact, ok := new(big.Rat).SetString(number)
	if !ok {
		return number
	}
	digits, _ := exact.FloatPrec()
	return exact.FloatString(digits)
}

// In what may be no JSON, a text stands between two quotes, and a word is a run of what ids are made of.
var textPattern, wordPattern = regexp.MustCompile(`(?s)(?:[^"\\]|\\.)+`), regexp.MustCompile(`[\p{L}\p{N}_.:@+-]+`)

// SubjectsInText returns all that may be the id of a subject in data that cannot be parsed, each
// once: what stands between quotes, and each word. As a colon may belong to an id or end a key, a
// word counts as a whole, without its key and in parts; one that is a number counts as In has it.
func SubjectsInText(text string) (ids []string) {
	seen := map[string]bool{"": true}
	add := func(id string) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	for _, written := range textPattern.FindAllString(text, -1) {
		unescaped := subjectOf([]byte(`"` + written + `"`))
		add(unescaped)
		for _, word := range append(wordPattern.FindAllString(written, -1), wordPattern.FindAllString(unescaped, -1)...) {
			_, value, _ := strings.Cut(word, ":")
			for _, part := range append(strings.Split(word, ":"), word, value) {
				add(part)
				add(plainNumber(strings.TrimRight(part, ".")))
			}
		}
	}
	return ids
}

// SubjectErased says that the keys of a subject are destroyed: what was encrypted with
// them is gone. The stream is named by the subject.
type SubjectErased struct {
	Reason string `json:"reason"`
	// ErasedAt is when the log said so before it was restored from an older backup.
	ErasedAt time.Time `json:"erased_at,omitzero"`
}

func (SubjectErased) ChangeType() string { return "subject.erased" }

// PayloadsExpired says that the keys of all periods that ended by then are destroyed: what
// was encrypted with them is gone for its age. It is in the stream of OfPeriods.
type PayloadsExpired struct {
	Until time.Time `json:"until"`
}

func (PayloadsExpired) ChangeType() string { return "payloads.expired" }

var _ = register(SubjectErased{}, PayloadsExpired{})

// SubjectStream names the stream of the subject.
func SubjectStream(owner envelope.Owner) string { return "subject-" + uuid.UUID(owner).String() }
