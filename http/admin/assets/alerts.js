// What needs somebody's attention.
import { api, part } from './api.js'
import { say } from './dialogs.js'
import { button, fill, h } from './dom.js'
import { choice, describe } from './forms.js'
import { badge, duration, number, shortID, text, when } from './format.js'
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
        { label: t('alert.kind'), cell: (a) => known(`alert.${a.kind}`) ?? text(a.kind) },
        { label: t('event.webhook'), cell: named(signal) },
        { label: t('event.state'), cell: (a) => badge(a.state) },
        { label: t('alert.raised'), cell: (a) => when(a.raised_at) },
        { label: t('alert.resolved'), cell: (a) => when(a.resolved_at) },
        { label: t('alert.details'), cell: (a) => [details(a), ' ', calls(a)] },
        { label: t('alert.acknowledged'), cell: acknowledged },
      ],
    }))
}

// named links to an alert's webhook, by its name when that has come.
export function named(signal) {
  const names = new Map()
  return ({ webhook_id: id }) => {
    if (!id) return text(null)
    if (!names.has(id)) names.set(id, api.get(`/webhooks/${part(id)}`, {}, signal).then((webhook) => webhook.name, () => null))
    const link = h('a', { href: `#/webhooks/${part(id)}` }, shortID(id))
    names.get(id).then((name) => name && fill(link, name))
    return link
  }
}

// calls links to the failed calls of the alert's webhook.
const calls = ({ webhook_id: id }) => id && h('a', { href: `#/webhooks/${part(id)}/calls?status=failed` }, t('alert.calls'))

// acknowledged says who knows of the alert, or offers to.
function acknowledged({ alert_id: id, state, acknowledged_at: at, acknowledged_by: by }) {
  if (at) return [when(at), ' ', text(by)]
  if (state !== 'open') return text(null)
  return button(t('alert.acknowledge'), async () => {
    try {
      await api.post(`/webhooks/alerts/${part(id)}/acknowledge`)
      window.dispatchEvent(new Event('hashchange'))
    } catch (error) {
      say(describe(error))
    }
  })
}

// details are the alert's figures in the user's language, else its own words.
function details({ kind, message, details: figures }) {
  if (kind === 'node' && figures?.nodes) return text(figures.nodes.map(({ node, lacks }) => `${node}: ${known(`outcome.${lacks}`) ?? lacks}`).join('; '))
  const told = `alert.told.${kind}`
  if (kind === 'given_up' && typeof figures?.count === 'number') return t(told, number(figures.count))
  if (kind === 'log_lost') return figures.from ? t(told, figures.from, figures.to) : t(`${told}.to`, figures.to)
  if (!known(told) || typeof figures?.observed !== 'number') return text(message)
  const shown = kind === 'inactive' ? duration : (value) => number(value, 1)
  return t(told, shown(figures.observed), shown(figures.limit))
}
