// Signing in: as a page of its own, and over a page whose session has ended.
import { api, session, token } from './api.js'
import { Field, Form, Text, refuse } from './controls.js'
import { open } from './dialogs.js'
import { t } from './texts.js'
import { forget } from './ui.js'
import { html } from './view.js'

// SignIn asks for a token; done is called when it is good.
export function SignIn({ title, done, note }) {
  const send = async (key, form) => {
    const given = form.elements.token.value.trim()
    if (given === '') refuse('token', t('login.empty'))
    if (!/^[\x21-\x7e]+$/.test(given)) refuse('token', t('login.odd'))
    const before = token.get()
    token.set(given)
    try {
      await api.check('/webhooks/events/types')
    } catch (error) {
      if (before === null) token.clear()
      else token.set(before)
      if (error.status === 401) refuse('token', t('login.wrong'))
      if (error.status !== 403) throw error // a token that may do other things
      token.set(given)
    }
    done()
  }
  return html`<h1 id="dialog-title">${title ?? t('login.title')}</h1>${note && html`<p>${note}</p>`}
    <${Form} send=${send} label=${t('login.enter')}>
      <${Field} name="token" label=${t('login.token')} hint=${t('login.hint')}>${(control) => html`<${Text} ...${control} name="token" type="password" spellcheck="false" data-first />`}</${Field}>
    </${Form}>`
}

let renewing = null

// renew asks again when the session has ended; whoever waits shares the question. The
// page stays as it is below. It resolves to whether the reader is signed in.
export function renew() {
  renewing ??= open(({ close }) => html`<${SignIn} title=${t('login.again')} note=${t('login.againNote')} done=${() => close('yes')} />
    <button type="button" class="quiet" onClick=${() => close('')}>${t('app.signOut')}</button>`, { sure: true }).then((answer) => {
    renewing = null
    if (answer !== 'yes') signOut()
    else session.changed()
    return answer === 'yes'
  })
  return renewing
}

// signOut forgets the token and everything that was read.
export function signOut() {
  token.clear()
  forget()
  session.changed()
}
