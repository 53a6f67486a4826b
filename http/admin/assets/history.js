// Who changed a webhook, when, and how.
import { exact, part } from './api.js'
import { actorName } from './audit-words.js'
import { Names } from './event-types.js'
import { List } from './list.js'
import { known, number, t } from './texts.js'
import './texts/form.js'
import { Card, Time, Word } from './ui.js'
import { html } from './view.js'

export const History = ({ webhook }) => html`<${Card} flush><${List} path=${`/webhooks/${part(webhook.id)}/history`} id=${(c) => c.version} caption=${t('history.list')} onPage=${keepExact} fresh=${{ kinds: ['webhook'], webhook: webhook.id }} columns=${[
  { label: t('webhook.version'), number: true, cell: (c) => number(c.version) },
  { label: t('history.who'), cell: (c) => html`<${Time} at=${c.at} style="short" /><span class="sub" title=${c.actor}>${actorName(c.actor)}</span>` },
  { label: t('history.what'), cell: (c) => html`<${Word} name=${c.type} words=${known(`entry.${c.type}`)} />${c.reason && html`<span class="sub">${known(`alert.${c.reason}`) ?? c.reason}</span>`}
    ${(c.changes ?? []).filter((one) => given(one.was) || given(one.became)).map((one) => html`<div key=${one.field} class="hint url"><${Word} name=${one.field} words=${known(`changed.${one.field}`)} />: ${given(one.was) && html`${value(one, 'was')} → `}${value(one, 'became')}</div>`)}` },
]} /></${Card}>`

// lastName is a webhook's name by its history, newest first.
export const lastName = ({ items }) => items.flatMap((one) => one.changes).find((change) => change.field === 'name' && change.became)?.became

export const recipientWords = (recipient) => [recipient?.name, recipient?.country, recipient?.purpose].filter(Boolean).join(' · ')
export const batchWords = (batch) => t('webhook.batchOf', batch.max_events, batch.max_wait)
export const headerLines = (headers) => Object.entries(headers ?? {}).map(([name, value]) => `${name}: ${value}`)

// keepExact keeps with changes of filters their JSON as it came, numbers of any length.
const keepExact = (page) => page.items.forEach((c, i) => c.changes.forEach((one, j) => {
  if (one.field === 'filters') one.exact = { was: exact(page, 'items', i, 'changes', j, 'was'), became: exact(page, 'items', i, 'changes', j, 'became') }
}))

// shown are the values of fields that are not shown as they are.
const seconds = (json) => `${number(json)} ${t('unit.s')}`
const shown = {
  events: (list) => html`<${Names} of=${list} />`, recipient: recipientWords, batch: batchWords, headers: (all) => headerLines(all).join(', '), fields: (list) => list.join(', '),
  order_on_failure: (json) => t(`form.order.${json}`), retry_delay: seconds, timeout: seconds, auto_deactivate_after: seconds,
}

function value(change, side) {
  const json = change[side]
  if (!given(json)) return '—'
  if (change.exact) return change.exact[side]
  if (shown[change.field]) return shown[change.field](json)
  return typeof json === 'boolean' ? t(`answer.${json}`) : typeof json === 'number' ? number(json, 2) : typeof json === 'string' ? json : JSON.stringify(json)
}

const given = (json) => json !== null && json !== undefined && json !== '' && JSON.stringify(json) !== '{}'
