// The fields of a webhook's form, a card for each part. Each gets { draft, set, webhook,
// types }: what is typed, what changes it, the webhook as it was read, the catalogue.
import { Area, Check, Field, Select, Text } from './controls.js'
import { describeType, groupName, nameOf } from './event-types.js'
import { copyText } from './dialogs.js'
import { t } from './texts.js'
import { Card } from './ui.js'
import { html, useState } from './view.js'
import { FilterEditor } from './workbench.js'
import { authFields } from './webhook-draft.js'

// Named is a Field with the label and help of that name; hint replaces the help.
const Named = ({ name, hint, children }) => html`<${Field} name=${name} label=${t(`field.${name}`)} hint=${hint ?? t(`hint.${name}`)}>${children}</${Field}>`

// Line is a field of one line; of is the draft's part that holds it.
function Line({ name, draft, set, type, ...rest }) {
  const [outer, inner] = name.split('.')
  const value = inner ? draft[outer][inner] : draft[outer]
  const change = (text) => set(inner ? { [outer]: { ...draft[outer], [inner]: text } } : { [outer]: text })
  return html`<${Named} name=${name}>${(control) => html`<${Text} ...${control} type=${type} ...${rest} value=${value} onInput=${(event) => change(event.target.value)} />`}</${Named}>`
}

const Figure = (p) => html`<${Line} ...${p} inputmode="decimal" />`

// Tick is a box with its help.
const Tick = ({ name, draft, set }) => html`<div class="field"><${Check} label=${t(`field.${name}`)} data-field=${name} checked=${draft[name]} onChange=${(event) => set({ [name]: event.target.checked })} />
  <p class="hint">${t(`hint.${name}`)}</p></div>`

export function Where(p) {
  const { draft, set } = p
  return html`<${Card} title=${t('form.where')}><${Line} ...${p} name="name" maxlength="200" /><${Line} ...${p} name="url" type="url" inputmode="url" spellcheck="false" />
    <${Named} name="description">${(control) => html`<${Area} ...${control} rows="2" spellcheck="true" value=${draft.description} onInput=${(event) => set({ description: event.target.value })} />`}</${Named}>
    <${Events} ...${p} /><${Named} name="filters">${(control) => html`<${FilterEditor} control=${control} draft=${draft} set=${set} />`}</${Named}><${Secret} ...${p} /></${Card}>`
}

function Events({ draft, set, types }) {
  const [open] = useState(draft.events.length === 0) // at first; a choice leaves it as it is
  const groups = [...Map.groupBy(types, (type) => type.group)]
  const box = (value, label) => html`<${Check} key=${value} label=${label} checked=${draft.events.includes(value)}
    onChange=${(event) => set({ events: event.target.checked ? [...draft.events, value] : draft.events.filter((one) => one !== value) })} />`
  const drop = (value) => set({ events: draft.events.filter((one) => one !== value) })
  return html`<${Named} name="events">${(control) => html`<div class="chips">${draft.events.map((one) => html`<button type="button" class="chip" key=${one} aria-pressed="true" title=${one}
      aria-label=${t('form.remove', nameOf(one, types))} onClick=${() => drop(one)}>${nameOf(one, types)} <span aria-hidden="true">×</span></button>`)}</div>
    <details class="picker" open=${open}><summary ...${control}>${t('form.add')}</summary>${box('*', html`<b>${t('group.all')}</b> <code>*</code>`)}
      ${groups.map(([group, list]) => html`<fieldset key=${group}><legend>${groupName(group)}</legend>
        ${box(`${group}.*`, html`${t('group.whole')} <code>${group}.*</code>`)}${list.map((type) => box(type.type, html`${describeType(type)} <code>${type.type}</code>`))}</fieldset>`)}</details>`}</${Named}>`
}

const base64 = (bytes) => btoa(String.fromCharCode(...bytes))
const symmetric = () => `whsec_${base64(crypto.getRandomValues(new Uint8Array(32)))}`

// signing makes a whsk_ secret: the seed of an ed25519 key and its public key.
async function signing() {
  const { privateKey, publicKey } = await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])
  const seed = new Uint8Array(await crypto.subtle.exportKey('pkcs8', privateKey)).slice(-32)
  return `whsk_${base64([...seed, ...new Uint8Array(await crypto.subtle.exportKey('raw', publicKey))])}`
}

