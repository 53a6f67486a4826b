// What can be done with a delivery in a list.
import { api, part } from './api.js'
import { confirm, say } from './dialogs.js'
import { button, h } from './dom.js'
import { describe } from './forms.js'
import { t } from './texts.js'

export function deliveryActions(delivery) {
  const path = `/webhooks/deliveries/${part(delivery.delivery_id)}`
  const change = (what, done) => async () => {
    try {
      if (what === 'cancel' && !await confirm(t('event.cancelAsk'), t('event.cancelNote'), t('action.cancelDelivery'))) return
      await api.post(`${path}/${what}`)
      say(done)
      window.dispatchEvent(new Event('hashchange'))
    } catch (error) {
      say(describe(error))
    }
  }
  return h('div', { class: 'actions' }, button(t('action.retry'), change('retry', t('event.retried'))),
    ['pending', 'failed'].includes(delivery.state) && button(t('action.cancelDelivery'), change('cancel', t('event.cancelled')), { class: 'danger' }))
}
