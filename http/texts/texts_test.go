package texts

import (
	"testing"

	"golang.org/x/text/language"
)

func TestRussian(t *testing.T) {
	for text, want := range map[string]string{
		"1 call failed in a row":                               "подряд не удалось 1 вызов",
		"12 calls failed in a row":                             "подряд не удалось 12 вызовов",
		"22 calls failed in a row":                             "подряд не удалось 22 вызова",
		"111 calls failed in a row":                            "подряд не удалось 111 вызовов",
		"89.5 % of the last 21 calls succeeded":                "успешны 89,5 % из 21 последнего вызова",
		"must be from 0.01 to 10000 deliveries a second":       "должно быть от 0,01 до 10000 доставок в секунду",
		"must be of type integer or string or null":            "должно быть типа integer, string или null",
		"must be of type integer or string":                    "должно быть типа integer или string",
		"event_data: the JSON repeats a key at byte 3":         "event_data: JSON повторяет ключ, байт 3",
		"no running server lacks anything":                     "всем работающим серверам всего хватает",
		"no call was made for 24h0m0s":                         "вызовов не было 24 ч",
		"a call was made within the last 24h0m0s":              "вызов был менее 24 ч назад",
		"12 calls failed in a row; up to 20 are no alert":      "подряд не удалось 12 вызовов; до 20 — ещё не повод для оповещения",
		"the call did not end within its timeout of 1m30s":     "вызов не уложился в 1 мин 30 с",
		"could not connect to 10.0.0.1:80: connection refused": "не удалось соединиться с 10.0.0.1:80: соединение отклонено",
		"the server a lacks free local ports; the server b lacks memory for connections: deliveries wait":  "серверу a не хватает: свободных локальных портов; серверу b не хватает: памяти для соединений: доставки ждут",
		"the request has invalid fields: name is required; events[2].event_type is not a known event type": "в запросе есть неверные поля: name: обязательное поле; events[2].event_type: такого типа событий нет",
	} {
		if got, known := Russian(text); got != want || !known {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"", " ", "; ", "what a person wrote; is required", "Иван"} {
		if got, known := Russian(text); known || got != text {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// Answer changes texts and nothing else, not even white space and the forms of numbers.
func TestAnswer(t *testing.T) {
	for body, want := range map[string]string{
		` { "error" : "a call succeeded" , "n": 1.0e2 }` + "\n":                                       ` { "error" : "вызов прошёл успешно" , "n": 1.0e2 }` + "\n",
		`{"items":[{"reason":"is required"},{"reason":null}],"id":9007199254740993}`:                  `{"items":[{"reason":"обязательное поле"},{"reason":null}],"id":9007199254740993}`,
		`{"name":"is required","error":["is required"],"message":{"x":"is required"}}`:                `{"name":"is required","error":["is required"],"message":{"x":"is required"}}`,
		`{"event_data":{"error":"is required"},"want":{"error":"is required"},"error":"is required"}`: `{"event_data":{"error":"is required"},"want":{"error":"is required"},"error":"обязательное поле"}`,
		`{"error":"is required"`: `{"error":"обязательное поле"`,
		`not JSON`:               `not JSON`,
	} {
		if got := string(Answer(language.Russian, []byte(body))); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
		if got := string(Answer(language.English, []byte(body))); got != body {
			t.Errorf("%s: %s", body, got)
		}
	}
}
