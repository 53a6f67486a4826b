// Deliveries of all webhooks, or of one: what never arrived, and why.
import { useNames } from './alerts.js'
import { api, part } from './api.js'
import { confirm, say } from './dialogs.js'
import { typeFilter, useTypes } from './event-types.js'
import { Answer, Failure, Next } from './health.js'
import { Filters, List } from './list.js'
import { number, t } from './texts.js'
import './texts/webhooks.js'
import { Act, Card, Copy, Page, Time } from './ui.js'
import { html } from './view.js'

// DeliveryActions retries a delivery now, or ends it; then it calls done.
export function DeliveryActions({ delivery, done }) {
  const path = `/webhooks/deliveries/${part(delivery.delivery_id)}`
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
  return html`<span class="actions">${delivery.state !== 'cancelled' && html`<${Act} tone="small" run=${retry}>${t('action.retry')}</${Act}>`}
    ${['pending', 'failed'].includes(delivery.state) && html`<${Act} tone="small danger" run=${cancel}>${t('action.cancel')}</${Act}>`}</span>`
}

const fits = (asked) => (d) => d.state === asked.state && (!asked.event_type || d.event_type === asked.event_type) && !asked.response_status && !asked.webhook

export function Deliveries({ webhook, parameters, page }) {
  const names = useNames()
  const types = useTypes()
  const asked = { state: 'failed', ...Object.fromEntries(parameters) }
  const states = ['failed', 'pending', 'cancelled', 'delivered'].map((state) => [state, t(`state.${state}`)])
  const fields = [{ name: 'state', label: t('event.state'), options: states }, !webhook && { name: 'webhook', label: t('filter.webhook') },
    typeFilter(types), { name: 'response_status', label: t('call.response'), placeholder: '404, 5xx' }].filter(Boolean)
  const columns = [
    { label: t('call.time'), cell: (d) => html`<a href=${`#/events/${part(d.event_id)}`}><${Time} at=${d.created_at} style="near" /></a><span class="sub mono narrow">${d.event_type}</span>` },
    !webhook && { label: t('event.webhook'), cut: 'half', cell: (d) => names.link(d.webhook_id) },
    { label: t('call.event'), cut: webhook && 'half', opt: true, cell: (d) => html`<span class="mono">${d.event_type}</span>` },
    { label: t('call.response'), cut: 'half', cell: (d) => (d.response_status ? html`<${Answer} of=${d} />` : html`<${Failure} of=${d} />`) },
    { label: t('event.attempts'), number: true, opt: true, cell: (d) => html`<a href=${`#/webhooks/${part(d.webhook_id)}/calls?delivery_id=${part(d.delivery_id)}`}>${number(d.attempts)}</a>` },
    { label: t('next.short'), opt: true, whole: true, cell: (d) => html`<${Next} of=${d} />${d.waiting_behind && html`<span class="sub">${t('delivery.behind')} <${Copy} value=${d.waiting_behind} /></span>`}` },
    { label: t('event.actions'), opt: true, whole: true, cell: (d) => html`<${DeliveryActions} delivery=${d} />` },
  ].filter(Boolean)
  return html`<${Card} flush><${Filters} page=${page} values=${new URLSearchParams(asked)} fields=${fields} />
    <${List} path="/webhooks/deliveries" parameters=${webhook ? { ...asked, webhook: webhook.id } : asked} id=${(d) => d.delivery_id} caption=${t('nav.deliveries')} empty=${t(`none.${asked.state}`)}
      columns=${columns} live=${{ kinds: ['delivery'], webhook: webhook?.id, wanted: fits(asked) }} /></${Card}>`
}

export const AllDeliveries = ({ parameters }) => html`<${Page} title=${t('nav.deliveries')}><${Deliveries} parameters=${parameters} page="deliveries" /></${Page}>`
