package admin_test

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// However long a name is, headings, numbers and buttons of a table keep their words whole.
func TestALongNameLeavesRoom(t *testing.T) {
	u := newUser(t, "ru")
	url, calls := receiver(t)
	u.webhook(strings.Repeat("длинное", 28), url+"/broken", `,"max_retries":1,"retry_delay":3600`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)["event_id"].(string)
	harness.Until(t, "the receiver is called", func() bool { return calls.Load() > 0 })
	u.Size(1000, 800)
	u.signIn("Токен API", "Войти")
	for _, page := range []string{"overview", "webhooks", "events/" + event, "system", "alerts?state=all"} {
		u.open(page)
		u.Wait(`!document.querySelector('[aria-busy]') && document.querySelector('main h1')`)
		u.Is(`document.documentElement.scrollWidth <= 1000`)
		broken := u.Text(`[...document.querySelectorAll('th, td.number, td.num, td button')].map(cell => {
			const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT)
			const range = document.createRange()
			for (let text; (text = texts.nextNode());) {
				range.selectNodeContents(text)
				if (range.getClientRects().length > text.data.trim().split(/\s+/).length) return cell.outerHTML
			}
			return ''
		}).join('')`)
		if broken != "" {
			t.Errorf("%s: the words of %q are not whole", page, broken)
		}
		u.Shot("long-" + page[:5])
	}
}

