// Tokens: made, listed and revoked; and who is signed in to the panel.
import { api, part, session } from './api.js'
import { Check, Field, Form, Select, Text, refuse } from './controls.js'
import { confirm, open, reveal, say } from './dialogs.js'
import { Table } from './list.js'
import { actorName } from './audit-words.js'
import { t } from './texts.js'
import './texts/access.js'
import { Act, Badge, Card, Empty, Loaded, Page, Time, useLoad } from './ui.js'
import { html, useState } from './view.js'

const scopes = ['webhooks:read', 'webhooks:write', 'events:write', 'payloads:read', 'replays:write', 'audit:read', 'admin']
const days = [['30', 30], ['90', 90], ['365', 365], ['', 0]]

export function Tokens() {
  const list = useLoad('/tokens', { limit: 1000 })
  const make = async () => {
    const made = await open(NewToken)
    if (!made) return
    await list.reload()
    const { name, token } = JSON.parse(made)
    await reveal(t('token.made', name), t('token.madeNote'), token)
  }
  return html`<${Page} title=${t('nav.tokens')} sub=${t('token.sub')} actions=${html`<button type="button" class="primary" onClick=${make}>${t('token.new')}</button>`}>
    <${Loaded} of=${list}>${({ items }) => html`
      <${Card} title=${t('nav.tokens')} flush><${Of} list=${list} rows=${items.filter((one) => one.kind === 'token')} /></${Card}>
      <${Card} title=${t('token.sessions')} note=${t('token.sessionsNote')} flush><${Of} list=${list} rows=${items.filter((one) => one.kind === 'session' && one.state === 'valid')} /></${Card}>`}</${Loaded}></${Page}>`
}

function Of({ rows, list }) {
  if (rows.length === 0) return html`<${Empty}>${t('token.none')}</${Empty}>`
  const own = (one) => one.id === session.who?.id
  const revoke = (one) => async (key) => {
    const what = one.kind === 'token' ? 'revoke' : 'end'
    if (!await confirm(t(`token.${what}Ask`, actorName(one.name)), t(`token.${what}Note`), t(`token.${what}`))) return
    await api.delete(`/tokens/${part(one.id)}`, { key })
    say(t(`token.${what}Done`))
    await list.reload()
  }
  return html`<${Table} caption=${t('nav.tokens')} rows=${rows} id=${(one) => one.id} columns=${[
    { label: t('webhook.name'), cut: true, cell: (one) => html`${actorName(one.name)}${own(one) && html` <${Badge} tone="good">${t('token.you')}</${Badge}>`}<span class="sub mono">${one.prefix && `${one.prefix}…`}</span><span class="sub narrow"><${Time} at=${one.created_at} style="short" /></span>` },
    { label: t('token.scopes'), opt: true, cell: (one) => html`<span class="chips">${one.scopes.map((scope) => html`<${Badge} key=${scope} tone="none">${scope}</${Badge}>`)}</span>` },
    { label: t('event.state'), cell: (one) => html`<${Badge} tone=${one.state === 'valid' ? 'good' : 'none'}>${t(`token.${one.state}`)}</${Badge}>` },
    { label: t('webhook.created'), opt: true, cell: (one) => html`<${Time} at=${one.created_at} style="short" />` },
    { label: t('token.expires'), opt: true, cell: (one) => (one.expires_at ? html`<${Time} at=${one.expires_at} style="ago" />` : t('token.never')) },
    { label: t('event.actions'), cell: (one) => one.state === 'valid' && html`<${Act} tone="small danger" run=${revoke(one)}>${t(one.kind === 'token' ? 'token.revoke' : 'token.end')}</${Act}>` },
  ]} />`
}

function NewToken({ close }) {
  const [name, setName] = useState('')
  const [chosen, setChosen] = useState(['webhooks:read'])
  const [until, setUntil] = useState('90')
  const toggle = (scope) => setChosen((old) => (old.includes(scope) ? old.filter((one) => one !== scope) : [...old, scope]))
  const send = async (key) => {
    if (chosen.length === 0) refuse('scopes', t('token.noScopes'))
    const expires = until === '' ? {} : { expires_at: new Date(Date.now() + until * 86400000).toISOString() }
    close(JSON.stringify(await api.post('/tokens', { name: name.trim(), scopes: chosen, ...expires }, { key })))
  }
  return html`<h2 id="dialog-title">${t('token.new')}</h2>
    <${Form} send=${send} label=${t('form.create')} actions=${html`<button type="button" onClick=${() => close('')}>${t('action.cancel')}</button>`}>
      <${Field} name="name" label=${t('webhook.name')} hint=${t('token.nameHint')}>${(control) => html`<${Text} ...${control} maxlength="200" data-first value=${name} onInput=${(event) => setName(event.target.value)} />`}</${Field}>
      <${Field} name="expires_at" label=${t('token.until')}>${(control) => html`<${Select} ...${control} value=${until} options=${days.map(([value, n]) => [value, n ? t('token.days', n) : t('token.never')])} onChange=${(event) => setUntil(event.target.value)} />`}</${Field}>
      <${Field} name="scopes" label=${t('token.scopes')}>${(control) => html`<div role="group" ...${control}>${scopes.map((scope) => html`
        <${Check} key=${scope} checked=${chosen.includes(scope)} onChange=${() => toggle(scope)} label=${html`<b class="mono">${scope}</b> <span class="muted">${t(`scope.${scope.replace(':', '_')}`)}</span>`} />`)}</div>`}</${Field}>
    </${Form}>`
}
