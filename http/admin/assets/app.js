// The frame around every page: menu, header, signing in, and the keyboard.
// `/` goes to the search, `g` and a letter to a section, Esc back to where it was.
import { counts, follow, most } from './counts.js'
import { mayFind, session } from './api.js'
import { actorName } from './audit-words.js'
import { prompt } from './dialogs.js'
import { zoneName } from './format.js'
import { erasures, listen, live } from './live.js'
import { Outlet, address, router, to } from './router.js'
import { routes } from './routes.js'
import { Search } from './search.js'
import { apply, settings } from './settings.js'
import { SignIn, begin, renew, signOut } from './signin.js'
import { known, number, t } from './texts.js'
import './texts/app.js'
import { Icon, forget } from './ui.js'
import { html, render, useEffect, useState, useStore } from './view.js'

session.renew = renew
session.askReason = () => prompt('access.title', 'access.note', 'access.reason')

const now = (path) => path.split('/')[0]
const menuOf = (path) => routes.find((route) => route.pattern === now(path))?.menu

function Menu({ path }) {
  useStore(counts)
  const [more, setMore] = useState(false)
  const link = (route) => {
    const name = now(route.pattern)
    const count = counts[name]
    const full = name === 'alerts' && count >= most
    return html`<a key=${name} href=${`#/${route.pattern}`} class=${route.menu === 'more' ? 'minor' : undefined} onClick=${() => setMore(false)}
      aria-current=${now(path) === name ? 'page' : undefined}><${Icon} name=${name} /><span>${t(`nav.${name}`)}</span>
      ${count > 0 && html`<span class=${name === 'alerts' ? 'count bad' : 'count'} aria-label=${t(`app.${name}`, count)}>${number(count)}${full && '+'}</span>`}</a>`
  }
  const of = (place) => routes.filter((route) => route.menu === place && to(`#/${route.pattern}`))
  return html`<nav id="menu" class=${more ? 'side open' : 'side'} aria-label=${t('app.menu')}>
    <a class="brand" href="#/"><${Icon} name="overview" />MediLab Webhooks</a>
    ${of('main').map(link)}<button type="button" class="more" aria-expanded=${more} aria-current=${menuOf(path) === 'more' ? 'true' : undefined} onClick=${() => setMore(!more)}><${Icon} name="more" /><span>${t('app.moreMenu')}</span></button>
    <hr />${of('more').map(link)}
    <a class="minor" href="/docs"><${Icon} name="audit" /><span>${t('app.api')}</span></a>
    <div class="foot"><span class="muted sub" title=${session.who?.actor}>${actorName(session.who?.actor)}</span><${Switches} /><button type="button" class="plain" onClick=${signOut}>${t('app.signOut')}</button></div></nav>`
}

function Switches() {
  const turn = (name, label) => html`<button type="button" class="plain" lang=${name === 'language' ? settings.next('language') : undefined} onClick=${() => settings.set(name, settings.next(name))}>${label}</button>`
  return html`${turn('language', t('app.language'))}${turn('scheme', t(`scheme.${settings.get('scheme')}`))}
    ${turn('zone', t('app.zone', settings.get('zone') === 'utc' ? 'UTC' : zoneName()))}`
}

function Live() {
  useStore(live)
  return html`<span class=${`live ${live.state}`}><i></i><span>${t(`live.${live.state}`)}</span></span>`
}

function App() {
  useStore(settings)
  useStore(session)
  useStore(router)
  const [, setHash] = useState('')
  useEffect(() => {
    const moved = () => setHash(location.hash)
    window.addEventListener('hashchange', moved)
    return () => window.removeEventListener('hashchange', moved)
  }, [])
  const skip = (event) => {
    event.preventDefault()
    document.getElementById('main').focus()
  }
  if (!session.who) {
    return html`<main id="main" tabindex="-1" class="alone"><p class="brand"><${Icon} name="overview" />MediLab Webhooks</p><div class="card login"><div class="body"><${SignIn} done=${session.changed} /></div></div>
      <div class="foot"><${Switches} /></div></main>`
  }
  return html`<a id="skip" href="#main" onClick=${skip}>${t('app.skip')}</a>
    <div class="app"><${Menu} path=${address().path} />
      <div class="content"><header class="top">${mayFind() && html`<${Search} key=${session.who.actor} />`}<${Live} /><button type="button" class="plain wide" onClick=${router.refresh}>${t('app.refresh')}</button></header><${Outlet} /></div></div>`
}

let going = 0 // when g was pressed
let before = null // what had the focus when / was pressed
const soon = 1500

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return
  if (event.target.matches('input, select, textarea')) {
    if (event.key === 'Escape') {
      event.target.blur()
      if (event.target.id === 'search') before?.focus({ preventScroll: true })
    }
    return
  }
  // By the key's place: a Russian layout has other letters there.
  const route = event.timeStamp - going < soon && routes.find((one) => one.key && event.code === `Key${one.key.toUpperCase()}`)
  going = event.code === 'KeyG' ? event.timeStamp : -soon
  if (route) return to(`#/${route.pattern}`) && router.go(`#/${route.pattern}`)
  if (event.key !== '/' && event.code !== 'Slash') return
  event.preventDefault()
  before = document.activeElement
  document.getElementById('search')?.focus()
}

document.addEventListener('keydown', key)
apply()
await begin()
follow()
listen(erasures, forget)
document.title = known('app.title')
const place = document.getElementById('app')
place.replaceChildren()
render(html`<${App} />`, place)
