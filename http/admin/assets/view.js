// The view library: preact and htm, vendored. A component is a function of its
// properties that returns html`...`; every text in it becomes a text node.
//
//   import { html, useState } from './view.js'
//   const Hello = ({ name }) => html`<p class="muted">Hello, ${name}</p>`
import { createContext, h, render } from './vendor/preact.js'
import { useContext, useEffect, useErrorBoundary, useLayoutEffect, useMemo, useRef, useState } from './vendor/preact-hooks.js'
import htm from './vendor/htm.js'

export const html = htm.bind(h)
export { createContext, render, useContext, useEffect, useErrorBoundary, useLayoutEffect, useMemo, useRef, useState }

// useLatest returns a ref that always holds the value of the last render, for
// listeners that outlive it.
export function useLatest(value) {
  const ref = useRef(value)
  ref.current = value
  return ref
}

// useStore re-renders when the store ({ subscribe }) changes.
export function useStore(store) {
  const [, again] = useState(0)
  useLayoutEffect(() => store.subscribe(() => again((n) => n + 1)), [store]) // none is missed before the first paint
}

// keep sets a value in a map of at most so many, from which the oldest goes.
export function keep(map, key, value, most) {
  map.delete(key)
  map.set(key, value)
  if (map.size > most) map.delete(map.keys().next().value)
}

// store returns { subscribe, changed }: subscribe returns its own undoing.
export function store() {
  const listeners = new Set()
  return {
    subscribe: (listener) => { listeners.add(listener); return () => listeners.delete(listener) },
    changed: (...values) => [...listeners].forEach((listener) => listener(...values)),
  }
}
