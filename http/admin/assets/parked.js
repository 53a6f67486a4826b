// Events that the clinic's own services emitted and that could not be accepted.
import { api, part } from './api.js'
import { confirm, say } from './dialogs.js'
import { button, foreign, h, hidden } from './dom.js'
import { describe } from './forms.js'
import { text, when } from './format.js'
import { listing } from './lists.js'
import { t } from './texts.js'

export const parked = async ({ signal }) => h('div', {},
  h('p', {}, h('a', { href: '#/events' }, t('event.back'))), h('h1', {}, t('parked.list')), h('p', { class: 'hint' }, t('parked.note')),
  await listing({
    path: '/webhooks/events/parked', parameters: { limit: 50 }, signal, caption: t('parked.list'), empty: t('parked.empty'), columns: [
      { label: t('parked.at'), cell: (e) => when(e.parked_at) },
      { label: t('event.type'), cell: (e) => h('code', {}, e.event_type) },
      { label: t('event.reason'), cell: (e) => text(e.reason) },
      { label: t('event.correlation'), cell: (e) => text(e.correlation_id) },
      { label: t('parked.by'), cell: (e) => text(e.emitted_by) },
      { label: t('event.data'), cell: (e) => e.redacted ? hidden() : foreign(JSON.stringify(e.event_data, null, 2), t('event.data')) },
      { label: t('event.actions'), cell: actions },
    ],
  }))

function actions(event) {
  const settle = (what, done) => async () => {
    try {
      if (what === 'discard' && !await confirm(t('parked.discardAsk'), t('parked.discardNote'), t('parked.discard'))) return
      await api.post(`/webhooks/events/parked/${part(event.id)}/${what}`)
      say(done)
      window.dispatchEvent(new Event('hashchange'))
    } catch (error) {
      say(describe(error))
    }
  }
  return h('div', { class: 'actions' }, button(t('action.retry'), settle('retry', t('parked.retried'))),
    button(t('parked.discard'), settle('discard', t('parked.discarded')), { class: 'danger' }))
}
