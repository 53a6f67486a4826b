// Questions and news.
//
//   if (!await confirm(question, consequence, doIt)) return
//   await confirm(question, consequence, doIt, { type: name })   the reader has to type the name
//   const reason = await prompt('access.title', 'access.note', 'access.reason')
//   reveal(title, note, secret)   shows it once
//   say(words)   announces what was done, on the screen and to a screen reader
import { t } from './texts.js'
import { html, render, useState } from './view.js'

// open shows a dialog whose content is Body({ close }), and resolves to what it closes
// with; Esc closes with ''. The focus goes back to where it was, or to the menu that has closed over it.
export function open(Body, { sure } = {}) {
  return new Promise((resolve) => {
    const before = document.activeElement
    const dialog = document.createElement('dialog')
    dialog.setAttribute('aria-labelledby', 'dialog-title')
    const close = (value) => dialog.close(value)
    dialog.addEventListener('cancel', (event) => sure && event.preventDefault())
    dialog.addEventListener('close', () => {
      render(null, dialog)
      dialog.remove()
      const back = before?.checkVisibility() ? before : before?.closest('details')?.querySelector('summary')
      back?.focus({ preventScroll: true })
      resolve(dialog.returnValue)
    })
    document.body.append(dialog)
    render(html`<${Body} close=${close} />`, dialog)
    dialog.showModal()
    dialog.querySelector('[data-first]')?.focus()
  })
}

// dismiss closes all dialogs as if they were cancelled, and takes back what was announced.
export function dismiss() {
  for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close('')
  document.getElementById('news').hidden = true
}

// confirm asks before something that cannot be undone; true: do it.
export async function confirm(question, consequence, doIt, { type } = {}) {
  return await open(({ close }) => {
    const [typed, setTyped] = useState('')
    return html`<h2 id="dialog-title">${question}</h2><p>${consequence}</p>
      ${type && html`<div class="field"><label for="dialog-typed">${t('app.type', type)}</label>
        <input id="dialog-typed" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></div>`}
      <div class="actions"><button type="button" data-first onClick=${() => close('')}>${t('action.no')}</button>
        <button type="button" class="danger" disabled=${type && typed.trim() !== type} onClick=${() => close('yes')}>${doIt}</button></div>`
  }) === 'yes'
}

// prompt asks for a line of text and returns '' if it is cancelled. It takes names of texts.
export function prompt(title, note, label) {
  return open(({ close }) => {
    const submit = (event) => {
      event.preventDefault()
      close(event.target.elements.answer.value.trim())
    }
    return html`<form onSubmit=${submit}><h2 id="dialog-title">${t(title)}</h2><p>${t(note)}</p>
      <div class="field"><label for="dialog-answer">${t(label)}</label><input id="dialog-answer" name="answer" maxlength="300" autocomplete="off" required data-first /></div>
      <div class="actions"><button type="button" onClick=${() => close('')}>${t('action.cancel')}</button><button type="submit" class="primary">${t('action.continue')}</button></div></form>`
  })
}

// reveal shows a text once, such as a new secret.
export const reveal = (title, note, secret) => open(({ close }) => {
  const [copied, setCopied] = useState(false)
  const copy = async () => setCopied(await copyText(secret))
  return html`<h2 id="dialog-title">${title}</h2><p>${note}</p><pre class="foreign" tabindex="0">${secret}</pre>
    <div class="actions"><button type="button" onClick=${copy}>${t(copied ? 'app.copied' : 'action.copy')}</button>
      <button type="button" class="primary" data-first onClick=${() => close('')}>${t('action.close')}</button></div>`
})

// copyText copies a text and returns whether it did: without https there is only the
// old way, which copies what is selected.
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false)
  const area = Object.assign(document.createElement('textarea'), { value: text })
  const before = document.activeElement
  const place = document.querySelector('dialog[open]') ?? document.body
  place.append(area)
  area.select()
  const done = document.execCommand('copy')
  area.remove()
  before?.focus()
  return done
}

// download keeps a text as a file.
export function download(name, text) {
  const link = Object.assign(document.createElement('a'), { href: URL.createObjectURL(new Blob([text])), download: name })
  link.click()
  URL.revokeObjectURL(link.href)
}

let timer

export function say(message) {
  const place = document.getElementById('news')
  place.textContent = message
  place.hidden = false
  clearTimeout(timer)
  timer = setTimeout(() => { place.hidden = true }, 6000)
}
