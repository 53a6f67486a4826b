// Events that the clinic's own services emitted and that could not be accepted.
import { foreign, h } from './dom.js'
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
      { label: t('event.data'), cell: (e) => foreign(JSON.stringify(e.event_data, null, 2), t('event.data')) },
    ],
  }))
