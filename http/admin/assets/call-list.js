// Calls: of one webhook or of all, and the failed ones in short.
import { part } from './api.js'
import { useNames } from './alerts.js'
import { typeFilter, useTypes } from './event-types.js'
import { localTime, milliseconds } from './format.js'
import { Answer, Failure, Next, advice } from './health.js'
import { Filters, List, isAsked } from './list.js'
import { number, t } from './texts.js'
import './texts/events.js'
import './texts/webhooks.js'
import { Badge, Card, Page, Time } from './ui.js'
import { html } from './view.js'

export const callLink = (c) => `#/webhooks/${part(c.webhook_id)}/calls/${part(c.call_id)}`

const marks = (c) => ['test', 'late'].filter((mark) => c[mark]).map((mark) => html` <${Badge} tone="none">${t(`call.${mark}`)}</${Badge}>`)

// type is the event type of a call or a delivery, below something else.
export const type = (c, only = '') => html`<span class=${`sub mono ${only}`} title=${c.event_type}>${c.event_type}</span>`
const time = { get label() { return t('call.time') }, whole: true, cell: (c) => html`<a href=${callLink(c)}><${Time} at=${c.created_at} style="near" /></a>` }
const whose = (names, only) => ({ label: t('event.webhook'), cut: 'half', cell: (c) => html`${names.link(c.webhook_id)}${type(c, only)}` })
// timed is the time with the event type below, where there is no webhook that it could stand under.
const timed = (only) => ({ label: t('call.time'), cell: (c) => html`${time.cell(c)}${type(c, only)}` })
const columns = (names) => [names ? time : timed('narrow'), names && whose(names, 'narrow'),
  { label: t('call.event'), opt: true, cut: !names && 'half', cell: (c) => html`<span class="mono">${c.event_type}</span>${marks(c)}` },
  { label: t('call.response'), cell: (c) => html`<span class="nowrap"><${Answer} of=${c} /> <span class="muted wide">${milliseconds(c.duration_ms)}</span></span>` },
  { label: t('call.error'), opt: true, cut: 'half', cell: (c) => html`<span class="lines"><${Failure} of=${c} /></span>` },
  { label: t('call.attempt'), number: true, opt: true, cell: (c) => number(c.attempt) },
  { label: t('next.short'), opt: true, whole: true, cell: (c) => html`<${Next} of=${c} />` },
].filter(Boolean)

// Calls lists the calls of a webhook; without one, of all.
export function Calls({ webhook, parameters, page }) {
  const types = useTypes()
  const names = useNames()
  const value = (name) => parameters.get(name)
  const asked = { ...Object.fromEntries(parameters), from: localTime(value('from')), to: localTime(value('to')) }
  const fields = [
    { name: 'status', label: t('filter.status'), options: [['', t('app.all')], ['success', t('state.success')], ['failed', t('state.failed')]] },
    !webhook && { name: 'webhook', label: t('event.webhook'), webhook: true },
    typeFilter(types),
    { name: 'response_status', label: t('call.response'), placeholder: '404, 5xx' },
    { name: 'from', label: t('filter.from'), type: 'datetime-local' }, { name: 'to', label: t('filter.to'), type: 'datetime-local' },
  ].filter(Boolean)
  return html`<${Card} flush><${Filters} page=${page} values=${parameters} fields=${fields} />
    <${List} path=${webhook ? `/webhooks/${part(webhook.id)}/calls` : '/webhooks/calls'} parameters=${asked} id=${(c) => c.call_id} caption=${t('call.list')} empty=${t('call.empty')}
      columns=${columns(webhook ? null : names)} live=${{ kinds: ['call'], webhook: webhook?.id, wanted: (c) => isAsked(asked, c) }} /></${Card}>`
}

export const AllCalls = ({ parameters }) => html`<${Page} title=${t('call.list')}><${Calls} parameters=${parameters} page="calls" /></${Page}>`

// Failures lists the last failed calls, of a webhook or of all, with what to do.
export function Failures({ webhook, limit }) {
  const names = useNames()
  return html`<${List} path=${webhook ? `/webhooks/${part(webhook.id)}/calls` : '/webhooks/calls'} parameters=${{ status: 'failed', limit }} id=${(c) => c.call_id} keep=${limit} caption=${t('overview.failures')} empty=${t('call.noFailures')}
    columns=${[webhook ? timed() : time, !webhook && whose(names), { label: t('call.response'), cell: (c) => html`<span class="nowrap"><${Answer} of=${c} /></span>` },
      { label: t('call.why'), cut: webhook ? 'all' : 'half', opt: true, cell: (c) => html`<span title=${c.error}><${Failure} of=${c} /></span><span class="sub lines" title=${advice(c)}>${advice(c)}</span>` },
      { label: t('next.short'), opt: true, whole: true, cell: (c) => html`<${Next} of=${c} /><span class="sub">${t('call.try', c.attempt)}</span>` }].filter(Boolean)}
    live=${{ kinds: ['call'], webhook: webhook?.id, wanted: (c) => c.status === 'failed' && !c.test }} />`
}
