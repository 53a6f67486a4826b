// The list of webhooks.
import { api, part } from './api.js'
import { fill, h } from './dom.js'
import { choice, input } from './forms.js'
import { badge, percent, text, when } from './format.js'
import { filters, listing, typeOptions } from './lists.js'
import { t } from './texts.js'

export async function webhooks({ parameters, signal }) {
  const all = ['', t('app.all')]
  const types = [all, ...await typeOptions()]
  const asked = { status: parameters.get('status'), event_type: parameters.get('event_type'), q: parameters.get('q'), limit: 20 }
  const filtered = [...parameters].length > 0
  return h('div', {},
    h('div', { class: 'heading' }, h('h1', {}, t('webhook.list')), h('a', { class: 'button main', href: '#/webhooks/new' }, t('action.create'))),
    filters('webhooks', parameters, [
      ['status', t('filter.state'), choice([all, ['active', t('state.active')], ['inactive', t('state.inactive')]])],
      ['event_type', t('filter.type'), choice(types)],
      ['q', t('webhook.search'), input({ type: 'search', placeholder: t('webhook.searchHint') })],
    ]),
    await listing({
      path: '/webhooks', parameters: asked, signal, caption: t('webhook.list'), empty: t(filtered ? 'app.none' : 'webhook.empty'),
      columns: columns(signal),
    }))
}

function columns(signal) {
  const figures = new Map()
  // figure shows a number of a webhook's statistics when it has come.
  const figure = (webhook, show) => {
    const place = h('span', {}, '…')
    if (!figures.has(webhook.id)) figures.set(webhook.id, api.get(`/webhooks/${part(webhook.id)}/stats`, {}, signal))
    figures.get(webhook.id).then((stats) => fill(place, show(stats)), () => fill(place, text(null)))
    return place
  }
  return [
    { label: t('webhook.number'), cell: (w) => w.number, number: true },
    { label: t('webhook.name'), cell: (w) => h('a', { href: `#/webhooks/${part(w.id)}` }, w.name) },
    { label: t('webhook.url'), cell: (w) => h('span', { class: 'url' }, w.url) },
    { label: t('webhook.status'), cell: (w) => badge(w.status) },
    { label: t('webhook.lastCall'), cell: (w) => figure(w, (stats) => when(stats.last_call_at)) },
    { label: t('webhook.rate'), cell: (w) => figure(w, (stats) => percent(stats.success_rate)), number: true },
  ]
}
