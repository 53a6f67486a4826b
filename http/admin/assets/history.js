// Who changed a webhook, when, and how.
import { part } from './api.js'
import { actorName } from './audit-words.js'
import { List } from './list.js'
import { known, number, t } from './texts.js'
import { Card, Time, Word } from './ui.js'
import { html } from './view.js'

export const History = ({ webhook }) => html`<${Card} flush><${List} path=${`/webhooks/${part(webhook.id)}/history`} id=${(c) => c.version} caption=${t('history.list')} fresh=${{ kinds: ['webhook'], webhook: webhook.id }} columns=${[
  { label: t('webhook.version'), number: true, cell: (c) => number(c.version) },
  { label: t('history.who'), cell: (c) => html`<${Time} at=${c.at} style="short" /><span class="sub" title=${c.actor}>${actorName(c.actor)}</span>` },
  { label: t('history.what'), cell: (c) => html`<${Word} name=${c.type} words=${known(`entry.${c.type}`)} />${c.reason && html`<span class="sub">${known(`alert.${c.reason}`) ?? c.reason}</span>`}
    ${(c.changes ?? []).filter((one) => given(one.was) || given(one.became)).map((one) => html`<div key=${one.field} class="hint url"><${Word} name=${one.field} words=${known(`changed.${one.field}`)} />: ${given(one.was) && `${value(one.was)} → `}${value(one.became)}</div>`)}` },
]} /></${Card}>`

const value = (json) => (json === null || json === undefined ? '—' : typeof json === 'boolean' ? t(`answer.${json}`) : typeof json === 'string' ? json : JSON.stringify(json))
const given = (json) => json !== null && json !== undefined && json !== ''
