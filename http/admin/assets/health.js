// How a webhook does, in words; why a call failed, and what to do about it.
import { duration, moment, near } from './format.js'
import { known, language, number, t } from './texts.js'
import './texts/health.js'
import { Badge, Time } from './ui.js'
import { html } from './view.js'

const many = 10 // failures in a row: see the alert
const fair = 95 // percent

// healthOf returns the tone and the word for a webhook of /webhooks/health.
export function healthOf(w) {
  const failures = w.consecutive_failures ?? 0
  if (w.status === 'inactive') return ['none', t('health.off')]
  if (failures > many) return ['bad', t('health.failing')]
  if (failures > 0) return ['warn', t('health.some', failures)]
  if (!w.last_call_at) return ['none', t('health.quiet')]
  if (w.success_rate !== null && w.success_rate < fair) return ['warn', t('health.low')]
  return ['good', t('health.good')]
}

// Health shows that as a badge; whole: with the time since when all calls fail.
export function Health({ webhook, whole }) {
  const [tone, word] = healthOf(webhook)
  const since = webhook.status !== 'inactive' && webhook.failing_since
  return html`<${Badge} tone=${tone} title=${since && moment(since)}>${word}${whole && since && ` ${t('why.since')} ${near(since)}`}</${Badge}>`
}

// why says why a call or a delivery failed, in the reader's language.
export function why({ outcome, response_status: status, error }) {
  if (status) return t('why.status', status)
  const kind = outcome && outcome !== 'success' ? known(`outcome.${outcome}`) : undefined
  return kind ?? error ?? '—'
}

const byStatus = { 400: 'refused', 401: 'rights', 403: 'rights', 404: 'address', 405: 'address', 408: 'timeout', 410: 'gone', 413: 'large', 422: 'refused', 429: 'often' }

// advice says what to do about a failed call; undefined: nothing is known.
export function advice({ outcome, response_status: status }) {
  if (status >= 500) return t('advice.broken')
  if (status >= 300 && status < 400) return t('advice.moved')
  if (status) return t(`advice.${byStatus[status] ?? 'refused'}`)
  return outcome && known(`advice.${outcome.startsWith('tls_') ? 'tls' : outcome.startsWith('no_') ? 'server' : outcome}`)
}

// Failure shows why a call failed and what came back, short enough for a row. The
// server's own words have the names and numbers; they are its title.
export const Failure = ({ of }) => (of.status === 'success' || !of.outcome && !of.error && !of.response_status ? ''
  : html`<span title=${of.error ?? ''}>${why(of)}</span>`)

// Answer shows the status of an answer as a badge: by colour and by number or word.
export function Answer({ of }) {
  const status = of.response_status
  if (of.status === 'success' || status >= 200 && status < 300) return html`<${Badge} tone="good">${status ?? t('state.success')}</${Badge}>`
  return html`<${Badge} tone=${of.outcome === 'timeout' ? 'warn' : 'bad'} title=${of.error}>${status ?? known(`short.${of.outcome}`) ?? t('state.failed')}</${Badge}>`
}

// Next says what happens next: when it is tried again, or that it is not. A call's time of the next
// attempt stays when that has been made; a delivery's is due then.
export function Next({ of }) {
  if (of.next_attempt_at > new Date().toISOString()) return html`<${Time} at=${of.next_attempt_at} style="ago" />`
  if (of.state === 'pending') return t('next.due')
  return of.next_attempt_at || of.status === 'success' || of.state === 'delivered' ? '' : html`<span class="muted">${t('next.none')}</span>`
}

// alertWords says what an alert is about, its figures in the reader's language; of failures in a row
// how many there are by now, if that is known.
export function alertWords({ kind, message, details: figures }, now) {
  if (kind === 'consecutive_failures' && now?.failing_since) {
    const waiting = now.pending_deliveries > 0 ? ` · ${t('app.waiting', now.pending_deliveries)}` : ''
    return `${t('health.some', now.consecutive_failures)} ${t('why.since')} ${near(now.failing_since)}${waiting}`
  }
  if (kind === 'node' && figures?.nodes) return figures.nodes.map(({ node, lacks }) => `${node}: ${known(`outcome.${lacks}`) ?? lacks}`).join('; ')
  const told = `alert.told.${kind}`
  if (kind === 'given_up' && typeof figures?.count === 'number') return t(told, number(figures.count))
  if (kind === 'log_lost') return figures.from ? t(told, figures.from, figures.to) : t(`${told}.to`, figures.to)
  if (!known(told) || typeof figures?.observed !== 'number') return language() === 'en' ? message : known(`alert.${kind}`) ?? message
  const shown = kind === 'inactive' ? duration : (value) => number(value, 1)
  return t(told, shown(figures.observed), shown(figures.limit))
}
