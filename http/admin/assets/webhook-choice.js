// A control to choose a webhook among any number of them.
import { mayFind, part, session } from './api.js'
import { Text, useID } from './controls.js'
import { t } from './texts.js'
import { useLoad } from './ui.js'
import { html, useEffect, useLayoutEffect, useRef, useState } from './view.js'

const name = (w) => (w.number ? `${w.number} · ${w.name}` : w.title) // of a search, which has no numbers

// isKey reports whether a text is a webhook's id or number.
export const isKey = (text) => /^(\d+|[0-9a-f-]{36})$/.test(text)

// WebhookChoice offers the webhooks that fit what is typed: a part of a name, a description or a URL.
// choose(value, done) gets the id of the only one that fits, else the text as it is, which may be a
// number; '' for none. It is done when one was picked.
// Who may not find webhooks types the number or the id.
export function WebhookChoice({ value, choose, placeholder, ...control }) {
  const list = useID('webhooks')
  const [typed, setTyped] = useState(null) // null: nothing since the value came
  const given = useRef(value)
  const reads = session.may('webhooks:read') // who may only audit finds them by the search
  const finds = mayFind()
  const chosen = useLoad(`/webhooks/${part(value)}`, {}, { skip: !isKey(value) || typed !== null || !reads })
  const text = typed?.trim() ?? ''
  const q = text.replace(/^\d+ · /, '')
  const found = useLoad(...(reads ? ['/webhooks', { q, limit: 20 }, { skip: typed === null }] : ['/search', { q }, { skip: q === '' || !finds }]))
  const all = found.data?.items.filter((w) => reads || w.kind === 'webhook') ?? []
  const give = (one, done) => {
    given.current = one
    choose(one, done)
  }
  useLayoutEffect(() => { if (value !== given.current) { given.current = value; setTyped(null) } }, [value]) // before anything is typed
  useEffect(() => {
    if (text === '' || found.loading) return
    const picked = all.find((w) => name(w) === text)
    const one = picked ?? (all.length === 1 && !/^\d+$/.test(text) ? all[0] : undefined)
    if (one && one.id !== given.current) give(one.id, Boolean(picked))
  }, [typed, found.data, found.loading])
  const input = (event) => {
    setTyped(event.target.value)
    give(event.target.value.trim(), event.target.value === '')
  }
  const shown = typed ?? (chosen.data && isKey(value) ? name(chosen.data) : value)
  return html`<${Text} ...${control} type="search" list=${list} data-value=${value} placeholder=${placeholder ?? t(finds ? 'webhook.searchHint' : 'webhook.keyHint')} value=${shown} onFocus=${() => typed === null && setTyped(shown)} onInput=${input} />
    <datalist id=${list}>${all.map((w) => html`<option key=${w.id} value=${name(w)}>${w.url}</option>`)}</datalist>`
}
