// One call: why it ended so and what happens next, all attempts of its delivery, what was
// sent and answered. What a receiver answered is hostile, and is only ever text here.
import { api, part, session } from './api.js'
import { Json, curl, javascript, python, readable } from './code.js'
import { download, reveal, say } from './dialogs.js'
import { nameOf, useTypes } from './event-types.js'
import { ago, milliseconds, near } from './format.js'
import { advice, why } from './health.js'
import { useFresh } from './list.js'
import { erasures } from './live.js'
import { known, number, t } from './texts.js'
import './texts/events.js'
import { Act, Badge, Card, Copy, Facts, Foreign, Loaded, Menu, Page, Time, Word, useLoad } from './ui.js'
import { html, useState } from './view.js'

export function CallPage({ id, call }) {
  const of = useLoad(`/webhooks/${part(id)}/calls/${part(call)}`)
  useFresh(erasures, of.reload)
  return html`<${Loaded} of=${of} title=${t('call.list')}>${(data) => html`<${Call} key=${data.call_id} call=${data} />`}</${Loaded}>`
}

function Call({ call }) {
  const webhook = useLoad(`/webhooks/${part(call.webhook_id)}`)
  const stats = useLoad(`/webhooks/${part(call.webhook_id)}/stats`)
  const types = useTypes()
  const attempts = useLoad(`/webhooks/${part(call.webhook_id)}/calls`, { delivery_id: call.delivery_id, limit: 100 })
  const deliveries = useLoad(`/webhooks/events/${part(call.event_id)}/deliveries`, { limit: 200 }, { skip: call.test })
  useFresh({ kinds: ['call', 'delivery'], webhook: call.webhook_id, only: (item) => item.delivery_id === call.delivery_id }, () => { attempts.reload(); stats.reload(); if (!call.test) deliveries.reload() }, 300)
  const known = attempts.data?.items ?? [call]
  const delivery = deliveries.data?.items.find((d) => [d.delivery_id, d.batch_id].includes(call.delivery_id)) ?? guess(known[0])
  const badge = html`<code class="muted">${call.event_type}</code><${Badge} state=${call.status}>${[call.response_status ?? t('call.noAnswerShort'), t('call.try', call.attempt)].join(', ')}</${Badge}>`
  return html`<${Page} title=${nameOf(call.event_type, types)} badge=${badge} actions=${html`<${Actions} call=${call} delivery=${delivery} />`}
      sub=${html`<a class="crumb" href=${`#/webhooks/${part(call.webhook_id)}`} title=${webhook.data?.name}>${webhook.data?.name ?? t('event.webhook')}</a> / <a href=${`#/webhooks/${part(call.webhook_id)}/calls`}>${t('call.list')}</a> · <${Time} at=${call.created_at} /> · ${milliseconds(call.duration_ms)}`}>
    <${Card} flush><${Why} call=${call} delivery=${delivery} webhook=${webhook.data} since=${stats.data?.failing_since} /><${Timeline} call=${call} attempts=${known} delivery=${delivery} webhook=${webhook.data} /></${Card}>
    <div class="two"><${Request} call=${call} /><${Answer} call=${call} /></div>
    <${Card} title=${t('call.details')}><${Facts} pairs=${facts(call)} /></${Card}>
  </${Page}>`
}

// guess is what the newest call says of its delivery.
const guess = (call) => ({ delivery_id: call.delivery_id, state: call.status === 'success' ? 'delivered' : call.next_attempt_at ? 'pending' : 'failed', next_attempt_at: call.next_attempt_at, reason: null })

function Actions({ call, delivery }) {
  const retry = async (key) => {
    await api.post(`/webhooks/deliveries/${part(call.delivery_id)}/retry`, undefined, { key })
    say(t('call.retried'))
  }
  const receipt = async () => download(`receipt-${call.call_id}.jws`, await api.text(`/webhooks/${part(call.webhook_id)}/calls/${part(call.call_id)}/receipt`))
  const show = (name, write) => () => reveal(`${t('call.copyAs')}: ${t(`call.${name}`)}`, t('call.copyNote'), write(call))
  const sent = typeof call.payload === 'string'
  return html`${sent && html`<${Menu} label=${t('call.copyAs')}>
      <button type="button" onClick=${show('curl', curl)}>${t('call.curl')}</button>
      <button type="button" onClick=${show('python', python)}>${t('call.python')}</button>
      <button type="button" onClick=${show('javascript', javascript)}>${t('call.javascript')}</button></${Menu}>`}
    <${Act} run=${receipt}>${t('call.receiptShort')}</${Act}>
    ${!call.test && delivery.state !== 'cancelled' && session.may('webhooks:write') && html`<${Act} tone="primary" run=${retry}>${t('call.retryNow')}</${Act}>`}`
}

