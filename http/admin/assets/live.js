// The live hub: one connection to /api/v1/stream for the page, shared by all listeners.
// It resumes where it was cut off, and is closed while the tab is hidden.
//
//   useLive({ kinds: ['call'], webhook }, (kind, item) => { … })   in a component
//   const stop = listen({ kinds: ['alert'] }, (kind, item) => { … })   elsewhere
//
// kinds are call, delivery, alert, webhook, event and erasure. The stream carries no more
// than what the present listeners ask for. live.state is 'on', 'off' (trying
// again) or 'idle' (no listeners, or the tab is hidden).
import { headers, pause, query, read, session } from './api.js'
import { store, useEffect, useLatest } from './view.js'

export const live = { ...store(), state: 'idle' }

const listeners = new Set()
let connection = null // what is asked for, and how to end it
let last = '' // the id of the last item: where to go on
let planned = false

// listen calls handle for each item of the kinds, of one webhook if one is given, and of those
// only says, if it is given; it returns a function that stops it. handle('again') means that
// items may have been missed: the stream has begun, and not where it was. A modest listener does
// not widen the stream from one webhook to all, and hears of the kinds also while others ask for them.
export function listen({ kinds, webhook, modest, only, also = [] }, handle) {
  const listener = { kinds, webhook, modest, only, also, handle }
  listeners.add(listener)
  plan()
  return () => { listeners.delete(listener); plan() }
}

// erasures are of data that may be on the page, whatever else it listens to. What was just read is not
// read again as the stream begins: each reading of patients' data is on record.
export const erasures = { kinds: ['erasure'], modest: true }

// useLive listens while the component is mounted; not at all if asked is undefined.
export function useLive(asked, handle) {
  const latest = useLatest(handle)
  useEffect(() => asked && listen(asked, (...values) => latest.current(...values)), [asked?.kinds.join(), asked?.webhook])
}

// plan reconnects if what is asked for has changed, once the page is complete.
function plan() {
  if (planned) return
  planned = true
  setTimeout(() => {
    planned = false
    const wanted = asked()
    const actor = session.who?.actor
    if (wanted === connection?.wanted && actor === connection.actor) return
    connection?.abort.abort()
    connection = null
    if (wanted === '') return tell('idle')
    connection = { wanted, actor, abort: new AbortController() }
    follow(connection)
  }, settle)
}

const settle = 100 // milliseconds: a page that comes in parts asks once

// asked returns the query of the stream; '' when it is not needed.
function asked() {
  if (listeners.size === 0 || document.hidden || !session.may('webhooks:read')) return ''
  const kinds = [...new Set([...listeners].flatMap((one) => one.kinds))].sort()
  const webhooks = new Set([...listeners].filter((one) => !one.modest).map((one) => one.webhook))
  return query({ kinds: kinds.join(','), webhook: webhooks.size === 1 ? [...webhooks][0] : undefined })
}

function tell(state) {
  if (live.state === state) return
  live.state = state
  live.changed()
}

const longest = 15000 // milliseconds between attempts

// follow keeps the connection until it is aborted.
async function follow({ wanted, actor, abort: { signal } }) {
  for (let wait = 500; !signal.aborted; wait = Math.min(2 * wait, longest)) {
    let refused = false // a reason is missing
    try {
      const response = await fetch(`/api/v1/stream${wanted}`, {
        signal, cache: 'no-store', credentials: 'same-origin', headers: { ...headers(actor), ...(last ? { 'Last-Event-ID': last } : {}) },
      })
      if (response.ok) {
        tell('on')
        wait = 500
        await receive(response.body.getReader())
      } else if (response.status === 401) {
        await session.renew?.()
      } else if (response.status === 410 || response.status === 422) {
        last = '' // what it would go on from is gone
        refused = response.status === 422
      }
    } catch {
      if (signal.aborted) return
    }
    if (signal.aborted) return
    tell(refused ? 'idle' : 'off')
    await pause(wait, signal).catch(() => {})
  }
}

async function receive(reader) {
  const decoder = new TextDecoder()
  let rest = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const frames = (rest + decoder.decode(value, { stream: true })).split('\n\n')
    rest = frames.pop()
    frames.forEach(take)
  }
}

// take reads one event of the stream.
function take(frame) {
  let kind = ''
  let data = ''
  for (const line of frame.split('\n')) {
    if (line.startsWith('id: ')) {
      const begins = last === '' // what came between the page's reading and now is not in the stream
      last = line.slice(4)
      if (begins) {
        every('again', back)
        back = false
      }
    }
    if (line.startsWith('event: ')) kind = line.slice(7)
    if (line.startsWith('data: ')) data += line.slice(6)
  }
  if (kind) every(kind, read(data))
}

function every(kind, item) {
  for (const { kinds, webhook, only, also, handle } of [...listeners]) {
    if (kind === 'again') {
      if (item || kinds !== erasures.kinds) handle(kind)
    } else if ((kinds.includes(kind) || also.includes(kind)) && (kind === 'erasure' || (!webhook || item.webhook_id === webhook || item.id === webhook) && (!only || only(item)))) handle(kind, item)
  }
}

const long = 60000 // milliseconds hidden after which lists are read again
let hidden = Infinity
let back = false // the user is, after so long

document.addEventListener('visibilitychange', () => {
  if (document.hidden) hidden = Date.now()
  else if (Date.now() - hidden > long) {
    last = ''
    back = true
  }
  plan()
})
session.subscribe(() => {
  if (!session.who) last = ''
  plan()
})
