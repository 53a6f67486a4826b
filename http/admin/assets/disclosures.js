// What was sent of patients' data: to whom, or to one webhook.
import { part } from './api.js'
import { nameOf, useTypes } from './event-types.js'
import { List } from './list.js'
import { t } from './texts.js'
import './texts/access.js'
import { Badge, Card, Time } from './ui.js'
import { html, useState } from './view.js'

export const print = () => html`<button type="button" onClick=${() => window.print()}>${t('patients.print')}</button>`

const acknowledged = { true: 'good', false: 'bad', unknown: 'warn' }

// Disclosures lists what was sent, newest first, of the path of the API.
export function Disclosures({ path, parameters, title, empty }) {
  const [since, setSince] = useState(null)
  const types = useTypes()
  return html`<${Card} flush title=${title} more=${print()}>
    ${since && html`<p class="why warn">${t('patients.since')} <${Time} at=${since} /></p>`}
    <${List} path=${path} parameters=${parameters} id=${(one) => `${one.webhook_id} ${one.event_id} ${one.kind} ${one.first_call_at}`} caption=${title} empty=${empty}
      onPage=${(page) => setSince(page.covered_from)} columns=${[
        { label: t('patients.recipient'), cut: 'half', cell: (one) => html`<a href=${`#/webhooks/${one.webhook_id}`}>${one.recipient?.name ?? one.webhook_name}</a><span class="sub">${[one.recipient?.country, one.recipient?.purpose].filter(Boolean).join(' · ') || one.url}</span><span class="sub narrow" title=${one.event_type}>${nameOf(one.event_type, types)}</span>` },
        { label: t('event.type'), cut: 'half', opt: true, cell: (one) => html`<span class="lines" title=${one.event_type}>${nameOf(one.event_type, types)}</span>` },
        { label: t('patients.kind'), opt: true, cell: (one) => html`<span class="nowrap">${t(`patients.${one.kind}`)}</span>` },
        { label: t('patients.fields'), opt: true, cell: (one) => one.fields?.join(', ') ?? html`<span class="nowrap">${t('patients.allFields')}</span>` },
        { label: t('patients.when'), cell: (one) => html`<a class="dated" href=${`#/events/${one.event_id}`}><${Time} at=${one.last_call_at} /></a>` },
        { label: t('patients.received'), cell: (one) => html`<${Badge} tone=${acknowledged[one.acknowledged]}>${t(`answer.${one.acknowledged}`)}</${Badge}>` },
      ]} /></${Card}>`
}

export const DisclosuresTo = ({ webhook }) => html`<${Disclosures} path=${`/webhooks/${part(webhook.id)}/disclosures`} title=${t('tab.disclosures')} empty=${t('disclosure.none')} />`
