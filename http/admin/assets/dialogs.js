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
