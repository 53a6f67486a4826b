// The first page: what needs a hand, and the figures of the last day. A fresh
// installation shows the way to the first delivered call instead.
import { most } from './counts.js'
import { AlertRow, useNames } from './alerts.js'
import { Failures } from './call-list.js'
import { Chart, asked, parts, rangeOf } from './charts.js'
import { duration, milliseconds, percent } from './format.js'
import { Table, useFresh } from './list.js'
import { Start } from './start.js'
import { number, t } from './texts.js'
import './texts/overview.js'
import { Badge, Card, Empty, Figure, Line, Loaded, Page, useLoad } from './ui.js'
import { html, useMemo, useRef } from './view.js'
import { healthColumns } from './webhooks.js'

const hour = 3600000
const hours = (n) => Math.floor(Date.now() / hour - n + 1) * hour

export function Overview() {
  const range = useMemo(() => rangeOf(new URLSearchParams()), [hours(24)])
  const now = useLoad('/webhooks/system/stats', asked(range), { every: 60000 })
  const before = useLoad('/webhooks/system/stats', { from: new Date(hours(48)).toISOString(), to: new Date(hours(24)).toISOString() })
  const urgent = useLoad('/webhooks/health', { sort: 'urgency', limit: 8 }, { every: 60000 })
  const open = useLoad('/webhooks/alerts', { state: 'open', limit: most }, { every: 60000 })
  useFresh({ kinds: ['call', 'webhook'] }, now.reload)
  useFresh({ kinds: ['call', 'alert', 'webhook'] }, urgent.reload, 5000)
  useFresh({ kinds: ['alert'] }, open.reload, 500)
  const rate = useRate(now.data)
  return html`<${Page} title=${t('nav.overview')} sub=${t('overview.sub')} actions=${html`<a class="button primary" href="#/webhooks/new">${t('action.create')}</a>`}>
    <${Loaded} of=${now}>${(stats) => html`
      ${!stats.last_success_at && html`<${Start} />`}
      <${Figures} stats=${stats} before=${before.data} totals=${urgent.data?.totals} alerts=${open.data} rate=${rate} />
      <div class="two"><${Loaded} of=${open}>${(page) => html`<${Attention} page=${page} />`}</${Loaded}>
        <${Calls} stats=${stats} range=${range} /></div>
      <${Loaded} of=${urgent}>${(page) => html`<${Urgent} page=${page} />`}</${Loaded}>
      <${Card} title=${t('overview.failures')} flush more=${html`<a href="#/calls?status=failed">${t('overview.allCalls')}</a>`}><${Failures} limit=${5} /></${Card}>`}</${Loaded}>
  </${Page}>`
}

// useRate returns the deliveries a minute: of the last minute or so that this page has
// seen, else of the current hour.
function useRate(stats) {
  const seen = useRef([])
  if (!stats) return null
  const last = seen.current.at(-1)
  const sum = stats.delivered
  if (!last || last.sum !== sum || Date.now() - last.at > 5000) seen.current.push({ at: Date.now(), sum })
  while (seen.current.length > 2 && Date.now() - seen.current[1].at > 60000) seen.current.shift()
  const first = seen.current[0]
  const minutes = (Date.now() - first.at) / 60000
  if (minutes > 0.1 && sum >= first.sum) return (sum - first.sum) / minutes
  const begun = hours(1)
  const current = stats.series.find((one) => Date.parse(one.at) === begun)
  return (current?.delivered ?? 0) / Math.max(1, (Date.now() - begun) / 60000)
}

