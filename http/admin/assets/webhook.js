// One webhook: its health first, and the other tabs.
import { api, exact, part, session } from './api.js'
import { Calls } from './call-list.js'
import { Deliveries } from './deliveries.js'
import { confirm, reveal, say } from './dialogs.js'
import { Names } from './event-types.js'
import { Health } from './health.js'
import { History, batchWords, headerLines, lastName, recipientWords } from './history.js'
import { DisclosuresTo } from './disclosures.js'
import { JobList } from './jobs.js'
import { router, to } from './router.js'
import { TestCall } from './testcall.js'
import { number, t } from './texts.js'
import './texts/access.js'
import './texts/form.js'
import './texts/webhook.js'
import { Act, Badge, Card, Copy, Facts, Foreign, Menu, Page, Tabs, Time, Trouble, useLoad } from './ui.js'
import { html } from './view.js'
import { useFresh } from './list.js'
import { WebhookHealth, Why } from './webhook-health.js'

// What each tab shows; those of a deleted webhook are fewer.
const tabs = {
  health: WebhookHealth, calls: (p) => html`<${Calls} ...${p} page=${`webhooks/${part(p.webhook.id)}/calls`} />`,
  deliveries: (p) => html`<${Deliveries} ...${p} page=${`webhooks/${part(p.webhook.id)}/deliveries`} first=${p.stats && html`<${Why} webhook=${p.webhook} stats=${p.stats} />`} />`,
  settings: Settings, test: (p) => html`<${Card} title=${t('testcall.title')} note=${t('testcall.note')}><${TestCall} webhook=${p.webhook} /></${Card}>`,
  replay: Replays, disclosures: DisclosuresTo, history: History,
}
const remaining = ['calls', 'deliveries', 'disclosures', 'history']
const reads = ['webhooks:read', 'audit:read']

// tabScopes are the rights of which one opens the tab.
export const tabScopes = (tab) => ({ test: ['webhooks:read webhooks:write'], disclosures: ['audit:read'], deliveries: reads, history: reads }[tab] ?? ['webhooks:read'])

export function Webhook({ id, tab, parameters }) {
  const found = useWebhook(id)
  const there = found.data && !found.data.past ? found.data.id : undefined
  const stats = useLoad(`/webhooks/${part(there ?? id)}/stats`, {}, { skip: !there })
  useFresh(found.data && { kinds: ['webhook'], webhook: found.data.id }, found.reload, 300)
  useFresh(there && { kinds: ['call', 'webhook', 'delivery'], webhook: there }, stats.reload)
  if (found.error && !found.data) return html`<h1>${t('event.webhook')}</h1><${Trouble} error=${found.error} retry=${found.reload} />`
  const webhook = found.data
  if (!webhook) return html`<p class="empty" aria-busy="true">${t('app.loading')}</p>`
  const shown = (webhook.past ? remaining : Object.keys(tabs)).filter((name) => session.may(...tabScopes(name)))
  const current = tab ?? (webhook.past ? 'history' : 'health')
  const Content = shown.includes(current) ? tabs[current] : () => html`<p class="empty">${t('app.notFound')}</p>`
  const at = (name) => `#/webhooks/${part(webhook.id)}${name === 'health' ? '' : `/${name}`}`
  const badge = webhook.deleted ? html`<${Badge} state="deleted" />` : !webhook.past && html`<${Standing} webhook=${webhook} stats=${stats.data} />`
  return html`<${Page} title=${webhook.name} badge=${badge} sub=${webhook.deleted ? t('webhook.deletedNote') : html`<span class="mono">${webhook.url}</span>`} actions=${!webhook.past && html`<${Actions} webhook=${webhook} reload=${found.reload} />`}>
    <${Tabs} label=${t('nav.webhooks')} current=${current} items=${shown.map((name) => ({ name, href: at(name), label: t(`tab.${name}`), badge: name === 'deliveries' && stats.data && html`<${Undelivered} stats=${stats.data} />` }))} />
    <${Content} key=${current} webhook=${webhook} parameters=${parameters} stats=${stats.data} /></${Page}>`
}

