// The counts of the menu: counts.alerts that are open and nobody has acknowledged (up to most),
// counts.webhooks, and counts.deliveries that were not delivered. Call counts.read() after
// changing one.
import { api, session } from './api.js'
import { listen } from './live.js'
import { store } from './view.js'

export const most = 100
const none = { alerts: 0, webhooks: 0, deliveries: 0 }
export const counts = { ...store(), ...none, read }

async function read() {
  if (!session.may('webhooks:read') || document.hidden) return
  try {
    const [open, stats] = await Promise.all([api.get('/webhooks/alerts', { state: 'open', limit: most }), api.get('/webhooks/system/stats')])
    Object.assign(counts, { alerts: open.items.filter((one) => !one.acknowledged_at).length, webhooks: stats.webhooks_total, deliveries: stats.exhausted })
    counts.changed()
  } catch (error) {
    if (error.status === undefined) throw error // else the page says what is wrong
  }
}

let timer = null

// soon reads once for all that happens at nearly the same time.
function soon(kind) {
  timer ??= setTimeout(() => { timer = null; read() }, ['call', 'delivery'].includes(kind) ? 2000 : 500)
}

const again = 30000 // milliseconds: what the stream does not carry now

// follow keeps the counts current.
export function follow() {
  listen({ kinds: ['alert', 'webhook'], also: ['call', 'delivery'], modest: true }, soon)
  setInterval(read, again)
  document.addEventListener('visibilitychange', read)
  let actor
  session.subscribe(() => {
    if (actor !== session.who?.actor) Object.assign(counts, none)
    actor = session.who?.actor
    read()
  })
  read()
}
