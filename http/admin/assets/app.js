// The frame: signing in, the menu, and which page an address shows. Pages are
// named after the # (nothing after it is ever sent to a server).
import { alerts } from './alerts.js'
import { api, Problem, token } from './api.js'
import { deliveries } from './deliveries.js'
import { button, fill, h } from './dom.js'
import { event, eventForm, events } from './events.js'
import { describe, field, input, refuse, submitting } from './forms.js'
import { parked } from './parked.js'
import { system } from './system.js'
import { language, switchLanguage, t } from './texts.js'
import { webhook } from './webhook.js'
import { webhookForm } from './webhook-form.js'
import { webhooks } from './webhooks.js'

// A page is a function of ({id, tab, item, parameters, signal}) that gives a node.
const routes = [
  [/^webhooks$/, webhooks],
  [/^webhooks\/new$/, webhookForm],
  [/^webhooks\/(?<id>[^/]+)\/edit$/, webhookForm],
  [/^webhooks\/(?<id>[^/]+)(?:\/(?<tab>calls|stats|test|replay|history))?(?:\/(?<item>[^/]+))?$/, webhook],
  [/^events$/, events],
  [/^events\/new$/, eventForm],
  [/^events\/parked$/, parked],
  [/^events\/(?<id>[^/]+)$/, event],
  [/^deliveries$/, deliveries],
  [/^alerts$/, alerts],
  [/^system$/, system],
]

const sections = ['webhooks', 'events', 'deliveries', 'alerts', 'system']
const main = document.getElementById('main')
let current = new AbortController()

async function show() {
  current.abort()
  current = new AbortController()
  const { signal } = current
  const [path, parameters] = address()
  frame(path)
  if (!token.get()) {
    fill(main, login())
    main.querySelector('input').focus()
    return
  }
  const [pattern, page] = routes.find(([p]) => p.test(path)) ?? []
  if (!page) {
    fill(main, h('p', { class: 'empty' }, t('app.notFound')))
    return
  }
  main.setAttribute('aria-busy', 'true')
  if (!main.hasChildNodes()) fill(main, h('p', { class: 'empty' }, t('app.loading')))
  let content
  try {
    content = await page({ ...path.match(pattern).groups, parameters, signal })
  } catch (error) {
    if (signal.aborted) return
    content = failure(error)
  }
  if (signal.aborted) return
  fill(main, content)
  main.removeAttribute('aria-busy')
  const title = main.querySelector('h1')
  document.title = [title?.textContent, t('app.title')].filter(Boolean).join(' · ')
}

function failure(error) {
  if (!(error instanceof Problem)) console.error(error)
  return h('div', { class: 'card', role: 'alert' }, h('h1', {}, t('error.title')), h('p', {}, describe(error)),
    button(t('app.refresh'), show))
}

// address takes the address apart: the page, and what it is asked for.
function address() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?')
  return [path || 'webhooks', new URLSearchParams(query)]
}

let framed = ''

// frame shows what stands around every page, in the user's language. It is built
// anew only when it changes, so that the focus stays where it is.
function frame(path) {
  const menu = document.getElementById('menu')
  const state = `${language()} ${token.get() !== null}`
  if (state !== framed) {
    framed = state
    document.documentElement.lang = language()
    document.title = t('app.title')
    fill(document.getElementById('skip'), t('app.skip'))
    menu.setAttribute('aria-label', t('app.menu'))
    fill(menu, token.get() && sections.map((section) => h('a', { href: `#/${section}` }, t(`nav.${section}`))))
    fill(document.getElementById('tools'), tools())
  }
  for (const link of menu.children) {
    if (link.hash === `#/${path.split('/')[0]}`) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
}

const tools = () => [
  token.get() && button(t('app.refresh'), show),
  h('a', { href: '/docs' }, t('app.api')),
  button(t('app.language'), () => { switchLanguage(); return show() }, { lang: language() === 'ru' ? 'en' : 'ru' }),
  token.get() && button(t('app.signOut'), () => { token.clear(); fill(main); return show() }),
]

function login() {
  const control = input({ type: 'password', spellcheck: 'false' })
  return h('div', { class: 'card login' }, h('h1', {}, t('login.title')),
    submitting(async () => {
      const given = control.value.trim()
      if (given === '') refuse('token', t('login.empty'))
      if (!/^[\x21-\x7e]+$/.test(given)) refuse('token', t('login.odd'))
      token.set(given)
      try {
        await api.get('/webhooks/events/types')
      } catch (error) {
        token.clear()
        if (error.status === 401) refuse('token', t('login.wrong'))
        throw error
      }
      fill(main)
      await show()
    }, t('login.enter'), field('token', t('login.token'), control, t('login.hint'))))
}

window.addEventListener('hashchange', async (event) => {
  await show()
  if (!event.newURL || !token.get()) return // the same page anew
  main.focus({ preventScroll: true })
  window.scrollTo(0, 0)
})
window.addEventListener('medilab:unauthorized', () => {
  if (!token.get() || main.querySelector('.login')) return
  token.clear()
  show()
})
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault()
  main.focus()
})
show()
