// The open alerts that nobody has acknowledged, as the menu shows them: alerts.count
// (up to most). Call alerts.read() after changing one.
import { api, session } from './api.js'
import { listen } from './live.js'
import { store } from './view.js'

export const most = 100
export const alerts = { ...store(), count: 0, read }

async function read() {
  if (!session.who || document.hidden) return
  try {
    const { items } = await api.get('/webhooks/alerts', { state: 'open', limit: most })
    alerts.count = items.filter((one) => !one.acknowledged_at).length
    alerts.changed()
  } catch (error) {
    if (error.status === undefined) throw error // else the page says what is wrong
  }
}

const again = 30000 // milliseconds: alerts of webhooks that the stream does not carry now

// follow keeps the count current.
export function follow() {
  listen({ kinds: ['alert'], modest: true }, read)
  setInterval(read, again)
  document.addEventListener('visibilitychange', read)
  session.subscribe(() => {
    if (!session.who) alerts.count = 0
    read()
  })
  read()
}
