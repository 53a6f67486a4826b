// What a reader chose for this browser: language, colour scheme, time zone. Kept in
// localStorage, and only once something was chosen. Components that show texts
// or times need nothing of this: the whole page renders again on a change.
import { store } from './view.js'

const names = { language: ['ru', 'en'], scheme: ['auto', 'light', 'dark'], zone: ['local', 'utc'] }
const keyOf = (name) => `medilab.${name}`

export const settings = { ...store(), get, set, next }

// get returns the choice, else the default: the language that the server read from
// Accept-Language, the system's scheme, the local zone.
function get(name) {
  const chosen = localStorage.getItem(keyOf(name))
  if (names[name].includes(chosen)) return chosen
  return name === 'language' ? document.documentElement.dataset.language : names[name][0]
}

function set(name, value) {
  localStorage.setItem(keyOf(name), value)
  apply()
  settings.changed(name)
}

// next returns the choice after the present one.
function next(name) {
  const all = names[name]
  return all[(all.indexOf(get(name)) + 1) % all.length]
}

// apply makes the document follow the choices.
export function apply() {
  document.documentElement.lang = get('language')
  document.documentElement.dataset.scheme = get('scheme')
}

// Another tab's choice holds here too.
window.addEventListener('storage', (event) => {
  if (Object.keys(names).some((name) => event.key === keyOf(name))) {
    apply()
    settings.changed()
  }
})
