// A webhook's health: what is wrong in words, charts, the last failures and what to do.
import { AlertRow, useNames } from './alerts.js'
import { part } from './api.js'
import { Failures, callLink } from './call-list.js'
import { Chart, Numbers, asked, parts } from './charts.js'
import { nameOf, useTypes } from './event-types.js'
import { milliseconds, percent } from './format.js'
import { advice, healthOf, why } from './health.js'
import { Table, useFresh } from './list.js'
import { Ranges, useRange } from './ranges.js'
import { to } from './router.js'
import { known, number, t } from './texts.js'
import './texts/webhook.js'
import { Badge, Card, Empty, Facts, Figure, Loaded, Time, Word, useLoad } from './ui.js'
import { html, useMemo } from './view.js'
import { settingsOf } from './webhook.js'

export function WebhookHealth({ webhook, parameters }) {
  const path = `/webhooks/${part(webhook.id)}`
  const edit = to(`#${path}/edit`)
  const range = useRange(parameters)
  const stats = useLoad(`${path}/stats`, asked(range), { every: 60000 })
  const types = useTypes()
  const open = useLoad('/webhooks/alerts', { state: 'open', webhook: webhook.id })
  useFresh({ kinds: ['call', 'webhook', 'delivery'], webhook: webhook.id }, stats.reload)
  useFresh({ kinds: ['alert'], webhook: webhook.id }, open.reload)
  return html`<${Loaded} of=${stats}>${(figures) => html`
    <section class="card"><${Why} webhook=${webhook} stats=${figures} />
      <${Ranges} page=${path.slice(1)} range=${range} />
      <${Charts} stats=${figures} range=${range} /></section>
    <${Figures} webhook=${webhook} stats=${figures} />
    <div class="two"><${Card} title=${t('overview.failures')} flush more=${html`<a href=${`#${path}/calls`}>${t('overview.allCalls')}</a>`}><${Failures} webhook=${webhook} limit=${5} /></${Card}>
      <div class="stack"><${Alerts} alerts=${open.data?.items ?? []} stats=${figures} />
        <${Card} title=${t('webhook.short')} more=${edit && html`<a href=${edit}>${t('action.edit')}</a>`}><${Facts} pairs=${settingsOf(webhook, true)} /></${Card}></div></div>
    <div class="two"><${Breakdown} title=${t('stats.byType')} label=${t('event.type')} name=${(one) => nameOf(one, types)} values=${figures.by_event_type} link=${(one) => `#${path}/calls?event_type=${part(one)}`} />
      <${Breakdown} title=${t('stats.byStatus')} label=${t('call.response')} name=${(one) => known(`outcome.${one}`) ?? one} values=${figures.by_status} link=${(one) => /^\d+$/.test(one) && `#${path}/calls?response_status=${one}`} /></div>`}</${Loaded}>`
}

// Why says in words how the webhook does, what follows, and what to do.
export function Why({ webhook, stats }) {
  const [tone] = healthOf({ ...stats, success_rate: null, status: webhook.status })
  const failed = useLoad(`/webhooks/${part(webhook.id)}/calls`, { status: 'failed', limit: 1 })
  useFresh({ kinds: ['call'], webhook: webhook.id }, failed.reload)
  const last = failed.data?.items[0]
  const waits = stats.pending_deliveries > 0 && html` ${t('why.waits', stats.pending_deliveries)}`
  if (webhook.status === 'inactive') return html`<div class="why warn"><b>${t('why.off')}</b>${waits}</div>`
  if (tone !== 'bad' && tone !== 'warn') return null
  return html`<div class=${`why ${tone}`}><b>${t('why.row', stats.consecutive_failures)}${stats.failing_since && html` ${t('why.since')} <${Time} at=${stats.failing_since} style="near" />`}.</b>${last && ` ${why(last)}.`}
    ${stats.last_success_at ? html` ${t('stats.lastSuccess')} <${Time} at=${stats.last_success_at} style="ago" />.` : ` ${t('why.never')}`}${waits}
    ${last && html` <span>${advice(last)}</span> <a href=${callLink({ ...last, webhook_id: webhook.id })}>${t('why.lastCall')}</a>`}</div>`
}

function Charts({ stats, range }) {
  const all = useMemo(() => parts(stats, range.to ? range : { ...range, end: Date.now() }), [stats, range])
  if (stats.total_calls === 0) return html`<${Empty}>${t('stats.noCalls')}</${Empty}>`
  const coarse = range.bucket === 'minute' && stats.series_bucket === 'hour'
  return html`<div class="body"><h2 class="part">${t('call.list')} <span class="muted">${t(`bucket.${stats.series_bucket}`)}</span></h2><${Chart} kind="calls" parts=${all} />
    <h2 class="part">${t('chart.latencyTitle')}</h2><${Chart} kind="latency" parts=${all} height=${150} />
    ${coarse && html`<p class="hint">${t('range.hours')}</p>`}<${Numbers} parts=${all} /></div>`
}

function Figures({ webhook, stats }) {
  const path = `#/webhooks/${part(webhook.id)}`
  return html`<section class="figures" aria-label=${t('overview.figures')}>
    <${Figure} label=${t('stats.total')} value=${number(stats.total_calls)} href=${`${path}/calls`} note=${t('stats.retriesOf', stats.retries)} />
    <${Figure} label=${t('webhook.rate')} value=${percent(stats.success_rate)} href=${`${path}/calls?status=failed`} tone=${stats.failed_calls > 0 ? 'bad' : ''} note=${t('stats.failedOf', stats.failed_calls)} />
    <${Figure} label="p50 / p95 / p99" value=${milliseconds(stats.p95_ms)} href=${`${path}/calls`} note=${`${milliseconds(stats.p50_ms)} / ${milliseconds(stats.p95_ms)} / ${milliseconds(stats.p99_ms)}`} />
    <${Figure} label=${t('webhook.pending')} value=${number(stats.pending_deliveries)} href=${`${path}/deliveries?state=pending`} />
    <${Figure} label=${t('stats.exhausted')} value=${number(stats.exhausted)} href=${`${path}/deliveries?state=failed`} note=${t('stats.timeoutsOf', stats.timeouts)} />
    <${Figure} label=${t('webhook.lastCall')} value=${html`<${Time} at=${stats.last_call_at} style="near" />`} href=${`${path}/calls`} note=${html`${t('stats.lastSuccess')}: <${Time} at=${stats.last_success_at} style="ago" />`} /></section>`
}

function Alerts({ alerts, stats }) {
  const names = useNames()
  return html`<${Card} title=${t('alert.list')} flush note=${alerts.length > 0 && html`<${Badge} tone="bad">${alerts.length}</${Badge}>`} more=${html`<a href="#/alerts">${t('overview.allAlerts')}</a>`}>
    ${alerts.length === 0 ? html`<${Empty}>${t('alert.empty')}</${Empty}>` : alerts.map((one) => html`<${AlertRow} key=${one.alert_id} alert=${{ ...one, webhook_id: null }} names=${names} standing=${stats} />`)}</${Card}>`
}

function Breakdown({ title, label, name, values, link }) {
  const rows = Object.entries(values ?? {}).sort(([, a], [, b]) => b - a)
  return rows.length > 0 && html`<${Card} title=${title} flush><${Table} caption=${title} rows=${rows} id=${([one]) => one} columns=${[
    { label, cut: true, cell: ([one]) => (link(one) ? html`<a href=${link(one)} title=${one}>${name(one)}</a>` : html`<${Word} name=${one} words=${name(one)} />`) },
    { label: t('stats.total'), number: true, cell: ([, count]) => number(count) }]} /></${Card}>`
}
