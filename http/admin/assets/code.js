// JSON and code as people read them, and a call as a program that makes it again.
import { pretty } from './json.js'
import { html } from './view.js'

const longest = 200000 // characters that get colours

// Json shows JSON in colours, numbers and the order of keys as they stand in the source.
export function Json({ source, label }) {
  return html`<pre class="foreign code" tabindex="0" dir="auto" aria-label=${label}>${source.length > longest ? source : coloured(source)}</pre>`
}

function coloured(source) {
  const token = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|\b(?:true|false|null)\b/g
  const out = []
  let at = 0
  for (const match of source.matchAll(token)) {
    const [all, text, colon] = match
    out.push(source.slice(at, match.index), html`<span class=${text ? (colon ? 'k' : 's') : 'n'}>${text ?? all}</span>`, colon ?? '')
    at = match.index + all.length
  }
  return [...out, source.slice(at)]
}

// readable is a body as people read it, if it is JSON.
export function readable(body) {
  try {
    JSON.parse(body)
    return pretty(body)
  } catch {
    return body
  }
}

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`
const literal = (text) => JSON.stringify(text)
const own = /^(host|content-length|connection|accept-encoding)$/i
const headersOf = (call) => Object.entries(call.request_headers ?? {}).filter(([name]) => !own.test(name))

export const curl = (call) => [`curl -i -X ${call.method} ${shell(call.url)}`, ...headersOf(call).map(([name, value]) => `-H ${shell(`${name}: ${value}`)}`),
  `--data-binary ${shell(call.payload)}`].join(' \\\n  ')

const named = (call) => `test_${call.event_type.replace(/\W+/g, '_')}_attempt_${call.attempt}`

export const python = (call) => `import unittest
import urllib.error
import urllib.request

BODY = ${literal(call.payload)}.encode()
HEADERS = {
${headersOf(call).map(([name, value]) => `    ${literal(name)}: ${literal(value)},`).join('\n')}
}


class Call(unittest.TestCase):
    def ${named(call)}(self):
        request = urllib.request.Request(${literal(call.url)}, data=BODY, headers=HEADERS, method=${literal(call.method)})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status = response.status
        except urllib.error.HTTPError as error:
            status = error.code
        self.assertTrue(200 <= status < 300, f"the receiver answered {status}")


if __name__ == "__main__":
    unittest.main()
`

export const javascript = (call) => `// node --test call.test.mjs
import assert from 'node:assert/strict'
import { test } from 'node:test'

const body = ${literal(call.payload)}
const headers = {
${headersOf(call).map(([name, value]) => `  ${literal(name)}: ${literal(value)},`).join('\n')}
}

test(${literal(named(call))}, async () => {
  const response = await fetch(${literal(call.url)}, { method: ${literal(call.method)}, headers, body, redirect: 'manual' })
  assert.ok(response.ok, \`the receiver answered \${response.status}\`)
})
`
