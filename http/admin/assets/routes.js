// The pages: one line each. A page is a component that gets { parameters } (what
// stands after the ?) and the variables of its path. `menu` puts it in the menu: 'main'
// (at the bottom on a phone, too) or 'more', `key` opens it after g. Both are, as links to it, for those
// who have one of the rights `scopes` (of a text with two: both), for some by the variables. The first
// pattern that fits is shown.
import { Alerts } from './alerts.js'
import { AllCalls } from './call-list.js'
import { AllDeliveries } from './deliveries.js'
import { Audit } from './audit.js'
import { BacktestPage } from './backtest.js'
import { CallPage } from './call-page.js'
import { EventForm, EventPage, Events } from './event-pages.js'
import { Job, Jobs, NewJob } from './jobs.js'
import { Overview } from './overview.js'
import { Parked } from './parked.js'
import { Patients } from './patients.js'
import { System } from './system.js'
import { Tokens } from './tokens.js'
import { Webhook, tabScopes } from './webhook.js'
import { EditWebhook, NewWebhook } from './webhook-form.js'
import { Webhooks } from './webhooks.js'

const page = (pattern, component, { scopes = ['webhooks:read'], ...options } = {}) =>
  ({ ...options, pattern, component, matches: matcher(pattern), scopes: typeof scopes === 'function' ? scopes : () => scopes })
const seen = ['webhooks:read', 'audit:read']

export const routes = [
  page('overview', Overview, { menu: 'main', key: 'o' }),
  page('webhooks', Webhooks, { menu: 'main', key: 'w' }),
  page('webhooks/new', NewWebhook, { scopes: ['webhooks:write'] }),
  page('webhooks/:id/edit', EditWebhook, { scopes: ['webhooks:read webhooks:write'] }),
  page('webhooks/:id/backtest', BacktestPage),
  page('webhooks/:id/calls/:call', CallPage),
  page('webhooks/:webhook/replay/:id', Job), // where jobs were before
  page('webhooks/:id/:tab?', Webhook, { scopes: ({ tab }) => (tab ? tabScopes(tab) : seen) }),
  page('events', Events, { menu: 'main', key: 'e' }),
  page('events/new', EventForm, { scopes: ['events:write'] }),
  page('events/parked', Parked),
  page('events/:id', EventPage, { scopes: seen }),
  page('calls', AllCalls, { menu: 'more', key: 'c' }),
  page('deliveries', AllDeliveries, { menu: 'main', key: 'd', scopes: seen }),
  page('alerts', Alerts, { menu: 'main', key: 'a' }),
  page('jobs', Jobs, { menu: 'more', key: 'j' }),
  page('jobs/new', NewJob, { scopes: ['replays:write'] }),
  page('jobs/:id', Job),
  page('patients', Patients, { menu: 'more', key: 'p', scopes: ['audit:read'] }),
  page('audit', Audit, { menu: 'more', key: 'l', scopes: ['audit:read'] }),
  page('tokens', Tokens, { menu: 'more', key: 't', scopes: ['admin'] }),
  page('system', System, { menu: 'more', key: 's', scopes: seen }),
]

// matcher returns a function from a path to the variables of the pattern, or null.
function matcher(pattern) {
  const source = pattern.replace(/\/:(\w+)(\?)?/g, (_, name, optional) => (optional ? `(?:/(?<${name}>[^/]+))?` : `/(?<${name}>[^/]+)`))
  const expression = new RegExp(`^${source}$`)
  return (path) => {
    const match = path.match(expression)
    return match && Object.fromEntries(Object.entries(match.groups ?? {}).map(([name, value]) => [name, value && decode(value)]))
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
