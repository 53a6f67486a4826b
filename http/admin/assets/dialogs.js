// Questions and news.
import { fill, h } from './dom.js'
import { t } from './texts.js'

// confirm asks before something that cannot be undone; true: do it.
export function confirm(question, consequence, doIt) {
  return new Promise((resolve) => {
    const dialog = h('dialog', { 'aria-labelledby': 'dialog-title' },
      h('h2', { id: 'dialog-title' }, question), h('p', {}, consequence),
      h('form', { method: 'dialog', class: 'actions' },
        h('button', { value: 'no', autofocus: true }, t('action.cancel')),
        h('button', { value: 'yes', class: 'danger' }, doIt)))
    dialog.addEventListener('close', () => {
      dialog.remove()
      resolve(dialog.returnValue === 'yes')
    })
    document.body.append(dialog)
    dialog.showModal()
  })
}

// prompt asks for a line of text; '' when there is none. Its words are names of texts.
export function prompt(title, note, label) {
  return new Promise((resolve) => {
    const answer = h('input', { type: 'text', id: 'dialog-answer', maxlength: '300', autocomplete: 'off', required: true, autofocus: true })
    const dialog = h('dialog', { 'aria-labelledby': 'dialog-title' },
      h('h2', { id: 'dialog-title' }, t(title)), h('p', {}, t(note)),
      h('form', { method: 'dialog' },
        h('div', { class: 'field' }, h('label', { for: 'dialog-answer' }, t(label)), answer),
        h('div', { class: 'actions' },
          h('button', { value: 'no', formnovalidate: true, type: 'submit' }, t('action.cancel')),
          h('button', { value: 'yes', class: 'main', type: 'submit' }, t('action.continue')))))
    // Enter presses the first button of a form.
    answer.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter') return
      event.preventDefault()
      if (answer.reportValidity()) dialog.close('yes')
    })
    dialog.addEventListener('close', () => {
      dialog.remove()
      resolve(dialog.returnValue === 'yes' ? answer.value.trim() : '')
    })
    document.body.append(dialog)
    dialog.showModal()
  })
}

// download keeps a text as a file.
export function download(name, text) {
  const link = h('a', { href: URL.createObjectURL(new Blob([text])), download: name })
  link.click()
  URL.revokeObjectURL(link.href)
}

// reveal shows a text once, such as a new secret.
export function reveal(title, note, secret) {
  const dialog = h('dialog', { 'aria-labelledby': 'dialog-title' },
    h('h2', { id: 'dialog-title' }, title), h('p', {}, note), h('pre', { class: 'foreign', tabindex: '0' }, secret),
    h('form', { method: 'dialog', class: 'actions' }, h('button', { class: 'main' }, t('action.close'))))
  dialog.addEventListener('close', () => dialog.remove())
  document.body.append(dialog)
  dialog.showModal()
}

// say tells what was done, to the eye and to a screen reader.
export function say(message) {
  const place = document.getElementById('news')
  fill(place, message).hidden = false
  clearTimeout(say.timer)
  say.timer = setTimeout(() => { place.hidden = true }, 6000)
}