// Why says in words what came of the call, what to do and what follows.
function Why({ call, delivery, webhook, since }) {
  const tone = call.status === 'success' || delivery.state === 'delivered' ? '' : delivery.state === 'pending' ? 'warn' : 'bad'
  const failed = call.status !== 'success'
  return html`<div class=${`why ${tone}`}><b>${failed ? `${why(call)}.` : t('why.delivered')}</b> ${failed && delivery.state !== 'delivered' && advice(call)} ${failed && !call.test && since && since < call.created_at && t('why.all', near(since))} ${follows(call, delivery, webhook)}
    ${failed && call.error && call.outcome !== 'http_status' && html`<div class="muted">${call.error}</div>`}</div>`
}

function follows(call, delivery, webhook) {
  if (call.test) return t('why.test')
  if (delivery.state === 'delivered') return t(call.status === 'success' ? 'why.done' : 'why.later')
  if (delivery.state !== 'pending') return `${known(`why.${delivery.reason}`) ?? t('why.failed')}${delivery.state === 'failed' && session.may('webhooks:write') ? ` ${t('why.retryHint')}` : ''}`
  if (webhook && !webhook.is_active) return t('why.inactive')
  if (delivery.waiting_behind) return t('why.behind')
  const next = (delivery.attempts ?? call.attempt) + 1
  const last = webhook && webhook.max_retries + 1
  return last >= next ? t('why.next', ago(delivery.next_attempt_at), number(next), number(last)) : t('why.nextOnly', ago(delivery.next_attempt_at))
}

const longest = 86400 // seconds before any attempt

// planned returns the attempts that follow if each fails: the next, and those after it, of which
// the times may be a little later.
function planned(call, delivery, webhook) {
  if (delivery.state !== 'pending' || !delivery.next_attempt_at || webhook?.is_active === false) return []
  const next = (delivery.attempts ?? call.attempt) + 1
  const all = [{ attempt: next, at: Date.parse(delivery.next_attempt_at) }]
  for (let attempt = next + 1; attempt <= (webhook?.max_retries ?? 0) + 1; attempt++) {
    all.push({ attempt, at: all.at(-1).at + Math.min(webhook.retry_delay * 2 ** (attempt - 2), longest) * 1000 })
  }
  return all
}

