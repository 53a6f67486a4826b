// Whose data a webhook was sent.
import { part } from './api.js'
import { List } from './list.js'
import { known, t } from './texts.js'
import { Badge, Card, Time } from './ui.js'
import { html } from './view.js'

export const Disclosures = ({ webhook }) => html`<${Card} flush><${List} path=${`/webhooks/${part(webhook.id)}/disclosures`} id=${(d) => `${d.event_id} ${d.kind} ${d.url}`} caption=${t('tab.disclosures')} empty=${t('disclosure.none')} columns=${[
  { label: t('disclosure.last'), cell: (d) => html`<a href=${`#/events/${part(d.event_id)}`}><${Time} at=${d.last_call_at} style="short" /></a>` },
  { label: t('disclosure.subject'), cut: true, cell: (d) => [d.subject ?? d.subjects].flat().filter(Boolean).join(', ') || '—' },
  { label: t('call.event'), cell: (d) => html`<span class="mono">${d.event_type}</span>` },
  { label: t('webhook.recipient'), opt: true, cell: (d) => d.recipient?.name ?? '—' },
  { label: t('disclosure.kind'), opt: true, cell: (d) => known(`sent.${d.kind}`) ?? d.kind },
  { label: t('webhook.fields'), opt: true, cell: (d) => (d.fields ? d.fields.join(', ') : t('webhook.allFields')) },
  { label: t('disclosure.got'), cell: (d) => html`<${Badge} tone=${d.acknowledged === true ? 'good' : d.acknowledged === false ? 'bad' : 'none'}>${t(`disclosure.${d.acknowledged}`)}</${Badge}>` },
]} /></${Card}>`
