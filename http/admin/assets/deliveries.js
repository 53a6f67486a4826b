// Deliveries of all webhooks: what never arrived, and why.
import { named } from './alerts.js'
import { part } from './api.js'
import { h } from './dom.js'
import { deliveryActions } from './events.js'
import { choice, input } from './forms.js'
import { badge, failure, number, text, when } from './format.js'
import { filters, listing, typeOptions } from './lists.js'
import { t } from './texts.js'

export async function deliveries({ parameters, signal }) {
  const chosen = new URLSearchParams(parameters)
  if (!chosen.has('state')) chosen.set('state', 'failed')
  const all = ['', t('app.all')]
  const states = ['failed', 'pending', 'cancelled', 'delivered'].map((state) => [state, t(`state.${state}`)])
  return h('div', {}, h('h1', {}, t('nav.deliveries')),
    filters('deliveries', chosen, [
      ['state', t('filter.state'), choice(states)],
      ['webhook', t('filter.webhook'), input({})],
      ['event_type', t('filter.type'), choice([all, ...await typeOptions()])],
      ['response_status', t('filter.response'), input({ placeholder: '404, 5xx' })],
    ]),
    await listing({
      path: '/webhooks/deliveries', parameters: { ...Object.fromEntries(chosen), limit: 50 }, signal, caption: t('nav.deliveries'), empty: t('app.none'), columns: [
        { label: t('call.time'), cell: (d) => h('a', { href: `#/events/${part(d.event_id)}` }, when(d.created_at)) },
        { label: t('event.webhook'), cell: named(signal) },
        { label: t('call.event'), cell: (d) => h('code', {}, d.event_type) },
        { label: t('event.state'), cell: (d) => badge(d.state) },
        { label: t('event.attempts'), cell: attempts, number: true },
        { label: t('call.response'), cell: (d) => text(d.response_status), number: true },
        { label: t('call.next'), cell: (d) => when(d.next_attempt_at) },
        { label: t('call.error'), cell: failure },
        { label: t('event.actions'), cell: deliveryActions },
      ],
    }))
}

// attempts leads to the calls of the delivery.
const attempts = (d) => h('a', { href: `#/webhooks/${part(d.webhook_id)}/calls?delivery_id=${part(d.delivery_id)}` }, number(d.attempts))