// useWebhook reads the webhook; of a deleted one, and for who may only audit, what its history has.
function useWebhook(id) {
  const audits = !session.may('webhooks:read')
  const found = useLoad(`/webhooks/${part(id)}`, {}, { skip: audits })
  const gone = audits || found.error?.status === 404
  const past = useLoad(`/webhooks/${part(id)}/history`, { limit: 1000 }, { skip: !gone })
  if (!gone) return found
  return { ...past, data: past.data && { id, name: lastName(past.data) ?? id, past: true, deleted: !audits } }
}

// Standing is the webhook's health as a badge.
const Standing = ({ webhook, stats }) => (stats ? html`<${Health} whole webhook=${{ ...stats, success_rate: null, status: webhook.status }} />` : html`<${Badge} state=${webhook.status} />`)

// Undelivered counts the deliveries that have failed, and those that wait.
const Undelivered = ({ stats }) => [['deliveries', stats.exhausted, 'bad'], ['waiting', stats.pending_deliveries, 'warn']].map(([what, count, tone]) => count > 0 &&
  html`<span key=${what} class=${`count ${tone}`} title=${t(`app.${what}`, count)} aria-label=${t(`app.${what}`, count)}>${number(count)}</span>`)

function Actions({ webhook, reload }) {
  const path = `/webhooks/${part(webhook.id)}`
  const turn = webhook.is_active ? 'deactivate' : 'activate'
  const failed = (error) => say(error.message || t('error.title'))
  const toggle = async (key) => {
    await api.post(`${path}/${turn}`, undefined, { key })
    say(t(`webhook.${turn}d`))
    await reload()
  }
  const retry = async (key) => {
    const asked = { state: 'failed', webhook: webhook.id }
    const { matched } = await api.post('/webhooks/deliveries/retry', { ...asked, dry_run: true })
    if (matched === 0) return say(t('webhook.nothingFailed'))
    if (!await confirm(t('webhook.retryAsk', matched), t('webhook.retryNote'), t('webhook.retry'))) return
    const { replay_id: job } = await api.post('/webhooks/deliveries/retry', asked, { key })
    router.go(`#/jobs/${part(job)}`)
  }
  const rotate = async (key) => {
    if (!await confirm(t('webhook.rotateAsk'), t('webhook.rotateNote'), t('action.rotate'))) return
    const rotated = await api.post(`${path}/rotate-secret`, {}, { key })
    await reload()
    reveal(t('webhook.rotated'), t('webhook.rotatedNote'), rotated.secret)
  }
  const remove = async (key) => {
    if (!await confirm(t('webhook.deleteAsk', webhook.name), t('webhook.deleteNote'), t('action.delete'))) return
    await api.delete(path, { key })
    say(t('webhook.deleted'))
    router.go('#/webhooks')
  }
  const again = (tone) => session.may('replays:write') && html`<${Act} run=${retry} failed=${failed} tone=${tone}>${t('webhook.retry')}</${Act}>`
  const turned = html`<${Act} run=${toggle} failed=${failed} tone=${webhook.is_active ? 'danger' : 'primary'}>${t(`action.${turn}`)}</${Act}>`
  const writes = session.may('webhooks:write')
  const edit = to(`#${path}/edit`)
  return html`${again('wide')}${writes && !webhook.is_active && turned}${edit && html`<a class="button" href=${edit}>${t('action.edit')}</a>`}<${Menu} label=${t('app.moreMenu')}>${again('narrow')}
    <a class="button" href=${`#${path}/backtest`}>${t('backtest.title')}</a>${writes && html`<${Act} run=${rotate} failed=${failed}>${t('action.rotate')}</${Act}>
    ${webhook.is_active && turned}<${Act} run=${remove} failed=${failed} tone="danger">${t('action.delete')}</${Act}>`}</${Menu}>`
}

