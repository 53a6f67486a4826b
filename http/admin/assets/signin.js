// Signing in: as a page of its own, and over a page whose session has ended; by a token, or at
// the clinic's identity provider, if there is one. The tabs of a browser share the session.
import { forgetNames } from './alerts.js'
import { api, session } from './api.js'
import { endCheck } from './audit.js'
import { Field, Form, Text, refuse } from './controls.js'
import { dismiss, open, say } from './dialogs.js'
import { router } from './router.js'
import { endRebuilds } from './system.js'
import { t } from './texts.js'
import './texts/access.js'
import { forget, words } from './ui.js'
import { html, useState } from './view.js'
import { drafts } from './webhook-draft.js'

const provider = '/api/v1/session/provider'
const placeKey = 'medilab.place'
const tabs = new BroadcastChannel('medilab')

// SignIn asks for a token, or leads to the provider: in a tab of its own, if this one holds
// something (over). done is called when somebody is signed in.
export function SignIn({ title, done, note, over }) {
  const [problem] = useState(() => new URLSearchParams(location.search).get('sign_in'))
  const send = async (key, form) => {
    const given = form.elements.token.value.trim()
    if (given === '') refuse('token', t('login.empty'))
    if (!/^[\x21-\x7e]+$/.test(given)) refuse('token', t('login.odd'))
    await api.enter(given).catch((error) => {
      if (error.status === 401) refuse('token', t('login.wrong'))
      throw error
    })
    tabs.postMessage('in')
    done()
  }
  const leave = () => over || location.hash && sessionStorage.setItem(placeKey, location.hash) // none: the provider's refusal led here
  return html`<h1 id="dialog-title">${title ?? t('login.title')}</h1>${note && html`<p>${note}</p>`}
    ${problem && !over && html`<p class="error" role="alert">${t(`login.${problem === 'rights' || problem === 'unavailable' ? problem : 'refused'}`)}</p>`}
    ${session.provider && html`<p><a class="button primary" href=${provider} target=${over ? '_blank' : undefined} onClick=${leave}>${t('login.provider')}</a></p><p class="muted">${t('login.or')}</p>`}
    <${Form} send=${send} label=${t('login.enter')} tone=${session.provider ? '' : 'primary'}>
      <${Field} name="token" label=${t('login.token')} hint=${t('login.hint')}>${(control) => html`<${Text} ...${control} name="token" type="password" spellcheck="false" data-first />`}</${Field}>
    </${Form}>`
}

let renewing = null
let renewed = () => {}
let dropped = () => {}
let leaving = false

// renew asks the user to sign in again over the page. Concurrent callers share the dialog.
// It resolves to whether the same user is signed in: a request of one user is never repeated
// as another. During sign-out it does not ask, so that requests under way are refused.
export function renew() {
  if (leaving || !session.who) return Promise.resolve(false)
  const before = session.who.actor
  renewing ??= open(({ close }) => {
    renewed = () => close('yes')
    dropped = () => close('')
    return html`<${SignIn} over title=${t('login.again')} note=${t('login.againNote')} done=${renewed} />
      <button type="button" class="plain" onClick=${() => close('out')}>${t('app.signOut')}</button>`
  }, { sure: true }).then(async (answer) => {
    renewing = null
    if (answer === 'yes') return welcome(before)
    if (answer === 'out') await signOut()
    else ended()
    return false
  })
  return renewing
}

// signOut ends the session, in all tabs: the user's own, not that of another who has signed in since.
export async function signOut() {
  const before = session.who?.actor
  leaving = true
  try {
    await api.leave()
  } catch (error) {
    if (error.status !== 401) return say(words(error))
    await session.look().catch(() => session.take(null))
  } finally {
    leaving = false
  }
  if (session.who) return welcome(before)
  tabs.postMessage('out')
  leavePage()
  ended()
}

// leavePage takes away the address of the page, which may name a patient; the browser's history keeps
// those of pages before. A session that ends by itself keeps it: its user goes on there.
function leavePage() {
  history.replaceState(null, '', '#/')
  document.title = t('app.title')
}

// ended drops everything that was read, typed or under way.
function ended() {
  session.take(null)
  clear()
  session.changed()
}

function clear() {
  forget()
  forgetNames()
  drafts.clear()
  endCheck()
  endRebuilds()
  dismiss()
}

// welcome goes on with a new session and reports whether it is the same user's. For another
// user the panel starts over at its first page: nothing of the former one is left in it, nor on
// record as read by who did not open it.
function welcome(before) {
  const same = before === session.who.actor
  if (!same) {
    clear()
    if (before) history.replaceState(history.state, '', '#/')
    router.refresh()
    if (before) say(t('login.another'))
  }
  session.changed()
  return same
}

// What another tab did holds here too.
tabs.onmessage = async ({ data }) => {
  const before = session.who?.actor
  await session.look().catch(() => data === 'out' && session.take(null))
  if (!session.who && data === 'out') leavePage()
  if (!session.who) return renewing ? dropped() : ended()
  if (renewing) renewed()
  else welcome(before)
}

// begin finds out who is signed in, and goes to where the reader was before.
export async function begin() {
  try {
    await session.look()
  } catch (error) {
    document.getElementById('app').textContent = words(error)
    throw error
  }
  const place = sessionStorage.getItem(placeKey)
  if (!session.who) return
  tabs.postMessage('in')
  sessionStorage.removeItem(placeKey)
  if (place) history.replaceState(null, '', location.pathname + place)
}
