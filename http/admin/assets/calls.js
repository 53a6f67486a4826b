// One call in all its details. What a receiver
// answered is hostile until shown as text, and text is all that it becomes here.
import { api, part } from './api.js'
import { download, say } from './dialogs.js'
import { button, card, facts, foreign, h, hidden } from './dom.js'
import { describe } from './forms.js'
import { badge, failure, milliseconds, number, shortID, text, when } from './format.js'
import { t } from './texts.js'

const marks = (call) => ['test', 'late'].filter((mark) => call[mark]).map((mark) => h('span', { class: 'badge quiet' }, t(`call.${mark}`)))

export async function callPage({ webhook, item, signal }) {
  const call = await api.get(`/webhooks/${part(webhook.id)}/calls/${part(item)}`, {}, signal)
  return h('div', {}, h('p', {}, h('a', { href: `#/webhooks/${part(webhook.id)}/calls` }, t('call.back'))), callDetails(call))
}

// callDetails shows all that is known of a call.
export function callDetails(call) {
  const answered = call.response_status !== null && call.response_status !== undefined
  return [
    card(t('call.one'), facts([
      [t('call.time'), when(call.created_at)],
      [t('call.status'), [badge(call.status), ' ', marks(call)]],
      [t('call.response'), text(call.response_status)],
      [t('call.duration'), milliseconds(call.duration_ms)],
      [t('call.error'), failure(call)],
      [t('call.attempt'), number(call.attempt)],
      [t('call.next'), when(call.next_attempt_at)],
      [t('call.event'), [h('code', {}, call.event_type), ' ', call.test ? null : h('a', { href: `#/events/${part(call.event_id)}` }, shortID(call.event_id))]],
      [t('call.delivery'), shortID(call.delivery_id)],
    ]), button(t('call.receipt'), () => receipt(call))),
    card(t('call.request'),
      h('p', { class: 'url' }, h('code', {}, `${text(call.method)} ${text(call.url)}`)),
      call.redacted ? hidden() : request(call)),
    card(t('call.answer'), answered ? answer(call) : h('p', { class: 'quiet' }, t('call.noAnswer'))),
  ]
}

async function receipt(call) {
  try {
    download(`receipt-${call.call_id}.jws`, await api.text(`/webhooks/${part(call.webhook_id)}/calls/${part(call.call_id)}/receipt`))
  } catch (error) {
    say(describe(error))
  }
}

const request = (call) => [
  h('h3', {}, t('call.requestHeaders')), headerList(call.request_headers, t('call.requestHeaders')),
  h('h3', {}, t('call.payload')),
  typeof call.payload === 'string' ? foreign(call.payload, t('call.payload')) : h('p', { class: 'quiet' }, t('call.noPayload')),
]

function answer(call) {
  if (call.redacted) return hidden()
  return [
    h('h3', {}, t('call.responseHeaders')), headerList(call.response_headers, t('call.responseHeaders')),
    h('h3', {}, t('call.responseBody')),
    call.response_body ? foreign(call.response_body, t('call.responseBody')) : h('p', { class: 'quiet' }, t('call.emptyBody')),
    call.response_truncated && h('p', { class: 'hint' }, t('call.truncated')),
  ]
}

const headerList = (headers, label) => foreign(Object.entries(headers ?? {}).map(([name, value]) => `${name}: ${value}`).join('\n') || '—', label)
