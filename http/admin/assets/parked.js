// Events that the clinic's own services emitted and that could not be accepted: accepted after
// all, as they are or mended, or discarded.
import { api, exact, isObject, part, session, withRaw } from './api.js'
import { actorName } from './audit-words.js'
import { Area, Field, Form, refuse } from './controls.js'
import { confirm, open, say } from './dialogs.js'
import { useFresh } from './list.js'
import { erasures } from './live.js'
import { t } from './texts.js'
import './texts/access.js'
import { Act, Card, Empty, Facts, Foreign, Loaded, Page, Time, useLoad } from './ui.js'
import { html, useState } from './view.js'

export function Parked({ parameters }) {
  const list = useLoad('/webhooks/events/parked', { limit: 50, cursor: parameters.get('cursor') })
  useFresh(erasures, list.reload)
  return html`<${Page} title=${t('parked.list')} sub=${html`<a href="#/events">${t('event.list')}</a> · ${t('parked.note')}`}><${Loaded} of=${list}>${(page) => html`
    ${page.items.length === 0 && html`<${Card}><${Empty}>${t('parked.empty')}</${Empty}></${Card}>`}
    ${page.items.map((one, i) => html`<${One} key=${one.id} one=${one} data=${exact(page, 'items', i, 'event_data')} reload=${list.reload} />`)}
    ${page.next_cursor && html`<a class="button" href=${`#/events/parked?cursor=${page.next_cursor}`}>${t('app.more')}</a>`}`}</${Loaded}></${Page}>`
}

function One({ one, data, reload }) {
  const settle = async (what, key, body) => {
    await api.post(`/webhooks/events/parked/${part(one.id)}/${what}`, body, { key })
    say(t(what === 'retry' ? 'parked.retried' : 'parked.discarded'))
    await reload()
  }
  const mend = async () => {
    if (await open(({ close }) => html`<${Mend} data=${data} close=${close} send=${(key, text) => settle('retry', key, withRaw({}, { event_data: text }))} />`)) await reload()
  }
  const discard = async (key) => {
    if (await confirm(t('parked.discardAsk'), t('parked.discardNote'), t('parked.discard'))) await settle('discard', key)
  }
  return html`<${Card} title=${html`<code>${one.event_type}</code>`} note=${html`<${Time} at=${one.parked_at} />`}>
    <div class="stack"><p class="error">${one.reason}</p>
    <${Facts} pairs=${[[t('parked.by'), html`<span title=${one.emitted_by}>${actorName(one.emitted_by)}</span>`], one.correlation_id && [t('event.correlation'), one.correlation_id], one.source && [t('event.source'), one.source], [t('parked.emitted'), html`<${Time} at=${one.emitted_at} />`]]} />
    ${one.redacted ? html`<p class="muted">${t('parked.hidden')}</p>` : html`<${Foreign} label=${t('event.data')}>${data}</${Foreign}>`}
    ${session.may('admin') && html`<div class="actions"><${Act} run=${(key) => settle('retry', key)}>${t('action.retry')}</${Act}>
      ${!one.redacted && html`<button type="button" onClick=${mend}>${t('parked.mend')}</button>`}<${Act} tone="danger" run=${discard}>${t('parked.discard')}</${Act}></div>`}</div></${Card}>`
}

function Mend({ data, close, send }) {
  const [text, setText] = useState(data)
  const submit = async (key) => {
    if (!isObject(text)) refuse('event_data', t('event.notObject'))
    await send(key, text)
    close('yes')
  }
  return html`<h2 id="dialog-title">${t('parked.mend')}</h2><p>${t('parked.mendNote')}</p>
    <${Form} send=${submit} label=${t('parked.accept')} actions=${html`<button type="button" onClick=${() => close('')}>${t('action.cancel')}</button>`}>
      <${Field} name="event_data" label=${t('event.data')}>${(control) => html`<${Area} ...${control} rows="12" data-first value=${text} onInput=${(event) => setText(event.target.value)} />`}</${Field}></${Form}>`
}
