// Shows the calls of `receive` as they come, the attempts of a delivery together. All that
// comes from a call is set as text.

const texts = {
  en: {
    title: 'Received calls', live: 'Live', lost: 'Connection lost; trying again…', empty: 'No calls yet. Send one, and it shows here.', switch: 'Русский',
    attempt: (n) => `attempt ${n}`, answered: (n) => `answered ${n}`, bytes: (n) => `${n} bytes`, signature: 'signature', standard: 'Standard Webhooks',
    body: 'Body', headers: 'Headers', cut: 'The body is longer than what is shown.',
    valid: 'valid', 'valid by the secret before the rotation': 'valid by the secret before the rotation', WRONG: '✗ WRONG', missing: '✗ missing', 'not checked': 'not checked', none: 'none',
  },
  ru: {
    title: 'Принятые вызовы', live: 'В эфире', lost: 'Связь прервалась, пробуем снова…', empty: 'Вызовов пока нет. Первый появится здесь сам.', switch: 'English',
    attempt: (n) => `попытка ${n}`, answered: (n) => `ответ ${n}`, bytes: (n) => `${n} Б`, signature: 'подпись', standard: 'Standard Webhooks',
    body: 'Тело', headers: 'Заголовки', cut: 'Показано только начало тела.',
    valid: 'верна', 'valid by the secret before the rotation': 'верна по секрету до смены', WRONG: '✗ НЕВЕРНА', missing: '✗ нет', 'not checked': 'не проверялась', none: 'нет',
  },
};

const kept = 200;
const calls = [];
let language = localStorage.getItem('language') ?? (navigator.language.startsWith('ru') ? 'ru' : 'en');
let live = true;

const find = (id) => document.getElementById(id);
const say = (name, ...of) => (typeof texts[language][name] === 'function' ? texts[language][name](...of) : texts[language][name] ?? name);

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const tone = (verdict) => (verdict.startsWith('valid') ? 'good' : verdict === 'WRONG' || verdict === 'missing' ? 'bad' : 'dim');

function heading(call) {
  const attempt = call.headers['X-Webhook-Attempt'];
  return make('div', 'call',
    make('b', '', `#${call.number} ${call.method} ${call.path}`),
    ...(attempt ? [make('span', '', say('attempt', attempt))] : []),
    make('span', call.answered < 300 ? 'good' : 'bad', say('answered', call.answered)),
    make('span', tone(call.signature), `${say('signature')}: ${say(call.signature)}`),
    make('span', tone(call.standard_signature), `${say('standard')}: ${say(call.standard_signature)}`),
    make('span', 'dim', `${new Date(call.received_at).toLocaleTimeString(language)} · ${say('bytes', call.bytes)}`));
}

function details(name, content, open) {
  const element = make('details', '', make('summary', '', say(name)), ...content);
  element.open = open;
  return element;
}

function parts(call) {
  const headers = make('dl');
  for (const name of Object.keys(call.headers).sort()) headers.append(make('dt', '', name), make('dd', '', call.headers[name]));
  const body = make('pre', '', call.text);
  body.tabIndex = 0;
  return [details('body', call.cut ? [body, make('p', 'dim', say('cut'))] : [body], true), details('headers', [headers], false)];
}

function add(call) {
  const delivery = call.delivery || `call ${call.number}`;
  const list = find('calls');
  let item = [...list.children].find((each) => each.dataset.delivery === delivery);
  if (item) {
    item.firstChild.before(heading(call));
  } else {
    item = make('li', '', heading(call), ...parts(call));
    item.dataset.delivery = delivery;
    list.prepend(item);
    while (list.children.length > kept) list.lastChild.remove();
  }
}

function draw() {
  document.documentElement.lang = language;
  document.title = say('title');
  document.querySelector('h1').textContent = say('title');
  find('state').textContent = say(live ? 'live' : 'lost');
  find('language').textContent = say('switch');
  find('empty').textContent = say('empty');
  find('empty').hidden = calls.length > 0;
}

find('language').addEventListener('click', () => {
  language = language === 'ru' ? 'en' : 'ru';
  localStorage.setItem('language', language);
  draw();
  find('calls').replaceChildren();
  for (const call of calls) add(call);
});

const source = new EventSource('calls');
source.onmessage = (message) => {
  const call = JSON.parse(message.data);
  calls.push(call);
  if (calls.length > kept) calls.shift();
  find('empty').hidden = true;
  add(call);
};
source.onopen = () => { live = true; draw(); };
source.onerror = () => { live = false; draw(); };
draw();
