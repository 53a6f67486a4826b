// The search box in the header: a webhook by its name or address, an event by its id.
import { part } from './api.js'
import { router } from './router.js'
import { t } from './texts.js'
import { html } from './view.js'

const uuid = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i

export function Search() {
  const submit = (event) => {
    event.preventDefault()
    const wanted = event.target.elements.q.value.trim()
    if (wanted === '') return
    router.go(uuid.test(wanted) ? `#/events/${part(wanted)}` : `#/webhooks?q=${encodeURIComponent(wanted)}`)
  }
  return html`<form class="search" role="search" onSubmit=${submit}>
    <input id="search" name="q" type="search" autocomplete="off" aria-label=${t('search.label')} placeholder=${t('search.placeholder')} /><kbd aria-hidden="true">/</kbd></form>`
}
