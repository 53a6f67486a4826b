// Creating and editing a webhook: the form, and next to it what it would do.
import { api, part, session } from './api.js'
import { Form } from './controls.js'
import { confirm, say } from './dialogs.js'
import { useTypes } from './event-types.js'
import { router, to } from './router.js'
import { openTest } from './testcall.js'
import { known, t } from './texts.js'
import './texts/form.js'
import { Card, Foreign, Loaded, Page, useLoad } from './ui.js'
import { html, useEffect, useLatest, useState } from './view.js'
import { Backtest } from './backtest.js'
import { body, draftOf, drafts, isChanged, merge } from './webhook-draft.js'
import { Access, Content, Order, Retries, Where } from './webhook-fields.js'
import { Workbench } from './workbench.js'

export const NewWebhook = () => html`<${Editor} />`

export function EditWebhook({ id }) {
  const found = useLoad(`/webhooks/${part(id)}`)
  return html`<${Loaded} of=${found} title=${t('form.edit')}>${(webhook) => html`<${Editor} key=${webhook.id} webhook=${webhook} />`}</${Loaded}>`
}

// The state of a form is { before, version, draft }: the webhook as it was read, and
// what was typed since.
const begin = (webhook) => ({ before: draftOf(webhook), version: webhook?.version, draft: draftOf(webhook) })

function Editor({ webhook }) {
  const name = webhook?.id ?? 'new'
  const [kept, setKept] = useState(drafts.has(name))
  const [state, setState] = useState(() => drafts.get(name) ?? begin(webhook))
  const [conflicts, setConflicts] = useState([])
  const types = useTypes()
  const { draft, before } = state
  const changed = isChanged(draft, before)
  const set = (more) => setState((old) => ({ ...old, draft: { ...old.draft, ...more } }))
  useEffect(() => { changed ? drafts.set(name, state) : drafts.delete(name) }, [state])
  const leaving = useGuard(changed)
  const discard = () => {
    setState(begin(webhook))
    setConflicts([])
    setKept(false)
  }
  const send = async (key) => {
    try {
      const saved = webhook ? await api.patch(`/webhooks/${part(webhook.id)}`, body(draft, before), state.version, { key }) : await api.post('/webhooks', body(draft), { key })
      leaving.free()
      drafts.delete(name)
      say(t('form.saved'))
      const page = to(`#/webhooks/${part(saved.id)}`)
      page ? router.go(page) : router.refresh()
    } catch (error) {
      if (error.status !== 412) throw error
      const now = await api.get(`/webhooks/${part(webhook.id)}`)
      const theirs = draftOf(now)
      const { merged, conflicts: both } = merge(draft, before, theirs)
      setState({ before: theirs, version: now.version, draft: merged })
      setConflicts(both)
      throw Object.assign(new Error(t('form.staleNote')), { status: 409, title: t('form.stale') })
    }
  }
  const back = to(webhook ? `#/webhooks/${part(webhook.id)}` : '#/webhooks')
  const chosen = { draft, set, webhook, types }
  return html`<${Page} title=${t(webhook ? 'form.edit' : 'action.create')} sub=${webhook ? webhook.name : t('form.kept')}
      actions=${webhook && html`<button type="button" onClick=${() => openTest(webhook)}>${t('testcall.title')}</button>`}>
    ${kept && changed && html`<p class="draft">${t('form.restored')} <button type="button" class="small" onClick=${discard}>${t('form.discard')}</button></p>`}
    <div class="two"><${Form} send=${send} label=${t(webhook ? 'action.save' : 'form.create')} actions=${back && html`<a class="button" href=${back}>${t('action.cancel')}</a>`}>
        ${conflicts.length > 0 && html`<${Conflicts} conflicts=${conflicts} draft=${draft} set=${set} />`}
        <${Where} ...${chosen} /><${Retries} ...${chosen} /><${Content} ...${chosen} /><${Order} ...${chosen} /><${Access} ...${chosen} /></${Form}>
      ${session.may('webhooks:read') && html`<div class="beside"><${Workbench} draft=${draft} types=${types} /><${Backtest} webhook=${webhook} draft=${draft} /></div>`}</div></${Page}>`
}

// useGuard asks before a press on a link leaves a form with changes; the browser asks
// before the tab is closed. free lets the form itself leave.
function useGuard(changed) {
  const latest = useLatest(changed)
  const free = () => { latest.current = false }
  useEffect(() => {
    const press = async (event) => {
      const link = event.target.closest?.('a[href^="#/"]')
      if (!latest.current || !link || event.ctrlKey || event.metaKey || event.shiftKey) return
      event.preventDefault()
      if (!await confirm(t('form.leaveAsk'), t('form.leaveNote'), t('form.leave'))) return
      free()
      router.go(link.getAttribute('href'))
    }
    const close = (event) => latest.current && event.preventDefault()
    document.addEventListener('click', press, true)
    window.addEventListener('beforeunload', close)
    return () => {
      document.removeEventListener('click', press, true)
      window.removeEventListener('beforeunload', close)
    }
  }, [])
  return { free }
}

const secrets = ['secret', 'headers', 'auth']
const shown = (name, value) => (secrets.includes(name) ? '***' : typeof value === 'string' ? value : JSON.stringify(value, null, 1))

// Conflicts shows what both changed, and lets the reader choose.
function Conflicts({ conflicts, draft, set }) {
  return html`<${Card} title=${t('form.stale')} flush>${conflicts.map((one) => {
    const pick = (side) => html`<div><b>${t(`form.${side}`)}</b><${Foreign} label=${t(`form.${side}`)}>${shown(one.name, one[side])}</${Foreign}>
      <button type="button" class="small" aria-pressed=${draft[one.name] === one[side]} onClick=${() => set({ [one.name]: one[side] })}>
        ${draft[one.name] === one[side] ? `✓ ${t('form.chosen')}` : t(side === 'theirs' ? 'form.keepTheirs' : 'form.keepYours')}</button></div>`
    return html`<div class="conflict" key=${one.name}><h3>${known(`field.${one.name}`) ?? one.name}</h3><div class="columns">${pick('theirs')}${pick('yours')}</div></div>`
  })}</${Card}>`
}
