// Deliveries of all webhooks, or of one: what never arrived, and why.
import { useNames } from './alerts.js'
import { api, part, session } from './api.js'
import { type } from './call-list.js'
import { confirm, say } from './dialogs.js'
import { typeFilter, useTypes } from './event-types.js'
import { duration, localTime } from './format.js'
import { Answer, Failure, Next, advice } from './health.js'
import { Filters, List, isAsked } from './list.js'
import { to } from './router.js'
import { number, t } from './texts.js'
import './texts/webhooks.js'
import { Act, Card, Copy, Page, Time } from './ui.js'
import { html } from './view.js'

// DeliveryActions retries a delivery now, unless its data is gone, or ends it; then it calls done.
export function DeliveryActions({ delivery, done }) {
  const path = `/webhooks/deliveries/${part(delivery.delivery_id)}`
  if (!session.may('webhooks:write')) return null
  const retry = async (key) => {
    await api.post(`${path}/retry`, undefined, { key })
    say(t('event.retried'))
    done?.()
  }
  const cancel = async (key) => {
    if (!await confirm(t('event.cancelAsk'), t('event.cancelNote'), t('action.cancelDelivery'))) return
    await api.post(`${path}/cancel`, undefined, { key })
    say(t('event.cancelled'))
    done?.()
  }
  return html`<span class="actions">${delivery.state !== 'cancelled' && !delivery.gone && html`<${Act} tone="small" run=${retry}>${t('action.retry')}</${Act}>`}
    ${['pending', 'failed'].includes(delivery.state) && html`<${Act} tone="small danger" run=${cancel}>${t('delivery.cancel')}</${Act}>`}</span>`
}

// Then says what follows, and since when it waits or has ended.
const Then = ({ of }) => html`<${Next} of=${of} />${of.state === 'pending'
  ? html`<span class="sub">${t('delivery.waits', duration((Date.now() - Date.parse(of.created_at)) / 1000))}</span>`
  : of.state !== 'delivered' && html`<span class="sub">${t('delivery.since')} <${Time} at=${of.updated_at} style="near" /></span>`}
  ${of.waiting_behind && html`<span class="sub">${t('delivery.behind')} <${Copy} value=${of.waiting_behind} /></span>`}`

// Deliveries lists those of a webhook, under what is said of it first; without one, of all.
export function Deliveries({ webhook, parameters, page, first }) {
  const names = useNames()
  const types = useTypes()
  const chosen = { state: 'failed', ...Object.fromEntries(parameters) }
  const asked = { ...chosen, from: localTime(chosen.from), to: localTime(chosen.to) }
  const states = ['failed', 'pending', 'cancelled', 'delivered'].map((state) => [state, t(`state.${state}`)])
  const fields = [{ name: 'state', label: t('event.state'), options: states }, !webhook && { name: 'webhook', label: t('event.webhook'), webhook: true },
    typeFilter(types), { name: 'response_status', label: t('call.response'), placeholder: '404, 5xx' },
    { name: 'attempts_min', label: t('delivery.attempts'), type: 'number', placeholder: '2' }, { name: 'from', label: t('filter.from'), type: 'datetime-local' }, { name: 'to', label: t('filter.to'), type: 'datetime-local' }].filter(Boolean)
  const columns = [
    { label: t('call.time'), cell: (d) => html`<a href=${`#/events/${part(d.event_id)}`}><${Time} at=${d.created_at} style="near" /></a>${webhook && type(d)}` },
    !webhook && { label: t('event.webhook'), cut: 'half', cell: (d) => html`${names.link(d.webhook_id)}${type(d)}` },
    { label: t('call.response'), cut: webhook ? 'all' : 'half', cell: (d) => html`${d.response_status ? html`<${Answer} of=${d} />` : html`<span class="lines"><${Failure} of=${d} /></span>`}${d.state !== 'delivered' && html`<span class="sub lines" title=${advice(d)}>${advice(d)}</span>`}` },
    { label: t('event.attempts'), number: true, opt: true, cell: (d) => html`<a href=${to(`#/webhooks/${part(d.webhook_id)}/calls?delivery_id=${part(d.delivery_id)}`)}>${number(d.attempts)}</a>` },
    { label: t('next.short'), opt: true, whole: true, cell: (d) => html`<${Then} of=${d} />` },
    session.may('webhooks:write') && { label: t('event.actions'), opt: true, whole: true, cell: (d) => html`<${DeliveryActions} delivery=${d} />` },
  ].filter(Boolean)
  return html`<${Card} flush>${first}<${Filters} page=${page} values=${new URLSearchParams(chosen)} fields=${fields} />
    <${List} path="/webhooks/deliveries" parameters=${webhook ? { ...asked, webhook: webhook.id } : asked} id=${(d) => d.delivery_id} caption=${t('nav.deliveries')} empty=${t(`none.${asked.state}`)}
      columns=${columns} live=${{ kinds: ['delivery'], webhook: webhook?.id, wanted: (d) => isAsked(asked, d), by: 'created_at' }} /></${Card}>`
}

export const AllDeliveries = ({ parameters }) => html`<${Page} title=${t('nav.deliveries')}><${Deliveries} parameters=${parameters} page="deliveries" /></${Page}>`