function Figures({ stats, before, totals, alerts, rate }) {
  const all = Array.from({ length: 24 }, (_, i) => stats.series.find((one) => Date.parse(one.at) === hours(24 - i)))
  const change = (now, then) => (now === null || now === undefined || !then ? undefined : now - then)
  const success = change(stats.success_rate, before?.success_rate)
  const slower = change(stats.p95_ms, before?.p95_ms)
  const more = before?.delivered ? (stats.delivered - before.delivered) / before.delivered * 100 : undefined
  const open = alerts?.items.filter((one) => !one.acknowledged_at).length ?? 0
  const signed = (value, unit) => `${value > 0 ? '+' : ''}${number(value, 1)} ${unit}`
  return html`<section class="figures" aria-label=${t('overview.figures')}>
    <${Figure} label=${t('overview.rate')} value=${number(rate, rate < 10 ? 1 : 0)} href="#/deliveries?state=delivered" note=${t('overview.delivered', stats.delivered) + (more === undefined ? '' : ` (${signed(more, '%')})`)}
      spark=${html`<${Line} values=${all.map((p) => p?.delivered ?? 0)} />`} />
    <${Figure} label=${t('overview.success')} value=${percent(stats.success_rate)} href="#/calls?status=failed" tone=${success < -0.05 ? 'bad' : success > 0.05 ? 'good' : ''} note=${success === undefined ? t('overview.calls', stats.total_calls) : t('overview.points', signed(success, ''))}
      spark=${html`<${Line} values=${all.map((p) => p?.success_rate ?? 100)} tone=${success < -0.05 ? 'bad' : 'muted'} />`} />
    <${Figure} label=${t('overview.latency')} value=${milliseconds(stats.p95_ms)} href="#/calls" note=${slower === undefined ? `p50 ${milliseconds(stats.p50_ms)}` : t('overview.yesterday', milliseconds(before.p95_ms))}
      spark=${html`<${Line} values=${all.map((p) => p?.p95_ms ?? 0)} tone="muted" />`} />
    <${Figure} label=${t('overview.waiting')} value=${number(stats.pending_deliveries)} href="#/deliveries?state=pending" note=${stats.pending_deliveries === 0 ? t('overview.nothingWaits') : totals && t('overview.oldest', duration(totals.oldest_waiting_seconds))} tone=${totals?.oldest_waiting_seconds > 300 ? 'warn' : ''} />
    <${Figure} label=${t('overview.failed')} value=${number(stats.exhausted)} href="#/deliveries?state=failed" tone=${stats.exhausted > 0 ? 'bad' : ''} note=${t('overview.lastDay')} />
    <${Figure} label=${t('overview.alerts')} value=${open < most ? number(open) : `${most}+`} href="#/alerts" tone=${open > 0 ? 'bad' : ''} note=${totals ? t('overview.failing', totals.failing) : undefined} />
  </section>`
}

function Calls({ stats, range }) {
  const all = useMemo(() => parts(stats, { ...range, end: Date.now() }), [stats])
  return html`<${Card} title=${t('call.list')} note=${t('bucket.hour')} more=${html`<a href="#/calls">${t('overview.allCalls')}</a>`}>
    ${stats.total_calls === 0 ? html`<${Empty}>${t('stats.noCalls')}</${Empty}>` : html`<${Chart} kind="calls" parts=${all} />`}</${Card}>`
}

function Attention({ page }) {
  const names = useNames()
  const count = page.items.filter((one) => !one.acknowledged_at).length
  return html`<${Card} class="card aside" title=${t('overview.attention')} flush note=${count > 0 && html`<${Badge} tone="bad">${count < most ? count : `${most}+`}</${Badge}>`} more=${html`<a href="#/alerts">${t('overview.allAlerts')}</a>`}>
    ${page.items.length === 0 ? html`<${Empty}>${t('overview.calm')}</${Empty}>` : page.items.slice(0, 4).map((alert) => html`<${AlertRow} key=${alert.alert_id} alert=${alert} names=${names} />`)}</${Card}>`
}

const Urgent = ({ page }) => html`<${Card} title=${t('overview.urgent')} flush more=${html`<a href="#/webhooks">${t('overview.allWebhooks', page.totals.webhooks)}</a>`}>
  ${page.items.length === 0 ? html`<${Empty}>${t('webhook.empty')}</${Empty}>` : html`<${Table} caption=${t('overview.urgent')} columns=${healthColumns()} rows=${page.items} id=${(w) => w.id} />`}</${Card}>`