// Timeline shows all attempts of the delivery: those made, and those to come.
function Timeline({ call, attempts, delivery, webhook }) {
  const made = [...attempts].reverse()
  const last = (webhook?.max_retries ?? 0) + 1
  return html`<ol class="timeline" aria-label=${t('call.timeline')}>${made.map((one) => html`<li key=${one.call_id} aria-current=${one.call_id === call.call_id ? 'true' : undefined}>
      <span class=${`dot ${one.status === 'success' ? 'good' : 'bad'}`}></span><${Time} at=${one.created_at} style="near" />
      <span class="grow">${t('call.try', one.attempt)} — ${one.response_status ?? known(`outcome.${one.outcome}`) ?? t('call.noAnswerShort')}, ${milliseconds(one.duration_ms)}</span>
      ${one.call_id === call.call_id ? html`<span class="muted">${t('call.this')}</span>` : html`<a href=${`#/webhooks/${part(one.webhook_id)}/calls/${part(one.call_id)}`}>${t('call.open')}</a>`}</li>`)}
    ${planned(call, delivery, webhook).map(({ attempt, at }, i) => html`<li key=${`${attempt} planned`} class="muted"><span class=${i === 0 ? 'dot warn' : 'dot'}></span><span>${i > 0 && '≈ '}<${Time} at=${new Date(at).toISOString()} style="near" /></span>
      <span class="grow">${t('call.try', attempt)} — ${i === 0 ? html`<${Time} at=${delivery.next_attempt_at} style="ago" />` : t('call.ifFailed')}${attempt === last && `; ${t('call.last')}`}</span></li>`)}</ol>`
}

// signed says by how many secrets the call was signed: two during a rotation's overlap.
function signed({ request_headers: headers }) {
  const names = Object.keys(headers ?? {}).map((name) => name.toLowerCase())
  return t(names.includes('x-webhook-signature-previous') ? 'call.signedTwice' : names.includes('webhook-signature') ? 'call.signed' : 'call.unsigned')
}

const size = (text) => t('call.bytes', new TextEncoder().encode(text).length)
const Hidden = ({ of }) => html`<p class="empty">${t(of.erased ? 'event.erased' : of.expired ? 'event.expired' : 'event.hidden')}</p>`
const withheld = (of) => of.redacted || of.erased || of.expired

function Request({ call }) {
  const [raw, setRaw] = useState(false)
  const sent = typeof call.payload === 'string'
  const choose = (value, label) => html`<button type="button" class="chip" aria-pressed=${raw === value} onClick=${() => setRaw(value)}>${label}</button>`
  return html`<${Card} title=${t('call.request')} note=${sent && `${size(call.payload)}, ${signed(call)}`} more=${sent && html`<span class="chips">${choose(false, t('call.pretty'))}${choose(true, t('call.raw'))}</span>`}>
    <p class="mono url">${call.method} ${call.url}</p>
    ${withheld(call) ? html`<${Hidden} of=${call} />` : !sent ? html`<p class="muted">${t('call.noPayload')}</p>`
      : raw ? html`<${Foreign} label=${t('call.payload')}>${call.payload}</${Foreign}>` : html`<${Json} source=${readable(call.payload)} label=${t('call.payload')} />`}
    <${Headers} of=${call.request_headers} label=${t('call.requestHeaders')} /></${Card}>`
}

function Answer({ call }) {
  const none = call.response_status === null || call.response_status === undefined
  return html`<${Card} title=${t('call.answer')} note=${!none && html`<${Badge} state=${call.status}>${call.response_status}</${Badge}> ${[call.response_headers?.['Content-Type'], call.response_body && size(call.response_body)].filter(Boolean).join(', ')}`}>
    ${none ? html`<p class="muted">${t('call.noAnswer')}</p>` : withheld(call) ? html`<${Hidden} of=${call} />` : html`
      ${call.response_body ? html`<${Foreign} label=${t('call.responseBody')}>${readable(call.response_body)}</${Foreign}>` : html`<p class="muted">${t('call.emptyBody')}</p>`}
      ${call.response_truncated && html`<p class="hint">${t('call.truncated')}</p>`}
      <${Headers} of=${call.response_headers} label=${t('call.responseHeaders')} />`}</${Card}>`
}

function Headers({ of, label }) {
  const list = Object.entries(of ?? {})
  return list.length > 0 && html`<details><summary>${t('call.headersCount', list.length)}</summary><${Foreign} label=${label}>${list.map(([name, value]) => `${name}: ${value}`).join('\n')}</${Foreign}></details>`
}

const facts = (call) => [
  [t('call.delivery'), html`<${Copy} value=${call.delivery_id} />`],
  !call.test && [t('call.event'), html`<a href=${`#/events/${part(call.event_id)}`}>${call.event_type}</a> <${Copy} value=${call.event_id} />`],
  call.event_ids && [t('call.members'), call.event_ids.map((id) => html`<a key=${id} class="mono" href=${`#/events/${part(id)}`}>${id.slice(-8)}</a> `)],
  call.correlation_id && [t('event.correlation'), html`<a href=${`#/events?correlation_id=${encodeURIComponent(call.correlation_id)}`}>${call.correlation_id}</a>`],
  [t('call.position'), number(call.position)],
  [t('call.id'), html`<${Copy} value=${call.call_id} />`],
  [t('call.outcome'), html`<${Word} name=${call.outcome ?? call.status} words=${known(`outcome.${call.outcome}`) ?? known(`state.${call.status}`)} />`],
  [t('call.duration'), milliseconds(call.duration_ms)],
]