func TestThePanelSpeaksRussianAndFitsAPhone(t *testing.T) {
	t.Parallel()
	u := newUser(t, "ru")
	url, _ := receiver(t)
	id := u.webhook("Интеграция с CRM", url+"/hook", `,"headers":{"X-API-Key":"k"},"filters":{"department":"cardiology"}`)
	u.api("POST", "/webhooks/"+id+"/test", `{"event_type":"patient.created","test_data":{"department":"cardiology"}}`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"department":"cardiology"}}`)["event_id"].(string)
	u.alert(id, "consecutive_failures", `{"message":"11 calls in a row failed","observed":11,"limit":10}`)
	u.Size(390, 844)
	u.Dark()
	u.signIn("Токен API", "Войти")
	u.Is(`document.documentElement.lang === 'ru'`)
	for name, page := range map[string]string{
		"webhooks": "webhooks", "new": "webhooks/new", "webhook": "webhooks/" + id, "edit": "webhooks/" + id + "/edit", "calls": "webhooks/" + id + "/calls",
		"settings": "webhooks/" + id + "/settings", "deliveries": "webhooks/" + id + "/deliveries", "disclosures": "webhooks/" + id + "/disclosures", "overview": "overview",
		"all-calls": "calls", "all-deliveries": "deliveries?state=delivered", "test": "webhooks/" + id + "/test", "replay": "webhooks/" + id + "/replay", "history": "webhooks/" + id + "/history",
		"events": "events", "parked": "events/parked", "trigger": "events/new", "event": "events/" + event, "alerts": "alerts", "system": "system",
	} {
		u.open(page)
		u.Wait(`!document.querySelector('[aria-busy]') && document.querySelector('main h1')`)
		// It fits, and every control can be named by a screen reader.
		u.Is(`document.documentElement.scrollWidth <= 390`)
		u.Is(`[...document.querySelectorAll('input:not([type=hidden]), select, textarea')].every(c => c.labels.length > 0 && c.labels[0].textContent.trim() || c.ariaLabel)`)
		u.Is(`[...document.querySelectorAll('button, a')].every(b => b.innerText.trim() !== '' || !b.checkVisibility())`)
		u.Is(`new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length`)
		u.Is(`document.querySelectorAll('h1').length === 1`)
		if cut := u.Text(`[...document.querySelectorAll('.figure > :first-child')].filter(label => label.scrollWidth > label.clientWidth || label.clientHeight > 30).map(label => label.innerText).join()`); cut != "" {
			t.Errorf("%s: %q has no room", name, cut)
		}
		u.Is(`/[а-я]/.test(document.querySelector('main').innerText) && !/\b[a-z]+\.[a-z]+[A-Z]\w*\b/.test(document.querySelector('main').innerText)`)
		u.Shot("phone-" + name)
	}

	// What needs a hand comes before charts.
	u.open("overview")
	u.Wait(`document.querySelector('main .alert') && document.querySelector('main .chart')`)
	u.Is(`document.querySelector('main .alert').getBoundingClientRect().top < document.querySelector('main .chart').getBoundingClientRect().top`)

	// An alert is in words, and leads to its webhook.
	u.Go(u.address + "/admin#/alerts")
	u.See("Неудачи подряд")
	u.See("Неудач подряд больше 10")
	u.Is(`document.querySelector('tbody button').clientHeight < 50 && document.documentElement.scrollWidth <= 390`) // one line
	u.Click("Интеграция с CRM")
	u.Wait(`document.querySelector('h1')?.innerText === 'Интеграция с CRM'`)

	// So is what came of a call; the server's own words are its title.
	u.Size(1440, 900)
	broken := u.webhook("Поломка", url+"/broken", "")
	u.api("POST", "/webhooks/"+broken+"/test", `{"event_type":"patient.created","test_data":{}}`)
	u.Go(u.address + "/admin#/webhooks/" + broken + "/calls")
	u.See("Получатель ответил 500")
	u.Wait(`[...document.querySelectorAll('td [title]')].some(e => e.title.includes('500'))`)
	u.Size(390, 844)

	// What the API refuses is told at its field, in the reader's language.
	u.Expect("network")
	u.Go(u.address + "/admin#/webhooks/new")
	u.Wait(`document.querySelector('h1')?.innerText === 'Новый вебхук'`)
	u.Is(`document.querySelector('.beside .card').getBoundingClientRect().top < document.querySelector('[data-field=max_retries]').getBoundingClientRect().top`) // what it would do follows the filter
	u.Fill("Название", "CRM")
	u.Fill("Адрес", "ftp://clinic")
	u.Click("Создать")
	u.Wait(`document.querySelector('[data-field=url]').getAttribute('aria-invalid') === 'true'`)
	u.See("Должно начинаться с http:// или https://.")
	u.See("Должно содержать хотя бы один тип событий, группу (patient.*) или *.")
	u.Is(`document.activeElement.dataset.field === 'url'`)
	u.Dark()
	u.Shot("form-390-ru")
	u.Size(1440, 900)
	u.Shot("form-1440-ru")
	u.Size(390, 844)

	// The other language is a press away, and remembered.
	u.Go(u.address + "/admin#/webhooks")
	u.Click("Ещё")
	u.Click("English")
	u.See("New webhook")
	u.Reload()
	u.See("New webhook")
	u.Is(`document.documentElement.lang === 'en'`)

	// With the keyboard alone: past the menu, to the content.
	u.Reload()
	u.See("New webhook")
	u.Keys(kb.Tab)
	u.Is(`document.activeElement.id === 'skip' && document.activeElement.innerText === 'Skip to content'`)
	u.Keys(kb.Enter)
	u.Is(`document.activeElement.id === 'main'`)
	u.Keys(kb.Tab)
	u.Is(`document.activeElement.innerText === 'New webhook'`)
	u.Keys(kb.Enter)
	u.Wait(`document.querySelector('h1').innerText === 'New webhook'`)
	u.Is(`document.activeElement.id === 'main'`)
}

// On a phone a webhook's page begins with its content: what is done seldom waits in a menu, which
// keys open and close. A tab that has no room is scrolled to, and lists show how it went.
func TestAWebhooksPageBeginsWithItsContent(t *testing.T) {
	u := newUser(t, "ru")
	url, calls := receiver(t)
	id := u.webhook("Шлюз лаборатории «Инвитро-Запад» (старый, до переезда в новое здание)", url+"/broken", `,"max_retries":0`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)["event_id"].(string)
	harness.Until(t, "the receiver is called", func() bool { return calls.Load() > 0 })
	u.Size(390, 844)
	u.signIn("Токен API", "Войти")
	const above = `.getBoundingClientRect().bottom < document.querySelector('#menu').getBoundingClientRect().top`
	for page, content := range map[string]string{"": ".why", "/calls": "tbody tr", "/deliveries": "tbody tr", "/test": "select", "/history": "tbody tr"} {
		u.open("webhooks/" + id + page)
		u.Wait(`document.querySelector('main ` + content + `') && !document.querySelector('[aria-busy]')`)
		u.Is(`document.querySelector('main ` + content + `')` + above)
		u.Wait(`(tab => tab.left >= 0 && tab.right <= 390)(document.querySelector('.tabs [aria-current]').getBoundingClientRect())`)
		u.Is(`document.documentElement.scrollWidth <= 390`)
		if wide := u.Text(`[...document.querySelectorAll('main .scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText).join()`); wide != "" {
			t.Errorf("%q has no room for %q", page, wide)
		}
	}
	for _, page := range []string{"calls", "deliveries", "events"} {
		u.open(page)
		u.Wait(`document.querySelector('main tbody .badge') && !document.querySelector('[aria-busy]')`)
		u.Is(`[...document.querySelectorAll('main tbody .badge')].every(e => e.getBoundingClientRect().right <= 390)`)
		u.Is(`document.querySelector('main tbody tr')` + above)
		u.Is(`[...document.querySelectorAll('main tbody tr')].every(row => /^[a-z_]+\.[a-z_]+$/.test(row.querySelector('.cut .mono')?.innerText))`) // not under the time, which would be wider
	}
	// An event begins with how it went; why, and what can be done, have a line each.
	u.open("events/" + event)
	u.Wait(`document.querySelector('main .head .badge')?.innerText === 'неудача' && document.querySelector('.explain tbody .sub')?.innerText.includes('500')`)
	u.Is(`[...document.querySelectorAll('.explain tbody tr')].every(row => row.clientHeight < 130)`)
	u.Is(`document.documentElement.scrollWidth <= 390`)
	u.open("webhooks/" + id)
	u.Wait(`document.querySelector('.menu summary')?.focus() || document.activeElement.matches('.menu summary')`)
	u.Keys(kb.Enter)
	u.Wait(`document.querySelector('.menu').open`)
	u.Is(`[...document.querySelectorAll('.menu > div > *')].map(e => e.innerText).join() === 'Повторить недоставленное,Проверка на истории,Сменить секрет,Выключить,Удалить'`)
	u.Is(`[...document.querySelectorAll('.menu > div > *')].every(e => { const at = e.getBoundingClientRect(); return at.left >= 0 && at.right <= 390 && at.height >= 43.5 && document.elementFromPoint(at.x + 9, at.y + 9) === e })`)
	u.Accessible("the menu")
	u.Keys(kb.Tab + kb.Tab)
	u.Is(`document.activeElement.innerText === 'Проверка на истории'`)
	u.Keys(kb.Escape)
	u.Is(`!document.querySelector('.menu').open && document.activeElement.matches('.menu summary')`)
	u.Keys(kb.Enter + kb.Shift)
	u.See("без повторов; таймаут 30 с")
	u.Click("Выключить")
	u.See("Включить")
	u.Is(`!document.querySelector('.menu').open`)
}

// That the page is not live is said in words on a phone, too, also if the connection was lost
// before the page was painted: effects come late here.
func TestALostConnectionIsSaidOnAPhone(t *testing.T) {
	u := newUser(t, "ru")
	u.Before(`(() => {
		const real = fetch
		window.fetch = (url, ...more) => (String(url).includes('/stream') ? Promise.reject(new TypeError('lost')) : real(url, ...more))
		const later = setTimeout, painted = 35
		window.setTimeout = (f, ms, ...more) => later(f, ms === painted ? 500 : ms, ...more)
		window.requestAnimationFrame = (f) => later(f, 500)
	})()`)
	u.Size(390, 844)
	u.signIn("Токен API", "Войти")
	u.See("нет связи, восстанавливаем")
	u.Is(`document.documentElement.scrollWidth <= 390`)
}