function Secret({ draft, set, webhook }) {
  const [copied, setCopied] = useState(false)
  const put = (secret) => {
    setCopied(false)
    set({ secret, dropSecret: false })
  }
  const copy = async () => setCopied(await copyText(draft.secret))
  const hint = [webhook?.has_secret && t('hint.secretKept'), draft.secret ? t('form.secretNote') : !webhook?.has_secret && t('hint.secret')].filter(Boolean).join(' ')
  return html`<${Named} name="secret" hint=${hint}>${(control) => html`<div class="row">
    <${Text} ...${control} class="mono" type="password" autocomplete="new-password" spellcheck="false" value=${draft.secret} onInput=${(event) => put(event.target.value)} />
    <button type="button" onClick=${() => put(symmetric())}>${t('form.generate')}</button>
    ${crypto.subtle && html`<button type="button" onClick=${async () => put(await signing())}>${t('form.generateKey')}</button>`}
    ${draft.secret && html`<button type="button" onClick=${copy}>${t(copied ? 'app.copied' : 'action.copy')}</button>`}</div>`}</${Named}>
    ${webhook?.has_secret && draft.secret === '' && html`<div class="field"><${Check} label=${t('form.dropSecret')} checked=${draft.dropSecret} onChange=${(event) => set({ dropSecret: event.target.checked })} /></div>`}`
}

const paces = ['max_retries', 'retry_delay', 'timeout', 'max_concurrent', 'rate_limit', 'auto_deactivate_after']

export const Retries = ({ names = paces, ...p }) => html`<${Card} title=${t('form.retries')}><div class="columns">${names.map((name) => html`<${Figure} key=${name} ...${p} name=${name} />`)}</div></${Card}>`

export function Content(p) {
  const { draft, set } = p
  const batch = (more) => set({ batch: { ...draft.batch, ...more } })
  return html`<${Card} title=${t('form.content')}>
    <${Named} name="payload_version">${(control) => html`<${Select} ...${control} value=${draft.payload_version} options=${[['1', '1'], ['2', '2'], ['cloudevents', 'CloudEvents 1.0']]} onChange=${(event) => set({ payload_version: event.target.value })} />`}</${Named}>
    <${Named} name="fields">${(control) => html`<${Area} ...${control} rows="3" value=${draft.fields} onInput=${(event) => set({ fields: event.target.value })} />`}</${Named}>
    <div class="field"><${Check} label=${t('form.batchOn')} data-field="batch" checked=${draft.batch.on} onChange=${(event) => batch({ on: event.target.checked })} /><p class="hint">${t('hint.batch')}</p></div>
    ${draft.batch.on && html`<div class="columns"><${Figure} ...${p} name="batch.max_events" /><${Figure} ...${p} name="batch.max_wait" /></div>`}
    <${Headers} draft=${draft} set=${set} /></${Card}>`
}

function Headers({ draft, set }) {
  const change = (at, header) => set({ headers: draft.headers.map((one, i) => (i === at ? header : one)) })
  return html`<${Named} name="headers">${(control) => html`${draft.headers.map(([name, value], i) => html`<div class="row" key=${i}>
      <${Text} aria-label=${t('form.headerName')} placeholder="X-API-Key" spellcheck="false" value=${name} onInput=${(event) => change(i, [event.target.value, value])} />
      <${Text} aria-label=${t('form.headerValue')} spellcheck="false" value=${value} onInput=${(event) => change(i, [name, event.target.value])} />
      <button type="button" aria-label=${t('form.remove', name)} onClick=${() => set({ headers: draft.headers.filter((_, at) => at !== i) })}>×</button></div>`)}
    <div><button type="button" ...${control} onClick=${() => set({ headers: [...draft.headers, ['', '']] })}>${t('form.addHeader')}</button></div>`}</${Named}>`
}

export const Order = (p) => html`<${Card} title=${t('form.order')}><${Line} ...${p} name="order_by" maxlength="256" placeholder="patient_id" spellcheck="false" />
  <${Named} name="order_on_failure">${(control) => html`<${Select} ...${control} value=${p.draft.order_on_failure} options=${['skip', 'block'].map((one) => [one, t(`form.order.${one}`)])} onChange=${(event) => p.set({ order_on_failure: event.target.value })} />`}</${Named}>
  <${Tick} ...${p} name="sequence" /></${Card}>`

const pems = ['certificate', 'private_key']

export function Access(p) {
  const { draft, set } = p
  const change = (more) => set({ auth: { ...draft.auth, ...more } })
  return html`<${Card} title=${t('form.access')}>
    <${Named} name="auth.type">${(control) => html`<${Select} ...${control} value=${draft.auth.type} options=${['', 'oauth2', 'certificate'].map((one) => [one, t(`form.auth.${one}`)])} onChange=${(event) => change({ type: event.target.value })} />`}</${Named}>
    ${authFields(draft.auth.type).map((name) => (pems.includes(name)
      ? html`<${Named} key=${name} name=${`auth.${name}`}>${(control) => html`<${Area} ...${control} value=${draft.auth[name]} onInput=${(event) => change({ [name]: event.target.value })} />`}</${Named}>`
      : html`<${Line} key=${name} ...${p} name=${`auth.${name}`} spellcheck="false" ...${name === 'client_secret' ? { type: 'password', autocomplete: 'new-password' } : {}} />`))}
    ${['recipient.name', 'recipient.country', 'recipient.purpose'].map((name) => html`<${Line} key=${name} ...${p} name=${name} />`)}
    <${Tick} ...${p} name="is_active" /></${Card}>`
}
