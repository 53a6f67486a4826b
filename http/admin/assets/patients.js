// Patients' data: who was sent what, who has read it, and what a patient may ask for. A
// patient's id stands after the # of the address, which is never sent to a server.
import { api, part, session } from './api.js'
import { useNames } from './alerts.js'
import { actorName, askedWords, readWords } from './audit-words.js'
import { confirm, download, prompt, say } from './dialogs.js'
import { Disclosures, print } from './disclosures.js'
import { localTime } from './format.js'
import { Filters, List } from './list.js'
import { router } from './router.js'
import { t } from './texts.js'
import './texts/access.js'
import { Act, Card, Copy, Page, Tabs, Time, Word } from './ui.js'
import { html } from './view.js'

const tabs = ['patient', 'webhook', 'access']

export function Patients({ parameters }) {
  const tab = tabs.includes(parameters.get('tab')) ? parameters.get('tab') : 'patient'
  const Part = { patient: OfPatient, webhook: OfWebhook, access: Access }[tab]
  return html`<${Page} title=${t('nav.patients')} sub=${t('patients.sub')}>
    <${Tabs} label=${t('nav.patients')} current=${tab} items=${tabs.map((name) => ({ name, href: `#/patients?tab=${name}`, label: t(`patients.${name}`) }))} />
    <${Part} key=${parameters.toString()} parameters=${parameters} /></${Page}>`
}

function OfPatient({ parameters }) {
  const id = parameters.get('id') ?? ''
  const find = (event) => {
    event.preventDefault()
    router.go(`#/patients?id=${encodeURIComponent(event.target.elements.id.value.trim())}`)
  }
  return html`<form class="toolbar" role="search" aria-label=${t('patients.find')} onSubmit=${find}><div class="field compact"><label for="patient">${t('patients.id')}</label><input id="patient" name="id" required autocomplete="off" defaultValue=${id} /></div>
      <button type="submit" class="primary">${t('patients.find')}</button></form>
    ${id === '' ? html`<p class="muted">${t('patients.idHint')}</p>` : html`<${Rights} id=${id} /><${Disclosures} path=${`/subjects/${part(id)}/disclosures`} title=${t('patients.disclosures', id)} empty=${t('patients.nobody')} />`}`
}

function Rights({ id }) {
  if (!session.may('admin')) return null
  const save = async () => {
    const lines = await api.text(`/subjects/${part(id)}/export`) // as they came: numbers of any length
    download(`patient-${id}.ndjson`, lines)
    say(t('patients.exported', lines.split('\n').length - 1))
  }
  const erase = async (key) => {
    if (!await confirm(t('patients.eraseAsk', id), t('patients.eraseNote'), t('patients.erase'), { type: id })) return
    const reason = await prompt('patients.reasonTitle', 'patients.reasonNote', 'access.reason')
    if (reason === '') return
    const { events, deliveries_cancelled: cancelled } = await api.post(`/subjects/${part(id)}/erase`, { reason }, { key })
    say(`${t('patients.erased', events)} ${t('patients.cancelled', cancelled)}`)
  }
  return html`<div class="actions"><${Act} run=${save}>${t('patients.export')}</${Act}><a class="button" href=${`#/patients?tab=access&subject=${encodeURIComponent(id)}`}>${t('patients.whoRead')}</a>
    <${Act} tone="danger" run=${erase}>${t('patients.erase')}</${Act}></div>`
}

function OfWebhook({ parameters }) {
  const names = useNames()
  const webhook = parameters.get('webhook') ?? ''
  return html`<${Filters} page="patients" values=${parameters} fields=${[{ name: 'tab', fixed: true },
      { name: 'webhook', label: t('event.webhook'), webhook: true }, { name: 'from', label: t('filter.from'), type: 'datetime-local' }, { name: 'to', label: t('filter.to'), type: 'datetime-local' }]} />
    ${webhook === '' ? html`<p class="muted">${t('patients.webhookHint')}</p>`
      : html`<${Disclosures} path=${`/webhooks/${part(webhook)}/disclosures`} parameters=${{ from: localTime(parameters.get('from')), to: localTime(parameters.get('to')) }} title=${t('patients.sentTo', names.of(webhook) ?? webhook)} empty=${t('disclosure.none')} />`}`
}

// Asked says in words what a reading was asked for.
const Asked = ({ of, names }) => askedWords(of).map(([name, words, value], i) => html`${i > 0 && ' · '}<${Word} name=${name} words=${words} /> ${name === 'webhook' && value.length === 36 ? names.link(value) : value}`)

function Access({ parameters }) {
  const names = useNames()
  const asked = { subject: parameters.get('subject'), event: parameters.get('event'), actor: parameters.get('actor'), from: localTime(parameters.get('from')), to: localTime(parameters.get('to')) }
  return html`<${Card} flush title=${t('patients.access')} more=${print()}>
    <${Filters} page="patients" values=${parameters} fields=${[{ name: 'tab', fixed: true }, { name: 'subject', label: t('patients.id') },
      { name: 'event', label: t('audit.event') }, { name: 'actor', label: t('audit.actor') }, { name: 'from', label: t('filter.from'), type: 'datetime-local' }, { name: 'to', label: t('filter.to'), type: 'datetime-local' }]} />
    <${List} path="/audit/access" parameters=${asked} id=${(one) => one.position} caption=${t('patients.access')} empty=${t('patients.notRead')} columns=${[
      { label: t('patients.when'), cell: (one) => html`<span class="dated"><${Time} at=${one.at} /></span><span class="sub narrow">${actorName(one.actor)}</span>` },
      { label: t('audit.actor'), opt: true, cell: (one) => html`<span title=${one.actor}>${actorName(one.actor)}</span>` },
      { label: t('patients.what'), cut: 'half', cell: (one) => html`<${Word} name=${one.what} words=${readWords(one.what)} /><span class="sub">${one.ids.length > 0 ? html`${t('patients.ids', one.ids.length)}${one.ids.length < 3 && one.ids.map((id) => html` <${Copy} key=${id} value=${id} />`)}` : html`<${Asked} of=${one.asked} names=${names} />`}</span><span class="sub narrow">${one.reason}</span>` },
      { label: t('access.reason'), cut: 'half', opt: true, cell: (one) => html`<span class="lines" title=${one.reason}>${one.reason ?? '—'}</span>` },
    ]} /></${Card}>`
}
