// JSON as it was written: JavaScript's own reader rounds 9007199254740993 and puts
// integer-like keys first, so what people compare is cut from the source.

const token = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g

// pretty indents JSON, changing neither order nor numbers.
export function pretty(source) {
  let out = ''
  let depth = 0
  const line = () => '\n' + '  '.repeat(depth)
  const tokens = source.match(token) ?? []
  tokens.forEach((one, i) => {
    if (one === '}' || one === ']') {
      depth--
      out += (tokens[i - 1] === '{' || tokens[i - 1] === '[' ? '' : line()) + one
      return
    }
    out += one
    if (one === ':') out += ' '
    if (one === ',') out += line()
    if (one === '{' || one === '[') {
      depth++
      if (tokens[i + 1] !== '}' && tokens[i + 1] !== ']') out += line()
    }
  })
  return out
}

// member returns the source of what a path of names and indexes leads to, or undefined.
export function member(source, ...path) {
  const tokens = [...source.matchAll(token)]
  let at = 0
  for (const step of path) {
    at = typeof step === 'number' ? item(tokens, at, step) : named(tokens, at, step)
    if (at < 0) return undefined
  }
  const end = tokens[skip(tokens, at) - 1]
  return source.slice(tokens[at].index, end.index + end[0].length)
}

// skip returns where the value at a token ends.
function skip(tokens, at) {
  let depth = 0
  do {
    const one = tokens[at++][0]
    if (one === '{' || one === '[') depth++
    if (one === '}' || one === ']') depth--
  } while (depth > 0)
  return at
}

function named(tokens, at, name) {
  if (tokens[at][0] !== '{') return -1
  for (at++; tokens[at][0] !== '}';) {
    if (JSON.parse(tokens[at][0]) === name) return at + 2
    at = skip(tokens, at + 2)
    if (tokens[at][0] === ',') at++
  }
  return -1
}

function item(tokens, at, index) {
  if (tokens[at][0] !== '[') return -1
  for (at++; tokens[at][0] !== ']'; index--) {
    if (index === 0) return at
    at = skip(tokens, at)
    if (tokens[at][0] === ',') at++
  }
  return -1
}
