// Who changed a webhook, when, and how.
import { part } from './api.js'
import { h } from './dom.js'
import { number, text, when } from './format.js'
import { listing } from './lists.js'
import { known, t } from './texts.js'

export const history = ({ webhook, signal }) => listing({
  path: `/webhooks/${part(webhook.id)}/history`, parameters: { limit: 50 }, signal, caption: t('history.list'), empty: t('app.none'), columns: [
    { label: t('webhook.version'), cell: (c) => number(c.version), number: true },
    { label: t('call.time'), cell: (c) => when(c.at) },
    { label: t('history.who'), cell: (c) => text(c.actor) },
    { label: t('history.what'), cell: (c) => [h('code', {}, c.type), ' ', c.reason && (known(`alert.${c.reason}`) ?? c.reason)] },
    { label: t('history.was'), cell: (c) => h('ul', { class: 'changes' }, (c.changes ?? []).map((one) => h('li', {},
      h('code', {}, one.field), ': ', value(one.was), ' → ', value(one.became)))) },
  ],
})

const value = (json) => (json === null || json === undefined ? text(null) : typeof json === 'string' ? json : JSON.stringify(json))