const codes = (list) => html`<span class="chips">${list.map((one) => html`<code key=${one}>${one}</code>`)}</span>`

// Filter shows a filter: a short one on a line.
function Filter({ json }) {
  const line = json.replace(/\n */g, ' ')
  return line.length < 60 ? html`<code>${line}</code>` : html`<${Foreign} label=${t('field.filters')}>${json}</${Foreign}>`
}
const isEmpty = (filters) => !filters || Object.keys(filters).length === 0

// settingsOf are the settings of a webhook, in words; in short: those that were set.
export function settingsOf(webhook, short) {
  const { batch, recipient, auth } = webhook
  const headers = headerLines(webhook.headers)
  const all = [
    [t('field.description'), webhook.description],
    [t('field.events'), html`<${Names} of=${webhook.events} />`],
    [t('field.filters'), isEmpty(webhook.filters) ? t('webhook.noFilters') : html`<${Filter} json=${exact(webhook, 'filters')} />`],
    [t('webhook.orderBy'), webhook.order_by ? html`<code>${webhook.order_by}</code> · ${t(webhook.order_on_failure === 'block' ? 'form.order.block' : 'webhook.orderSkip')}` : !short && t('webhook.noOrder')],
    [t('field.rate_limit'), webhook.rate_limit ? number(webhook.rate_limit, 2) : !short && t('webhook.noLimit')],
    [t('field.max_concurrent'), webhook.max_concurrent ?? (!short && t('webhook.noLimit'))],
    [t('field.batch'), batch ? batchWords(batch) : !short && t('webhook.noBatch')],
    [t('field.secret'), html`${webhook.public_key ? html`<${Copy} value=${webhook.public_key} />` : t(webhook.has_secret ? 'webhook.signed' : 'webhook.unsigned')}
      ${webhook.previous_secret_until && html`<span class="sub">${t('webhook.previous')} <${Time} at=${webhook.previous_secret_until} style="short" /></span>`}`],
    [t('webhook.retries'), t(webhook.max_retries === 0 ? 'webhook.noRetries' : 'webhook.retriesOf', webhook.max_retries, webhook.retry_delay, webhook.timeout)],
    [t('field.recipient.name'), recipientWords(recipient)],
    [t('field.fields'), webhook.fields ? codes(webhook.fields) : !short && t('app.all')],
    [t('field.auth.type'), auth && [t(`form.auth.${auth.type}`), auth.token_url].filter(Boolean).join(' · ')],
    [t('field.headers'), headers.length > 0 && codes(headers)],
    !short && [t('field.auto_deactivate_after'), webhook.auto_deactivate_after && number(webhook.auto_deactivate_after)],
    !short && [t('webhook.sequence'), t(`answer.${webhook.sequence}`)],
    !short && [t('field.payload_version'), webhook.payload_version],
    !short && [t('webhook.created'), html`<${Time} at=${webhook.created_at} />`], !short && [t('webhook.updated'), html`<${Time} at=${webhook.updated_at} />`],
    !short && [t('webhook.version'), webhook.version], !short && [t('webhook.id'), html`<${Copy} value=${webhook.id} whole />`],
  ]
  return all.filter((one) => one && (one[1] || !short)).map(([name, value]) => [name, value || '—'])
}

function Settings({ webhook }) {
  const edit = to(`#/webhooks/${part(webhook.id)}/edit`)
  return html`<${Card} title=${t('tab.settings')} more=${edit && html`<a href=${edit}>${t('action.edit')}</a>`}><${Facts} pairs=${settingsOf(webhook)} /></${Card}>`
}

// Replays are the jobs of a webhook.
function Replays({ webhook }) {
  return html`<${Card} title=${t('webhook.jobs')} flush more=${session.may('replays:write') && html`<a href=${`#/jobs/new?webhook=${part(webhook.id)}`}>${t('job.new')}</a>`}>
    <${JobList} webhook=${webhook.id} /></${Card}>`
}
