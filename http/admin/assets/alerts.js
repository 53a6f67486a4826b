// What needs somebody's attention.
import { part } from './api.js'
import { h } from './dom.js'
import { choice } from './forms.js'
import { badge, shortID, text, when } from './format.js'
import { filters, listing } from './lists.js'
import { known, t } from './texts.js'

export async function alerts({ parameters, signal }) {
  const state = parameters.get('state') ?? 'open'
  const chosen = new URLSearchParams({ state })
  const states = choice([['open', t('state.open')], ['resolved', t('state.resolved')], ['all', t('app.all')]])
  return h('div', {}, h('h1', {}, t('alert.list')),
    filters('alerts', chosen, [['state', t('filter.state'), states]]),
    await listing({
      path: '/webhooks/alerts', parameters: { state, limit: 50 }, signal, caption: t('alert.list'), empty: t('alert.empty'), columns: [
        { label: t('alert.kind'), cell: (a) => known(`alert.${kindOf(a)}`) ?? text(kindOf(a)) },
        { label: t('event.webhook'), cell: (a) => h('a', { href: `#/webhooks/${part(a.webhook_id)}` }, a.webhook_name || shortID(a.webhook_id)) },
        { label: t('event.state'), cell: (a) => badge(a.state) },
        { label: t('alert.raised'), cell: (a) => when(a.raised_at) },
        { label: t('alert.resolved'), cell: (a) => when(a.resolved_at) },
        { label: t('alert.details'), cell: (a) => text(a.detail ?? a.message) },
      ],
    }))
}

const kindOf = (alert) => alert.kind ?? alert.type
