// Which page the address shows. Pages are named after the # (nothing after it is ever
// sent to a server): #/webhooks/1/calls?status=failed.
//
// Each entry of the browser's history remembers where it was scrolled to and which link
// had the focus: back returns to the same place.
import { session } from './api.js'
import { routes } from './routes.js'
import { t } from './texts.js'
import { Trouble } from './ui.js'
import { html, keep, store, useEffect, useErrorBoundary, useLayoutEffect, useRef, useState } from './view.js'

export const router = { ...store(), go, refresh }

// home is the first page of the user: the first of these that they may open.
const home = () => ['overview', 'audit', 'events/new', 'webhooks/new', 'jobs/new'].find((path) => to(`#/${path}`)) ?? 'overview'

// address takes the address apart: the page, and what it is asked for.
export function address() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?')
  return { path: path || home(), parameters: new URLSearchParams(query) }
}

// to returns an address for a link to it; undefined, which makes it plain text, if the user may not
// open the page.
export function to(hash) {
  const found = find(hash.replace(/^#\/|\?.*$/g, ''))
  return !found || session.may(...scopesOf(found)) ? hash : undefined
}

const scopesOf = ({ route, variables }) => route.scopes(variables)

// go shows another page.
function go(hash) {
  location.hash = hash
}

// refresh shows the same page as if it had just been opened.
function refresh() {
  router.changed('refresh')
}

// find returns the route of the address with its variables, or undefined.
function find(path) {
  for (const route of routes) {
    const variables = route.matches(path)
    if (variables) return { route, variables }
  }
}

const places = new Map() // by the key of an entry of the history, of which a browser keeps as many
const most = 50
let current = ''
let entries = 0

function leave() {
  const focused = document.activeElement?.closest?.('main a')?.getAttribute('href')
  keep(places, current, { top: window.scrollY, focused }, most)
}

// arrive returns the place of the entry, if it was shown before.
function arrive() {
  const known = history.state?.key
  current = known ?? `${Date.now()}-${++entries}`
  if (!known) history.replaceState({ key: current }, '')
  return places.get(current)
}

// settle restores the scroll position and the focus as soon as the page is long enough; a new
// page starts at its top. On the same page with other parameters (stays) the focus stays in the
// control that chose them.
function settle(place, main, stays) {
  if (!place) {
    if (stays && main.contains(document.activeElement) && document.activeElement.closest('form, nav, th, .chips')) return () => {}
    main.focus({ preventScroll: true })
    window.scrollTo(0, 0)
    return () => {}
  }
  const back = () => {
    if (document.documentElement.scrollHeight < place.top + window.innerHeight && place.top > 0) return false
    window.scrollTo(0, place.top)
    const link = place.focused && [...main.querySelectorAll('a')].find((one) => one.getAttribute('href') === place.focused)
    ;(link || main).focus({ preventScroll: true })
    return Boolean(link) || !place.focused
  }
  if (back()) return () => {}
  const watcher = new MutationObserver(() => back() && watcher.disconnect())
  watcher.observe(main, { childList: true, subtree: true })
  const patience = 5000
  const timer = setTimeout(() => watcher.disconnect(), patience)
  return () => { clearTimeout(timer); watcher.disconnect() }
}

// Outlet shows the page of the address.
export function Outlet() {
  const [shown, setShown] = useState(() => ({ ...address(), times: 0 }))
  const main = useRef(null)
  const settled = useRef(null)
  // Not useEffect, which runs after the next frame: an address that changes before it
  // would be missed.
  useLayoutEffect(() => {
    history.scrollRestoration = 'manual'
    arrive()
    let { path } = address()
    let frame = 0
    const move = () => {
      cancelAnimationFrame(frame)
      settled.current?.()
      leave()
      const place = arrive()
      const stays = path === address().path
      path = address().path
      frame = requestAnimationFrame(() => { settled.current = settle(place, main.current, stays) })
      setShown((old) => ({ ...address(), times: old.times }))
    }
    window.addEventListener('hashchange', move)
    const stop = router.subscribe(() => setShown((old) => ({ ...address(), times: old.times + 1 })))
    return () => { cancelAnimationFrame(frame); window.removeEventListener('hashchange', move); stop(); settled.current?.() }
  }, [])
  const found = find(shown.path)
  useEffect(() => title(main.current), [shown])
  return html`<main id="main" tabindex="-1" ref=${main}>${!found ? html`<h1>${t('app.notFound')}</h1>`
    : !session.may(...scopesOf(found)) ? html`<h1>${t('app.closed')}</h1><p class="empty">${t('app.needs', scopesOf(found).map((one) => one.replace(' ', ' + ')).join(' / '))}</p>`
    : html`<${Guard} key=${`${same(found, shown)} ${shown.times}`} path=${shown.path}><${found.route.component} ...${found.variables} parameters=${shown.parameters} /></${Guard}>`}</main>`
}

// A component stays while only what stands after the ? changes, or the parts that its
// route keeps: those of tabs.
const same = ({ route, variables }, { path }) => (variables.id ? `${route.pattern} ${variables.id}` : path)

// Guard shows what went wrong in a page of ours, instead of an empty one.
function Guard({ path, children }) {
  const [error, reset] = useErrorBoundary()
  useEffect(() => { if (error) reset() }, [path])
  return error ? html`<h1>${t('error.title')}</h1><${Trouble} error=${error} retry=${reset} />` : children
}

// title names the document by the page's heading, which may come later.
function title(main) {
  const name = () => { document.title = [main.querySelector('h1')?.textContent, t('app.title')].filter(Boolean).join(' · ') }
  name()
  const watcher = new MutationObserver(name)
  watcher.observe(main, { childList: true, subtree: true, characterData: true })
  return () => watcher.disconnect()
}
